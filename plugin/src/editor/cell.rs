//! A target that one can click: filled when chosen, ringed while the music is steered to it. Several of them make a pad, which
//! the keyboard reaches as one: arrows move over its cells, Enter or Space chooses. UI thread.

use egui::{Align2, EventFilter, Id, Key, Pos2, Rect, Sense, Stroke, StrokeKind, Ui};

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
    /// The keyboard is on it.
    pub focused: bool,
    /// The model that plays cannot be steered to it.
    pub missing: bool,
    /// Its colour while it is neither.
    pub fill: egui::Color32,
    /// Its colour while chosen.
    pub accent: egui::Color32,
    /// The colour of its name while chosen.
    pub ink: egui::Color32,
    /// Size of its name.
    pub size: f32,
}

impl Cell<'_> {
    /// Draws it; `true` when it was clicked.
    pub fn show(&self, ui: &Ui, id: Id) -> bool {
        let response = ui.interact(self.rect, id, Sense::CLICK);
        let (mut fill, mut ink) = if self.chosen { (self.accent, self.ink) } else { (self.fill, theme::TEXT) };
        if self.missing {
            (fill, ink) = (fill.lerp_to_gamma(theme::PANEL, 0.7), theme::LINE);
        }
        if response.hovered() && !self.chosen {
            fill = fill.lerp_to_gamma(theme::ASKED, 0.25);
        }
        let painter = ui.painter();
        painter.rect_filled(self.rect, theme::ROUND, fill);
        if self.sounding {
            let ring = if self.chosen { theme::TEXT } else { theme::ASKED };
            painter.rect_stroke(self.rect, theme::ROUND, Stroke::new(2.0, ring), StrokeKind::Inside);
        }
        painter.text(self.text_at, Align2::CENTER_CENTER, self.name, theme::font(self.size), ink);
        if self.focused {
            theme::focus_ring(painter, self.rect);
        }
        let clicked = response.clicked();
        if self.missing {
            response
                .on_hover_text("Not learned for this model: it is not steered there. The page of models learns it.");
        }
        clicked
    }
}

/// Where the keyboard is in a pad.
pub struct PadFocus {
    /// The cell that it is on: column and row; `None` while it is elsewhere in the window.
    pub at: Option<(usize, usize)>,
    /// The cell was chosen just now.
    pub pressed: bool,
}

/// Lets the keyboard move over a pad of `columns` by `rows` cells that lies at `rect`.
pub fn pad_focus(ui: &Ui, rect: Rect, id: Id, columns: usize, rows: usize) -> PadFocus {
    let response = ui.interact(rect, id, Sense::focusable_noninteractive());
    if !response.has_focus() {
        return PadFocus { at: None, pressed: false };
    }
    let arrows = EventFilter { horizontal_arrows: true, vertical_arrows: rows > 1, ..EventFilter::default() };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(id, arrows));
    let (mut column, mut row) = ui.data(|data| data.get_temp::<(usize, usize)>(id)).unwrap_or_default();
    let pressed = ui.input(|input| {
        let times = |key: Key| input.num_presses(key);
        column = (column + times(Key::ArrowRight) + columns - times(Key::ArrowLeft).min(columns)) % columns;
        if rows > 1 {
            row = (row + times(Key::ArrowDown) + rows - times(Key::ArrowUp).min(rows)) % rows;
        }
        input.key_pressed(Key::Enter) || input.key_pressed(Key::Space)
    });
    ui.data_mut(|data| data.insert_temp(id, (column, row)));
    PadFocus { at: Some((column, row)), pressed }
}
