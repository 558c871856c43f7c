//! What every part of the window works on. UI thread.

use egui::{Color32, Frame, Margin, Ui};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

use crate::controllers::Learnable;
use crate::editor::{learning, slider, theme};
use crate::instance::Instance;
use crate::params::TillerParams;

/// The instrument, as the window holds it.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// Engine, project and meters.
    pub instance: &'a Instance,
    /// Its parameters.
    pub params: &'a TillerParams,
    /// How parameters are set, so that the host knows.
    pub setter: &'a ParamSetter<'a>,
}

impl Desk<'_> {
    /// A slider that MIDI controllers can be tied to.
    pub fn slider<P: Param>(&self, ui: &mut Ui, param: &P, target: Learnable, colour: Color32) {
        learning::menu(&slider::slider(ui, param, self.setter, colour), target, self.instance);
    }
}

/// A group over the whole width, with a title if it has one.
pub fn group(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui)) {
    let frame = Frame::new().fill(theme::PANEL).corner_radius(theme::ROUND).inner_margin(Margin::same(10));
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 4.0;
        if !title.is_empty() {
            ui.label(egui::RichText::new(title).size(theme::SMALL).color(theme::QUIET));
        }
        contents(ui);
    });
}
