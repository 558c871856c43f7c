//! The chord lane as a pad: twelve roots across, a quality in each row. UI thread.

use egui::{Align2, FontId, Rect, Sense, Ui, pos2, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;
use tiller_engine::control::{Chord, PitchClass};

use crate::editor::cell::Cell;
use crate::editor::{slider, theme};
use crate::params::TillerParams;
use crate::params::choices::{ChordQuality, Root};

const LABEL_WIDTH: f32 = 42.0;
/// Qualities from top to bottom, their labels, and what follows the root in a chord's name.
const ROWS: [(ChordQuality, &str, &str); 4] = [
    (ChordQuality::Major, "major", ""),
    (ChordQuality::Minor, "minor", "m"),
    (ChordQuality::Diminished, "dim.", "°"),
    (ChordQuality::Augmented, "aug.", "+"),
];

/// Draws the pad over the whole width that is left, `height` points high. `sounding` is the chord that is heard now.
pub fn chords(ui: &mut Ui, params: &TillerParams, setter: &ParamSetter<'_>, sounding: Option<Chord>, height: f32) {
    let tall = height / ROWS.len() as f32;
    let (place, _) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
    let width = (place.width() - LABEL_WIDTH) / 12.0;
    for (row, (quality, label, suffix)) in ROWS.into_iter().enumerate() {
        let top = place.top() + tall * row as f32;
        let at = pos2(place.left(), top + tall / 2.0);
        ui.painter().text(at, Align2::LEFT_CENTER, label, FontId::proportional(12.0), theme::QUIET);
        for class in (0..12).filter_map(PitchClass::new) {
            let left = place.left() + LABEL_WIDTH + width * class.index() as f32;
            let rect = Rect::from_min_size(pos2(left, top), vec2(width - 2.0, tall - 2.0));
            let name = format!("{}{suffix}", class.name());
            let own = quality.quality().map(|quality| Chord { root: class, quality });
            let chosen = own.is_some() && params.chord() == own;
            let cell = Cell {
                rect,
                text_at: rect.center(),
                name: &name,
                chosen,
                sounding: own.is_some() && sounding == own,
                fill: if class.name().ends_with('#') { theme::GROUND } else { theme::WELL },
                accent: theme::STEER,
                size: (0.42 * width).clamp(8.0, 11.5),
            };
            if cell.show(ui, ui.scope_id().with(("chord", &name))) {
                // A second click on the chosen chord switches the lane off again.
                let wanted = if chosen { ChordQuality::Off } else { quality };
                let (root, quality) = (&params.chord_root, &params.chord_quality);
                slider::once(setter, root, root.preview_normalized(Root::of(class)));
                slider::once(setter, quality, quality.preview_normalized(wanted));
            }
        }
    }
}
