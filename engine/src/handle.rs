//! The main thread's grip on an engine: asks for models and prompts, connects audio ends, reads the status, and joins
//! the threads when dropped. Every call but [`Handle::wait_settled`], [`Handle::play`] and the drop returns at once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;

use crate::backend::Device;
use crate::control::TRAITS;
use crate::error::EngineError;
use crate::link::{Link, StreamFormat, link};
use crate::loader::{Loader, ModelRequest, Request};
use crate::model::Model;
use crate::player::Player;
use crate::precision::Precision;
use crate::runner::{Order, Runner};
use crate::status::{State, Status, StatusCell};
use crate::steering::trait_files::{self, TraitFile, TraitReference, TraitState};

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// The demo checkpoint that is compiled in.
    Embedded,
    /// A Hugging Face MusicGen directory.
    Directory(PathBuf),
}

/// Threads of a started engine.
struct Threads {
    loader: JoinHandle<()>,
    runner: JoinHandle<()>,
    orders: Sender<Order>,
    requests: Sender<Request>,
}

/// What was asked for, so that an engine started later knows it.
struct Wanted {
    source: ModelSource,
    prompt: String,
    /// Generation of that prompt.
    generation: u32,
    /// Files of the trait lanes.
    traits: [Option<TraitReference>; TRAITS],
    /// Play window in positions; `None` is the checkpoint's own.
    window: Option<usize>,
    /// How exactly the weights are kept; `None` is what suits the checkpoint's size.
    precision: Option<Precision>,
    /// Where it plays.
    device: Device,
    format: StreamFormat,
}

impl Wanted {
    fn request(&self, directions: u32) -> Request {
        Request::Model(Box::new(ModelRequest {
            source: self.source.clone(),
            prompt: self.prompt.clone(),
            generation: self.generation,
            traits: self.traits.clone(),
            directions,
            window: self.window,
            precision: self.precision,
            device: self.device,
        }))
    }
}

/// One engine: a loader thread, a runner thread and the model that they share with every other engine in the process.
pub struct Handle {
    wanted: Arc<Mutex<Wanted>>,
    threads: Mutex<Option<Threads>>,
    status: Arc<StatusCell>,
    prompt_generation: AtomicU32,
    directions_generation: Arc<AtomicU32>,
    model_generation: AtomicU32,
}

impl Default for Handle {
    fn default() -> Self {
        Self::new()
    }
}

impl Handle {
    /// An engine that has started nothing: no thread, no file, until [`Handle::start`]. It will play the embedded model
    /// with an empty prompt.
    pub fn new() -> Self {
        Self {
            wanted: Arc::new(Mutex::new(Wanted {
                source: ModelSource::Embedded,
                prompt: String::new(),
                generation: 0,
                traits: [const { None }; TRAITS],
                window: None,
                precision: None,
                device: Device::Auto,
                format: StreamFormat::PUBLISHED,
            })),
            threads: Mutex::new(None),
            status: Arc::default(),
            prompt_generation: AtomicU32::new(0),
            directions_generation: Arc::default(),
            model_generation: AtomicU32::new(0),
        }
    }

    /// Starts the threads and loads what was asked for. Does nothing when they run.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(&self) -> Result<(), EngineError> {
        let mut threads = self.threads.lock();
        if threads.is_some() {
            return Ok(());
        }
        let (orders, order_receiver) = unbounded();
        let (requests, request_receiver) = unbounded();
        let runner = Runner::new(order_receiver, self.status.clone());
        let loader = Loader::new(request_receiver, orders.clone(), self.status.clone());
        let runner = std::thread::Builder::new()
            .name("tiller-runner".to_owned())
            .spawn(move || runner.run())
            .map_err(EngineError::Thread)?;
        let loader = match std::thread::Builder::new().name("tiller-loader".to_owned()).spawn(move || loader.run()) {
            Ok(loader) => loader,
            Err(error) => {
                drop(orders);
                let _ = runner.join();
                return Err(EngineError::Thread(error));
            }
        };
        let wanted = self.wanted.lock();
        self.status.set_state(State::Locating);
        let _ = requests.send(wanted.request(self.directions_generation()));
        drop(wanted);
        let own = Refresher {
            wanted: Arc::downgrade(&self.wanted),
            generation: Arc::downgrade(&self.directions_generation),
            requests: requests.clone(),
        };
        let mut all = STARTED.lock();
        all.retain(|other| other.wanted.strong_count() > 0);
        all.push(own);
        drop(all);
        *threads = Some(Threads { loader, runner, orders, requests });
        Ok(())
    }

    /// Asks for a model. Reads its configuration for the frame clock; weights are read off this thread.
    pub fn set_model(&self, source: ModelSource) {
        let format = Model::peek_format(&source).unwrap_or(StreamFormat::PUBLISHED);
        let threads = self.threads.lock();
        let mut wanted = self.wanted.lock();
        wanted.source = source;
        wanted.format = format;
        self.model_generation.fetch_add(1, Ordering::Release);
        if let Some(threads) = &*threads {
            self.status.set_state(State::Locating);
            let _ = threads.requests.send(wanted.request(self.directions_generation()));
        }
    }

    /// Shortens the play window (in positions), for the next model that is asked for. `None` is the checkpoint's own.
    pub fn set_window(&self, window: Option<usize>) {
        self.wanted.lock().window = window;
    }

    /// How exactly weights are kept, for the next model that is asked for. `None` is what suits its size.
    pub fn set_precision(&self, precision: Option<Precision>) {
        self.wanted.lock().precision = precision;
    }

    /// Where to play, for the next model that is asked for. A card that cannot is answered by the processor, and a notice.
    pub fn set_device(&self, device: Device) {
        self.wanted.lock().device = device;
    }

    /// Asks for a prompt; returns its generation, which control frames carry. It is encoded off this thread.
    pub fn set_prompt(&self, text: &str) -> u32 {
        let threads = self.threads.lock();
        let mut wanted = self.wanted.lock();
        if wanted.prompt == text {
            return self.prompt_generation();
        }
        let generation = self.reserve_prompt();
        Self::send_prompt(threads.as_ref(), &mut wanted, generation, text);
        generation
    }

    /// Takes the generation of a prompt whose text follows by [`Handle::set_reserved_prompt`], which must not fail to come: a
    /// render waits for it.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn reserve_prompt(&self) -> u32 {
        self.prompt_generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Gives a generation that was reserved its text. When a later prompt was asked for meanwhile, that one stays.
    pub fn set_reserved_prompt(&self, generation: u32, text: &str) {
        let threads = self.threads.lock();
        Self::send_prompt(threads.as_ref(), &mut self.wanted.lock(), generation, text);
    }

    fn send_prompt(threads: Option<&Threads>, wanted: &mut Wanted, generation: u32, text: &str) {
        if generation > wanted.generation {
            text.clone_into(&mut wanted.prompt);
            wanted.generation = generation;
        }
        if let Some(threads) = threads {
            let _ = threads.requests.send(Request::Prompt { text: text.to_owned(), generation });
        }
    }

    /// Gives a trait lane its directions file, or takes it away; returns the generation of all trait lanes, which control frames
    /// carry. The file is read off this thread and looked for again with every model; what becomes of it is in
    /// [`Status::traits`]. One that cannot be used leaves the lane without effect and the others as they are.
    ///
    /// `slot` counts from 0; one that does not exist changes nothing.
    pub fn set_trait(&self, slot: usize, file: Option<TraitReference>) -> u32 {
        let threads = self.threads.lock();
        let mut wanted = self.wanted.lock();
        let same = wanted.traits.get(slot).is_none_or(|own| *own == file);
        if same {
            return self.directions_generation();
        }
        wanted.traits[slot] = file;
        let directions = self.directions_generation.fetch_add(1, Ordering::AcqRel) + 1;
        match &*threads {
            Some(threads) => {
                let traits = Box::new(wanted.traits.clone());
                let _ = threads.requests.send(Request::Traits { traits, directions });
            }
            None => self.status.set_traits(waiting(&wanted.traits)),
        }
        directions
    }

    /// Generation of the newest directions.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn directions_generation(&self) -> u32 {
        self.directions_generation.load(Ordering::Acquire)
    }

    /// The trait files beside the checkpoint that was asked for and, once a model is loaded, in the user's own folder for it
    /// (`directions/HASH` in Tiller's data folder). Those that cannot be used with the loaded model say why.
    ///
    /// # Realtime safety
    /// Reads files and allocates.
    pub fn trait_files(&self) -> Vec<TraitFile> {
        let source = self.wanted.lock().source.clone();
        let model = self.status.loaded();
        let hash = model.as_ref().map_or("", |model| model.hash());
        trait_files::list(&trait_files::folders(&source, hash), &|directions, file| match &model {
            Some(model) => model.check_trait(directions, file),
            None => trait_files::check_kind(directions, file),
        })
    }

    /// Generation of the newest prompt.
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn prompt_generation(&self) -> u32 {
        self.prompt_generation.load(Ordering::Acquire)
    }

    /// Counts the calls of [`Handle::set_model`].
    ///
    /// # Realtime safety
    /// Wait-free.
    pub fn model_generation(&self) -> u32 {
        self.model_generation.load(Ordering::Acquire)
    }

    /// The clock of the model that was asked for, loaded or not; the published one when it cannot be read.
    pub fn format(&self) -> StreamFormat {
        self.wanted.lock().format
    }

    /// Plays a player of the caller's making, in place of the model that was asked for, until another one is: one whose steps
    /// are computed by a backend of the caller's, say. Audio ends that are to hear it are connected afterwards.
    ///
    /// # Errors
    /// When the engine was not started and the system gives no thread.
    pub fn play(&self, player: Box<Player>) -> Result<(), EngineError> {
        self.start()?;
        // What is being loaded would take the player's place.
        while !self.status.state().is_settled() {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.wanted.lock().format = player.model().format();
        if let Some(threads) = &*self.threads.lock() {
            let (prompt, directions) = (self.prompt_generation(), self.directions_generation());
            let _ = threads.orders.send(Order::Play { player, prompt, directions });
        }
        self.status.set_state(State::Ready);
        Ok(())
    }

    /// Makes a new audio end with room for `frames` control frames; the engine drops the one it had.
    ///
    /// # Errors
    /// When the engine was not started and the system gives no thread.
    pub fn connect(&self, frames: usize) -> Result<Link, EngineError> {
        self.start()?;
        let (audio, runner) = link(self.format(), frames);
        if let Some(threads) = &*self.threads.lock() {
            let _ = threads.orders.send(Order::Connect(runner));
        }
        Ok(audio)
    }

    /// Waits until the model is ready or has failed, at most `timeout`. Returns the state.
    ///
    /// # Realtime safety
    /// Blocks.
    pub fn wait_settled(&self, timeout: Duration) -> State {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.status.state();
            if state.is_settled() || Instant::now() >= deadline {
                return state;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What people may know.
    ///
    /// # Realtime safety
    /// May block and allocates.
    pub fn status(&self) -> Status {
        self.status.read()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.get_mut().take() {
            let _ = threads.requests.send(Request::Stop);
            let _ = threads.orders.send(Order::Stop);
            // A thread that panicked has nothing left to give back.
            let _ = threads.loader.join();
            let _ = threads.runner.join();
        }
    }
}

/// What it takes to have a started engine look for its directions again, without owning any of it.
struct Refresher {
    wanted: Weak<Mutex<Wanted>>,
    generation: Weak<AtomicU32>,
    requests: Sender<Request>,
}

/// Every engine that was started and is not gone.
static STARTED: Mutex<Vec<Refresher>> = Mutex::new(Vec::new());

/// Has every engine of the process look for its directions again: some were learned, imported or removed. They sound from the
/// first frame that is asked for after they were read; nothing is interrupted.
///
/// # Realtime safety
/// Locks and allocates; the files are read on the engines' own threads.
pub fn refresh_all() {
    let mut all = STARTED.lock();
    all.retain(|own| {
        let (Some(wanted), Some(generation)) = (own.wanted.upgrade(), own.generation.upgrade()) else { return false };
        let wanted = wanted.lock();
        let directions = generation.fetch_add(1, Ordering::AcqRel) + 1;
        let traits = Box::new(wanted.traits.clone());
        own.requests.send(Request::Traits { traits, directions }).is_ok()
    });
}

/// What traits are before there is a model.
pub(crate) fn waiting(traits: &[Option<TraitReference>; TRAITS]) -> [TraitState; TRAITS] {
    std::array::from_fn(|slot| if traits[slot].is_some() { TraitState::Waiting } else { TraitState::Unset })
}
