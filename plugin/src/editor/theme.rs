//! Colours and spacing of the editor: few colours, each with one meaning. UI thread.

use egui::{Color32, Context, CornerRadius, FontFamily, FontId, Stroke, TextStyle, Visuals};

use crate::status_line::Tone;

/// Behind everything.
pub const GROUND: Color32 = Color32::from_rgb(0x16, 0x19, 0x1d);
/// Behind a group.
pub const PANEL: Color32 = Color32::from_rgb(0x1f, 0x23, 0x29);
/// The empty part of a control.
pub const WELL: Color32 = Color32::from_rgb(0x2b, 0x31, 0x39);
/// Lines between things.
pub const LINE: Color32 = Color32::from_rgb(0x3a, 0x42, 0x4c);
/// Words and numbers.
pub const TEXT: Color32 = Color32::from_rgb(0xe6, 0xe9, 0xed);
/// Labels.
pub const QUIET: Color32 = Color32::from_rgb(0x9a, 0xa4, 0xb0);
/// What steers.
pub const STEER: Color32 = Color32::from_rgb(0xf2, 0xa6, 0x3c);
/// Values that do not steer.
pub const VALUE: Color32 = Color32::from_rgb(0x6b, 0x9c, 0xd6);
/// All is well.
pub const GOOD: Color32 = Color32::from_rgb(0x6f, 0xc2, 0x7c);
/// Not as it should be.
pub const WARNING: Color32 = Color32::from_rgb(0xe8, 0xc5, 0x47);
/// Silent or clipped.
pub const BAD: Color32 = Color32::from_rgb(0xe5, 0x5b, 0x52);

/// Space between groups, in points.
pub const GAP: f32 = 10.0;
/// Corners of groups and controls.
pub const ROUND: CornerRadius = CornerRadius::same(4);

/// The colour of a status line.
pub fn tone(tone: Tone) -> Color32 {
    match tone {
        Tone::Good => GOOD,
        Tone::Busy => VALUE,
        Tone::Warning => WARNING,
        Tone::Bad => BAD,
    }
}

/// Sets fonts and colours once per window.
pub fn apply(context: &Context) {
    let mut visuals = Visuals::dark();
    visuals.panel_fill = GROUND;
    visuals.window_fill = PANEL;
    visuals.extreme_bg_color = WELL;
    visuals.override_text_color = Some(TEXT);
    visuals.selection.bg_fill = VALUE.gamma_multiply(0.5);
    visuals.selection.stroke = Stroke::new(1.0, VALUE);
    for widget in [
        &mut visuals.widgets.noninteractive,
        &mut visuals.widgets.inactive,
        &mut visuals.widgets.hovered,
        &mut visuals.widgets.active,
        &mut visuals.widgets.open,
    ] {
        widget.corner_radius = ROUND;
        widget.bg_fill = WELL;
        widget.weak_bg_fill = WELL;
        widget.bg_stroke = Stroke::new(1.0, LINE);
        widget.expansion = 0.0;
    }
    visuals.widgets.hovered.bg_stroke = Stroke::new(1.0, QUIET);
    visuals.widgets.active.bg_stroke = Stroke::new(1.0, TEXT);
    context.set_visuals(visuals);
    context.all_styles_mut(|style| {
        style.spacing.item_spacing = egui::vec2(8.0, 6.0);
        style.spacing.button_padding = egui::vec2(10.0, 4.0);
        style.spacing.interact_size.y = 24.0;
        style.interaction.selectable_labels = false;
        let sizes =
            [(TextStyle::Heading, 20.0), (TextStyle::Body, 13.5), (TextStyle::Button, 13.5), (TextStyle::Small, 11.5)];
        for (text_style, size) in sizes {
            style.text_styles.insert(text_style, FontId::new(size, FontFamily::Proportional));
        }
    });
}
