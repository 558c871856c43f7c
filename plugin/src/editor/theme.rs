//! Colours, sizes and the grid of the editor: three colours, each with one meaning, on greys. UI thread.

use egui::{Color32, Context, CornerRadius, FontFamily, FontId, Painter, Rect, Stroke, StrokeKind, TextStyle, Visuals};

use crate::status_line::Tone;

/// Behind everything.
pub const GROUND: Color32 = Color32::from_rgb(0x11, 0x14, 0x18);
/// Behind a group.
pub const PANEL: Color32 = Color32::from_rgb(0x1b, 0x1f, 0x25);
/// The empty part of a control.
pub const WELL: Color32 = Color32::from_rgb(0x29, 0x2f, 0x37);
/// Lines between things, and what is chosen out of several.
pub const LINE: Color32 = Color32::from_rgb(0x47, 0x51, 0x5d);
/// Labels.
pub const QUIET: Color32 = Color32::from_rgb(0x9d, 0xa7, 0xb3);
/// Words and numbers.
pub const TEXT: Color32 = Color32::from_rgb(0xf0, 0xf2, 0xf4);
/// What the musician asks for.
pub const ASKED: Color32 = Color32::from_rgb(0xf5, 0xa9, 0x3b);
/// What is heard, and that all is well.
pub const HEARD: Color32 = Color32::from_rgb(0x4c, 0xc2, 0xc4);
/// Trouble.
pub const BAD: Color32 = Color32::from_rgb(0xec, 0x5f, 0x57);

/// Space between groups, in points; the grid is made of halves and multiples of it.
pub const GAP: f32 = 8.0;
/// Height of a row of controls.
pub const ROW: f32 = 24.0;
/// Corners of groups and controls.
pub const ROUND: CornerRadius = CornerRadius::same(3);

/// Sizes of the one font.
pub const SMALL: f32 = 11.5;
/// Labels, numbers, buttons.
pub const BODY: f32 = 14.0;

/// The font in a size.
pub const fn font(size: f32) -> FontId {
    FontId::new(size, FontFamily::Proportional)
}

/// The colour of a status line.
pub fn tone(tone: Tone) -> Color32 {
    match tone {
        Tone::Good => HEARD,
        Tone::Busy => QUIET,
        Tone::Warning => BAD.lerp_to_gamma(TEXT, 0.35),
        Tone::Bad => BAD,
    }
}

/// A ring around what the keyboard acts on.
pub fn focus_ring(painter: &Painter, rect: Rect) {
    painter.rect_stroke(rect.expand(1.0), ROUND, Stroke::new(2.0, TEXT), StrokeKind::Outside);
}

/// Sets fonts and colours once per window.
pub fn apply(context: &Context) {
    let mut visuals = Visuals::dark();
    visuals.panel_fill = GROUND;
    visuals.window_fill = PANEL;
    visuals.window_stroke = Stroke::new(1.0, LINE);
    visuals.extreme_bg_color = WELL;
    visuals.override_text_color = Some(TEXT);
    visuals.selection.bg_fill = LINE;
    visuals.selection.stroke = Stroke::new(2.0, TEXT);
    let widgets = &mut visuals.widgets;
    for widget in [
        &mut widgets.noninteractive,
        &mut widgets.inactive,
        &mut widgets.hovered,
        &mut widgets.active,
        &mut widgets.open,
    ] {
        widget.corner_radius = ROUND;
        widget.bg_fill = WELL;
        widget.weak_bg_fill = WELL;
        widget.bg_stroke = Stroke::new(1.0, WELL);
        widget.fg_stroke = Stroke::new(1.0, TEXT);
        widget.expansion = 0.0;
    }
    widgets.hovered.bg_stroke = Stroke::new(1.0, QUIET);
    // What has the keyboard's focus looks active: the same ring as around our own controls.
    widgets.active.bg_stroke = Stroke::new(2.0, TEXT);
    context.set_visuals(visuals);
    context.all_styles_mut(|style| {
        style.spacing.item_spacing = egui::vec2(GAP, GAP);
        style.spacing.button_padding = egui::vec2(10.0, 3.0);
        style.spacing.interact_size.y = ROW;
        style.interaction.selectable_labels = false;
        let sizes =
            [(TextStyle::Heading, 20.0), (TextStyle::Body, BODY), (TextStyle::Button, BODY), (TextStyle::Small, SMALL)];
        for (text_style, size) in sizes {
            style.text_styles.insert(text_style, font(size));
        }
    });
}
