//! The model's side of the page that steers: how far it is loaded, and what to do when it is missing. UI thread.

use egui::{Align, Key, Layout, Rect, RichText, Sense, TextEdit, Ui, vec2};
use tiller_engine::status::{State, Status};

use crate::editor::desk::Desk;
use crate::editor::draft::Draft;
use crate::editor::theme;
use crate::instance::Instance;
use crate::state::document::FileReference;

/// What is kept between repaints.
#[derive(Default)]
pub struct ModelView {
    folder: Draft,
}

/// The model's name: the project's word for it, or what the engine calls it.
pub fn name(instance: &Instance, status: &Status) -> String {
    match &instance.project.project().model {
        Some(reference) if !reference.name.is_empty() => reference.name.clone(),
        _ if status.model.is_empty() => "Built-in model".to_owned(),
        _ => status.model.clone(),
    }
}

impl ModelView {
    /// Whether [`ModelView::cover`] has something to say.
    pub fn covers(status: &Status) -> bool {
        status.state != State::Ready
    }

    /// What takes the picture's place while no model plays.
    pub fn cover(&mut self, ui: &mut Ui, desk: Desk<'_>, status: &Status) {
        let place = ui.max_rect();
        ui.painter().rect_filled(place, theme::ROUND, theme::PANEL);
        let inner = place.shrink2(vec2(16.0, 10.0));
        ui.scope_builder(egui::UiBuilder::new().max_rect(inner), |ui| {
            ui.spacing_mut().item_spacing.y = 5.0;
            match &status.state {
                State::Failed(why) => self.missing(ui, desk, status, why),
                state => loading(ui, &name(desk.instance, status), state),
            }
        });
    }

    fn missing(&mut self, ui: &mut Ui, desk: Desk<'_>, status: &Status, why: &str) {
        let title = format!("{} cannot be played", name(desk.instance, status));
        ui.label(RichText::new(title).size(18.0).color(theme::BAD));
        let room = (ui.available_height() - theme::ROW - 5.0).max(20.0);
        egui::ScrollArea::vertical().max_height(room).auto_shrink([false, true]).show(ui, |ui| {
            ui.label(why);
            ui.label(RichText::new("The project keeps its settings. Say where the model is:").color(theme::QUIET));
        });
        ui.horizontal(|ui| {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if ui.button("Use the built-in one").clicked() {
                    desk.instance.project.edit(|project| project.model = None);
                }
                self.folder_field(ui, desk);
            });
        });
    }

    /// The field with the model's folder and its button, from right to left.
    fn folder_field(&mut self, ui: &mut Ui, desk: Desk<'_>) {
        let project = desk.instance.project.project();
        self.folder.follow(project.model.as_ref().map_or("", |reference| reference.path.as_str()));
        let changed = self.folder.is_changed();
        let retry = !changed && project.model.is_some();
        let button = egui::Button::new(if retry { "Load again" } else { "Load" });
        let pressed = ui.add_enabled(changed || retry, button).clicked();
        let edit = ui.add(
            TextEdit::singleline(&mut self.folder.typed)
                .hint_text("Folder of a MusicGen model; empty: built-in")
                .margin(vec2(6.0, 4.0))
                .desired_width(f32::INFINITY),
        );
        let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        if retry && (pressed || entered) {
            desk.instance.reload();
        } else if changed && (pressed || entered) {
            let path = self.folder.typed.trim().to_owned();
            desk.instance.project.edit(|project| {
                project.model = (!path.is_empty()).then(|| FileReference::to_path(&path));
            });
        }
    }
}

fn loading(ui: &mut Ui, name: &str, state: &State) {
    let (title, part) = match state {
        State::Loading(percent) => (format!("Loading {name}, {percent} %"), f32::from(*percent) / 100.0),
        State::Warming => (format!("{name} plays its first notes to itself"), 1.0),
        State::Locating => (format!("Looking for {name}"), 0.0),
        _ => ("The model is loaded when the host starts its audio".to_owned(), 0.0),
    };
    let spare = (ui.available_height() - 70.0).max(0.0) / 2.0;
    ui.add_space(spare);
    ui.label(RichText::new(title).size(18.0));
    progress(ui, part);
    ui.label(RichText::new("Silent until then. Prompt, targets and lanes can be set already.").color(theme::QUIET));
}

/// A bar, filled as far as `part`, 0 to 1.
pub fn progress(ui: &mut Ui, part: f32) {
    let (place, _) = ui.allocate_exact_size(vec2(ui.available_width(), 8.0), Sense::hover());
    ui.painter().rect_filled(place, theme::ROUND, theme::WELL);
    let filled = Rect::from_min_size(place.min, vec2(place.width() * part.clamp(0.0, 1.0), place.height()));
    ui.painter().rect_filled(filled, theme::ROUND, theme::TEXT);
}

/// A small round light.
pub fn light(ui: &mut Ui, colour: egui::Color32) {
    let (place, _) = ui.allocate_exact_size(vec2(10.0, 18.0), Sense::hover());
    ui.painter().circle_filled(place.center(), 4.5, colour);
}
