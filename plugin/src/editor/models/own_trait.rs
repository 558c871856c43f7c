//! A trait from the musician's own audio: sound that has it in one box, sound that has it not in the other. UI thread.

use std::path::PathBuf;
use std::sync::Arc;

use egui::{Align, Layout, RichText, ScrollArea, TextEdit, Ui, vec2};
use parking_lot::Mutex;
use tiller_engine::background::{Kind, Standing};
use tiller_engine::control::TRAITS;
use tiller_engine::learn::work::{self as learning, TraitOrder};
use tiller_engine::steering::trait_files;

use crate::editor::choice::named_row;
use crate::editor::desk::group;
use crate::editor::models::browse::{Browser, Wanted};
use crate::editor::models::shelf::Known;
use crate::editor::models::work::{Ends, work};
use crate::editor::models::{Page, shelf};
use crate::editor::theme;

/// Height of a box's list.
const HEIGHT: f32 = 92.0;
/// Longest name, in characters: it becomes a part of a file's.
const LONGEST: usize = 40;

/// One of the boxes.
struct Side {
    title: &'static str,
    files: Arc<Mutex<Vec<PathBuf>>>,
    browser: Browser,
}

impl Side {
    fn new(title: &'static str) -> Self {
        Self { title, files: Arc::default(), browser: Browser::new(Wanted::Files(&["wav", "flac"])) }
    }

    fn show(&mut self, ui: &mut Ui, page: Page<'_>) {
        ui.push_id(self.title, |ui| {
            let mut files = self.files.lock();
            let count = if files.is_empty() { String::new() } else { format!(", {}", files.len()) };
            ui.label(RichText::new(format!("{}{count}", self.title)).size(theme::SMALL).color(theme::QUIET));
            let frame = egui::Frame::new().fill(theme::GROUND).corner_radius(theme::ROUND).inner_margin(4.0);
            frame.show(ui, |ui| {
                ui.set_min_height(HEIGHT);
                let scroll = ScrollArea::vertical().id_salt("files").max_height(HEIGHT).min_scrolled_height(HEIGHT);
                scroll.auto_shrink([false, true]).show(ui, |ui| {
                    ui.spacing_mut().item_spacing.y = 1.0;
                    let mut removed = None;
                    for (index, file) in files.iter().enumerate() {
                        let row = vec2(ui.available_width(), theme::ROW);
                        ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
                            if ui.small_button("Remove").clicked() {
                                removed = Some(index);
                            }
                            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                                let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
                                let text = RichText::new(name).size(theme::SMALL);
                                ui.add(egui::Label::new(text).truncate()).on_hover_text(file.display().to_string());
                            });
                        });
                    }
                    if let Some(index) = removed {
                        files.remove(index);
                    }
                    if files.is_empty() {
                        let text = "WAV or FLAC; three files or more say it better than one. Copy files in the file manager and \
                                    paste them below, or browse and click one after the other.";
                        // Columns would stretch its lines.
                        ui.with_layout(Layout::top_down(Align::LEFT), |ui| {
                            ui.label(RichText::new(text).size(theme::SMALL).color(theme::QUIET));
                        });
                    }
                });
            });
            let taken = files.clone();
            drop(files);
            let added = self.browser.show_beside(ui, page.clerk, "Files or a folder", &taken);
            if !added.is_empty() {
                let files = self.files.clone();
                page.ask(move || shelf::add_sounds(&added, &files));
            }
        });
    }
}

/// What the tab remembers between repaints.
pub struct OwnTrait {
    name: String,
    sides: [Side; 2],
    /// Name of the trait that was learned last, and the model that it is for.
    last: Option<(String, String)>,
}

impl Default for OwnTrait {
    fn default() -> Self {
        Self { name: String::new(), sides: [Side::new("With it"), Side::new("Without it")], last: None }
    }
}

impl OwnTrait {
    /// Draws the tab.
    pub fn show(&mut self, ui: &mut Ui, page: Page<'_>, known: &Known) {
        group(ui, "A trait from your audio", |ui| {
            let Some(source) = known.entry.source.clone() else {
                ui.label(
                    RichText::new("Get the model first: it listens to your audio to learn from it.")
                        .color(theme::QUIET),
                );
                return;
            };
            let background = &page.instance.background;
            named_row(ui, "Name", |ui| {
                let field = TextEdit::singleline(&mut self.name).hint_text("bright, breathy, ...").char_limit(LONGEST);
                ui.add(field.margin(vec2(6.0, 4.0)).desired_width(f32::INFINITY));
            });
            let [with, without] = &mut self.sides;
            if ui.available_width() > 400.0 {
                ui.columns(2, |columns| {
                    with.show(&mut columns[0], page);
                    without.show(&mut columns[1], page);
                });
            } else {
                with.show(ui, page);
                without.show(ui, page);
            }
            let name = self.name.trim().to_owned();
            let sides = [with, without].map(|side| side.files.lock().clone());
            let missing = if trait_files::check_name(&name).is_err() {
                "A name of letters, digits, spaces, - and _, and sound in both boxes."
            } else if sides.iter().any(Vec::is_empty) {
                "Sound in both boxes."
            } else {
                ""
            };
            let subject = self.last.clone().filter(|(_, key)| *key == known.key()).map(|(name, _)| name);
            let report = subject.as_ref().and_then(|name| background.report(Kind::Trait, name));
            let running = report.as_ref().is_some_and(|report| !report.standing.is_over());
            if !running {
                ui.horizontal(|ui| {
                    if ui.add_enabled(missing.is_empty(), egui::Button::new("Learn it")).clicked() {
                        let [with, without] = sides;
                        let order = TraitOrder { source, name: name.clone(), with, without };
                        self.last = Some((name, known.key()));
                        let background = background.clone();
                        page.ask(move || learning::begin_trait(&background, order).map_err(|error| error.to_string()));
                    }
                    ui.label(RichText::new(missing).size(theme::SMALL).color(theme::QUIET));
                });
            }
            let Some(subject) = subject else { return };
            if let Some(Standing::Done(_)) = report.map(|report| report.standing) {
                lanes(ui, page, known, &subject);
            }
            work(ui, background, Kind::Trait, &subject, Ends { pauses: true, stop: None, cancel: "Cancel" });
        });
        group(ui, "", |ui| {
            let text = "The model hears four seconds at a time and looks for what tells the two boxes apart. A part of the \
                        sound is kept back and guessed at in the end: how often that is right is the trait's score.";
            ui.label(RichText::new(text).size(theme::SMALL).color(theme::QUIET));
        });
    }
}

/// Where the trait goes.
fn lanes(ui: &mut Ui, page: Page<'_>, known: &Known, name: &str) {
    if !page.plays(known) {
        ui.label(RichText::new("Play this model to put the trait on one of its lanes.").color(theme::QUIET));
        return;
    }
    named_row(ui, "Put on lane", |ui| {
        let project = page.instance.project.project();
        for slot in 0..TRAITS {
            let here = project.traits[slot].as_ref().is_some_and(|file| file.name == name);
            let text = RichText::new(format!("{}", slot + 1));
            let hint = project.traits[slot].as_ref().map_or("free".to_owned(), |file| format!("has \"{}\"", file.name));
            if ui.add(egui::Button::new(text).selected(here)).on_hover_text(hint).clicked() {
                let (instance, name) = (page.instance.clone(), name.to_owned());
                page.ask(move || {
                    let files = instance.handle.trait_files();
                    let file = files.into_iter().find(|file| file.reference.name == name && file.problem.is_none());
                    let file =
                        file.ok_or("The trait's file is gone, or the model is still loading: try again then.")?;
                    instance.assign_trait(slot, Some(&file));
                    Ok(())
                });
            }
        }
    });
}
