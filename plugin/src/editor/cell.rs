//! A target that one can click: filled when chosen, ringed while the music is steered to it. UI thread.

use egui::{Align2, FontId, Id, Pos2, Rect, Sense, Stroke, StrokeKind, Ui};

use crate::editor::theme;

/// How a cell looks.
pub struct Cell<'a> {
    /// Where.
    pub rect: Rect,
    /// Where its name is centred.
    pub text_at: Pos2,
    /// What it says.
    pub name: &'a str,
    /// It is what the parameter says.
    pub chosen: bool,
    /// It is what the frame that is heard is steered to.
    pub sounding: bool,
    /// Its colour while it is neither.
    pub fill: egui::Color32,
    /// Its colour while chosen.
    pub accent: egui::Color32,
    /// Size of its name.
    pub size: f32,
}

impl Cell<'_> {
    /// Draws it; `true` when it was clicked.
    pub fn show(&self, ui: &Ui, id: Id) -> bool {
        let response = ui.interact(self.rect, id, Sense::click());
        let (mut fill, ink) = if self.chosen { (self.accent, theme::GROUND) } else { (self.fill, theme::TEXT) };
        if response.hovered() && !self.chosen {
            fill = fill.lerp_to_gamma(theme::STEER, 0.25);
        }
        let ring = if self.chosen { theme::TEXT } else { theme::STEER };
        let stroke = if self.sounding { Stroke::new(2.5, ring) } else { Stroke::new(1.0, theme::PANEL) };
        ui.painter().rect(self.rect, theme::ROUND, fill, stroke, StrokeKind::Inside);
        ui.painter().text(self.text_at, Align2::CENTER_CENTER, self.name, FontId::proportional(self.size), ink);
        response.clicked()
    }
}
