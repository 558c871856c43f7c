//! Whether a GPU computes what the processor does, asked with the embedded model before the first other one is entrusted to it: a driver
//! compiles the kernels for cards that nobody here has seen. Loader thread; a fraction of a second, once in a process.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::conformance::{apart, columns, compare, draw, largest, logits, pair};
use super::cpu::CpuBackend;
use super::gpu::Gpu;
use super::{Backend, BackendError, MOST_DRAWS, Step};
use crate::error::EngineError;
use crate::handle::ModelSource;
use crate::model::Model;
use crate::pool::Pool;

/// Largest difference from the processor's logits in f32, over the largest: what bf16 weights may change.
pub const MOST_APART: f64 = 2e-2;

/// Share of codes that have to be those of the engine's sampler on the GPU's own logits.
const DRAWN: f64 = 0.9;

/// Positions that are compared one by one, steered and not.
const COMPARED: usize = 6;

/// Positions in all: attention adds up more than one chunk at the end.
const POSITIONS: usize = 132;

/// Positions of one pass after those, in turn: passes of four, six and eight rows have kernels of their own.
const TOGETHER: [usize; 3] = [2, 3, 4];

const PROMPT: &str = "slow warm strings pad";

/// GPUs that have shown it, as they call themselves.
static PROVEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Asks a GPU, unless it was asked in this process and passed.
///
/// # Errors
/// As [`examine`].
pub fn prove(gpu: &Gpu) -> Result<(), EngineError> {
    // Held meanwhile: another instance waits for this one's answer.
    let mut proven = PROVEN.lock();
    let name = gpu.name();
    if !proven.contains(&name) {
        let began = Instant::now();
        examine(gpu)?;
        log::info!("GPU {name} computes what the CPU does, asked in {:.2} s", began.elapsed().as_secs_f64());
        proven.push(name);
    }
    Ok(())
}

/// Steps of the embedded model, steered and drawn, on the GPU and on the processor; then several positions at once, up to a longer
/// cache.
///
/// # Errors
/// [`BackendError::Astray`] says how far off it is; or it has no room for a small model, or gives up.
pub fn examine(gpu: &Gpu) -> Result<(), EngineError> {
    compared(gpu).map_err(|error| match error {
        EngineError::Backend(BackendError::NotFinite) => {
            BackendError::Astray { how: "its steps make numbers that are not finite".to_owned() }.into()
        }
        error => error,
    })
}

fn compared(gpu: &Gpu) -> Result<(), EngineError> {
    let source = ModelSource::Embedded;
    let model = Model::load(&source, &|_| ())?;
    let prompt = Arc::new(model.prompt(PROMPT)?);
    let mut exact = CpuBackend::new(model.clone(), Arc::new(Pool::new(1)), POSITIONS);
    let mut other = gpu.unproven(&source, &model, POSITIONS)?;
    let found = compare(&model, &prompt, &mut exact, &mut *other, COMPARED)?;
    let astray = |how: String| Err(EngineError::from(BackendError::Astray { how }));
    let far = found.logits_max_rel.max(found.taps_max_rel);
    if is_far(far) {
        return astray(format!("its steps are {:.1} % off", 100.0 * far));
    }
    if found.drawn_equal_share < DRAWN {
        return astray(format!(
            "{:.0} % of the codes that it draws are others",
            100.0 * (1.0 - found.drawn_equal_share)
        ));
    }
    let (all, mut first) = (columns(&model, POSITIONS, 1), COMPARED);
    for together in TOGETHER.into_iter().cycle() {
        let positions = first..(first + together).min(POSITIONS);
        let rows: Vec<_> =
            positions.clone().flat_map(|position| pair([0, 1], position, all[position], &prompt, None)).collect();
        let draws: Vec<_> = positions.clone().take(MOST_DRAWS).map(|position| draw(position, 1.0)).collect();
        let step = Step { rows: &rows, tables: &[], draws: &draws, taps: &[] };
        exact.step(&step)?;
        other.step(&step)?;
        for row in 0..2 * draws.len() {
            let (ours, theirs) = (logits(&mut exact, &model, row)?, logits(&mut *other, &model, row)?);
            let far = apart(&theirs, &ours) / largest(&ours);
            if is_far(far) {
                return astray(format!("after {first} positions it is {:.1} % off", 100.0 * far));
            }
        }
        first = positions.end;
        if first == POSITIONS {
            break;
        }
    }
    Ok(())
}

/// What is no number is far, too.
fn is_far(apart: f64) -> bool {
    apart.is_nan() || apart > MOST_APART
}
