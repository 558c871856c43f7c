//! What the window shows, top to bottom: model, prompt, note keys, chord pad, what all lanes share, sampling and output, status. UI thread;
//! nothing here waits for the engine.

use std::sync::Arc;
use std::time::Duration;

use egui::{Align, Color32, Context, CornerRadius, Frame, Key, Layout, Margin, RichText, TextEdit, Ui, vec2};
use nice_plug::context::gui::{GuiContext, ParamSetter};
use nice_plug::params::enums::{Enum, EnumParam};
use nice_plug::prelude::Param;
use nice_plug_egui::baseview::{HandlerError, WindowSize};
use nice_plug_egui::{NiceEguiApp, resizable_window::ResizableWindow};
use std::sync::atomic::Ordering;
use tiller_engine::precision::Precision;

use crate::controllers::Learnable;
use crate::editor::meter::Meter;
use crate::editor::preset_menu::PresetMenu;
use crate::editor::{chords, keys, learning, slider, theme};
use crate::instance::Instance;
use crate::params::TillerParams;
use crate::state::document::{FileReference, LONGEST_PROMPT};
use crate::status_line::{Readings, model_line, status_line};

/// Repaints while something moves, and while nothing does.
const LIVELY: Duration = Duration::from_millis(33);
const CALM: Duration = Duration::from_millis(500);

/// Height of the note keys in a window of the default size; what is to spare goes to them.
const KEYS: f32 = 92.0;
/// Height of everything between header and status at that.
const CONTENTS: f32 = 650.0;

/// The contents of one window.
pub struct App {
    instance: Arc<Instance>,
    params: Arc<TillerParams>,
    context: Option<GuiContext>,
    prompt: Draft,
    model: Draft,
    meter: Meter,
    presets: PresetMenu,
    /// As it was drawn last: long messages take several lines.
    footer_height: f32,
}

/// A text being typed, and the text that the project had when it was last looked at.
#[derive(Default)]
struct Draft {
    typed: String,
    seen: String,
}

impl Draft {
    /// Takes the project's text over when that has changed: a loaded project wins over half a line.
    fn follow(&mut self, project: &str) {
        if self.seen != project {
            project.clone_into(&mut self.seen);
            project.clone_into(&mut self.typed);
        }
    }

    fn is_changed(&self) -> bool {
        self.typed.trim() != self.seen.trim()
    }
}

impl App {
    /// The meter starts with what sounds from now on.
    pub fn new(instance: Arc<Instance>, params: Arc<TillerParams>) -> Self {
        let _before_the_window = instance.meters.take_peaks();
        Self {
            instance,
            params,
            context: None,
            prompt: Draft::default(),
            model: Draft::default(),
            meter: Meter::default(),
            presets: PresetMenu::default(),
            footer_height: 24.0,
        }
    }

    fn show(&mut self, ui: &mut Ui, setter: &ParamSetter<'_>) {
        let readings = self.instance.readings();
        let seconds = ui.input(|input| input.stable_dt).min(0.5);
        self.meter.feed(readings.peak, seconds);
        learning::settle(&self.instance);
        self.header(ui);
        // What does not fit scrolls; the status below is always in sight.
        let room = (ui.available_height() - self.footer_height - 8.0).max(60.0);
        let spare = (room - CONTENTS).clamp(0.0, 120.0);
        egui::ScrollArea::vertical().max_height(room).auto_shrink(false).show(ui, |ui| {
            group(ui, "Prompt", |ui| self.prompt_row(ui, setter));
            let params = self.params.clone();
            ui.columns(2, |columns| {
                group(&mut columns[0], "Steer to a note", |ui| {
                    keys::keys(ui, &params, setter, readings.target, KEYS + spare);
                    learning::menu(
                        &slider::slider(ui, &params.note_strength, setter, theme::STEER),
                        Learnable::NoteStrength,
                        &self.instance,
                    );
                });
                group(&mut columns[1], "Steer to a chord", |ui| {
                    chords::chords(ui, &params, setter, readings.target.chord, KEYS + spare);
                    learning::menu(
                        &slider::slider(ui, &params.chord_strength, setter, theme::STEER),
                        Learnable::ChordStrength,
                        &self.instance,
                    );
                });
            });
            group(ui, "All lanes", |ui| {
                ui.spacing_mut().item_spacing.x = 2.0 * theme::GAP;
                ui.columns(2, |columns| {
                    learning::menu(
                        &slider::slider(&mut columns[0], &params.strength, setter, theme::STEER),
                        Learnable::Strength,
                        &self.instance,
                    );
                    learning::menu(
                        &slider::slider(&mut columns[1], &params.tempo_strength, setter, theme::STEER),
                        Learnable::TempoStrength,
                        &self.instance,
                    );
                    learning::menu(
                        &slider::slider(&mut columns[0], &params.attack, setter, theme::STEER),
                        Learnable::Attack,
                        &self.instance,
                    );
                    learning::menu(
                        &slider::slider(&mut columns[1], &params.release, setter, theme::STEER),
                        Learnable::Release,
                        &self.instance,
                    );
                    chooser(&mut columns[0], &params.quantise, setter);
                    self.key_settings(&mut columns[1]);
                });
            });
            ui.columns(2, |columns| {
                group(&mut columns[0], "Sampling", |ui| sampling(ui, &params, setter, &self.instance));
                group(&mut columns[1], "Output", |ui| self.output(ui, setter, &readings));
            });
        });
        self.footer_height = ui.scope(|ui| self.footer(ui, &readings)).response.rect.height();
        let moves = readings.sounding || !self.meter.at_rest() || !self.instance.handle.status().state.is_settled();
        ui.ctx().request_repaint_after(if moves { LIVELY } else { CALM });
    }

    fn header(&mut self, ui: &mut Ui) {
        let status = self.instance.handle.status();
        ui.horizontal(|ui| {
            ui.label(RichText::new("Tiller").heading().strong());
            ui.add_space(theme::GAP);
            let model = model_line(&status.state);
            light(ui, theme::tone(model.tone));
            let project = self.instance.project.project();
            let name = match &project.model {
                Some(reference) if !reference.name.is_empty() => reference.name.clone(),
                _ if status.model.is_empty() => "Built-in model".to_owned(),
                _ => status.model.clone(),
            };
            ui.label(name);
            ui.label(RichText::new(model.text).color(theme::QUIET));
            self.model.follow(project.model.as_ref().map_or("", |reference| reference.path.as_str()));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| self.model_choice(ui));
        });
    }

    /// How exactly the model is kept: a choice of the project, since another one is loaded anew.
    fn precision_choice(&self, ui: &mut Ui) {
        let chosen = self.instance.project.project().precision;
        let mut wanted = chosen;
        let shown = egui::ComboBox::from_id_salt("precision").width(64.0).selected_text(bits(chosen));
        let shown = shown.show_ui(ui, |ui| {
            for one in [None].into_iter().chain(Precision::ALL.map(Some)) {
                ui.selectable_value(&mut wanted, one, bits(one));
            }
        });
        shown.response.on_hover_text(
            "Fewer bits are faster and a little less exact. Auto: as it is for small models, 8 bits for large ones.",
        );
        if wanted != chosen {
            self.instance.project.edit(|project| project.precision = wanted);
        }
    }

    fn model_choice(&mut self, ui: &mut Ui) {
        let changed = self.model.is_changed();
        let retry = !changed && !self.model.seen.is_empty();
        let pressed =
            ui.add_enabled(changed || retry, egui::Button::new(if retry { "Reload" } else { "Load" })).clicked();
        self.precision_choice(ui);
        let edit = ui.add(
            TextEdit::singleline(&mut self.model.typed)
                .hint_text("Folder of a MusicGen model; empty: built-in")
                .desired_width(ui.available_width().min(280.0)),
        );
        let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        if retry && pressed {
            self.instance.reload();
        } else if changed && (pressed || entered) {
            let path = self.model.typed.trim().to_owned();
            self.instance.project.edit(|project| {
                project.model = (!path.is_empty()).then(|| FileReference::to_path(&path));
            });
        }
    }

    fn prompt_row(&mut self, ui: &mut Ui, setter: &ParamSetter<'_>) {
        self.prompt.follow(&self.instance.project.project().prompt);
        let row = vec2(ui.available_width(), 26.0);
        ui.allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
            self.presets.show(ui, &self.instance, &self.params, setter);
            let changed = self.prompt.is_changed();
            let pressed = ui.add_enabled(changed, egui::Button::new("Apply")).clicked();
            let edit = ui.add(
                TextEdit::singleline(&mut self.prompt.typed)
                    .hint_text("What should it sound like?")
                    .char_limit(LONGEST_PROMPT)
                    .desired_width(f32::INFINITY),
            );
            let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if changed && (pressed || entered) {
                let prompt = self.prompt.typed.trim().to_owned();
                self.instance.project.edit(|project| project.prompt = prompt);
            }
        });
    }

    fn key_settings(&self, ui: &mut Ui) {
        let project = self.instance.project.project();
        let (mut latch, mut velocity) = (project.latch, project.velocity);
        ui.horizontal(|ui| {
            ui.checkbox(&mut latch, "Latch keys")
                .on_hover_text("What MIDI keys steer to stays until other keys are struck.");
            ui.checkbox(&mut velocity, "Velocity").on_hover_text("Softly struck keys steer more weakly.");
        });
        if (latch, velocity) != (project.latch, project.velocity) {
            self.instance.project.edit(|project| (project.latch, project.velocity) = (latch, velocity));
        }
    }

    fn output(&mut self, ui: &mut Ui, setter: &ParamSetter<'_>, readings: &Readings) {
        let play = &self.instance.meters.play;
        let playing = play.load(Ordering::Relaxed);
        ui.horizontal(|ui| {
            let text = RichText::new(if playing { "Stop" } else { "Play" });
            let fill = if playing { theme::GOOD.gamma_multiply(0.45) } else { theme::WELL };
            let button = egui::Button::new(text).fill(fill).min_size(vec2(96.0, 26.0));
            let button =
                ui.add(button).on_hover_text("For hosts without a transport, and for playing while it stands still.");
            if button.clicked() {
                play.store(!playing, Ordering::Relaxed);
            }
            let state = if readings.sounding { "sounding" } else { "silent" };
            ui.label(RichText::new(state).color(theme::QUIET));
        });
        self.meter.show(ui);
        learning::menu(&slider::slider(ui, &self.params.gain, setter, theme::VALUE), Learnable::Gain, &self.instance);
        chooser(ui, &self.params.run, setter);
        chooser(ui, &self.params.late, setter);
        chooser(ui, &self.params.latency, setter);
        if self.params.latency.modulated_plain_value() == crate::params::choices::Latency::Frames {
            slider::slider(ui, &self.params.latency_frames, setter, theme::VALUE);
        }
    }

    fn footer(&self, ui: &mut Ui, readings: &Readings) {
        let instance = &self.instance;
        let params = &self.params;
        learning::line(ui, instance, params);
        if !self.presets.message.is_empty() {
            ui.label(RichText::new(&self.presets.message).color(theme::QUIET));
        }
        let line = status_line(&instance.handle.status(), readings, &instance.trouble(), &instance.project.notice());
        ui.horizontal_wrapped(|ui| {
            light(ui, theme::tone(line.tone));
            let colour =
                if line.tone == crate::status_line::Tone::Good { theme::QUIET } else { theme::tone(line.tone) };
            ui.label(RichText::new(line.text).color(colour));
        });
    }
}

/// A precision as musicians read it.
fn bits(precision: Option<Precision>) -> &'static str {
    match precision {
        None => "auto",
        Some(Precision::F32) => "exact",
        Some(Precision::Bf16) => "16 bits",
        Some(Precision::Int8) => "8 bits",
        Some(Precision::Int4) => "4 bits",
    }
}

fn sampling(ui: &mut Ui, params: &TillerParams, setter: &ParamSetter<'_>, instance: &Instance) {
    learning::menu(&slider::slider(ui, &params.temperature, setter, theme::VALUE), Learnable::Temperature, instance);
    learning::menu(&slider::slider(ui, &params.guidance, setter, theme::VALUE), Learnable::Guidance, instance);
    learning::menu(&slider::slider(ui, &params.top_k, setter, theme::VALUE), Learnable::TopK, instance);
    slider::slider(ui, &params.seed, setter, theme::VALUE);
    let pressed =
        ui.horizontal(|ui| ui.button("New seed").on_hover_text("Another piece from the same settings.").clicked());
    if pressed.inner {
        // The clock's fraction is random enough for a dice button.
        let micros =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
        let seed = params.seed.preview_normalized((micros % 10_000) as i32);
        slider::once(setter, &params.seed, seed);
    }
}

/// A small round light.
fn light(ui: &mut Ui, colour: Color32) {
    let (place, _) = ui.allocate_exact_size(vec2(10.0, 18.0), egui::Sense::hover());
    ui.painter().circle_filled(place.center(), 4.5, colour);
}

/// A titled group over the whole width.
fn group(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui)) {
    Frame::new().fill(theme::PANEL).corner_radius(CornerRadius::same(6)).inner_margin(Margin::same(10)).show(
        ui,
        |ui| {
            ui.set_width(ui.available_width());
            ui.label(RichText::new(title).small().color(theme::QUIET));
            contents(ui);
        },
    );
}

/// All choices of a parameter side by side.
fn chooser<E: Enum + PartialEq + 'static>(ui: &mut Ui, param: &EnumParam<E>, setter: &ParamSetter<'_>) {
    ui.horizontal(|ui| {
        let (label, _) = ui.allocate_exact_size(vec2(96.0, 22.0), egui::Sense::hover());
        let font = egui::FontId::proportional(13.5);
        ui.painter().text(label.left_center(), egui::Align2::LEFT_CENTER, param.name(), font, theme::QUIET);
        ui.spacing_mut().item_spacing.x = 3.0;
        let chosen = param.modulated_plain_value().to_index();
        for (index, name) in E::variants().iter().enumerate() {
            let (fill, ink) = if index == chosen { (theme::VALUE, theme::GROUND) } else { (theme::WELL, theme::TEXT) };
            let button = egui::Button::new(RichText::new(*name).color(ink)).fill(fill);
            if ui.add(button).clicked() {
                slider::once(setter, param, param.preview_normalized(E::from_index(index)));
            }
        }
    });
}

impl NiceEguiApp for App {
    fn build(
        &mut self,
        context: Context,
        gui: GuiContext,
        frame: &mut nice_plug_egui::Frame,
    ) -> Result<(), HandlerError> {
        theme::apply(&context);
        frame.set_clear_color(egui::Rgba::from(theme::GROUND));
        self.context = Some(gui);
        Ok(())
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut nice_plug_egui::Frame) {
        let Some(context) = self.context.clone() else { return };
        let setter = context.param_setter();
        ResizableWindow::new("tiller").min_size(vec2(620.0, 440.0)).show(ui, |ui| {
            Frame::new().fill(Color32::TRANSPARENT).inner_margin(Margin::same(14)).show(ui, |ui| {
                ui.spacing_mut().item_spacing.y = 8.0;
                self.show(ui, &setter);
            });
        });
    }

    fn resized(&mut self, size: WindowSize) {
        let window = (size.logical.width.round() as u32, size.logical.height.round() as u32);
        self.instance.project.edit(|project| project.window = Some(window));
    }

    fn editor_closed(&mut self) {
        self.instance.meters.controllers.learn(None);
        self.context = None;
    }
}
