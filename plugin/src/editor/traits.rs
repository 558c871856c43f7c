//! Which directions of the musician's own the four trait lanes steer by. UI thread; files are looked for when a menu is opened.

use egui::{RichText, Ui};
use tiller_engine::control::TRAITS;
use tiller_engine::status::Status;
use tiller_engine::steering::trait_files::{TraitFile, TraitState};

use crate::controllers::Learnable;
use crate::editor::choice::named_row;
use crate::editor::desk::Desk;
use crate::editor::theme;

/// Names and controllers of the lanes.
pub const LANES: [(&str, Learnable); TRAITS] = [
    ("Trait 1", Learnable::Trait1),
    ("Trait 2", Learnable::Trait2),
    ("Trait 3", Learnable::Trait3),
    ("Trait 4", Learnable::Trait4),
];

/// What is kept between repaints.
#[derive(Default)]
pub struct TraitsView {
    /// As they were when a menu was last opened.
    files: Vec<TraitFile>,
}

/// What a menu's entry asks for.
enum Asked {
    Nothing,
    Clear,
    File(TraitFile),
}

impl TraitsView {
    /// The group of the set-up page.
    pub fn settings(&mut self, ui: &mut Ui, desk: Desk<'_>, status: &Status) {
        let project = desk.instance.project.project();
        for (slot, (name, _)) in LANES.into_iter().enumerate() {
            let own = project.traits[slot].as_ref().map_or("", |file| file.name.as_str());
            let mut asked = Asked::Nothing;
            named_row(ui, name, |ui| {
                let text = if own.is_empty() { RichText::new("none").color(theme::QUIET) } else { RichText::new(own) };
                let menu = egui::ComboBox::from_id_salt(name).width(ui.available_width() - 8.0).selected_text(text);
                let shown = menu.show_ui(ui, |ui| asked = self.menu(ui, own));
                if shown.response.clicked() {
                    self.files = desk.instance.handle.trait_files();
                }
            });
            match &status.traits[slot] {
                TraitState::Refused(why) => note(ui, why, theme::BAD),
                TraitState::InUse { changed: true } => {
                    note(ui, "Not the file that was chosen, but in its place.", theme::BAD)
                }
                _ => {}
            }
            match asked {
                Asked::Nothing => {}
                Asked::Clear => desk.instance.assign_trait(slot, None),
                Asked::File(file) => desk.instance.assign_trait(slot, Some(&file)),
            }
        }
        note(
            ui,
            "Directions of your own for the model that plays. The page of models learns them from sound with a trait and without it.",
            theme::QUIET,
        );
    }

    fn menu(&self, ui: &mut Ui, own: &str) -> Asked {
        let mut asked = Asked::Nothing;
        if ui.selectable_label(own.is_empty(), "none").clicked() {
            asked = Asked::Clear;
        }
        for file in &self.files {
            let name = &file.reference.name;
            let entry = ui.add_enabled(file.problem.is_none(), egui::Button::selectable(own == name, name));
            let entry = match &file.problem {
                Some(problem) => entry.on_disabled_hover_text(problem),
                None => entry,
            };
            if entry.clicked() {
                asked = Asked::File(file.clone());
            }
        }
        if self.files.is_empty() {
            ui.label(RichText::new("None is beside the model, nor in your folder for it.").color(theme::QUIET));
        }
        asked
    }
}

fn note(ui: &mut Ui, text: &str, colour: egui::Color32) {
    ui.label(RichText::new(text).size(theme::SMALL).color(colour));
}
