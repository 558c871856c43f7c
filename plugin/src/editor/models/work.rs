//! A background work in the page: how far it is, and the buttons that pause and end it. UI thread.

use egui::{RichText, Ui};
use tiller_engine::background::{Background, Kind, Report, Standing};

use crate::editor::model::progress;
use crate::editor::models::words;
use crate::editor::theme;

/// What a work's ends are called.
#[derive(Clone, Copy)]
pub struct Ends {
    /// Whether it can wait.
    pub pauses: bool,
    /// Ends it and keeps what it has for going on later, if there is such a thing.
    pub stop: Option<&'static str>,
    /// Ends it and drops what it has.
    pub cancel: &'static str,
}

/// Draws the work of a kind for a subject, if there is one. `true` while it goes on.
pub fn work(ui: &mut Ui, background: &Background, kind: Kind, subject: &str, ends: Ends) -> bool {
    let Some(report) = background.report(kind, subject) else { return false };
    match &report.standing {
        Standing::Running | Standing::Paused => {
            going(ui, background, &report, ends);
            return true;
        }
        Standing::Done(said) => over(ui, background, &report, said, theme::TEXT),
        Standing::Failed(why) => over(ui, background, &report, why, theme::BAD),
        Standing::Stopped => background.forget(kind, subject),
    }
    false
}

fn going(ui: &mut Ui, background: &Background, report: &Report, ends: Ends) {
    ui.add(egui::Label::new(words::progress(report)).wrap());
    progress(ui, words::part(report));
    ui.horizontal(|ui| {
        let paused = report.standing == Standing::Paused;
        if paused && ui.button("Resume").clicked() {
            background.resume(report.kind, &report.subject);
        }
        if ends.pauses && !paused && ui.button("Pause").clicked() {
            background.pause(report.kind, &report.subject);
        }
        if let Some(stop) = ends.stop
            && ui.button(stop).clicked()
        {
            background.stop(report.kind, &report.subject);
        }
        if ui.button(ends.cancel).clicked() {
            background.cancel(report.kind, &report.subject);
        }
    });
    // Figures move slowly enough.
    ui.ctx().request_repaint_after(std::time::Duration::from_millis(200));
}

/// What came of it, until it was read.
fn over(ui: &mut Ui, background: &Background, report: &Report, said: &str, colour: egui::Color32) {
    if said.is_empty() {
        background.forget(report.kind, &report.subject);
        return;
    }
    ui.add(egui::Label::new(RichText::new(said).color(colour)).wrap());
    if ui.button("Got it").clicked() {
        background.forget(report.kind, &report.subject);
    }
}
