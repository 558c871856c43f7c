//! The chord lane as a pad: twelve roots across, a quality in each row. UI thread.

use egui::{Align2, Rect, Sense, Ui, pos2, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;
use tiller_engine::control::{Chord, PitchClass, Quality};
use tiller_engine::steering::class_set::ClassSet;

use crate::editor::cell::{Cell, pad_focus};
use crate::editor::{slider, theme};
use crate::params::TillerParams;
use crate::params::choices::{ChordQuality, Root};

/// Qualities from top to bottom, and their labels.
const ROWS: [(ChordQuality, &str); 4] = [
    (ChordQuality::Major, "maj"),
    (ChordQuality::Minor, "min"),
    (ChordQuality::Diminished, "dim"),
    (ChordQuality::Augmented, "aug"),
];

/// A chord as musicians write it: "C", "C#m", "D°", "E+".
pub fn chord_name(chord: Chord) -> String {
    let suffix = match chord.quality {
        Quality::Major => "",
        Quality::Minor => "m",
        Quality::Diminished => "°",
        Quality::Augmented => "+",
    };
    format!("{}{suffix}", chord.root.name())
}

/// Draws the pad over the whole width that is left, `height` points high. `sounding` is the chord that is heard now;
/// `known` are those that the model can be steered to.
pub fn chords(
    ui: &mut Ui,
    params: &TillerParams,
    setter: &ParamSetter<'_>,
    sounding: Option<Chord>,
    known: ClassSet,
    height: f32,
) {
    let (place, _) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
    let id = ui.scope_id().with("chords");
    let focus = pad_focus(ui, place, id, 12, ROWS.len());
    let label_width = 30.0;
    let tall = (height + 2.0) / ROWS.len() as f32;
    let width = (place.width() + 2.0 - label_width) / 12.0;
    for (row, (choice, label)) in ROWS.into_iter().enumerate() {
        let Some(quality) = choice.quality() else { continue };
        let top = place.top() + tall * row as f32;
        let at = pos2(place.left(), top + tall / 2.0 - 1.0);
        ui.painter().text(at, Align2::LEFT_CENTER, label, theme::font(theme::SMALL), theme::QUIET);
        for class in (0..12).filter_map(PitchClass::new) {
            let own = Chord { root: class, quality };
            let left = place.left() + label_width + width * class.index() as f32;
            let rect = Rect::from_min_size(pos2(left, top), vec2(width - 2.0, tall - 2.0));
            let chosen = params.chord() == Some(own);
            let focused = focus.at == Some((class.index(), row));
            let cell = Cell {
                rect,
                text_at: rect.center(),
                name: &chord_name(own),
                chosen,
                sounding: sounding == Some(own),
                focused,
                missing: !known.contains(own.class()),
                fill: if class.name().ends_with('#') { theme::GROUND } else { theme::WELL },
                accent: theme::ASKED,
                ink: theme::GROUND,
                size: (0.4 * width).clamp(9.0, 13.0),
            };
            if cell.show(ui, id.with((class.index(), row))) || (focused && focus.pressed) {
                // A second click on the chosen chord switches the lane off again.
                let wanted = if chosen { ChordQuality::Off } else { choice };
                let (root, quality) = (&params.chord_root, &params.chord_quality);
                slider::once(setter, root, root.preview_normalized(Root::of(class)));
                slider::once(setter, quality, quality.preview_normalized(wanted));
            }
        }
    }
}
