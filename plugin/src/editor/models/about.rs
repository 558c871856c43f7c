//! What a model takes and how it does here: sizes, speed, download, and whether it plays in this project. UI thread.

use egui::{RichText, Ui};
use tiller_engine::background::{Kind, Standing};
use tiller_engine::models::download;
use tiller_engine::models::licence::{self, LICENCE};
use tiller_engine::models::trial::{self, Trial};
use tiller_engine::models::{Hub, Origin, Published};

use crate::editor::choice::named_row;
use crate::editor::desk::group;
use crate::editor::models::shelf::Known;
use crate::editor::models::work::{Ends, work};
use crate::editor::models::{Page, shelf, words};
use crate::editor::theme;

/// What waits for an answer.
#[derive(Default, PartialEq)]
enum Asking {
    #[default]
    Nothing,
    /// The licence is shown.
    Licence,
    /// Whether the model is to go.
    Remove,
}

/// What the tab remembers between repaints.
#[derive(Default)]
pub struct About {
    asking: Asking,
}

impl About {
    /// Takes questions back: another model is spoken of.
    pub fn forget(&mut self) {
        self.asking = Asking::Nothing;
    }

    /// Draws the tab.
    pub fn show(&mut self, ui: &mut Ui, page: Page<'_>, known: &Known) {
        if let (Asking::Licence, Some(published)) = (&self.asking, known.entry.published) {
            group(ui, "Before it is downloaded", |ui| self.licence(ui, page, published));
            return;
        }
        group(ui, "", |ui| {
            facts(ui, page, known);
            if let Some(problem) = &known.entry.problem {
                let half = known.entry.source.is_none() && known.entry.partial_bytes > 0;
                let colour = if half { theme::QUIET } else { theme::BAD };
                ui.add(egui::Label::new(RichText::new(problem).color(colour)).wrap());
            }
            self.buttons(ui, page, known);
        });
        if known.entry.source.is_some() {
            group(ui, "Fast enough for this machine?", |ui| speed(ui, page, known));
        }
    }

    fn buttons(&mut self, ui: &mut Ui, page: Page<'_>, known: &Known) {
        let entry = &known.entry;
        let background = &page.instance.background;
        if let Some(subject) = known.download() {
            let ends = Ends { pauses: true, stop: Some("Stop, keep what came"), cancel: "Cancel" };
            if work(ui, background, Kind::Download, subject, ends) {
                return;
            }
        }
        if self.asking == Asking::Remove {
            let text = format!("{} are deleted from {}.", words::bytes(entry.disk_bytes), page.known.cache.display());
            ui.add(egui::Label::new(text).wrap());
            ui.horizontal(|ui| {
                if ui.button("Remove it").clicked() {
                    self.asking = Asking::Nothing;
                    let entry = entry.clone();
                    page.ask(move || tiller_engine::models::remove(&entry).map_err(|error| error.to_string()));
                }
                if ui.button("Keep it").clicked() {
                    self.asking = Asking::Nothing;
                }
            });
            return;
        }
        ui.horizontal_wrapped(|ui| match (&entry.source, entry.published) {
            (Some(_), _) => {
                let plays = page.plays(known);
                if ui.add_enabled(!plays, egui::Button::new("Use in this project")).clicked() {
                    let reference = known.reference();
                    page.instance.project.edit(|project| project.model = reference);
                }
                if plays && entry.origin != Origin::Embedded && ui.button("Load again").clicked() {
                    page.instance.reload();
                }
                match entry.origin {
                    Origin::Embedded => {}
                    Origin::Hub => {
                        if ui.button("Remove").clicked() {
                            self.asking = Asking::Remove;
                        }
                    }
                    Origin::Folder => {
                        if ui.button("Take off the list").on_hover_text("The folder stays as it is.").clicked() {
                            let entry = entry.clone();
                            page.ask(move || shelf::forget(&entry));
                        }
                    }
                }
            }
            (None, Some(published)) => {
                let text = match entry.partial_bytes {
                    0 => format!("Download {}", words::bytes(published.bytes)),
                    partial => format!("Go on, {} to come", words::bytes(published.bytes.saturating_sub(partial))),
                };
                if ui.button(text).clicked() {
                    if known.accepted {
                        begin(page, published);
                    } else {
                        self.asking = Asking::Licence;
                    }
                }
                if entry.partial_bytes > 0 && ui.button("Delete what came").clicked() {
                    let entry = entry.clone();
                    page.ask(move || tiller_engine::models::remove(&entry).map_err(|error| error.to_string()));
                }
            }
            (None, None) => {}
        });
    }

    fn licence(&mut self, ui: &mut Ui, page: Page<'_>, published: &'static Published) {
        ui.label(RichText::new(LICENCE.name).size(18.0));
        ui.add(egui::Label::new(LICENCE.words).wrap());
        ui.hyperlink(LICENCE.link);
        let text = format!(
            "Then some {} come from {} to {}.",
            words::bytes(published.bytes),
            page.known.endpoint,
            page.known.cache.display(),
        );
        ui.add(egui::Label::new(RichText::new(text).color(theme::QUIET)).wrap());
        ui.horizontal(|ui| {
            if ui.button("Accept and download").clicked() {
                self.asking = Asking::Nothing;
                let repository = published.repository;
                page.ask(move || licence::accept(repository).map_err(|error| error.to_string()));
                begin(page, published);
            }
            if ui.button("Not now").clicked() {
                self.asking = Asking::Nothing;
            }
        });
    }
}

fn begin(page: Page<'_>, published: &'static Published) {
    let background = page.instance.background.clone();
    page.ask(move || download::begin(&background, published, &Hub::from_env()).map_err(|error| error.to_string()));
}

fn facts(ui: &mut Ui, page: Page<'_>, known: &Known) {
    let entry = &known.entry;
    fact(ui, "From", known.origin());
    if let Some(published) = entry.published {
        fact(ui, "Sound", if published.channels == 2 { "stereo" } else { "mono" });
        fact(ui, "Licence", LICENCE.name);
    }
    let disk = match (entry.source.is_some(), entry.published, entry.partial_bytes) {
        (true, _, _) if entry.origin == Origin::Embedded => "part of the plugin".to_owned(),
        (true, _, _) => words::bytes(entry.disk_bytes),
        (false, Some(published), 0) => format!("{} to download", words::bytes(published.bytes)),
        (false, Some(published), partial) => {
            format!("{} of {}", words::bytes(partial), words::bytes(published.bytes))
        }
        (false, None, _) => String::new(),
    };
    fact(ui, "On disk", &disk);
    let chosen = page.instance.project.project().precision;
    let used = chosen.or(known.suited);
    let of = |wanted| entry.memory.iter().find(|(one, _)| Some(*one) == wanted).map(|(_, bytes)| *bytes);
    if let (Some(bytes), Some(precision)) = (of(used), used) {
        let how = if chosen.is_none() { ", chosen for its size" } else { "" };
        fact(ui, "In memory", &format!("about {} at {}{how}", words::bytes(bytes), words::bits(Some(precision))));
        let rest = entry.memory.iter().filter(|(one, _)| *one != precision);
        let rest: Vec<String> =
            rest.map(|(one, bytes)| format!("{} {}", words::bits(Some(*one)), words::bytes(*bytes))).collect();
        note(ui, &format!("Otherwise: {}.", rest.join(", ")));
    }
}

/// The kept trial, or the button for one.
fn speed(ui: &mut Ui, page: Page<'_>, known: &Known) {
    let Some(source) = known.entry.source.clone() else { return };
    let background = &page.instance.background;
    let precision = page.instance.project.project().precision;
    let subject = known.subject();
    // What it found is kept, and said below.
    if background.report(Kind::Trial, &subject).is_some_and(|report| matches!(report.standing, Standing::Done(_))) {
        background.forget(Kind::Trial, &subject);
    }
    if work(ui, background, Kind::Trial, &subject, Ends { pauses: false, stop: None, cancel: "Cancel" }) {
        return;
    }
    match known.trial(precision.or(known.suited)) {
        Some(trial) => result(ui, trial),
        None => _ = ui.label(RichText::new("Not tested yet at this precision.").color(theme::QUIET)),
    }
    let again = if known.trial(precision.or(known.suited)).is_some() { "Test again (10 s)" } else { "Test (10 s)" };
    let hint = "Plays ten seconds of it to itself. What plays meanwhile slows it down.";
    if ui.button(again).on_hover_text(hint).clicked() {
        let background = background.clone();
        page.ask(move || trial::begin(&background, &source, precision).map_err(|error| error.to_string()));
    }
}

fn result(ui: &mut Ui, trial: &Trial) {
    let colour = if trial.holds() { theme::HEARD } else { theme::BAD };
    let text = format!("It {}.", trial.verdict().trim_end_matches('.'));
    ui.add(egui::Label::new(RichText::new(text).color(colour)).wrap());
    fact(ui, "Speed", &format!("{:.2} × real time, slowest frame {:.0} ms", trial.real_time, trial.slowest_ms));
    let loaded = format!("{:.1} s, takes {}", trial.load_seconds, words::bytes(trial.memory_bytes));
    fact(ui, "Loads in", &loaded);
    note(
        ui,
        &format!("{} on {} ({}), {}.", words::bits(Some(trial.precision)), trial.device, trial.machine, trial.date),
    );
}

fn fact(ui: &mut Ui, name: &str, value: &str) {
    named_row(ui, name, |ui| _ = ui.add(egui::Label::new(value).truncate()).on_hover_text(value));
}

fn note(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).size(theme::SMALL).color(theme::QUIET));
}
