//! What the window shows: a header, one of its pages, and a last line on how it goes. UI thread; nothing here waits for the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use egui::{Align, Color32, Context, Frame, Key, Layout, Margin, RichText, TextEdit, Ui, vec2};
use nice_plug::context::gui::{GuiContext, ParamSetter};
use nice_plug::prelude::Param;
use nice_plug_egui::baseview::{HandlerError, WindowSize};
use nice_plug_egui::{EguiEditorState, NiceEguiApp, resizable_window::ResizableWindow};
use tiller_engine::status::{State, Status};
use tiller_engine::steering::class_set::ClassSet;

use crate::controllers::Learnable;
use crate::editor::cadence::Cadence;
use crate::editor::choice::option;
use crate::editor::desk::Desk;
use crate::editor::devices::{Devices, devices};
use crate::editor::draft::Draft;
use crate::editor::footer::footer;
use crate::editor::hint::Hint;
use crate::editor::history::History;
use crate::editor::meter::Meter;
use crate::editor::model::{self, ModelView};
use crate::editor::models::{self, ModelsPage};
use crate::editor::preset_menu::PresetMenu;
use crate::editor::set_up::set_up;
use crate::editor::timeline::{Now, Timeline};
use crate::editor::traits::TraitsView;
use crate::editor::watcher::Watcher;
use crate::editor::{SMALLEST, chords, keys, learning, slider, theme};
use crate::instance::Instance;
use crate::params::TillerParams;
use crate::state::document::LONGEST_PROMPT;
use crate::status_line::Readings;

/// Time between repaints while something moves: that of the timeline's columns. In between nothing is painted.
const LIVELY: Duration = Duration::from_millis(40);

/// Around everything.
const MARGIN: i8 = 12;
/// Least and most height of the keys; what is to spare goes to them and to the timeline.
const KEYS: (f32, f32) = (60.0, 150.0);

/// Width of the buttons beside the prompt.
const BESIDE_PROMPT: f32 = 138.0;

/// What a window shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Steer,
    SetUp,
    Models,
    Devices,
}

/// The contents of one window.
pub struct App {
    instance: Arc<Instance>,
    params: Arc<TillerParams>,
    /// The standalone application's.
    devices: Option<Arc<dyn Devices>>,
    window: Arc<EguiEditorState>,
    context: Option<GuiContext>,
    watcher: Option<Watcher>,
    page: Page,
    prompt: Draft,
    model: ModelView,
    models: ModelsPage,
    traits: TraitsView,
    hint: Hint,
    meter: Meter,
    history: History,
    timeline: Timeline,
    presets: PresetMenu,
    /// When it was drawn last, in seconds.
    drawn_at: f64,
    cadence: Cadence,
    /// As it was drawn last: long messages take several lines.
    footer_height: f32,
}

impl App {
    /// The meter starts with what sounds from now on.
    pub fn new(
        instance: Arc<Instance>,
        params: Arc<TillerParams>,
        devices: Option<Arc<dyn Devices>>,
        window: Arc<EguiEditorState>,
    ) -> Self {
        let _before_the_window = instance.meters.take_peaks();
        Self {
            instance,
            params,
            devices,
            window,
            context: None,
            watcher: None,
            page: Page::Steer,
            prompt: Draft::default(),
            model: ModelView::default(),
            models: ModelsPage::default(),
            traits: TraitsView::default(),
            hint: Hint::default(),
            meter: Meter::default(),
            history: History::default(),
            timeline: Timeline::default(),
            presets: PresetMenu::default(),
            drawn_at: 0.0,
            cadence: Cadence::new(LIVELY),
            footer_height: theme::ROW,
        }
    }

    fn show(&mut self, ui: &mut Ui, setter: &ParamSetter<'_>) {
        let (instance, params) = (self.instance.clone(), self.params.clone());
        let desk = Desk { instance: &instance, params: &params, setter };
        let (status, readings) = (instance.handle.status(), instance.readings());
        let time = ui.input(|input| input.time);
        self.meter.feed(readings.peak, (time - self.drawn_at).clamp(0.0, 0.5) as f32);
        self.drawn_at = time;
        let fresh = self.history.follow(&instance.meters.monitor, instance.sample_rate());
        learning::settle(&instance);

        self.header(ui, desk, &status);
        // What does not fit scrolls; the last line is always in sight.
        let room = (ui.available_height() - self.footer_height - theme::GAP).max(60.0);
        egui::ScrollArea::vertical().max_height(room).auto_shrink(false).show(ui, |ui| {
            match (self.page, &self.devices) {
                (Page::Steer, _) | (Page::Devices, None) => self.steer(ui, desk, room, &status, &readings, fresh),
                (Page::SetUp, _) => set_up(ui, desk, &mut self.traits, &status),
                (Page::Models, _) => self.models.show(ui, &self.instance, &status),
                (Page::Devices, Some(all)) => devices(ui, &**all),
            }
        });
        let message = &self.presets.message;
        let told = self.page == Page::Steer;
        // The page of models says it itself.
        let works = if self.page == Page::Models { None } else { models::under_way(&instance) };
        if works.is_some() {
            ui.ctx().request_repaint_after(Duration::from_secs(1));
        }
        let works = works.unwrap_or_default();
        let line = ui.scope(|ui| footer(ui, desk, &status, &readings, message, &works, told));
        self.footer_height = line.response.rect.height();
        if readings.sounding || !self.meter.at_rest() || !status.state.is_settled() {
            ui.ctx().request_repaint_after(self.cadence.next(time));
        }
    }

    fn header(&mut self, ui: &mut Ui, desk: Desk<'_>, status: &Status) {
        ui.horizontal(|ui| {
            ui.set_height(theme::ROW);
            ui.label(RichText::new("Tiller").heading());
            ui.add_space(theme::GAP);
            let pages =
                [(Page::Steer, "Steer"), (Page::SetUp, "Set up"), (Page::Models, "Models"), (Page::Devices, "Devices")];
            let spacing = std::mem::replace(&mut ui.spacing_mut().item_spacing.x, 2.0);
            for (page, name) in pages {
                if (page != Page::Devices || self.devices.is_some()) && option(ui, name, self.page == page) {
                    self.page = page;
                }
            }
            ui.spacing_mut().item_spacing.x = spacing;
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                self.meter.show(ui, (0.16 * ui.max_rect().width()).clamp(90.0, 180.0));
                play_button(ui, desk);
                let line = crate::status_line::model_line(&status.state);
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    ui.add_space(theme::GAP);
                    model::light(ui, theme::tone(line.tone));
                    let text = RichText::new(format!("{}, {}", model::name(desk.instance, status), line.text));
                    ui.add(egui::Label::new(text.color(theme::QUIET)).truncate());
                });
            });
        });
    }

    fn steer(&mut self, ui: &mut Ui, desk: Desk<'_>, room: f32, status: &Status, readings: &Readings, fresh: bool) {
        let hint = if self.hint.open { Hint::HEIGHT + theme::GAP } else { 0.0 };
        self.hint.show(ui);
        self.prompt_row(ui, desk);
        let shape = 2.0 * theme::ROW + 4.0;
        let needed = hint + theme::ROW + 4.0 + KEYS.0 + self.timeline.least() + shape + 4.0 * theme::GAP;
        let spare = (room - needed).max(0.0);
        let tall = (KEYS.0 + 0.3 * spare).min(KEYS.1);
        // What a model can be steered to is known once it is there.
        let [notes, chords, _] = if status.state == State::Ready { status.targets } else { [ClassSet::first(64); 3] };
        ui.columns(2, |columns| {
            keys::keys(&mut columns[0], desk.params, desk.setter, readings.target, notes, tall);
            chords::chords(&mut columns[1], desk.params, desk.setter, readings.target.chord, chords, tall);
        });
        let height = self.timeline.least() + spare - (tall - KEYS.0);
        let now = Now { fresh, sounding: readings.sounding };
        let model = &mut self.model;
        let mut cover = |ui: &mut Ui| model.cover(ui, desk, status);
        let cover: Option<&mut dyn FnMut(&mut Ui)> = if ModelView::covers(status) { Some(&mut cover) } else { None };
        ui.scope(|ui| self.timeline.show(ui, height, &self.history, now, desk, cover));
        shape_rows(ui, desk);
    }

    fn prompt_row(&mut self, ui: &mut Ui, desk: Desk<'_>) {
        self.prompt.follow(&desk.instance.project.project().prompt);
        let row = vec2(ui.available_width(), theme::ROW + 4.0);
        // From left to right, since that is the keyboard's way through them.
        ui.allocate_ui_with_layout(row, Layout::left_to_right(Align::Center), |ui| {
            let changed = self.prompt.is_changed();
            let edit = ui.add(
                TextEdit::singleline(&mut self.prompt.typed)
                    .hint_text("What should it sound like?")
                    .char_limit(LONGEST_PROMPT)
                    .margin(vec2(8.0, 5.0))
                    .desired_width(ui.available_width() - BESIDE_PROMPT),
            );
            let pressed = ui.add_enabled(changed, egui::Button::new("Apply")).clicked();
            let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            self.presets.show(ui, desk.instance, desk.params, desk.setter);
            if changed && (pressed || entered) {
                let prompt = self.prompt.typed.trim().to_owned();
                desk.instance.project.edit(|project| project.prompt = prompt);
            }
        });
    }
}

fn play_button(ui: &mut Ui, desk: Desk<'_>) {
    let play = &desk.instance.meters.play;
    let playing = play.load(Ordering::Relaxed);
    let (fill, ink) = if playing { (theme::HEARD, theme::GROUND) } else { (theme::WELL, theme::TEXT) };
    let text = RichText::new(if playing { "Stop" } else { "Play" }).color(ink);
    let button = ui.add(egui::Button::new(text).fill(fill).min_size(vec2(72.0, theme::ROW)));
    if button.on_hover_text("For hosts without a transport, and for playing while it stands still.").clicked() {
        play.store(!playing, Ordering::Relaxed);
    }
}

/// How targets come and go, how loud it is, and which of the possible pieces is played.
fn shape_rows(ui: &mut Ui, desk: Desk<'_>) {
    let params = desk.params;
    ui.spacing_mut().item_spacing.x = 3.0 * theme::GAP;
    ui.columns(2, |columns| {
        for column in columns.iter_mut() {
            column.spacing_mut().item_spacing = vec2(theme::GAP, 4.0);
        }
        desk.slider(&mut columns[0], &params.attack, Learnable::Attack, theme::ASKED);
        desk.slider(&mut columns[0], &params.release, Learnable::Release, theme::ASKED);
        desk.slider(&mut columns[1], &params.gain, Learnable::Gain, theme::QUIET);
        let row = vec2(columns[1].available_width(), theme::ROW);
        columns[1].allocate_ui_with_layout(row, Layout::right_to_left(Align::Center), |ui| {
            let roll = ui.button("Re-roll").on_hover_text("Another piece from the same settings: a new seed.");
            if roll.clicked() {
                // The clock's fraction is random enough for a dice button.
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let seed = now.map_or(0, |since| since.subsec_micros() % 10_000);
                slider::once(desk.setter, &params.seed, params.seed.preview_normalized(seed as i32));
            }
            slider::slider(ui, &params.seed, desk.setter, theme::QUIET);
        });
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
        let window = self.window.clone();
        let wake = move || context.request_repaint();
        self.watcher = Some(Watcher::start(self.instance.clone(), move || window.is_open(), wake));
        self.context = Some(gui);
        Ok(())
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut nice_plug_egui::Frame) {
        let Some(context) = self.context.clone() else { return };
        let setter = context.param_setter();
        let smallest = vec2(SMALLEST.width, SMALLEST.height);
        ResizableWindow::new("tiller").min_size(smallest).show(ui, |ui| {
            Frame::new().fill(Color32::TRANSPARENT).inner_margin(Margin::same(MARGIN)).show(ui, |ui| {
                self.show(ui, &setter);
            });
        });
    }

    fn resized(&mut self, size: WindowSize) {
        let window = (size.logical.width.round() as u32, size.logical.height.round() as u32);
        self.instance.project.edit(|project| project.window = Some(window));
    }
}
