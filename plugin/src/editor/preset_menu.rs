//! The preset browser: the factory's presets, the musician's own, and a place to save what plays now. UI thread; reads and
//! writes small files when the menu is opened and when something is saved.

use egui::{RichText, TextEdit, Ui};
use nice_plug::context::gui::ParamSetter;
use nice_plug::prelude::Param;

use crate::editor::{slider, theme};
use crate::instance::Instance;
use crate::params::TillerParams;
use crate::presets::{Preset, PresetFolder, Set};

/// What the browser remembers between repaints.
pub struct PresetMenu {
    folder: PresetFolder,
    factory: Vec<Preset>,
    own: Vec<Preset>,
    open: bool,
    name: String,
    /// What went wrong, or what was done, last.
    pub message: String,
}

impl Default for PresetMenu {
    fn default() -> Self {
        Self {
            folder: PresetFolder::user(),
            factory: Preset::factory(),
            own: Vec::new(),
            open: false,
            name: String::new(),
            message: String::new(),
        }
    }
}

struct Gesture<'a, 'b>(&'a ParamSetter<'b>);

impl Set for Gesture<'_, '_> {
    fn set<P: Param>(&mut self, param: &P, normalized: f32) {
        slider::once(self.0, param, normalized);
    }
}

impl PresetMenu {
    /// Draws the button; the menu hangs below it.
    pub fn show(&mut self, ui: &mut Ui, instance: &Instance, params: &TillerParams, setter: &ParamSetter<'_>) {
        let menu = ui.menu_button("Presets", |ui| {
            if !std::mem::replace(&mut self.open, true) {
                let (own, notes) = self.folder.read();
                self.own = own;
                self.message = notes.join(" ");
            }
            ui.set_min_width(220.0);
            egui::ScrollArea::vertical().max_height(360.0).show(ui, |ui| {
                for (title, presets) in [("Factory", &self.factory), ("Yours", &self.own)] {
                    if presets.is_empty() {
                        continue;
                    }
                    ui.label(RichText::new(title).size(theme::SMALL).color(theme::QUIET));
                    for preset in presets {
                        if ui.button(&preset.name).on_hover_text(&preset.prompt).clicked() {
                            self.message = load(preset, instance, params, setter);
                            self.name.clone_from(&preset.name);
                            ui.close();
                        }
                    }
                }
            });
            ui.separator();
            ui.horizontal(|ui| {
                ui.add(TextEdit::singleline(&mut self.name).hint_text("Name").desired_width(140.0));
                if ui.button("Save").clicked() {
                    self.message = self.save(instance, params);
                    ui.close();
                }
            });
        });
        self.open &= menu.inner.is_some();
    }

    fn save(&self, instance: &Instance, params: &TillerParams) -> String {
        let prompt = instance.project.project().prompt;
        let saved = Preset::of(&self.name, &prompt, params).and_then(|preset| self.folder.write(&preset));
        saved.map_or_else(|error| error.to_string(), |path| format!("Saved as {}.", path.display()))
    }
}

/// Plays a preset; what went wrong, or nothing.
fn load(preset: &Preset, instance: &Instance, params: &TillerParams, setter: &ParamSetter<'_>) -> String {
    match preset.apply(params, Gesture(setter)) {
        Ok(()) => {
            instance.project.edit(|project| project.prompt.clone_from(&preset.prompt));
            String::new()
        }
        Err(error) => error.to_string(),
    }
}
