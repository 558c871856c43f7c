//! Text encoder and language model against golden values: states, every block, logits, greedy codes. Any thread.

use super::reference::Reference;
use super::report::{CodesStage, Stage};
use super::{GREEDY_TIE, ParityError};
use crate::checkpoint::Config;
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::sampling::argmax;
use crate::decoder::{CrossCache, Decoder, KvCache, MAX_CODEBOOKS, Row, Scratch};
use crate::text::TextEncoder;

/// Positions of both guidance rows that share a pass: bounds the memory at any length.
const POSITIONS: usize = 8;

/// A prompt with the ids that transformers gives it.
#[derive(serde::Deserialize)]
struct PromptCase {
    text: String,
    ids: Vec<u32>,
}

/// One checkpoint's language half.
pub(super) struct Language<'a> {
    pub config: &'a Config,
    pub text: &'a TextEncoder,
    pub decoder: &'a Decoder,
    /// Bound of every relative error.
    pub bound: f64,
}

impl Language<'_> {
    /// Token ids of the reference's prompt by our tokenizer, where the file says what the prompt was.
    pub fn tokens(&self, reference: &Reference) -> Result<Option<CodesStage>, ParityError> {
        let Some(prompt) = reference.metadata("prompt") else { return Ok(None) };
        let (expected, ours) = (unmasked(reference)?, self.text.encode(&prompt)?.ids);
        let wrong =
            if ours == expected { vec![] } else { vec![format!("{prompt:?} gives {ours:?}, not {expected:?}")] };
        Ok(Some(CodesStage::new("input_ids", expected.len(), vec![], wrong)))
    }

    /// Further prompts, where the file has any: their token ids by our tokenizer, and their text states.
    pub fn prompts(&self, reference: &Reference, stages: &mut Vec<Stage>) -> Result<Option<CodesStage>, ParityError> {
        let Some(list) = reference.metadata("prompts") else { return Ok(None) };
        let cases: Vec<PromptCase> = serde_json::from_str(&list).map_err(|error| ParityError::Tensor {
            file: reference.name().to_owned(),
            key: "prompts".to_owned(),
            reason: error.to_string(),
        })?;
        let mut wrong = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            let ours = self.text.encode(&case.text)?;
            if ours.ids != case.ids {
                wrong.push(format!("{:?} gives {:?}, not {:?}", case.text, ours.ids, case.ids));
                continue;
            }
            let key = format!("prompts_hidden.{index}");
            if reference.has(&key) {
                let expected = reference.floats(&key, 3)?;
                stages.push(Stage::by_largest(
                    format!("text_hidden, {key}"),
                    &ours.states,
                    &expected.values,
                    self.bound,
                ));
            }
        }
        Ok(Some(CodesStage::new("prompts", cases.len(), vec![], wrong)))
    }

    /// Prompts of unequal length that the reference padded to one batch: padding must not reach the states.
    pub fn padded(&self, reference: &Reference, stages: &mut Vec<Stage>) -> Result<(), ParityError> {
        if !reference.has("padded_text_hidden") {
            return Ok(());
        }
        let ids = reference.integers("padded_input_ids", 2)?;
        let mask = reference.integers("padded_attention_mask", 2)?;
        let expected = reference.floats("padded_text_hidden", 3)?;
        let (tokens, width) = (ids.shape[1], self.config.text.d_model);
        let fits = mask.shape == ids.shape && expected.shape == [ids.shape[0], tokens, width];
        self.expect(reference, "padded_text_hidden", fits)?;
        let rows = ids.values.chunks_exact(tokens).zip(mask.values.chunks_exact(tokens));
        for (row, ((ids, mask), states)) in rows.zip(expected.values.chunks_exact(tokens * width)).enumerate() {
            let (mut kept, mut wanted) = (Vec::new(), Vec::new());
            for (token, states) in states.chunks_exact(width).enumerate().filter(|(token, _)| mask[*token] != 0) {
                kept.push(ids[token]);
                wanted.extend_from_slice(states);
            }
            let ours = self.text.states(&kept)?;
            stages.push(Stage::by_largest(format!("text_hidden, padded row {row}"), &ours, &wanted, self.bound));
        }
        Ok(())
    }

    /// Text states, and the cross-attention cache made from our own ones; `None` when the mask hides every token.
    pub fn text(&self, reference: &Reference, stages: &mut Vec<Stage>) -> Result<Option<CrossCache>, ParityError> {
        let ids = unmasked(reference)?;
        if ids.is_empty() {
            return Ok(None);
        }
        let expected = reference.floats("text_hidden", 3)?;
        let width = self.config.text.d_model;
        self.expect(reference, "text_hidden", expected.shape[2] == width && expected.shape[1] >= ids.len())?;
        let states = self.text.states(&ids)?;
        // States of padding are looked at by nobody.
        stages.push(Stage::by_largest("text_hidden", &states, &expected.values[..ids.len() * width], self.bound));
        Ok(Some(self.decoder.cross_cache(&states)))
    }

    /// Teacher-forced pass over `decoder_input_ids`: hidden states of the conditional row and logits of both.
    pub fn teacher_forced(
        &self,
        reference: &Reference,
        text: Option<&CrossCache>,
        stages: &mut Vec<Stage>,
    ) -> Result<(), ParityError> {
        let decoder = self.decoder;
        let (hidden, vocab, codebooks) = (decoder.hidden(), decoder.vocab(), decoder.codebooks());
        let ids = reference.integers("decoder_input_ids", 3)?;
        let positions = ids.shape[2];
        let known = ids.values.iter().all(|&code| code as usize <= vocab);
        self.expect(reference, "decoder_input_ids", ids.shape[..2] == [1, codebooks] && known)?;
        let expected_hidden = reference.floats("hidden_states", 4)?;
        let blocks = expected_hidden.shape[0];
        let shape = [1, positions, hidden];
        self.expect(reference, "hidden_states", blocks <= decoder.blocks() && expected_hidden.shape[1..] == shape)?;

        let mut caches = [KvCache::new(decoder, positions), KvCache::new(decoder, positions)];
        let [a, b] = &mut caches;
        let mut caches = [a, b];
        let mut scratch = Scratch::new(decoder, 2 * POSITIONS);
        let mut states = vec![0.0; blocks * positions * hidden];
        let mut logits = [vec![0.0; codebooks * positions * vocab], vec![0.0; codebooks * positions * vocab]];
        for first in (0..positions).step_by(POSITIONS) {
            let last = (first + POSITIONS).min(positions);
            let mut rows = Vec::with_capacity(2 * POSITIONS);
            for position in first..last {
                let mut codes = [decoder.pad(); MAX_CODEBOOKS];
                for (k, code) in codes.iter_mut().enumerate().take(codebooks) {
                    *code = ids.values[k * positions + position];
                }
                for (cache, text) in [(0, text), (1, None)] {
                    rows.push(Row { cache, position, codes, text, injection: None, pushes: &[], logits: true });
                }
            }
            let mut observe = |block: usize, row: usize, output: &[f32]| {
                if row.is_multiple_of(2) && block < blocks {
                    states[(block * positions + first + row / 2) * hidden..][..hidden].copy_from_slice(output);
                }
            };
            decoder.forward(&rows, &mut caches, &mut scratch, Some(&mut observe));
            for row in 0..rows.len() {
                for (k, part) in scratch.logits(row).chunks_exact(vocab).enumerate() {
                    let at = (k * positions + first + row / 2) * vocab;
                    logits[row % 2][at..at + vocab].copy_from_slice(part);
                }
            }
        }
        let size = positions * hidden;
        for (block, (ours, theirs)) in
            states.chunks_exact(size).zip(expected_hidden.values.chunks_exact(size)).enumerate()
        {
            stages.push(Stage::by_largest(format!("hidden_states of block {block}"), ours, theirs, self.bound));
        }
        for (key, ours) in ["logits_conditional", "logits_unconditional"].into_iter().zip(&logits) {
            let expected = reference.floats(key, 3)?;
            self.expect(reference, key, expected.shape == [codebooks, positions, vocab])?;
            stages.push(Stage::by_largest(key, ours, &expected.values, self.bound));
        }
        Ok(())
    }

    /// Greedy codes with guidance 3.0. A mismatch where the reference's two best logits (or ours, if the file does not
    /// say) are closer than a tie is counted, and the run goes on from the reference's code.
    pub fn greedy(&self, reference: &Reference, text: Option<&CrossCache>) -> Result<CodesStage, ParityError> {
        let decoder = self.decoder;
        let (vocab, codebooks) = (decoder.vocab(), decoder.codebooks());
        let expected = reference.integers("greedy_codes", 3)?;
        let frames = expected.shape[2];
        let known = expected.values.iter().all(|&code| (code as usize) < vocab);
        self.expect(reference, "greedy_codes", expected.shape[..2] == [1, codebooks] && known)?;
        let gaps = reference.has("greedy_gap").then(|| reference.floats("greedy_gap", 3)).transpose()?;
        if let Some(gaps) = &gaps {
            self.expect(reference, "greedy_gap", gaps.shape == expected.shape)?;
        }
        let guidance = reference.metadata("guidance").and_then(|text| text.parse().ok()).unwrap_or(3.0f32);
        let pattern = DelayPattern::new(codebooks, decoder.channels());
        let columns = pattern.columns(frames);
        let mut caches = [KvCache::new(decoder, columns), KvCache::new(decoder, columns)];
        let [a, b] = &mut caches;
        let mut caches = [a, b];
        let mut scratch = Scratch::new(decoder, 2);
        let mut codes = [decoder.bos(); MAX_CODEBOOKS];
        let (mut ties, mut wrong) = (Vec::new(), Vec::new());
        let mut mixed = vec![0.0; vocab];
        for position in 0..columns {
            let row = |cache, text| Row { cache, position, codes, text, injection: None, pushes: &[], logits: true };
            decoder.forward(&[row(0, text), row(1, None)], &mut caches, &mut scratch, None);
            codes = [decoder.pad(); MAX_CODEBOOKS];
            for (k, code) in codes.iter_mut().enumerate().take(codebooks) {
                let Some(frame) = pattern.frame(position, k, Some(frames)) else { continue };
                let range = k * vocab..(k + 1) * vocab;
                let both = scratch.logits(0)[range.clone()].iter().zip(&scratch.logits(1)[range]);
                mixed.iter_mut().zip(both).for_each(|(mixed, (c, u))| *mixed = u + guidance * (c - u));
                let (ours, theirs) = (argmax(&mixed).0, expected.values[k * frames + frame] as usize);
                if ours != theirs {
                    let gap = gaps.as_ref().map_or(mixed[ours] - mixed[theirs], |g| g.values[k * frames + frame]);
                    let said = format!("frame {frame}, codebook {k}: {ours} for {theirs}, logits {gap:.1e} apart");
                    if gap < GREEDY_TIE { ties.push(said) } else { wrong.push(said) }
                }
                *code = theirs as u32;
            }
        }
        Ok(CodesStage::new("greedy_codes", frames * codebooks, ties, wrong))
    }

    fn expect(&self, reference: &Reference, key: &str, fits: bool) -> Result<(), ParityError> {
        let reason = || "its shape or its values are not this checkpoint's".to_owned();
        match fits {
            true => Ok(()),
            false => {
                Err(ParityError::Tensor { file: reference.name().to_owned(), key: key.to_owned(), reason: reason() })
            }
        }
    }
}

/// The tokens that the attention mask leaves; what pads them has no influence.
fn unmasked(reference: &Reference) -> Result<Vec<u32>, ParityError> {
    let ids = reference.integers("input_ids", 2)?.values;
    let mask = reference.integers("attention_mask", 2)?.values;
    Ok(ids.into_iter().zip(mask).filter(|(_, mask)| *mask != 0).map(|(id, _)| id).collect())
}
