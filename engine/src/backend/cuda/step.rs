//! Steps on a card: lays a player's rows out for the library, and gives prompts, held tables and injections to the card when
//! they are new. Runner thread; what is allocated is allocated when a prompt or a class is heard for the first time.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;

use super::abi::{self, Drawn, PushRow, Settings, reading};
use super::library::PlayerObject;
use super::model::CudaModel;
use crate::backend::cpu::CACHES;
use crate::backend::{Backend, BackendError, MOST_DRAWS, MOST_ROWS, MOST_TAPS, Step};
use crate::decoder::MAX_CODEBOOKS;
use crate::player::{MAX_ROWS, SLOTS};
use crate::steering::push::Push;
use crate::text::Prompt;

/// Prompts that are kept on the card: a step has three at most, and one may just have come.
const MOST_PROMPTS: usize = 4;

/// Bytes of its weights that a thread block asks for before its input is ready. None: since the first weights are read early, asking
/// for more was no faster on an H100, and 2 % slower for small.
const PREFETCH: u32 = 0;

const _: () = assert!(MAX_ROWS <= MOST_ROWS && MOST_ROWS == abi::MOST_ROWS && MAX_CODEBOOKS == abi::MOST_CODEBOOKS);
const _: () = assert!(MOST_DRAWS == abi::MOST_DRAWS && MOST_TAPS == abi::MOST_TAPS && SLOTS <= abi::MOST_ROWS);
const _: () = assert!(crate::steering::doses::MOST_OF_FAMILIES == abi::MOST_PUSHES);

/// One player's half of a card.
pub struct CudaBackend {
    player: PlayerObject,
    model: Arc<CudaModel>,
    /// Prompts on the card, the one used last at the end.
    prompts: Vec<(Arc<Prompt>, u32)>,
    /// Tables on the card by where they lie here: a model's steering stays where it is.
    held: Vec<(*const f32, u32)>,
    /// Which tables the slots of injections hold; at first they hold zeros.
    injected: [u64; SLOTS],
    step: Box<abi::Step>,
    drawn: Drawn,
    taps: [Vec<f32>; MOST_TAPS],
}

// SAFETY: the pointers in `held` are compared, never followed.
unsafe impl Send for CudaBackend {}

impl CudaBackend {
    /// Caches of `capacity` positions on the model's card.
    ///
    /// # Errors
    /// The card's memory does not suffice, or it no longer answers.
    pub fn new(model: Arc<CudaModel>, capacity: usize) -> Result<Self, BackendError> {
        let settings = Settings {
            caches: CACHES as u32,
            capacity: capacity as u32,
            injections: SLOTS as u32,
            overlap: 1,
            prefetch: PREFETCH,
            early: 1,
        };
        let player = model.object.open_player(&settings)?;
        let hidden = model.shape.hidden as usize;
        Ok(Self {
            player,
            prompts: Vec::with_capacity(MOST_PROMPTS + 1),
            held: Vec::new(),
            injected: [0; SLOTS],
            step: Box::default(),
            drawn: Drawn::default(),
            taps: std::array::from_fn(|_| vec![0.0; hidden]),
            model,
        })
    }

    /// The number of a prompt on the card, where it is put if it is not there.
    fn prompt(&mut self, prompt: &Arc<Prompt>) -> Result<u32, BackendError> {
        if let Some(place) = self.prompts.iter().position(|(known, _)| Arc::ptr_eq(known, prompt)) {
            let known = self.prompts.remove(place);
            let number = known.1;
            self.prompts.push(known);
            return Ok(number);
        }
        if self.prompts.len() == MOST_PROMPTS {
            let (_, oldest) = self.prompts.remove(0);
            self.player.close_prompt(oldest)?;
        }
        let number = self.player.open_prompt(&prompt.states)?;
        self.prompts.push((prompt.clone(), number));
        Ok(number)
    }

    /// The number of a push's tables on the card, likewise.
    fn held(&mut self, push: &Push<'_>) -> Result<u32, BackendError> {
        let place = push.directions.as_ptr();
        if let Some((_, number)) = self.held.iter().find(|(known, _)| *known == place) {
            return Ok(*number);
        }
        let (hidden, blocks) = (self.model.shape.hidden as usize, self.model.shape.blocks as usize);
        let fits =
            (push.directions.len(), push.levels.len(), push.limits.len()) == (blocks * hidden, 2 * blocks, blocks);
        if !fits {
            return Err(BackendError::Library { reason: "held directions of another model".to_owned() });
        }
        // SAFETY: their lengths were just looked at.
        let number = unsafe { self.player.open_held(push.directions, push.levels, push.limits) }?;
        self.held.push((place, number));
        Ok(number)
    }
}

impl Backend for CudaBackend {
    /// Tables are known by their addresses, which new ones may have.
    fn steering_changed(&mut self) {
        self.held.clear();
    }

    fn step(&mut self, step: &Step<'_>) -> Result<(), BackendError> {
        for (slot, table) in step.tables.iter().enumerate() {
            let used = step.rows.iter().any(|row| row.injection == Some(slot));
            if used && self.injected[slot] != table.version {
                self.player.inject(slot as u32, &table.values)?;
                self.injected[slot] = table.version;
            }
        }
        self.step.rows = step.rows.len() as u32;
        for (index, row) in step.rows.iter().enumerate() {
            let prompt = row.prompt.map_or(Ok(0), |prompt| self.prompt(prompt))?;
            let mut push = [PushRow::default(); abi::MOST_PUSHES];
            for (to, from) in push.iter_mut().zip(row.pushes) {
                *to = PushRow { held: self.held(from)?, reach: from.reach, share: from.share };
            }
            self.step.row[index] = abi::StepRow {
                cache: row.cache as u32,
                position: row.position as u32,
                prompt,
                injection: row.injection.map_or(-1, |slot| slot as i32),
                pushes: row.pushes.len() as u32,
                push,
                codes: row.codes,
            };
        }
        self.step.draws = std::array::from_fn(|index| {
            step.draws.get(index).map_or(abi::Draw::default(), |draw| abi::Draw {
                temperature: draw.sampling.temperature,
                guidance: draw.sampling.guidance,
                top_k: draw.sampling.top_k as u32,
                seed: draw.seed,
                frame: draw.frame,
                live: 1,
            })
        });
        self.step.taps = std::array::from_fn(|index| {
            let none = abi::Tap { block: -1, row: 0 };
            step.taps.get(index).map_or(none, |tap| abi::Tap { block: tap.block as i32, row: tap.row as i32 })
        });
        self.player.step(&self.step, &mut self.drawn)?;
        for (index, out) in self.taps.iter_mut().enumerate().take(step.taps.len()) {
            self.player.read(reading::TAP, index as u32, out)?;
        }
        if self.drawn.not_finite == 0 { Ok(()) } else { Err(BackendError::NotFinite) }
    }

    fn code(&mut self, draw: usize, codebook: usize) -> u32 {
        self.drawn.codes[draw][codebook]
    }

    fn tapped(&self, tap: usize) -> &[f32] {
        &self.taps[tap]
    }

    fn logits(&mut self, row: usize, out: &mut [f32]) -> Result<(), BackendError> {
        self.player.read(reading::LOGITS, row as u32, out)
    }

    fn place(&self) -> String {
        self.model.card().name.clone()
    }
}
