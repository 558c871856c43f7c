//! The last line: how it goes, in plain words. Trouble takes the place of the figures. UI thread.

use egui::{RichText, Ui};
use tiller_engine::status::{State, Status};

use crate::editor::desk::Desk;
use crate::editor::{learning, model, theme};
use crate::status_line::{Readings, Tone, figures, status_line};

/// Draws it. `message` is what the preset browser has to say. `told`: the page says already what is wrong with the model.
/// `works` is what goes on beside playing.
pub fn footer(
    ui: &mut Ui,
    desk: Desk<'_>,
    status: &Status,
    readings: &Readings,
    message: &str,
    works: &str,
    told: bool,
) {
    let instance = desk.instance;
    learning::line(ui, instance, desk.params);
    if !message.is_empty() {
        ui.label(RichText::new(message).color(theme::QUIET));
    }
    let line = status_line(status, readings, &instance.trouble(), &instance.project.notice());
    ui.horizontal_wrapped(|ui| {
        model::light(ui, theme::tone(line.tone));
        if line.tone != Tone::Good {
            let failed = told && matches!(status.state, State::Failed(_)) && instance.trouble().is_empty();
            let text = if failed { "Silent: there is no model to play.".to_owned() } else { line.text };
            ui.label(RichText::new(text).color(theme::tone(line.tone)));
            return;
        }
        ui.label(if readings.sounding { "Playing" } else { "Ready" });
        for figure in figures(status, readings) {
            ui.add_space(theme::GAP);
            ui.spacing_mut().item_spacing.x = 4.0;
            ui.label(RichText::new(figure.name).color(theme::QUIET)).on_hover_text(figure.meaning);
            ui.label(figure.value).on_hover_text(figure.meaning);
        }
        if !works.is_empty() {
            ui.add_space(theme::GAP);
            ui.label(RichText::new(works).color(theme::QUIET));
        }
    });
}
