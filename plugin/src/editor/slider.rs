//! A horizontal slider for one parameter: drag, shift for fine, double click for the default, click the number to type. With the
//! keyboard's focus: arrows, shift for fine, Home and End, Delete for the default, Enter to type. Every change is one gesture for
//! the host. UI thread.

use egui::{Align2, CursorIcon, EventFilter, Id, Key, Rect, Response, Sense, TextEdit, Ui, pos2, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

use crate::editor::theme;

/// Width of the name before a slider.
pub const LABEL_WIDTH: f32 = 100.0;
const VALUE_WIDTH: f32 = 62.0;
/// Points of mouse travel for the whole range when shift is held.
const FINE_TRAVEL: f32 = 2_000.0;
/// Steps of an arrow key, as shares of the range.
const STEP: f32 = 0.05;
const FINE_STEP: f32 = 0.005;

/// Draws name, slider and number over the whole width that is left. `colour` fills the slider, from the middle if zero lies
/// there. The response is the track's.
pub fn slider<P: Param>(ui: &mut Ui, param: &P, setter: &ParamSetter<'_>, colour: egui::Color32) -> Response {
    let (row, _) = ui.allocate_exact_size(vec2(ui.available_width(), theme::ROW), Sense::hover());
    let painter = ui.painter();
    painter.text(row.left_center(), Align2::LEFT_CENTER, param.name(), theme::font(theme::BODY), theme::QUIET);
    let rest = Rect::from_min_max(pos2(row.left() + LABEL_WIDTH, row.top()), row.max);
    slider_at(ui, rest, param, setter, colour)
}

/// Draws slider and number at `place`.
pub fn slider_at<P: Param>(
    ui: &mut Ui,
    place: Rect,
    param: &P,
    setter: &ParamSetter<'_>,
    colour: egui::Color32,
) -> Response {
    let value = Rect::from_min_max(pos2(place.right() - VALUE_WIDTH, place.top()), place.max);
    let track = Rect::from_min_max(place.min, pos2(value.left() - theme::GAP / 2.0, place.bottom()));
    let id = ui.scope_id().with(("slider", param.name()));
    let response = ui.interact(track, id, Sense::click_and_drag());
    follow_pointer(ui, param, setter, &response, track);
    let typing = id.with("value");
    if response.has_focus() {
        follow_keyboard(ui, param, setter, id, typing);
    }
    draw_track(ui, param, &response, track, colour);
    show_value(ui, param, setter, value, typing);
    response
}

fn follow_keyboard<P: Param>(ui: &Ui, param: &P, setter: &ParamSetter<'_>, id: Id, typing: Id) {
    let arrows = EventFilter { horizontal_arrows: true, ..EventFilter::default() };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(id, arrows));
    let now = param.unmodulated_normalized_value();
    let (wanted, type_it) = ui.input(|input| {
        let steps = input.num_presses(Key::ArrowRight) as f32 - input.num_presses(Key::ArrowLeft) as f32;
        // A parameter of few steps moves by one of them.
        let least = param.step_count().map_or(0.0, |count| 1.0 / count.max(1) as f32);
        let step = if input.modifiers.shift { FINE_STEP } else { STEP }.max(least);
        let wanted = if steps != 0.0 {
            Some(now + steps * step)
        } else if input.key_pressed(Key::Home) {
            Some(0.0)
        } else if input.key_pressed(Key::End) {
            Some(1.0)
        } else {
            let default = input.key_pressed(Key::Delete) || input.key_pressed(Key::Backspace);
            default.then(|| param.default_normalized_value())
        };
        (wanted, input.key_pressed(Key::Enter))
    });
    if let Some(wanted) = wanted {
        once(setter, param, wanted);
    }
    if type_it {
        begin_typing(ui, param, typing);
    }
}

fn follow_pointer<P: Param>(ui: &Ui, param: &P, setter: &ParamSetter<'_>, response: &Response, track: Rect) {
    if response.double_clicked() {
        once(setter, param, param.default_normalized_value());
        return;
    }
    if response.drag_started() {
        setter.begin_set_parameter(param);
    }
    if response.dragged() {
        let at = if ui.input(|input| input.modifiers.shift) {
            param.unmodulated_normalized_value() + response.drag_delta().x / FINE_TRAVEL
        } else {
            response.interact_pointer_pos().map_or(0.0, |pointer| (pointer.x - track.left()) / track.width())
        };
        set(setter, param, at);
    }
    if response.drag_stopped() {
        setter.end_set_parameter(param);
    }
    // The keyboard's Enter counts as a click too, but points nowhere.
    if response.clicked_by(egui::PointerButton::Primary)
        && let Some(pointer) = response.interact_pointer_pos()
    {
        once(setter, param, (pointer.x - track.left()) / track.width());
    }
}

fn set<P: Param>(setter: &ParamSetter<'_>, param: &P, normalized: f32) {
    let plain = param.preview_plain(normalized.clamp(0.0, 1.0));
    if plain != param.unmodulated_plain_value() {
        setter.set_parameter(param, plain);
    }
}

/// One whole gesture.
pub fn once<P: Param>(setter: &ParamSetter<'_>, param: &P, normalized: f32) {
    setter.begin_set_parameter(param);
    set(setter, param, normalized);
    setter.end_set_parameter(param);
}

fn draw_track<P: Param>(ui: &Ui, param: &P, response: &Response, track: Rect, colour: egui::Color32) {
    let painter = ui.painter();
    let bar = track.shrink2(vec2(0.0, 6.0));
    painter.rect_filled(bar, theme::ROUND, theme::WELL);
    // Where zero lies, if the parameter has one inside its range: the filling grows from there.
    let zero = param.string_to_normalized_value("0").filter(|zero| (0.2..0.8).contains(zero)).unwrap_or(0.0);
    let at = param.modulated_normalized_value();
    let (low, high) = (zero.min(at), zero.max(at));
    let x = |part: f32| bar.left() + bar.width() * part;
    let filled = Rect::from_min_max(pos2(x(low), bar.top()), pos2(x(high), bar.bottom()));
    let colour = if response.hovered() || response.dragged() { colour } else { colour.gamma_multiply(0.85) };
    painter.rect_filled(filled, theme::ROUND, colour);
    let grip = Rect::from_center_size(pos2(x(at), bar.center().y), vec2(3.0, track.height() - 6.0));
    painter.rect_filled(grip, theme::ROUND, theme::TEXT);
    if response.hovered() {
        ui.set_cursor_icon(CursorIcon::ResizeHorizontal);
    }
    if response.has_focus() {
        theme::focus_ring(painter, track.shrink2(vec2(0.0, 2.0)));
    }
}

fn begin_typing<P: Param>(ui: &Ui, param: &P, id: Id) {
    let text = param.normalized_value_to_string(param.unmodulated_normalized_value(), false);
    ui.data_mut(|data| data.insert_temp(id, text));
}

fn show_value<P: Param>(ui: &mut Ui, param: &P, setter: &ParamSetter<'_>, place: Rect, id: Id) {
    let typed = ui.data(|data| data.get_temp::<String>(id));
    let Some(mut typed) = typed else {
        // Not a stop of its own for the keyboard: Enter on the slider types.
        let response = ui.interact(place, id, Sense::CLICK);
        let colour = if response.hovered() { theme::ASKED } else { theme::TEXT };
        let text = param.normalized_value_to_string(param.modulated_normalized_value(), true);
        ui.painter().text(place.right_center(), Align2::RIGHT_CENTER, text, theme::font(theme::BODY), colour);
        if response.clicked() {
            begin_typing(ui, param, id);
        }
        return;
    };
    let text_id = id.with("text");
    let edit = ui.put(place, TextEdit::singleline(&mut typed).id(text_id).margin(vec2(4.0, 2.0)));
    if !edit.has_focus() && !edit.lost_focus() {
        edit.request_focus();
        let all = egui::text::CCursorRange::two(
            egui::text::CCursor::default(),
            egui::text::CCursor::new(typed.chars().count()),
        );
        let mut state = TextEdit::load_state(ui.ctx(), text_id).unwrap_or_default();
        state.cursor.set_char_range(Some(all));
        state.store(ui.ctx(), text_id);
    }
    if edit.lost_focus() {
        if !ui.input(|input| input.key_pressed(Key::Escape))
            && let Some(normalized) = param.string_to_normalized_value(&typed)
        {
            once(setter, param, normalized);
        }
        ui.data_mut(|data| data.remove::<String>(id));
    } else {
        ui.data_mut(|data| data.insert_temp(id, typed));
    }
}
