//! Twelve keys and "off" for the note lane: the chosen target is filled, what a held MIDI key steers to is ringed. UI thread.

use egui::{Rect, Sense, Ui, pos2, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;
use tiller_engine::control::PitchClass;
use tiller_engine::steering::class_set::ClassSet;

use crate::editor::cell::{Cell, pad_focus};
use crate::editor::{slider, theme};
use crate::params::TillerParams;
use crate::params::choices::Note;
use crate::target::Target;

/// Pitch classes of the seven white keys, and of the black keys with the white key that they follow.
const WHITE: [u8; 7] = [0, 2, 4, 5, 7, 9, 11];
const BLACK: [(u8, usize); 5] = [(1, 0), (3, 1), (6, 3), (8, 4), (10, 5)];

/// One key: where it lies and what it stands for.
struct Place {
    rect: Rect,
    note: Note,
    /// 0 is "off", then the pitch classes in order: as the keyboard walks over them.
    number: usize,
}

/// Draws the keys over the whole width that is left, `height` points high. `sounding` is what the frame is steered to that is
/// heard now: the tones of a chord are ringed too. `known` are the notes that the model can be steered to; the others are greyed.
pub fn keys(
    ui: &mut Ui,
    params: &TillerParams,
    setter: &ParamSetter<'_>,
    sounding: Target,
    known: ClassSet,
    height: f32,
) {
    let (place, _) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
    let id = ui.scope_id().with("keys");
    let focus = pad_focus(ui, place, id, 13, 1);
    // The black keys come last, so that they are drawn over the white ones and take the clicks there.
    for key in layout(place) {
        let class = key.note.pitch_class();
        let black = class.is_some_and(|class| !WHITE.contains(&(class.index() as u8)));
        let chosen = params.note.value() == key.note;
        let focused = focus.at == Some((key.number, 0));
        let cell = Cell {
            rect: key.rect,
            text_at: if class.is_none() { key.rect.center() } else { key.rect.center_bottom() - vec2(0.0, 11.0) },
            name: class.map_or("off", PitchClass::name),
            chosen,
            sounding: class.is_some_and(|class| sounding.holds(class)),
            focused,
            missing: class.is_some_and(|class| !known.contains(class.index())),
            fill: match class {
                None => theme::WELL,
                Some(_) if black => theme::GROUND,
                Some(_) => theme::LINE,
            },
            // That nothing is asked for need not shine.
            accent: if class.is_none() { theme::LINE } else { theme::ASKED },
            ink: if class.is_none() { theme::TEXT } else { theme::GROUND },
            size: if black { theme::SMALL } else { theme::BODY },
        };
        if cell.show(ui, id.with(key.number)) || (focused && focus.pressed) {
            // A second click on the chosen key switches the lane off again.
            let note = if chosen { Note::Off } else { key.note };
            slider::once(setter, &params.note, params.note.preview_normalized(note));
        }
    }
}

fn layout(place: Rect) -> Vec<Place> {
    let off_width = (0.13 * place.width()).clamp(34.0, 64.0);
    let off = Rect::from_min_size(place.min, vec2(off_width, place.height()));
    let board = Rect::from_min_max(pos2(off.max.x + theme::GAP / 2.0, place.min.y), place.max);
    let width = board.width() / WHITE.len() as f32;
    let of = |class: u8, rect| Place { rect, note: Note::of(PitchClass::new(class)), number: 1 + usize::from(class) };
    let mut all = vec![Place { rect: off, note: Note::Off, number: 0 }];
    for (index, class) in WHITE.into_iter().enumerate() {
        let min = pos2(board.left() + width * index as f32, board.top());
        all.push(of(class, Rect::from_min_size(min, vec2(width - 2.0, place.height()))));
    }
    let black = vec2(width * 0.62, place.height() * 0.56);
    for (class, after) in BLACK {
        let middle = board.left() + width * (after + 1) as f32 - 1.0;
        all.push(of(class, Rect::from_min_size(pos2(middle - black.x / 2.0, board.top()), black)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_has_one_key_inside_its_place() {
        let place = Rect::from_min_size(pos2(10.0, 20.0), vec2(300.0, 80.0));
        let keys = layout(place);
        let mut numbers: Vec<usize> = keys.iter().map(|key| key.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..13).collect::<Vec<_>>());
        assert!(keys.iter().all(|key| place.contains_rect(key.rect)));
    }
}
