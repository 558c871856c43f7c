//! What a newcomer reads once: three steps in a strip that is dismissed for good. UI thread; reads and writes one small file of
//! the user's.

use egui::{Align, Frame, Layout, Margin, RichText, Stroke, Ui, vec2};
use serde_json::Value;

use crate::editor::theme;
use crate::preferences::Preferences;

const KEY: &str = "hint_dismissed";

/// The strip.
pub struct Hint {
    preferences: Preferences,
    /// Whether it is still to be shown.
    pub open: bool,
}

impl Default for Hint {
    fn default() -> Self {
        let preferences = Preferences::editor();
        let open = preferences.get(KEY) != Some(Value::Bool(true));
        Self { preferences, open }
    }
}

impl Hint {
    /// Height that it takes.
    pub const HEIGHT: f32 = 40.0;

    /// Draws it, if it is to be shown.
    pub fn show(&mut self, ui: &mut Ui) {
        if !self.open {
            return;
        }
        let frame = Frame::new()
            .stroke(Stroke::new(1.0, theme::LINE))
            .corner_radius(theme::ROUND)
            .inner_margin(Margin::symmetric(10, 7));
        frame.show(ui, |ui| {
            let row = vec2(ui.available_width(), theme::ROW);
            ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Got it").clicked() {
                    self.open = false;
                    if let Err(error) = self.preferences.set(KEY, Value::Bool(true)) {
                        log::warn!("the hint will come again: {error}");
                    }
                }
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let steps = ["press Play", "click a key or a chord", "set its strength"];
                    for (number, step) in steps.into_iter().enumerate() {
                        ui.label(RichText::new(format!("{}", number + 1)).size(18.0).color(theme::ASKED));
                        ui.add(egui::Label::new(step).truncate());
                        ui.add_space(theme::GAP);
                    }
                });
            });
        });
    }
}
