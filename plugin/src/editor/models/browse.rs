//! A look into the user's folders, for a window that has no file dialog of the system's: hosts show none for a plugin. UI thread;
//! folders are read by the page's clerk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use egui::{Align, Key, Layout, RichText, ScrollArea, TextEdit, Ui, vec2};
use parking_lot::Mutex;

use crate::editor::models::clerk::Clerk;
use crate::editor::models::paths;
use crate::editor::theme;

/// Most entries of a folder that are shown.
const MOST: usize = 2_000;
const HEIGHT: f32 = 132.0;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A folder.
    Folder,
    /// Files whose names end so; a folder stands for all of its files.
    Files(&'static [&'static str]),
}

impl Wanted {
    fn takes(self, path: &Path) -> bool {
        let extension = path.extension().map(|own| own.to_string_lossy().to_ascii_lowercase());
        matches!((self, extension), (Self::Files(known), Some(own)) if known.contains(&own.as_str()))
    }
}

#[derive(Default)]
struct Listing {
    folder: PathBuf,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    problem: Option<String>,
}

impl Listing {
    fn read(folder: PathBuf, wanted: Wanted) -> Self {
        let read = match std::fs::read_dir(&folder) {
            Ok(read) => read,
            Err(error) => {
                let problem = Some(format!("{} cannot be read: {error}.", folder.display()));
                return Self { folder, problem, ..Self::default() };
            }
        };
        let hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let mut all: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).filter(|path| !hidden(path)).collect();
        all.sort();
        let (folders, files): (Vec<_>, Vec<_>) = all.into_iter().partition(|path| path.is_dir());
        let files = files.into_iter().filter(|path| wanted.takes(path)).take(MOST).collect();
        Self { folder, folders: folders.into_iter().take(MOST).collect(), files, problem: None }
    }
}

/// A field for a path with a button that opens the look. Each has a place of its own in the page.
pub struct Browser {
    wanted: Wanted,
    typed: String,
    open: bool,
    listing: Arc<Mutex<Listing>>,
}

impl Browser {
    /// Looks for this.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, typed: String::new(), open: false, listing: Arc::default() }
    }

    /// Draws field, button and, while it is open, the folder. Gives what was chosen just now: paths that were typed, pasted or
    /// clicked, a folder for all of its files.
    pub fn show(&mut self, ui: &mut Ui, clerk: &Clerk, hint: &str) -> Vec<PathBuf> {
        self.show_beside(ui, clerk, hint, &[])
    }

    /// The same beside what was chosen before, which is marked: one file after the other is clicked while the look stays open.
    pub fn show_beside(&mut self, ui: &mut Ui, clerk: &Clerk, hint: &str, taken: &[PathBuf]) -> Vec<PathBuf> {
        let mut chosen = Vec::new();
        let row = vec2(ui.available_width(), theme::ROW);
        ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
            if ui.add(egui::Button::new("Browse").selected(self.open)).clicked() {
                self.open = !self.open;
                if self.open {
                    let known = self.listing.lock().folder.clone();
                    let home = || std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
                    let first = if known.as_os_str().is_empty() { home().map(PathBuf::from) } else { Some(known) };
                    self.look(clerk, first.unwrap_or_else(|| PathBuf::from("/")));
                }
            }
            let ready = !self.typed.trim().is_empty();
            let pressed = ui.add_enabled(ready, egui::Button::new("Add")).clicked();
            let field = TextEdit::singleline(&mut self.typed).hint_text(hint).margin(vec2(6.0, 4.0));
            let edit = ui.add(field.desired_width(f32::INFINITY));
            // A field of one line would make one path of several.
            let pasted = edit.has_focus().then(|| ui.input(|input| input.events.iter().find_map(pasted))).flatten();
            let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if let Some(pasted) = pasted {
                chosen = paths::paths(&pasted);
                self.typed.clear();
            } else if ready && (pressed || entered) {
                chosen.extend(paths::path(&self.typed));
                self.typed.clear();
            }
        });
        if self.open {
            self.folder(ui, clerk, taken, &mut chosen);
        }
        chosen
    }

    fn look(&self, clerk: &Clerk, folder: PathBuf) {
        let (listing, wanted) = (self.listing.clone(), self.wanted);
        clerk.ask(move || {
            let read = Listing::read(folder, wanted);
            *listing.lock() = read;
        });
    }

    fn folder(&mut self, ui: &mut Ui, clerk: &Clerk, taken: &[PathBuf], chosen: &mut Vec<PathBuf>) {
        let listing = self.listing.clone();
        let listing = listing.lock();
        let mut next = None;
        let row = vec2(ui.available_width(), theme::ROW);
        ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
            let all = if self.wanted == Wanted::Folder { "Add this folder" } else { "Add all here" };
            let some = self.wanted == Wanted::Folder || !listing.files.is_empty();
            if ui.add_enabled(some, egui::Button::new(all)).clicked() {
                chosen.push(listing.folder.clone());
                self.open = self.wanted != Wanted::Folder;
            }
            if ui.add_enabled(listing.folder.parent().is_some(), egui::Button::new("Up")).clicked() {
                next = listing.folder.parent().map(Path::to_owned);
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                let text = RichText::new(listing.folder.display().to_string()).color(theme::QUIET);
                ui.add(egui::Label::new(text).truncate());
            });
        });
        let frame = egui::Frame::new().fill(theme::GROUND).corner_radius(theme::ROUND).inner_margin(4.0);
        frame.show(ui, |ui| {
            let scroll = ScrollArea::vertical().id_salt("folder").max_height(HEIGHT).min_scrolled_height(HEIGHT);
            scroll.auto_shrink([false, true]).show(ui, |ui| {
                ui.spacing_mut().item_spacing.y = 1.0;
                if let Some(problem) = &listing.problem {
                    ui.label(RichText::new(problem).color(theme::BAD));
                }
                for (path, is_folder) in listing
                    .folders
                    .iter()
                    .map(|path| (path, true))
                    .chain(listing.files.iter().map(|path| (path, false)))
                {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let text = if is_folder { format!("{name}/") } else { name.into_owned() };
                    let here = taken.contains(path);
                    let (fill, ink) =
                        if here { (theme::LINE, theme::QUIET) } else { (egui::Color32::TRANSPARENT, theme::TEXT) };
                    let button = egui::Button::new(RichText::new(text).color(ink)).truncate().fill(fill);
                    if ui.add_enabled(!here, button).clicked() {
                        match is_folder {
                            true => next = Some(path.clone()),
                            false => chosen.push(path.clone()),
                        }
                    }
                }
                if listing.problem.is_none() && listing.folders.is_empty() && listing.files.is_empty() {
                    let nothing =
                        if self.wanted == Wanted::Folder { "No folder is here." } else { "Nothing to add is here." };
                    ui.label(RichText::new(nothing).size(theme::SMALL).color(theme::QUIET));
                }
            });
        });
        drop(listing);
        if let Some(next) = next {
            self.look(clerk, next);
        }
    }
}

/// A text of several lines that came in one piece. egui-baseview hands what is pasted over as text.
fn pasted(event: &egui::Event) -> Option<String> {
    match event {
        egui::Event::Paste(text) | egui::Event::Text(text) if text.trim().contains('\n') => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_the_wanted_files_are_listed() {
        let folder = std::env::temp_dir().join(format!("tiller-browse-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("deep")).expect("made");
        for name in ["a.WAV", "b.flac", "c.txt", ".hidden.wav"] {
            std::fs::write(folder.join(name), "").expect("written");
        }
        let names = |wanted| {
            let listing = Listing::read(folder.clone(), wanted);
            let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
            listing.folders.iter().chain(&listing.files).filter_map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(Wanted::Files(&["wav", "flac"])), ["deep", "a.WAV", "b.flac"]);
        assert_eq!(names(Wanted::Folder), ["deep"]);
        assert!(Listing::read(folder.join("gone"), Wanted::Folder).problem.is_some_and(|why| why.contains("gone")));
        std::fs::remove_dir_all(folder).expect("cleaned");
    }
}
