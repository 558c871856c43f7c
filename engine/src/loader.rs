//! The loader thread: reads checkpoints and encodes prompts, so that neither the audio thread nor the runner waits for
//! a disk or a text encoder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::backend::cuda::abi::status;
use crate::backend::gpu::Gpu;
use crate::backend::{Backend, BackendError, Device};
use crate::control::TRAITS;
use crate::error::EngineError;
use crate::handle::{self, ModelSource};
use crate::model::Model;
use crate::player::Player;
use crate::precision::Precision;
use crate::runner::Order;
use crate::status::{State, StatusCell};
use crate::steering::class_set::ClassSet;
use crate::steering::doses::Lane;
use crate::steering::table::Steering;
use crate::steering::trait_files::TraitReference;
use crate::text::Prompt;

/// What the handle asks for.
pub(crate) enum Request {
    /// Load a model and encode the prompt that it starts with.
    Model(Box<ModelRequest>),
    /// Encode a prompt for the model that is loaded.
    Prompt { text: String, generation: u32 },
    /// Read the directions of the lanes for the model that is loaded: the user's own, and those of the trait lanes.
    Traits { traits: Box<[Option<TraitReference>; TRAITS]>, directions: u32 },
    /// End the thread.
    Stop,
}

/// A model and what it starts with.
pub(crate) struct ModelRequest {
    pub source: ModelSource,
    pub prompt: String,
    /// Of the prompt.
    pub generation: u32,
    /// Files of the trait lanes.
    pub traits: [Option<TraitReference>; TRAITS],
    /// Their generation.
    pub directions: u32,
    pub window: Option<usize>,
    /// `None` is what suits the checkpoint's size.
    pub precision: Option<Precision>,
    pub device: Device,
}

pub(crate) struct Loader {
    requests: Receiver<Request>,
    orders: Sender<Order>,
    status: Arc<StatusCell>,
    model: Option<(ModelSource, Arc<Model>)>,
}

impl Loader {
    pub(crate) fn new(requests: Receiver<Request>, orders: Sender<Order>, status: Arc<StatusCell>) -> Self {
        Self { requests, orders, status, model: None }
    }

    /// The thread's body; returns when told to stop or when the handle is gone.
    pub(crate) fn run(mut self) {
        while let Ok(request) = self.requests.recv() {
            match request {
                Request::Model(request) => {
                    // A fault of ours while loading is a model that failed, not a host that is gone.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.load(&request))) {
                        self.give_up(&EngineError::fault(&*panic));
                    }
                }
                Request::Prompt { text, generation } => {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.encode(&text, generation))) {
                        self.status.set_notice(EngineError::fault(&*panic).to_string());
                        self.send(Order::Prompt { generation, prompt: None });
                    }
                }
                Request::Traits { traits, directions } => {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.steer(&traits, directions))) {
                        self.status.set_notice(EngineError::fault(&*panic).to_string());
                        // A render waits for these directions: it goes on without any trait.
                        if let Some((_, model)) = &self.model {
                            let steering = model.steering().clone();
                            self.send(Order::Directions { generation: directions, steering });
                        }
                    }
                }
                Request::Stop => return,
            }
        }
    }

    fn load(&mut self, request: &ModelRequest) {
        let source = &request.source;
        self.model = None;
        self.status.set_loaded(None);
        self.status.set_targets([ClassSet::EMPTY; Lane::FAMILIES.len()]);
        self.status.set_traits(handle::waiting(&request.traits));
        self.send(Order::Silence { dead: false });
        self.status.set_model(&Model::name_of(source));
        self.status.set_notice(String::new());
        self.status.set_device(String::new());
        self.status.set_state(State::Loading(0));
        let progress = |percent| self.status.set_state(State::Loading(percent));
        // A configuration that cannot be read has its say when the model is loaded.
        let suited = || Model::suited_precision(source).unwrap_or_default();
        let loaded = Model::load_at(source, request.precision.unwrap_or_else(suited), &progress).and_then(|model| {
            self.status.set_state(State::Warming);
            let prompt = Arc::new(model.prompt(&request.prompt)?);
            Ok((model, prompt))
        });
        match loaded {
            Ok((model, prompt)) => {
                if let Some(notice) = model.notice() {
                    self.status.set_notice(notice.to_owned());
                }
                let made = Made::new(source, &model, prompt, request.window, request.device);
                self.status.set_device(made.place);
                made.notices.into_iter().for_each(|notice| self.status.set_notice(notice));
                let mut player = Box::new(made.player);
                player.warm_up();
                if let Some(notice) = player.take_notice() {
                    self.status.set_notice(notice);
                    self.status.set_device(player.place());
                }
                player.set_steering(self.equip(source, &model, &request.traits));
                self.status.set_loaded(Some(&model));
                self.model = Some((source.clone(), model));
                let (prompt, directions) = (request.generation, request.directions);
                self.send(Order::Play { player, prompt, directions });
                self.status.set_state(State::Ready);
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// There will be no model.
    fn give_up(&self, error: &EngineError) {
        self.send(Order::Silence { dead: true });
        self.status.set_state(State::Failed(error.to_string()));
    }

    fn encode(&self, text: &str, generation: u32) {
        // Without a model there is nothing to encode for: the next model brings the newest prompt along.
        let Some((_, model)) = &self.model else { return };
        let prompt = match model.prompt(text) {
            Ok(prompt) => Some(Arc::new(prompt)),
            Err(error) => {
                self.status.set_notice(error.to_string());
                None
            }
        };
        self.send(Order::Prompt { generation, prompt });
    }

    fn steer(&self, traits: &[Option<TraitReference>; TRAITS], directions: u32) {
        let Some((source, model)) = &self.model else {
            // The next model brings them along.
            self.status.set_traits(handle::waiting(traits));
            return;
        };
        let steering = self.equip(source, model, traits);
        self.send(Order::Directions { generation: directions, steering });
    }

    /// What the model is to be steered by, and what people may know of it.
    fn equip(&self, source: &ModelSource, model: &Model, traits: &[Option<TraitReference>; TRAITS]) -> Steering {
        let equipment = model.equipped(source, traits);
        self.status.set_targets(Lane::FAMILIES.map(|lane| equipment.steering.classes(lane)));
        self.status.set_traits(equipment.traits);
        if let Some(notice) = equipment.notice {
            self.status.set_notice(notice);
        }
        equipment.steering
    }

    fn send(&self, order: Order) {
        // The runner outlives the loader's last request; when it is gone, nobody is left to tell.
        let _ = self.orders.send(order);
    }
}

/// A player, and where it plays.
pub(crate) struct Made {
    pub player: Player,
    /// For people.
    pub place: String,
    /// What is not as it was asked for.
    pub notices: Vec<String>,
}

impl Made {
    /// On the GPU that is asked for, else on the processor.
    pub(crate) fn new(
        source: &ModelSource,
        model: &Arc<Model>,
        prompt: Arc<Prompt>,
        window: Option<usize>,
        device: Device,
    ) -> Self {
        let number = match device {
            Device::Cpu => None,
            Device::Gpu(number) => Some(Some(number)),
            // A small model has no need of a GPU.
            Device::Auto => Model::suits_card(source).unwrap_or(false).then_some(None),
        };
        let mut notices = Vec::new();
        if let Some(number) = number {
            match on_gpu(source, model, window, number) {
                Ok((backend, gpu)) => {
                    let mut player = Player::computed_by(backend, model.pool(), model.clone(), prompt, window);
                    if let Err(why) = gpu.decode(source, model, &mut player) {
                        notices.push(format!("the codec plays on the CPU, the model on the GPU: {why}"));
                    }
                    return Self { player, place: gpu.to_string(), notices };
                }
                Err(why) if device == Device::Auto && is_absent(&why) => log::info!("{why}"),
                Err(why) => notices.push(why.to_string()),
            }
        }
        let player = Player::on(model.pool(), model.clone(), prompt, window);
        Self { player, place: "CPU".to_owned(), notices }
    }
}

/// The model on a GPU, and the GPU for people.
fn on_gpu(
    source: &ModelSource,
    model: &Arc<Model>,
    window: Option<usize>,
    number: Option<u32>,
) -> Result<(Box<dyn Backend>, Gpu), EngineError> {
    let gpu = Gpu::choose(number)?;
    Ok((gpu.backend(source, model, window)?, gpu))
}

/// Nothing is wrong: this machine or this installation simply has no GPU to play on.
fn is_absent(why: &EngineError) -> bool {
    const ABSENT: [i32; 3] = [status::NO_DRIVER, status::NO_DEVICE, status::NO_KERNELS];
    match why {
        EngineError::Backend(BackendError::Library { .. }) => true,
        EngineError::Backend(BackendError::Card { status, .. }) => ABSENT.contains(status),
        _ => false,
    }
}
