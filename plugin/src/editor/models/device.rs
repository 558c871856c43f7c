//! Where models play, how exactly they are kept (choices of the project) and on how many cores (the machine's). UI thread; cards
//! are looked for on a thread of its own, since a driver takes its time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;

use egui::{RichText, Ui};
use parking_lot::Mutex;
use tiller_engine::backend::Device;
use tiller_engine::backend::gpu::Gpu;
use tiller_engine::cores;
use tiller_engine::precision::Precision;
use tiller_engine::status::Status;

use crate::editor::choice::{named_row, option};
use crate::editor::models::words;
use crate::editor::theme;
use crate::instance::Instance;

/// What is known of this machine's cards.
#[derive(Clone, Default)]
enum Cards {
    #[default]
    Unknown,
    Looking,
    /// Each with its number and how it is described, or why there are none.
    Found(Result<Vec<(u32, String)>, String>),
}

/// What is kept between repaints.
#[derive(Default)]
pub struct DeviceView {
    cards: Arc<Mutex<Cards>>,
    /// The thread that looks for cards. It is waited for: hosts unload the code that it runs.
    looking: Option<JoinHandle<()>>,
}

impl Drop for DeviceView {
    fn drop(&mut self) {
        if let Some(looking) = self.looking.take() {
            let _ = looking.join();
        }
    }
}

impl DeviceView {
    /// The row with the choice of where models play.
    pub fn show(&mut self, ui: &mut Ui, instance: &Instance, status: &Status) {
        let chosen = instance.project.project().device;
        let mut wanted = chosen;
        named_row(ui, "Plays on", |ui| {
            let cards = self.cards.lock().clone();
            let shown = match (&cards, chosen) {
                (Cards::Found(Ok(found)), Device::Gpu(number)) => found
                    .iter()
                    .find(|card| card.0 == number)
                    .map_or_else(|| chosen_name(chosen), |card| card.1.clone()),
                (_, Device::Auto) if !status.device.is_empty() => format!("auto: {}", status.device),
                _ => chosen_name(chosen),
            };
            let menu = egui::ComboBox::from_id_salt("device").width(ui.available_width() - 8.0).selected_text(shown);
            let shown = menu.show_ui(ui, |ui| {
                ui.selectable_value(&mut wanted, Device::Auto, "auto: a GPU for large models, if there is one");
                ui.selectable_value(&mut wanted, Device::Cpu, "CPU");
                match &cards {
                    Cards::Found(Ok(found)) => {
                        for (number, text) in found {
                            ui.selectable_value(&mut wanted, Device::Gpu(*number), text);
                        }
                        if found.is_empty() {
                            ui.label(RichText::new("No GPU was found.").color(theme::QUIET));
                        }
                    }
                    Cards::Found(Err(why)) => {
                        ui.set_max_width(420.0);
                        ui.label(RichText::new(format!("No GPU: {why}")).color(theme::QUIET));
                    }
                    Cards::Unknown | Cards::Looking => {
                        ui.label(RichText::new("Looking for GPUs ...").color(theme::QUIET));
                    }
                }
            });
            if shown.response.clicked() {
                self.look(ui.ctx());
            }
        });
        if wanted != chosen {
            instance.project.edit(|project| project.device = wanted);
        }
    }

    /// Asks the driver, elsewhere. Free memory is that of the moment, so it is asked each time that the menu is opened.
    fn look(&mut self, context: &egui::Context) {
        if matches!(*self.cards.lock(), Cards::Looking) {
            return;
        }
        *self.cards.lock() = Cards::Looking;
        let (cards, context) = (self.cards.clone(), context.clone());
        let body = move || {
            let found = Gpu::all();
            let text = |gpu: Gpu| (gpu.number(), gpu.to_string());
            let found = found.map(|found| found.into_iter().map(text).collect()).map_err(|error| error.to_string());
            *cards.lock() = Cards::Found(found);
            context.request_repaint();
        };
        match std::thread::Builder::new().name("tiller-cards".to_owned()).spawn(body) {
            Ok(looking) => {
                if let Some(before) = self.looking.replace(looking) {
                    // It has said what it found, so it is at its end.
                    let _ = before.join();
                }
            }
            Err(error) => *self.cards.lock() = Cards::Found(Err(format!("the system gave no thread ({error})"))),
        }
    }
}

fn chosen_name(device: Device) -> String {
    match device {
        Device::Auto => "auto".to_owned(),
        Device::Cpu => "CPU".to_owned(),
        Device::Gpu(number) => format!("GPU {number}"),
    }
}

/// How exactly the model is kept: a choice of the project, since another one is loaded anew.
pub fn precision(ui: &mut Ui, instance: &Instance) {
    let chosen = instance.project.project().precision;
    let mut wanted = chosen;
    named_row(ui, "Weights", |ui| {
        for one in [None].into_iter().chain(Precision::ALL.map(Some)) {
            if option(ui, words::bits(one), one == chosen) {
                wanted = one;
            }
        }
    });
    if wanted != chosen {
        instance.project.edit(|project| project.precision = wanted);
    }
}

/// What the user chose for this machine, read once.
pub struct CoresView {
    chosen: Option<NonZeroUsize>,
    /// Why the choice was not kept.
    problem: Option<String>,
}

impl Default for CoresView {
    fn default() -> Self {
        Self { chosen: cores::chosen(), problem: None }
    }
}

impl CoresView {
    /// The row with the number of threads that a large model plays on.
    pub fn show(&mut self, ui: &mut Ui) {
        let chosen = self.chosen;
        let mut wanted = chosen;
        let name = |threads: Option<NonZeroUsize>| match threads {
            None => format!("auto: {}", cores::used(None)),
            Some(threads) => cores::used(Some(threads)).to_string(),
        };
        named_row(ui, "CPU threads", |ui| {
            let menu = egui::ComboBox::from_id_salt("cores").width(96.0).selected_text(name(chosen));
            let hint = "Takes effect at once, in every Tiller that plays on this machine's processor in this host. Fewer leave \
                        more to other plugins; more than the memory feeds do not help.";
            let shown = menu.show_ui(ui, |ui| {
                for threads in std::iter::once(None).chain((1..=cores::most()).map(NonZeroUsize::new)) {
                    ui.selectable_value(&mut wanted, threads, name(threads));
                }
            });
            shown.response.on_hover_text(hint);
        });
        if wanted != chosen {
            self.chosen = wanted;
            self.problem = cores::choose(wanted).err().map(|why| format!("This is not kept for the next time: {why}."));
        }
        if let Some(problem) = &self.problem {
            ui.label(RichText::new(problem).size(theme::SMALL).color(theme::BAD));
        }
    }
}
