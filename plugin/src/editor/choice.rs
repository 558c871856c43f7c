//! A choice out of a few, side by side. UI thread.

use egui::{Align2, RichText, Sense, Ui, vec2};
use nice_plug::context::gui::ParamSetter;
use nice_plug::params::enums::{Enum, EnumParam};
use nice_plug::prelude::Param;

use crate::editor::{slider, theme};

/// A row with a name; what follows it is `contents`.
pub fn named_row(ui: &mut Ui, name: &str, contents: impl FnOnce(&mut Ui)) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        let (label, _) = ui.allocate_exact_size(vec2(slider::LABEL_WIDTH, theme::ROW), Sense::hover());
        ui.painter().text(label.left_center(), Align2::LEFT_CENTER, name, theme::font(theme::BODY), theme::QUIET);
        ui.spacing_mut().item_spacing.x = 2.0;
        contents(ui);
    });
}

/// One of several buttons; `true` when it was pressed.
pub fn option(ui: &mut Ui, name: &str, chosen: bool) -> bool {
    let (fill, ink) = if chosen { (theme::LINE, theme::TEXT) } else { (theme::WELL, theme::QUIET) };
    ui.add(egui::Button::new(RichText::new(name).color(ink)).fill(fill)).clicked()
}

/// All choices of a parameter.
pub fn choice<E: Enum + PartialEq + 'static>(ui: &mut Ui, param: &EnumParam<E>, setter: &ParamSetter<'_>) {
    named_row(ui, param.name(), |ui| {
        let chosen = param.modulated_plain_value().to_index();
        for (index, name) in E::variants().iter().enumerate() {
            if option(ui, name, index == chosen) {
                slider::once(setter, param, param.preview_normalized(E::from_index(index)));
            }
        }
    });
}
