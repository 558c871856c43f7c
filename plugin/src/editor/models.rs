//! The page of models: which there are and what they take, downloads, trials, learning to steer them, the musician's own traits,
//! and where they play and are kept. UI thread; whatever touches the disk is done by the page's clerk, and what takes long by
//! the process's background.

mod about;
mod browse;
mod clerk;
mod device;
mod list;
mod own_trait;
mod paths;
mod shelf;
mod steering;
mod storage;
pub mod words;
mod work;

use std::sync::Arc;

use egui::{RichText, Ui};
use tiller_engine::background::{Kind, Report, Standing};
use tiller_engine::status::Status;

use crate::editor::choice::option;
use crate::editor::desk::group;
use crate::editor::models::about::About;
use crate::editor::models::browse::{Browser, Wanted};
use crate::editor::models::clerk::Clerk;
use crate::editor::models::device::{CoresView, DeviceView};
use crate::editor::models::own_trait::OwnTrait;
use crate::editor::models::shelf::{Known, Shelf, ShelfCell};
use crate::editor::models::steering::SteeringView;
use crate::editor::theme;
use crate::instance::Instance;

/// Narrower, the page has one column.
const TWO_COLUMNS: f32 = 760.0;
/// Share of the width that the list has.
const LIST: f32 = 0.42;

/// What is said of the chosen model.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Tab {
    #[default]
    About,
    Steering,
    OwnTrait,
}

/// What the page remembers between repaints.
pub struct ModelsPage {
    /// Runs from the page's first showing on.
    clerk: Option<Clerk>,
    shelf: ShelfCell,
    /// Key of the model that is spoken of; the one that plays, before anybody chose.
    chosen: Option<String>,
    tab: Tab,
    about: About,
    device: DeviceView,
    cores: CoresView,
    folder: Browser,
    steering: SteeringView,
    own: OwnTrait,
    /// Works and whether they were over when the shelf was looked through last.
    seen: Vec<(Kind, String, bool)>,
}

impl Default for ModelsPage {
    fn default() -> Self {
        Self {
            clerk: None,
            shelf: ShelfCell::default(),
            chosen: None,
            tab: Tab::About,
            about: About::default(),
            device: DeviceView::default(),
            cores: CoresView::default(),
            folder: Browser::new(Wanted::Folder),
            steering: SteeringView::default(),
            own: OwnTrait::default(),
            seen: Vec::new(),
        }
    }
}

/// What every part of the page works on.
#[derive(Clone, Copy)]
struct Page<'a> {
    instance: &'a Arc<Instance>,
    status: &'a Status,
    clerk: &'a Clerk,
    shelf: &'a ShelfCell,
    known: &'a Arc<Shelf>,
}

impl Page<'_> {
    /// Whether it is the project's model.
    fn plays(&self, known: &Known) -> bool {
        let project = self.instance.project.project();
        let path = project.model.map(|reference| reference.path).unwrap_or_default();
        known.is_at(&path)
    }

    /// Does something on the clerk's thread and looks the shelf through afterwards; what went wrong is said in the page.
    fn ask(&self, task: impl FnOnce() -> Result<(), String> + Send + 'static) {
        let shelf = self.shelf.clone();
        self.clerk.ask(move || {
            let said = task().err();
            shelf.look(said);
        });
    }
}

impl ModelsPage {
    /// Draws the page.
    pub fn show(&mut self, ui: &mut Ui, instance: &Arc<Instance>, status: &Status) {
        let first = self.clerk.is_none();
        let clerk = self.clerk.take().unwrap_or_else(|| {
            let context = ui.ctx().clone();
            Clerk::start(move || context.request_repaint())
        });
        let works: Vec<(Kind, String, bool)> = instance.background.reports().into_iter().map(seen).collect();
        if first || works.iter().any(|work| work.2 && !self.seen.contains(work)) {
            let shelf = self.shelf.clone();
            clerk.ask(move || shelf.look(None));
        }
        self.seen = works;
        let known = self.shelf.read();
        let page = Page { instance, status, clerk: &clerk, shelf: &self.shelf.clone(), known: &known };
        if ui.available_width() < TWO_COLUMNS {
            self.left(ui, page);
            self.right(ui, page);
        } else {
            let (whole, top, bottom) = (ui.available_width(), ui.cursor().min, ui.max_rect().bottom());
            let left = ((whole - theme::GAP) * LIST).round();
            let column = |ui: &mut Ui, from: f32, wide: f32, contents: &mut dyn FnMut(&mut Ui)| {
                let place =
                    egui::Rect::from_min_max(top + egui::vec2(from, 0.0), egui::pos2(top.x + from + wide, bottom));
                ui.scope_builder(egui::UiBuilder::new().max_rect(place), |ui| {
                    ui.set_width(wide);
                    contents(ui);
                });
            };
            let right = left + theme::GAP;
            column(ui, 0.0, left, &mut |ui| self.left(ui, page));
            column(ui, right, whole - right, &mut |ui| self.right(ui, page));
        }
        self.clerk = Some(clerk);
    }

    fn left(&mut self, ui: &mut Ui, page: Page<'_>) {
        group(ui, "Models", |ui| {
            let chosen = self.chosen(page).map(Known::key);
            if let Some(pressed) = list::list(ui, page, chosen.as_deref()) {
                self.chosen = Some(pressed);
                self.about.forget();
            }
            let added = self.folder.show(ui, page.clerk, "Folder of another model");
            if let Some(folder) = added.into_iter().next() {
                self.chosen = Some(folder.display().to_string());
                page.ask(move || shelf::remember(&folder));
            }
            if let Some(said) = &page.known.said {
                ui.label(RichText::new(said).size(theme::SMALL).color(theme::BAD));
            }
        });
        group(ui, "How models play", |ui| storage::playing(ui, page, &mut self.device, &mut self.cores));
        group(ui, "Kept on this machine", |ui| storage::kept(ui, page));
    }

    fn right(&mut self, ui: &mut Ui, page: Page<'_>) {
        let Some(known) = self.chosen(page).cloned() else {
            group(ui, "", |ui| _ = ui.label(RichText::new("Looking for models ...").color(theme::QUIET)));
            return;
        };
        group(ui, "", |ui| {
            ui.add(egui::Label::new(RichText::new(&known.entry.name).size(18.0)).truncate());
            ui.horizontal(|ui| {
                ui.spacing_mut().item_spacing.x = 2.0;
                let tabs = [(Tab::About, "About"), (Tab::Steering, "Steering"), (Tab::OwnTrait, "Your own trait")];
                for (tab, name) in tabs {
                    if option(ui, name, self.tab == tab) {
                        self.tab = tab;
                    }
                }
            });
        });
        match self.tab {
            Tab::About => self.about.show(ui, page, &known),
            Tab::Steering => self.steering.show(ui, page, &known),
            Tab::OwnTrait => self.own.show(ui, page, &known),
        }
    }

    /// The model that is spoken of.
    fn chosen<'a>(&self, page: Page<'a>) -> Option<&'a Known> {
        let models = &page.known.models;
        let asked = self.chosen.as_ref().and_then(|key| models.iter().find(|known| known.key() == *key));
        asked.or_else(|| models.iter().find(|known| page.plays(known))).or_else(|| models.first())
    }
}

/// What goes on beside playing, in a few words.
pub fn under_way(instance: &Instance) -> Option<String> {
    let going = |report: &Report| report.standing == Standing::Running;
    let report = instance.background.reports().into_iter().find(going)?;
    let verb = match report.kind {
        Kind::Download => "downloading",
        Kind::Trial => "testing",
        Kind::Learn => "learning to steer",
        Kind::Trait => "learning",
    };
    Some(format!("{verb} {}, {:.0} %", report.subject, (100.0 * words::part(&report)).floor()))
}

fn seen(report: Report) -> (Kind, String, bool) {
    (report.kind, report.subject, report.standing.is_over())
}
