//! Twelve keys and "off" for the note lane: the chosen target is filled, what a held MIDI key steers to is ringed. UI thread.

use egui::{Rect, Sense, Ui, pos2, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;
use tiller_engine::control::PitchClass;

use crate::editor::cell::Cell;
use crate::editor::{slider, theme};
use crate::params::TillerParams;
use crate::params::choices::Note;
use crate::target::Target;

const OFF_WIDTH: f32 = 64.0;
/// Pitch classes of the seven white keys, and of the black keys with the white key that they follow.
const WHITE: [u8; 7] = [0, 2, 4, 5, 7, 9, 11];
const BLACK: [(u8, usize); 5] = [(1, 0), (3, 1), (6, 3), (8, 4), (10, 5)];

/// Draws the keys over the whole width that is left, `height` points high. `sounding` is what the frame is steered to that is
/// heard now: the tones of a chord are ringed too.
pub fn keys(ui: &mut Ui, params: &TillerParams, setter: &ParamSetter<'_>, sounding: Target, height: f32) {
    let (place, _) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
    let off = Rect::from_min_size(place.min, vec2(OFF_WIDTH, height));
    key(ui, params, setter, off, Note::Off, "off", false, false);
    let board = Rect::from_min_max(pos2(off.max.x + theme::GAP, place.min.y), place.max);
    let width = board.width() / WHITE.len() as f32;
    let black_size = vec2(width * 0.62, height * 0.58);
    let black_rect = |after: usize| {
        Rect::from_min_size(
            pos2(board.left() + width * (after + 1) as f32 - black_size.x / 2.0, board.top()),
            black_size,
        )
    };
    for (place, class) in WHITE.iter().enumerate() {
        let rect =
            Rect::from_min_size(pos2(board.left() + width * place as f32, board.top()), vec2(width - 2.0, height));
        pitch_key(ui, params, setter, rect, *class, sounding, false);
    }
    // The black keys come last, so that they are drawn over the white ones and take the clicks there.
    for (class, after) in BLACK {
        pitch_key(ui, params, setter, black_rect(after), class, sounding, true);
    }
}

fn pitch_key(
    ui: &mut Ui,
    params: &TillerParams,
    setter: &ParamSetter<'_>,
    rect: Rect,
    class: u8,
    sounding: Target,
    black: bool,
) {
    let Some(class) = PitchClass::new(class) else { return };
    key(ui, params, setter, rect, Note::of(Some(class)), class.name(), sounding.holds(class), black);
}

#[allow(clippy::too_many_arguments)]
fn key(
    ui: &mut Ui,
    params: &TillerParams,
    setter: &ParamSetter<'_>,
    rect: Rect,
    note: Note,
    name: &str,
    sounding: bool,
    black: bool,
) {
    let chosen = params.note.value() == note;
    let off = note == Note::Off;
    let cell = Cell {
        rect,
        text_at: if off { rect.center() } else { rect.center_bottom() - vec2(0.0, 12.0) },
        name,
        chosen,
        sounding,
        fill: if black { theme::GROUND } else { theme::LINE },
        accent: if off { theme::QUIET } else { theme::STEER },
        size: 13.0,
    };
    if cell.show(ui, ui.scope_id().with(("key", name))) {
        // A second click on the chosen key switches the lane off again.
        let note = if chosen { Note::Off } else { note };
        slider::once(setter, &params.note, params.note.preview_normalized(note));
    }
}
