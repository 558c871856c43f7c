//! Which directions a model has, and learning those that it lacks: what is learned, with how much effort, how far it is, and
//! directions as files. UI thread.

use egui::{RichText, Ui};
use tiller_engine::background::Kind;
use tiller_engine::control::PitchClass;
use tiller_engine::dataset::concepts::Concept;
use tiller_engine::learn::work::{self as learning, Effort, Known as Directions, Order, Place, Tones};
use tiller_engine::steering::class_set::ClassSet;

use crate::editor::choice::{named_row, option};
use crate::editor::desk::group;
use crate::editor::models::browse::{Browser, Wanted};
use crate::editor::models::shelf::Known;
use crate::editor::models::work::{Ends, work};
use crate::editor::models::{Page, shelf};
use crate::editor::theme;

/// What can be learned, as lanes are called.
const CONCEPTS: [(Concept, &str); 3] =
    [(Concept::Notes, "Notes"), (Concept::Chords, "Chords"), (Concept::Tempo, "Tempo")];

/// Directions as files.
#[derive(Default, PartialEq, Eq)]
enum Files {
    #[default]
    Closed,
    Import,
    Export,
}

/// What the tab remembers between repaints.
pub struct SteeringView {
    /// Beside [`CONCEPTS`].
    wanted: [bool; 3],
    notes: ClassSet,
    effort: Effort,
    files: Files,
    import: Browser,
    export: Browser,
}

impl Default for SteeringView {
    fn default() -> Self {
        Self {
            wanted: [true, false, false],
            notes: ClassSet::NOTES,
            effort: Effort::default(),
            files: Files::Closed,
            import: Browser::new(Wanted::Files(&["safetensors"])),
            export: Browser::new(Wanted::Folder),
        }
    }
}

impl SteeringView {
    /// Draws the tab.
    pub fn show(&mut self, ui: &mut Ui, page: Page<'_>, known: &Known) {
        group(ui, "What it can be steered to", |ui| {
            for (concept, name) in CONCEPTS {
                let own = known.directions.iter().filter(|own| own.lane.is_some() && own.name == concept.name());
                // More than one where what comes first lacks classes.
                let mut found = own.filter(|own| own.in_use || own.problem.is_some()).peekable();
                if found.peek().is_none() {
                    named_row(ui, name, |ui| _ = ui.label(RichText::new("not learned yet").color(theme::QUIET)));
                }
                for (place, own) in found.enumerate() {
                    named_row(ui, if place == 0 { name } else { "" }, |ui| {
                        ui.add_space(0.0);
                        described(ui, own);
                    });
                    if let Some(problem) = &own.problem {
                        ui.label(RichText::new(problem).size(theme::SMALL).color(theme::BAD));
                    }
                }
            }
            for own in known.directions.iter().filter(|own| own.lane.is_none()) {
                named_row(ui, "Trait", |ui| {
                    ui.add_space(0.0);
                    described(ui, own);
                });
            }
        });
        if known.entry.source.is_none() {
            group(ui, "", |ui| {
                let text = "Get the model first: it is listened to while it hears rendered music.";
                ui.label(RichText::new(text).color(theme::QUIET));
            });
            return;
        }
        group(ui, "Learn steering", |ui| self.learn(ui, page, known));
        group(ui, "Directions as files", |ui| self.files(ui, page, known));
    }

    fn learn(&mut self, ui: &mut Ui, page: Page<'_>, known: &Known) {
        let Some(source) = known.entry.source.clone() else { return };
        let background = &page.instance.background;
        let ends = Ends { pauses: true, stop: Some("Stop, go on later"), cancel: "Cancel" };
        if work(ui, background, Kind::Learn, &known.subject(), ends) {
            note(ui, "It takes only what playing leaves over. You can close the window.");
            return;
        }
        for order in page.known.unfinished.iter().filter(|order| order.source == source) {
            let names: Vec<String> = order.concepts.iter().map(|concept| asked(*concept, order.notes)).collect();
            ui.label(format!("Learning of {} was interrupted.", names.join(", ")));
            ui.horizontal(|ui| {
                if ui.button("Go on").clicked() {
                    begin(page, order.clone());
                }
                if ui.button("Forget it").clicked() {
                    let source = order.source.clone();
                    page.ask(move || {
                        learning::discard(&source);
                        Ok(())
                    });
                }
            });
        }
        named_row(ui, "What", |ui| {
            for ((_, name), wanted) in CONCEPTS.into_iter().zip(&mut self.wanted) {
                *wanted ^= option(ui, name, *wanted);
            }
        });
        if self.wanted[0] {
            self.notes(ui);
        }
        named_row(ui, "Effort", |ui| {
            for (effort, name) in [(Effort::Taste, "a taste"), (Effort::Quick, "quick"), (Effort::Full, "full")] {
                if option(ui, name, self.effort == effort) {
                    self.effort = effort;
                }
            }
        });
        note(
            ui,
            match self.effort {
                Effort::Taste => {
                    "Listens to three instruments: soon tells whether a large model can be steered, and steers it roughly."
                }
                Effort::Quick => "Listens to five instruments and compares what it heard.",
                Effort::Full => {
                    "Listens to 21 instruments and finds what tells notes apart best: four times as long and more."
                }
            },
        );
        let concepts: Vec<Concept> =
            CONCEPTS.into_iter().zip(self.wanted).filter(|(_, wanted)| *wanted).map(|(one, _)| one.0).collect();
        if ui.add_enabled(!concepts.is_empty(), egui::Button::new("Learn")).clicked() {
            let (notes, effort) = (self.notes, self.effort);
            begin(page, Order { source, concepts, notes, effort, tones: Tones::BuiltIn });
        }
    }

    /// Which of the notes: all, or those that are pressed.
    fn notes(&mut self, ui: &mut Ui) {
        let all = self.notes == ClassSet::NOTES;
        named_row(ui, "Which notes", |ui| {
            ui.spacing_mut().button_padding.x = 5.0;
            if option(ui, "all", all) {
                self.notes = ClassSet::NOTES;
            }
            for note in (0..12).filter_map(PitchClass::new) {
                if option(ui, note.name(), !all && self.notes.contains(note.index())) {
                    // The first one that is pressed is the only one; without the last one it is all again.
                    let before = if all { ClassSet::EMPTY } else { self.notes };
                    let after = before.toggled(note.index());
                    self.notes = if after.is_empty() { ClassSet::NOTES } else { after };
                }
            }
        });
        if !all {
            let percent = (100.0 * learning::share_of_listening(self.notes)).round();
            let chords = if self.wanted[1] { " Chords hear all twelve notes whatever is chosen here." } else { "" };
            let text = format!(
                "Hears {percent} % of what all twelve take: what a note is told from is heard too. Other notes that you have \
                 learned stay as they are.{chords}"
            );
            note(ui, &text);
        }
    }

    fn files(&mut self, ui: &mut Ui, page: Page<'_>, known: &Known) {
        ui.horizontal(|ui| {
            for (which, name) in [(Files::Import, "Import"), (Files::Export, "Export")] {
                let some = which == Files::Import || !known.directions.is_empty();
                let button = egui::Button::new(name).selected(self.files == which);
                if ui.add_enabled(some, button).clicked() {
                    self.files = if self.files == which { Files::Closed } else { which };
                }
            }
        });
        match self.files {
            Files::Closed => {}
            Files::Import => {
                let chosen = self.import.show(ui, page.clerk, "Directions of this model, .safetensors");
                if let (Some(source), false) = (known.entry.source.clone(), chosen.is_empty()) {
                    self.files = Files::Closed;
                    page.ask(move || shelf::import(&chosen, &source));
                }
            }
            Files::Export => {
                let chosen = self.export.show(ui, page.clerk, "Folder to write to");
                if let (Some(source), Some(folder)) = (known.entry.source.clone(), chosen.into_iter().next()) {
                    self.files = Files::Closed;
                    let all = known.directions.clone();
                    page.ask(move || shelf::export(&all, &source, &folder));
                }
            }
        }
    }
}

/// Where directions come from and how well they tell.
fn described(ui: &mut Ui, own: &Directions) {
    let place = match own.place {
        Place::Embedded => "built in",
        Place::Beside => "beside the model",
        Place::Own => "yours",
    };
    let some = own.lane.is_some_and(|lane| (1..lane.classes()).contains(&own.classes.len()));
    let text = match (&own.lane, &own.told) {
        (Some(_), told) if some => {
            let told = told.map_or_else(String::new, |told| format!(", {told}"));
            format!("{}: {place}{told}", own.classes.join(", "))
        }
        (None, Some(told)) => format!("{}, {place}, {told}", own.name),
        (None, None) => format!("{}, {place}", own.name),
        (Some(_), Some(told)) => format!("{place}, {told}"),
        (Some(_), None) => place.to_owned(),
    };
    let hint = own.path.as_ref().map_or_else(|| text.clone(), |path| path.display().to_string());
    ui.add(egui::Label::new(text).truncate()).on_hover_text(hint);
}

fn begin(page: Page<'_>, order: Order) {
    let background = page.instance.background.clone();
    page.ask(move || learning::begin(&background, order).map_err(|error| error.to_string()));
}

/// What an order is for, in a sentence.
fn asked(concept: Concept, notes: ClassSet) -> String {
    match concept {
        Concept::Notes if notes != ClassSet::NOTES => format!("the notes {}", notes.notes()),
        _ => concept.name().to_owned(),
    }
}

fn note(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).size(theme::SMALL).color(theme::QUIET));
}
