//! The thread that opens and closes devices, and the window's view of it. Devices take their time, so the window never waits for
//! one: it leaves a wish and reads how it went.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nice_plug::prelude::{AudioIOLayout, BufferConfig, NoteEvent, Plugin, ProcessMode};
use parking_lot::Mutex;
use tiller::Tiller;
use tiller::editor::devices::{Chosen, Devices, Lists, Midi};
use tiller::status_line::{StatusLine, Tone};

use crate::audio::{self, Plan, Running};
use crate::host::Activation;
use crate::midi::{self, Inputs};
use crate::player::{Played, Player};
use crate::settings;

/// MIDI events that can wait for the next block.
const EVENTS: usize = 1_024;
/// Longest wait for an instrument that a closed device gives back.
const HOMEWARD: Duration = Duration::from_secs(10);

enum Order {
    Open,
    Look,
    /// The device stopped of itself.
    Lost(String),
    Stop,
}

/// What window and thread share.
struct Shared {
    lists: Mutex<Lists>,
    chosen: Mutex<Chosen>,
    line: Mutex<StatusLine>,
    played: Arc<Played>,
}

/// The application's devices.
pub struct Control {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
    remembers: bool,
}

impl Control {
    /// Opens what is chosen and plays `plugin` on it. `remembers`: later choices are written down.
    ///
    /// # Errors
    /// A sentence: the system gives no thread.
    pub fn start(plugin: Box<Tiller>, chosen: Chosen, remembers: bool) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            lists: Mutex::default(),
            chosen: Mutex::new(chosen),
            line: Mutex::new(StatusLine { tone: Tone::Busy, text: "Opening the devices.".to_owned() }),
            played: Arc::default(),
        });
        let (orders, received) = unbounded();
        let rig = Rig::new(plugin, shared.clone(), orders.clone());
        let thread = std::thread::Builder::new()
            .name("tiller-devices".to_owned())
            .spawn(move || rig.run(&received))
            .map_err(|error| format!("the system gave no thread for the devices ({error})"))?;
        let control = Self { shared, orders, thread: Mutex::new(Some(thread)), remembers };
        control.order(Order::Open);
        control.order(Order::Look);
        Ok(control)
    }

    /// What was played so far.
    pub fn played(&self) -> &Played {
        &self.shared.played
    }

    /// Closes everything and waits for it.
    pub fn stop(&self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    fn order(&self, order: Order) {
        // After a stop there is nobody left to tell.
        let _ = self.orders.send(order);
    }
}

impl Devices for Control {
    fn lists(&self) -> Lists {
        self.shared.lists.lock().clone()
    }

    fn look(&self) {
        self.order(Order::Look);
    }

    fn chosen(&self) -> Chosen {
        self.shared.chosen.lock().clone()
    }

    fn choose(&self, chosen: Chosen) {
        if self.remembers
            && let Err(error) = settings::remember(&settings::file(), &chosen)
        {
            log::warn!("the choice of devices is not remembered: {error}");
        }
        *self.shared.chosen.lock() = chosen;
        self.order(Order::Open);
    }

    fn line(&self) -> StatusLine {
        self.shared.line.lock().clone()
    }
}

/// What the thread holds.
struct Rig {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    /// The instrument while no device plays it.
    plugin: Option<Box<Tiller>>,
    home: (Sender<Box<Tiller>>, Receiver<Box<Tiller>>),
    events: (Sender<NoteEvent<()>>, Receiver<NoteEvent<()>>),
    running: Option<Running>,
    inputs: Inputs,
}

impl Rig {
    fn new(plugin: Box<Tiller>, shared: Arc<Shared>, orders: Sender<Order>) -> Self {
        Self {
            shared,
            orders,
            plugin: Some(plugin),
            home: unbounded(),
            events: bounded(EVENTS),
            running: None,
            inputs: Inputs::default(),
        }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Open => self.open(None),
                Order::Lost(why) => self.open(Some(why)),
                Order::Look => {
                    let lists = Lists { outputs: audio::names(), inputs: midi::names() };
                    let before = std::mem::replace(&mut *self.shared.lists.lock(), lists.clone());
                    let chosen = self.shared.chosen.lock().midi.clone();
                    if before.inputs != lists.inputs && chosen != Midi::None {
                        // A keyboard that was plugged in plays at once.
                        self.inputs = Inputs::default();
                        self.inputs = Inputs::open(&chosen, &self.events.0).0;
                    }
                }
                Order::Stop => break,
            }
        }
        self.close();
    }

    /// Opens what is chosen, or nothing where a device was lost; a device that cannot be opened is answered by nothing too, so
    /// that the window stays alive and says so.
    fn open(&mut self, lost: Option<String>) {
        self.close();
        let chosen = self.shared.chosen.lock().clone();
        let planned = match lost {
            Some(why) => Err(format!("The output stopped ({why}).")),
            None => Plan::of(&chosen),
        };
        let outcome = planned.and_then(|plan| self.play(plan));
        let (inputs, troubles) = Inputs::open(&chosen.midi, &self.events.0);
        self.inputs = inputs;
        let mut line = match outcome {
            Ok(text) => StatusLine { tone: Tone::Good, text },
            Err(why) => {
                let after = self.play(Plan::nothing(&chosen));
                let text = match after {
                    Ok(_) => format!("{why} Silent until another output is chosen."),
                    Err(again) => format!("{why} {again}"),
                };
                StatusLine { tone: Tone::Bad, text }
            }
        };
        if !troubles.is_empty() {
            line.text = format!("{} {}", line.text, troubles.join(" "));
            line.tone = if line.tone == Tone::Good { Tone::Warning } else { line.tone };
        }
        *self.shared.line.lock() = line;
    }

    fn play(&mut self, plan: Plan) -> Result<String, String> {
        let mut plugin = self.plugin.take().ok_or("The instrument did not come back from the last device.")?;
        let (rate, block) = (plan.rate, plan.block);
        let text = format!("{}, {:.1} kHz, blocks of {block} samples.", plan.name, f64::from(rate) / 1e3);
        let layout = Tiller::AUDIO_IO_LAYOUTS.first().copied().unwrap_or(AudioIOLayout::const_default());
        let config = BufferConfig {
            sample_rate: rate as f32,
            min_buffer_size: None,
            max_buffer_size: block,
            process_mode: ProcessMode::Realtime,
        };
        if !plugin.activate(&layout, &config, &mut Activation) {
            self.plugin = Some(plugin);
            return Err("The instrument cannot be played at this rate.".to_owned());
        }
        plugin.reset();
        let player =
            Player::new(plugin, self.home.0.clone(), self.events.1.clone(), rate, block, self.shared.played.clone());
        let orders = self.orders.clone();
        match plan.start(player, move |why| _ = orders.send(Order::Lost(why))) {
            Ok(running) => {
                self.running = Some(running);
                Ok(text)
            }
            Err(why) => {
                self.fetch();
                Err(why)
            }
        }
    }

    fn close(&mut self) {
        self.inputs = Inputs::default();
        if self.running.take().is_some() {
            self.fetch();
        }
        while self.events.1.try_recv().is_ok() {}
    }

    /// The instrument comes back from a device that was closed.
    fn fetch(&mut self) {
        if let Ok(mut plugin) = self.home.1.recv_timeout(HOMEWARD) {
            plugin.deactivate();
            self.plugin = Some(plugin);
        }
    }
}
