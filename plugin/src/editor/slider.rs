//! A horizontal slider for one parameter: drag, shift for fine, double click for the default, click the number to type.
//! Every change is one gesture for the host. UI thread.

use egui::{Align2, CursorIcon, FontId, Id, Key, Rect, Response, Sense, TextEdit, Ui, pos2, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

use crate::editor::theme;

const LABEL_WIDTH: f32 = 104.0;
const VALUE_WIDTH: f32 = 64.0;
const HEIGHT: f32 = 22.0;
/// Points of mouse travel for the whole range when shift is held.
const FINE_TRAVEL: f32 = 2_000.0;

/// Draws the slider over the whole width that is left. `colour` fills it, from the middle if zero lies there. The response is
/// the track's.
pub fn slider<P: Param>(ui: &mut Ui, param: &P, setter: &ParamSetter<'_>, colour: egui::Color32) -> Response {
    let (row, _) = ui.allocate_exact_size(vec2(ui.available_width(), HEIGHT), Sense::hover());
    let label = Rect::from_min_size(row.min, vec2(LABEL_WIDTH, HEIGHT));
    let value = Rect::from_min_max(pos2(row.max.x - VALUE_WIDTH, row.min.y), row.max);
    let track = Rect::from_min_max(pos2(label.max.x, row.min.y), pos2(value.min.x - 8.0, row.max.y));
    let painter = ui.painter();
    painter.text(label.left_center(), Align2::LEFT_CENTER, param.name(), FontId::proportional(13.5), theme::QUIET);

    let id = ui.scope_id().with(("slider", param.name()));
    let response = ui.interact(track, id, Sense::click_and_drag());
    follow_pointer(ui, param, setter, &response, track);
    draw_track(ui, param, &response, track, colour);
    show_value(ui, param, setter, value, id.with("value"));
    response
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
    if response.clicked()
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
    let bar = track.shrink2(vec2(0.0, 5.0));
    painter.rect_filled(bar, theme::ROUND, theme::WELL);
    // Where zero lies, if the parameter has one inside its range: the filling grows from there.
    let zero = param.string_to_normalized_value("0").filter(|zero| (0.2..0.8).contains(zero)).unwrap_or(0.0);
    let at = param.modulated_normalized_value();
    let (low, high) = (zero.min(at), zero.max(at));
    let x = |part: f32| bar.left() + bar.width() * part;
    let filled = Rect::from_min_max(pos2(x(low), bar.top()), pos2(x(high), bar.bottom()));
    let colour = if response.hovered() || response.dragged() { colour } else { colour.gamma_multiply(0.85) };
    painter.rect_filled(filled, theme::ROUND, colour);
    let grip = Rect::from_center_size(pos2(x(at), bar.center().y), vec2(3.0, track.height() - 4.0));
    painter.rect_filled(grip, theme::ROUND, theme::TEXT);
    if response.hovered() {
        ui.set_cursor_icon(CursorIcon::ResizeHorizontal);
    }
}

fn show_value<P: Param>(ui: &mut Ui, param: &P, setter: &ParamSetter<'_>, place: Rect, id: Id) {
    let typed = ui.data(|data| data.get_temp::<String>(id));
    let Some(mut typed) = typed else {
        let response = ui.interact(place, id, Sense::click());
        let colour = if response.hovered() { theme::STEER } else { theme::TEXT };
        let text = param.normalized_value_to_string(param.modulated_normalized_value(), true);
        ui.painter().text(place.right_center(), Align2::RIGHT_CENTER, text, FontId::proportional(13.5), colour);
        if response.clicked() {
            let text = param.normalized_value_to_string(param.unmodulated_normalized_value(), false);
            ui.data_mut(|data| data.insert_temp(id, text));
        }
        return;
    };
    let edit = ui.put(place, TextEdit::singleline(&mut typed).id(id.with("text")).margin(vec2(4.0, 2.0)));
    if !edit.has_focus() && !edit.lost_focus() {
        edit.request_focus();
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
