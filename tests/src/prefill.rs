//! A piece by brute force: every step is a fresh prefill of its whole window, with new caches. Slow and obvious; what the
//! player computes step by step, in slices and beside other work must be exactly this.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tiller_engine::codec::Codes;
use tiller_engine::control::ControlFrame;
use tiller_engine::decoder::delay_pattern::DelayPattern;
use tiller_engine::decoder::sampling::{Sampler, Sampling};
use tiller_engine::decoder::{KvCache, MAX_CODEBOOKS, Row, Scratch};
use tiller_engine::handle::ModelSource;
use tiller_engine::link::CHANNELS;
use tiller_engine::model::{Model, NOTES_FILE};
use tiller_engine::steering::block_weights::BlockWeights;
use tiller_engine::steering::directions::Directions;
use tiller_engine::steering::doses::{Doses, Lane};
use tiller_engine::steering::envelope::Envelope;
use tiller_engine::steering::push::Manner;
use tiller_engine::text::Prompt;

/// Whose prompt a kept position of a rebuilt window has: the step whose prompt counts, from the first step in that window
/// and the position.
pub type RebuildPrompt<'a> = &'a dyn Fn(usize, usize) -> usize;

/// The definition: each position keeps the prompt that it first had.
pub fn rebuild_prompt(window: usize) -> impl Fn(usize, usize) -> usize {
    move |switch, position| switch - window / 2 + position
}

/// Sampled columns `[step][codebook]` of a piece whose controls end with its `End`, the flush's too. `prompts` are indexed by
/// `ControlFrame::prompt`. The window is full at `window` positions, and the newest half is kept: the new one is BOS and
/// the kept frames laid out by the delay pattern, positions from 0, each with the steering that it first had.
pub fn columns(
    model: &Model,
    prompts: &[Arc<Prompt>],
    controls: &[ControlFrame],
    window: usize,
    rebuild_prompt: RebuildPrompt<'_>,
) -> Vec<Vec<u32>> {
    let decoder = model.decoder();
    let pattern = DelayPattern::new(decoder.codebooks(), model.channels());
    let frames = controls.len() - 1;
    let control = |step: usize| {
        let mut control = controls[step.min(frames - 1)];
        control.index += (step + 1).saturating_sub(frames) as u32;
        control
    };
    let (mut base, mut columns) = (0, Vec::<[u32; MAX_CODEBOOKS]>::new());
    let mut sampler = Sampler::new(decoder.vocab());
    let mut scratch = Scratch::new(decoder, 2 * (window + MAX_CODEBOOKS));
    let width = decoder.blocks() * decoder.hidden();
    let format = model.format();
    let frame_seconds = format.frame_samples as f32 / format.model_rate as f32;
    let mut envelope = Envelope::default();
    let steps = 0..frames + pattern.max_delay();
    let doses: Vec<Doses> = steps.map(|step| envelope.advance(&control(step).lanes, frame_seconds)).collect();
    for step in 0..frames + pattern.max_delay() {
        if step == base + window && step < frames {
            base = step - window / 2;
        }
        let switch = if base > 0 { base + window / 2 } else { 0 };
        let positions = step - base + 1;
        let mut injections = Vec::new();
        for position in 0..positions {
            let mut injection = vec![0.0; width];
            let steered = model.steering().write(&doses[base + position], (base + position) as u32, &mut injection);
            injections.push((steered.then_some(injection), model.steering().pushes(&doses[base + position])));
        }
        let mut rows = Vec::new();
        for position in 0..positions {
            let mut codes = [if position == 0 { decoder.bos() } else { decoder.pad() }; MAX_CODEBOOKS];
            for (codebook, code) in codes.iter_mut().enumerate().take(decoder.codebooks()) {
                if position > pattern.delay(codebook) {
                    *code = columns[base + position - 1][codebook];
                }
            }
            let first_had = base + position;
            let under = if first_had < switch { rebuild_prompt(switch, position) } else { first_had };
            let text = &prompts[control(under).prompt as usize].cross;
            for (cache, text) in [(0, Some(text)), (1, None)] {
                let (injection, pushes) = &injections[position];
                let (injection, logits) = (injection.as_deref(), position + 1 == positions);
                rows.push(Row { cache, position, codes, text, injection, pushes, logits });
            }
        }
        let (mut conditional, mut unconditional) = (KvCache::new(decoder, positions), KvCache::new(decoder, positions));
        decoder.forward(&rows, &mut [&mut conditional, &mut unconditional], &mut scratch, None);
        let last = rows.len() - 2;
        let control = control(step);
        let mut column = [decoder.pad(); MAX_CODEBOOKS];
        for (codebook, code) in column.iter_mut().enumerate().take(decoder.codebooks()) {
            let delay = pattern.delay(codebook);
            if step < delay || step - delay >= frames {
                continue;
            }
            let range = codebook * decoder.vocab()..(codebook + 1) * decoder.vocab();
            let (c, u) = (&scratch.logits(last)[range.clone()], &scratch.logits(last + 1)[range]);
            let sampling = Sampling {
                temperature: control.temperature,
                guidance: control.guidance,
                top_k: control.top_k as usize,
            };
            *code = sampler.sample(c, u, &sampling, control.seed, control.index, codebook);
        }
        columns.push(column);
    }
    columns.into_iter().map(|column| column[..decoder.codebooks()].to_vec()).collect()
}

/// Interleaved audio of a whole piece's columns, decoded in one go; mono is written to both channels.
///
/// # Errors
/// When the codec refuses the codes.
pub fn audio(model: &Model, columns: &[Vec<u32>]) -> Result<Vec<f32>, String> {
    let (channels, codebooks) = (model.channels(), model.decoder().codebooks());
    let pattern = DelayPattern::new(codebooks, channels);
    let frames = columns.len() - pattern.max_delay();
    let mut sides = Vec::new();
    for channel in 0..channels {
        // Left and right codebooks interleave.
        let own = (channel..codebooks).step_by(channels);
        let code = &|frame: usize, codebook: usize| columns[frame + pattern.delay(codebook)][codebook];
        let side: Vec<u32> =
            (0..frames).flat_map(|frame| own.clone().map(move |codebook| code(frame, codebook))).collect();
        let codes = Codes::from_frames(&side, codebooks / channels).map_err(|e| e.to_string())?;
        sides.push(model.codec().decode(&codes).map_err(|e| e.to_string())?);
    }
    let (left, right) = (&sides[0], &sides[channels - 1]);
    Ok(left.iter().zip(right).flat_map(|(l, r)| [*l, *r]).collect())
}

/// Whether `heard` is `whole`, up to the rounding of a stream. The error says where it is not.
pub fn same_audio(heard: &[f32], whole: &[f32]) -> Result<(), String> {
    if heard.len() != whole.len() {
        return Err(format!("{} samples heard, {} expected", heard.len() / CHANNELS, whole.len() / CHANNELS));
    }
    let rms = (whole.iter().map(|x| x * x).sum::<f32>() / whole.len().max(1) as f32).sqrt();
    if rms < 1e-3 {
        return Err(format!("silence proves nothing (RMS {rms})"));
    }
    match heard.iter().zip(whole).position(|(h, w)| (h - w).abs() > 1e-4 * rms.min(1.0)) {
        None => Ok(()),
        Some(at) => Err(format!("sample {} is {}, expected {} at RMS {rms}", at / CHANNELS, heard[at], whole[at])),
    }
}

/// A tiny checkpoint of `tests/fixtures` with note directions of random orientation beside it, in a folder under `folder`
/// that is made anew.
pub fn steered_fixture(name: &str, folder: &Path) -> Result<Arc<Model>, String> {
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    // Tests of one program run beside each other.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let steered: PathBuf =
        folder.join(format!("{name}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let failed = |e: std::io::Error| format!("{}: {e}", steered.display());
    std::fs::create_dir_all(&steered).map_err(failed)?;
    for entry in std::fs::read_dir(&published).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(file) = path.file_name().filter(|file| *file != "reference.safetensors") {
            std::fs::copy(&path, steered.join(file)).map_err(failed)?;
        }
    }
    let source = ModelSource::Directory(steered.clone());
    let plain = Model::load(&source, &|_| ()).map_err(|e| e.to_string())?;
    let (blocks, hidden) = (plain.decoder().blocks(), plain.decoder().hidden());
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut vectors = Vec::new();
    for _ in 0..12 * blocks {
        let vector: Vec<f32> = (0..hidden).map(|_| random()).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vectors.extend(vector.iter().map(|x| x / norm));
    }
    let directions = Directions {
        concept: "notes".to_owned(),
        classes: (0..12).map(|class| class.to_string()).collect(),
        checkpoint_name: plain.name().to_owned(),
        checkpoint_hash: plain.hash().to_owned(),
        method: "random".to_owned(),
        blocks,
        hidden,
        vectors,
        block_norms: vec![8.0; blocks],
        scores: vec![0.5; 12 * blocks],
        detectors: vec![0.0; 2 * 12 * blocks],
        levels: vec![0.0; 2 * 12 * blocks],
        manner: Manner::Add,
        full_dose: 0.5,
        block_weights: BlockWeights::All,
        gate: 1.0,
        conditional_only: false,
        provenance: "{}".to_owned(),
    };
    directions.write(&steered.join(NOTES_FILE)).map_err(|e| e.to_string())?;
    // The process shares a loaded copy as long as there is one: this one is without directions.
    drop(plain);
    let model = Model::load(&source, &|_| ()).map_err(|e| e.to_string())?;
    std::fs::remove_dir_all(&steered).map_err(failed)?;
    match model.steering().has(Lane::Note) {
        true => Ok(model),
        false => Err(format!("the directions were not taken: {:?}", model.notice())),
    }
}
