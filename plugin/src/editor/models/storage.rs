//! Where models play, on how many threads, how exactly they are kept and what that costs, and what lies on the disk for them. UI
//! thread.

use egui::{RichText, Ui};
use tiller_engine::precision::Precision;

use crate::editor::choice::named_row;
use crate::editor::models::device::{self, CoresView, DeviceView};
use crate::editor::models::{Page, shelf, words};
use crate::editor::theme;

/// The group about playing.
pub fn playing(ui: &mut Ui, page: Page<'_>, view: &mut DeviceView, cores: &mut CoresView) {
    view.show(ui, page.instance, page.status);
    cores.show(ui);
    note(ui, "Small models take one thread, whatever is chosen.");
    device::precision(ui, page.instance);
    note(ui, cost(page.instance.project.project().precision));
}

/// What a precision costs, as measured (README, figures).
fn cost(precision: Option<Precision>) -> &'static str {
    match precision {
        None => "Small models as published, large ones in 8 bits.",
        Some(Precision::F32) => "As published: nothing is lost. The slowest, and the most memory.",
        Some(Precision::Bf16) => "A layer's result is off by some 0.2 %. Half the memory of 32-bit weights.",
        Some(Precision::Int8) => {
            "A layer's result is off by 0.6 % at most in the built-in model, which plays nearly twice as fast so. Layers that \
             would lose more stay in 16 bits, and so does a model that would play other notes."
        }
        Some(Precision::Int4) => {
            "A layer's result is off by 9 % at most in the built-in model: for machines on which 8 bits are too slow. Never \
             chosen by itself."
        }
    }
}

/// The group about the disk.
pub fn kept(ui: &mut Ui, page: Page<'_>) {
    for place in &page.known.places {
        named_row(ui, place.name, |ui| {
            ui.label(if place.bytes == 0 { "nothing".to_owned() } else { words::bytes(place.bytes) });
            if place.clears && place.bytes > 0 {
                ui.add_space(theme::GAP);
                // What goes on may be writing there.
                let at_rest = page.instance.background.reports().iter().all(|report| report.standing.is_over());
                let free = at_rest && !page.clerk.is_busy();
                let button = ui.add_enabled(free, egui::Button::new("Clear")).on_hover_text(place.meaning);
                if button.clicked() {
                    let folder = place.folder.clone();
                    page.ask(move || shelf::clear(&folder));
                }
            }
        });
        let text = RichText::new(place.folder.display().to_string()).size(theme::SMALL).color(theme::QUIET);
        ui.add(egui::Label::new(text).truncate()).on_hover_text(place.meaning);
    }
}

fn note(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).size(theme::SMALL).color(theme::QUIET));
}
