//! The standalone application's page of audio and MIDI devices. The application knows the devices, this draws them. UI thread.

use egui::{RichText, Ui};

use crate::editor::choice::{named_row, option};
use crate::editor::desk::group;
use crate::editor::theme;
use crate::status_line::StatusLine;

/// What the musician chose. `None` is the system's own choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The audio output.
    pub output: Output,
    /// Samples per second.
    pub rate: Option<u32>,
    /// Samples per block.
    pub block: Option<u32>,
    /// MIDI input by name; every input that there is, if `None`.
    pub midi: Midi,
}

/// Where the sound goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Where the system sends sound.
    #[default]
    Default,
    /// To no device: it is played into nothing, at the pace of the clock.
    None,
    /// To a device by name.
    Device(String),
}

/// What is listened to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Midi {
    /// Every input there is.
    #[default]
    All,
    /// Nothing.
    None,
    /// One input by name.
    Input(String),
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Audio outputs by name.
    pub outputs: Vec<String>,
    /// MIDI inputs by name.
    pub inputs: Vec<String>,
}

/// The application's devices. Every call returns at once.
pub trait Devices: Send + Sync {
    /// What there is, as last looked for.
    fn lists(&self) -> Lists;
    /// Looks again.
    fn look(&self);
    /// What is chosen.
    fn chosen(&self) -> Chosen;
    /// Chooses, and remembers it.
    fn choose(&self, chosen: Chosen);
    /// How it goes.
    fn line(&self) -> StatusLine;
}

/// Wider, names and choices would lie far apart.
const WIDTH: f32 = 680.0;
const RATES: [u32; 4] = [44_100, 48_000, 88_200, 96_000];
const BLOCKS: [u32; 5] = [64, 128, 256, 512, 1_024];

/// Draws the page.
pub fn devices(ui: &mut Ui, devices: &dyn Devices) {
    let (lists, chosen) = (devices.lists(), devices.chosen());
    let mut wanted = chosen.clone();
    ui.set_max_width(WIDTH);
    group(ui, "Sound", |ui| {
        named_row(ui, "Output", |ui| {
            let shown = match &wanted.output {
                Output::Default => "the system's own choice",
                Output::None => "none",
                Output::Device(name) => name,
            };
            let menu = egui::ComboBox::from_id_salt("output").width(ui.available_width() - 8.0).selected_text(shown);
            menu.show_ui(ui, |ui| {
                ui.selectable_value(&mut wanted.output, Output::Default, "the system's own choice");
                for name in lists.outputs {
                    ui.selectable_value(&mut wanted.output, Output::Device(name.clone()), name);
                }
                ui.selectable_value(&mut wanted.output, Output::None, "none");
            });
        });
        numbers(ui, "Sample rate", &RATES, &mut wanted.rate, |rate| format!("{:.1} kHz", f64::from(rate) / 1e3));
        numbers(ui, "Block", &BLOCKS, &mut wanted.block, |block| block.to_string());
        let line = devices.line();
        ui.horizontal(|ui| {
            crate::editor::model::light(ui, theme::tone(line.tone));
            ui.add(egui::Label::new(RichText::new(line.text).color(theme::QUIET)).wrap());
        });
    });
    group(ui, "MIDI", |ui| {
        named_row(ui, "Input", |ui| {
            let shown = match &wanted.midi {
                Midi::All => "every one that is there",
                Midi::None => "none",
                Midi::Input(name) => name,
            };
            let menu = egui::ComboBox::from_id_salt("midi").width(ui.available_width() - 8.0).selected_text(shown);
            menu.show_ui(ui, |ui| {
                ui.selectable_value(&mut wanted.midi, Midi::All, "every one that is there");
                for name in &lists.inputs {
                    ui.selectable_value(&mut wanted.midi, Midi::Input(name.clone()), name);
                }
                ui.selectable_value(&mut wanted.midi, Midi::None, "none");
            });
        });
        let there = match lists.inputs.as_slice() {
            [] => "No MIDI input is connected.".to_owned(),
            inputs => format!("Connected: {}.", inputs.join(", ")),
        };
        ui.label(RichText::new(there).size(theme::SMALL).color(theme::QUIET));
    });
    if ui.button("Look for devices again").clicked() {
        devices.look();
    }
    if wanted != chosen {
        devices.choose(wanted);
    }
}

fn numbers(ui: &mut Ui, name: &str, all: &[u32], chosen: &mut Option<u32>, text: impl Fn(u32) -> String) {
    named_row(ui, name, |ui| {
        if option(ui, "auto", chosen.is_none()) {
            *chosen = None;
        }
        for one in all {
            if option(ui, &text(*one), *chosen == Some(*one)) {
                *chosen = Some(*one);
            }
        }
    });
}
