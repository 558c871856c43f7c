//! The level meter: one bar per side in decibels, falling slowly, with a clip light that a click puts out. UI thread.

use egui::{Rect, Sense, Ui, pos2, vec2};

use crate::editor::theme;

/// Bottom of the meter in dB.
const FLOOR_DB: f32 = -60.0;
/// How fast a bar falls, in dB per second.
const FALL: f32 = 30.0;

/// What the meter shows between repaints.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    level_db: [f32; 2],
    clipped: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self { level_db: [FLOOR_DB; 2], clipped: false }
    }
}

impl Meter {
    /// Takes the highest samples since the last call, `seconds` ago.
    pub fn feed(&mut self, peak: [f32; 2], seconds: f32) {
        for (level, peak) in self.level_db.iter_mut().zip(peak) {
            let db = if peak > 0.0 { 20.0 * peak.log10() } else { FLOOR_DB };
            *level = db.max(*level - FALL * seconds).clamp(FLOOR_DB, 6.0);
            self.clipped |= peak > 1.0;
        }
    }

    /// Nothing left to fall: no repaint needed for the meter's sake.
    pub fn at_rest(&self) -> bool {
        self.level_db == [FLOOR_DB; 2]
    }

    /// Draws the meter `width` points wide.
    pub fn show(&mut self, ui: &mut Ui, width: f32) {
        let (place, response) = ui.allocate_exact_size(vec2(width, theme::ROW), Sense::click());
        if response.clicked() {
            self.clipped = false;
        }
        let painter = ui.painter();
        let light = Rect::from_center_size(pos2(place.right() - 5.0, place.center().y), vec2(10.0, 18.0));
        painter.rect_filled(light, theme::ROUND, if self.clipped { theme::BAD } else { theme::WELL });
        let bars = Rect::from_min_max(pos2(place.left(), light.top()), pos2(light.left() - 4.0, light.bottom()));
        for (side, level) in self.level_db.iter().enumerate() {
            let top = bars.top() + side as f32 * 10.0;
            let bar = Rect::from_min_size(pos2(bars.left(), top), vec2(bars.width(), 8.0));
            painter.rect_filled(bar, theme::ROUND, theme::WELL);
            let part = ((level - FLOOR_DB) / -FLOOR_DB).clamp(0.0, 1.0);
            if part > 0.0 {
                let filled = Rect::from_min_size(bar.min, vec2(bar.width() * part, bar.height()));
                painter.rect_filled(filled, theme::ROUND, theme::HEARD);
            }
        }
        if response.has_focus() {
            theme::focus_ring(painter, place);
        }
        let text =
            if self.clipped { "It clipped: turn the gain down. Click to put the light out." } else { "Output level" };
        response.on_hover_text(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_jump_up_fall_slowly_and_clipping_stays() {
        let mut meter = Meter::default();
        meter.feed([1.5, 0.1], 0.03);
        assert!(meter.clipped && (meter.level_db[1] + 20.0).abs() < 1e-3);
        meter.feed([0.0, 0.0], 0.5);
        assert!((meter.level_db[1] + 35.0).abs() < 1e-3, "{:?}", meter.level_db);
        meter.feed([0.0, 0.0], 10.0);
        assert!(meter.at_rest() && meter.clipped);
        meter.feed([f32::NAN, 0.0], 0.1);
        assert!(meter.at_rest(), "a NaN peak shows nothing");
    }
}
