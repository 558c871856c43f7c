//! The Tiller instrument as hosts see it. This file maps nice-plug to our own types and holds no sound.

pub mod ceiling;
pub mod controllers;
pub mod editor;
pub mod feed;
pub mod frames;
pub mod host;
pub mod instance;
pub mod keeper;
pub mod lanes;
pub mod latency;
pub mod meters;
pub mod midi;
pub mod monitor;
pub mod output;
pub mod params;
pub mod preferences;
pub mod presets;
pub mod processor;
pub mod programs;
pub mod quantise;
pub mod resampler;
pub mod slack;
pub mod spelling;
pub mod state;
pub mod status_line;
pub mod store;
pub mod stream;
pub mod target;
pub mod transport;
pub mod vst_preset;

use std::sync::Arc;

use nice_plug::prelude::*;

use crate::editor::TillerEditor;
use crate::editor::gate::{self, Gate};
use crate::instance::{Audio, Instance};
use crate::keeper::{Exchange, Keeper};
use crate::midi::TimedEvent;
use crate::params::TillerParams;
use crate::params::groups::GroupedParams;
use crate::processor::{Block, Processor};
use crate::state::ProjectField;

/// Room for input events of one block. With `MidiCCs` a host may send all 2,080 controllers at once.
const EVENTS: usize = 16_384;

/// The plugin object: `&mut` belongs to the main thread while inactive and to the audio thread while active.
pub struct Tiller {
    instance: Arc<Instance>,
    params: Arc<TillerParams>,
    exchange: Arc<Exchange>,
    keeper: Option<Keeper>,
    processor: Option<Box<Processor>>,
    events: Vec<TimedEvent>,
    /// Of the editor; a plugin without one has nothing to fear.
    gate: Option<Arc<Gate>>,
    /// A CLAP host said that it renders offline. VST3's word is not to be trusted in nice-plug 0.4.2.
    offline: bool,
}

impl Default for Tiller {
    fn default() -> Self {
        let instance = Arc::new(Instance::default());
        let params = Arc::new(TillerParams::new(ProjectField(instance.project.clone())));
        Self {
            instance,
            params,
            exchange: Arc::default(),
            keeper: None,
            processor: None,
            events: Vec::new(),
            gate: None,
            offline: false,
        }
    }
}

impl Tiller {
    /// What it shares with its window, for an application that is its own host.
    pub fn instance(&self) -> Arc<Instance> {
        self.instance.clone()
    }
}

impl Plugin for Tiller {
    const NAME: &'static str = "Tiller";
    const VENDOR: &'static str = "Tiller";
    const URL: &'static str = "";
    const EMAIL: &'static str = "";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    const AUDIO_IO_LAYOUTS: &'static [AudioIOLayout] = &[
        AudioIOLayout { main_output_channels: NonZeroU32::new(2), ..AudioIOLayout::const_default() },
        AudioIOLayout { main_output_channels: NonZeroU32::new(1), ..AudioIOLayout::const_default() },
    ];
    const MIDI_INPUT: MidiConfig = MidiConfig::MidiCCs;
    const SAMPLE_ACCURATE_AUTOMATION: bool = true;
    const INPUT_EVENT_CAPACITY: usize = EVENTS;

    type Editor = TillerEditor;
    type SysExMessage = ();
    type BackgroundTask = gate::Task;

    fn setup_logger() -> Option<bool> {
        // nice-plug sets up `tracing` alone; the engine speaks through `log`.
        let _ = tracing_log::LogTracer::init_with_filter(log::LevelFilter::Info);
        None
    }

    fn filter_state(state: &mut PluginState) {
        state::migrate(state);
    }

    fn params(&self) -> Arc<dyn Params> {
        Arc::new(GroupedParams(self.params.clone()))
    }

    fn task_executor(&mut self) -> TaskExecutor<Self> {
        Box::new(gate::Task::run)
    }

    fn editor(&mut self, async_executor: AsyncExecutor<Self>) -> Option<TillerEditor> {
        let gate = Arc::new(Gate::new(move |task| async_executor.execute_background(task)));
        self.gate = Some(gate.clone());
        Some(TillerEditor::new(self.instance.clone(), self.params.clone(), gate))
    }

    fn activate(
        &mut self,
        _layout: &AudioIOLayout,
        config: &BufferConfig,
        context: &mut impl ActivateContext<Self>,
    ) -> bool {
        self.instance.project.mark_thread(true);
        if let Some(gate) = &self.gate {
            gate.wake(cfg!(target_os = "linux") && context.plugin_api() == PluginApi::Vst3);
        }
        self.events.reserve(EVENTS);
        self.offline = context.plugin_api() == PluginApi::Clap && config.process_mode == ProcessMode::Offline;
        let audio = Audio {
            rate: f64::from(config.sample_rate),
            max_block: config.max_buffer_size as usize,
            latency: host::latency(&self.params),
        };
        // Without a processor the instrument is silent, says why and keeps the project: no reason to refuse the host.
        let made = self.instance.wake().and_then(|()| self.exchange.open(&self.instance, audio));
        self.processor = made.map_err(|why| self.instance.report(why)).ok();
        if let Some(processor) = &self.processor {
            context.set_latency_samples(processor.latency());
        }
        if self.keeper.is_none() {
            let keeper = Keeper::start(self.instance.clone(), self.exchange.clone());
            self.keeper = keeper.map_err(|why| self.instance.report(why)).ok();
        }
        true
    }

    fn deactivate(&mut self) {
        self.exchange.close();
        self.processor = None;
        if let Some(gate) = &self.gate {
            gate.rest();
        }
    }

    fn reset(&mut self) {
        if let Some(processor) = &mut self.processor {
            processor.reset();
        }
    }

    fn process(
        &mut self,
        buffer: &mut Buffer,
        _aux: &mut AuxiliaryBuffers,
        context: &mut impl ProcessContext<Self>,
    ) -> ProcessStatus {
        self.instance.project.mark_thread(false);
        if let Some(fresh) = self.exchange.take_fresh()
            && let Some(used) = self.processor.replace(fresh)
        {
            self.exchange.retire(used);
        }
        self.events.clear();
        while let Some(event) = context.next_event() {
            if self.events.len() < self.events.capacity() {
                self.events.extend(host::event(&event));
            }
        }
        let samples = buffer.samples();
        let output = buffer.as_slice();
        let Some(processor) = &mut self.processor else {
            output.iter_mut().for_each(|channel| channel.fill(0.0));
            return ProcessStatus::KeepAlive;
        };
        let block = Block {
            samples,
            transport: host::transport(context.transport()),
            lanes: host::lanes(
                &self.params,
                self.instance.handle.prompt_generation(),
                self.instance.handle.directions_generation(),
            ),
            run: host::run(&self.params),
            grid: host::grid(&self.params),
            late: host::late(&self.params),
            latency: host::latency(&self.params),
            offline: self.offline,
            events: &self.events,
        };
        processor.process(&block, output);
        // Only a change reaches the host. It counts from the next anchor.
        if !gate::is_shut() {
            context.set_latency_samples(processor.latency());
        }
        // Never asleep: a host that suspends the instrument would miss Play.
        ProcessStatus::KeepAlive
    }
}

impl ClapPlugin for Tiller {
    const CLAP_ID: &'static str = "org.tiller.tiller";
    const CLAP_DESCRIPTION: Option<&'static str> =
        Some("Plays MusicGen live and lets you steer it to a note, a chord, a tempo");
    const CLAP_MANUAL_URL: Option<&'static str> = None;
    const CLAP_SUPPORT_URL: Option<&'static str> = None;
    const CLAP_FEATURES: &'static [ClapFeature] =
        &[ClapFeature::Instrument, ClapFeature::Synthesizer, ClapFeature::Stereo, ClapFeature::Mono];
}

impl Vst3Plugin for Tiller {
    // Frozen: projects find the instrument by it.
    const VST3_CLASS_ID: [u8; 16] = *b"TillerSteersGen1";
    const VST3_SUBCATEGORIES: &'static [Vst3SubCategory] =
        &[Vst3SubCategory::Instrument, Vst3SubCategory::Synth, Vst3SubCategory::Generator];
}

nice_export_clap!(Tiller);
nice_export_vst3!(Tiller);
