//! The loader thread: reads checkpoints and encodes prompts, so that neither the audio thread nor the runner waits for
//! a disk or a text encoder.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::handle::ModelSource;
use crate::model::Model;
use crate::player::Player;
use crate::precision::Precision;
use crate::runner::Order;
use crate::status::{State, StatusCell};

/// What the handle asks for.
pub(crate) enum Request {
    /// Load a model and encode the prompt that it starts with.
    Model {
        source: ModelSource,
        prompt: String,
        generation: u32,
        window: Option<usize>,
        /// `None` is what suits the checkpoint's size.
        precision: Option<Precision>,
    },
    /// Encode a prompt for the model that is loaded.
    Prompt { text: String, generation: u32 },
    /// End the thread.
    Stop,
}

pub(crate) struct Loader {
    requests: Receiver<Request>,
    orders: Sender<Order>,
    status: Arc<StatusCell>,
    model: Option<Arc<Model>>,
}

impl Loader {
    pub(crate) fn new(requests: Receiver<Request>, orders: Sender<Order>, status: Arc<StatusCell>) -> Self {
        Self { requests, orders, status, model: None }
    }

    /// The thread's body; returns when told to stop or when the handle is gone.
    pub(crate) fn run(mut self) {
        while let Ok(request) = self.requests.recv() {
            match request {
                Request::Model { source, prompt, generation, window, precision } => {
                    self.load(&source, &prompt, generation, window, precision);
                }
                Request::Prompt { text, generation } => self.encode(&text, generation),
                Request::Stop => return,
            }
        }
    }

    fn load(
        &mut self,
        source: &ModelSource,
        text: &str,
        generation: u32,
        window: Option<usize>,
        precision: Option<Precision>,
    ) {
        self.model = None;
        self.send(Order::Silence { dead: false });
        self.status.set_model(&Model::name_of(source));
        self.status.set_notice(String::new());
        self.status.set_state(State::Loading(0));
        let progress = |percent| self.status.set_state(State::Loading(percent));
        // A configuration that cannot be read has its say when the model is loaded.
        let suited = || Model::suited_precision(source).unwrap_or_default();
        let loaded = Model::load_at(source, precision.unwrap_or_else(suited), &progress).and_then(|model| {
            self.status.set_state(State::Warming);
            let prompt = Arc::new(model.prompt(text)?);
            Ok((model, prompt))
        });
        match loaded {
            Ok((model, prompt)) => {
                if let Some(notice) = model.notice() {
                    self.status.set_notice(notice.to_owned());
                }
                let mut player = Box::new(Player::on(model.pool(), model.clone(), prompt, window));
                player.warm_up();
                self.model = Some(model);
                self.send(Order::Play { player, prompt: generation });
                self.status.set_state(State::Ready);
            }
            Err(error) => {
                self.send(Order::Silence { dead: true });
                self.status.set_state(State::Failed(error.to_string()));
            }
        }
    }

    fn encode(&self, text: &str, generation: u32) {
        // Without a model there is nothing to encode for: the next model brings the newest prompt along.
        let Some(model) = &self.model else { return };
        let prompt = match model.prompt(text) {
            Ok(prompt) => Some(Arc::new(prompt)),
            Err(error) => {
                self.status.set_notice(error.to_string());
                None
            }
        };
        self.send(Order::Prompt { generation, prompt });
    }

    fn send(&self, order: Order) {
        // The runner outlives the loader's last request; when it is gone, nobody is left to tell.
        let _ = self.orders.send(order);
    }
}
