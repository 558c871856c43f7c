//! A loaded checkpoint, ready to play: decoder, codec, text encoder, steering tables. Immutable and shared: one copy of
//! the weights in a process, however many plugin instances. Made on the loader thread.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointSource, CodecConfig, Config};
use crate::codec::CodecDecoder;
use crate::control::TRAITS;
use crate::decoder::delay_pattern::DelayPattern;
use crate::decoder::packed::{self, PackedFile};
use crate::decoder::quality::Quality;
use crate::decoder::{Decoder, SMALL_STEP};
use crate::embedded;
use crate::error::EngineError;
use crate::handle::ModelSource;
use crate::link::StreamFormat;
use crate::pool::{self, Pool};
use crate::precision::Precision;
use crate::steering::directions::{Directions, DirectionsError};
use crate::steering::doses::Lane;
use crate::steering::table::{LaneTable, Steering};
use crate::steering::trait_files::{self, TraitError, TraitReference, TraitState};
use crate::text::{Prompt, TextEncoder};

/// Note directions are looked for under this name beside the checkpoint's own files.
pub const NOTES_FILE: &str = "tiller-notes.safetensors";

/// Name of a concept family's directions file: [`NOTES_FILE`] for "notes".
pub fn directions_file(concept: &str) -> String {
    format!("tiller-{concept}.safetensors")
}

/// Nats a code by which 8-bit weights may change what a codebook's codes are drawn from. Past it a checkpoint is kept in bf16.
const MOST_DIVERGENCE: f64 = 0.05;

/// What the decoder plays while its layers of few bits are measured, and before, while they are rounded.
const SETTLING_PROMPTS: [&str; 6] = [
    "medium piano melody",
    "calm piano broken chords, slow",
    "bright brass chords, quick",
    "soft strings pad, slow",
    "driving guitar chords over bass guitar bass line, fast",
    "gentle flute melody, medium tempo",
];

/// What every instance in the process shares.
static LOADED: Mutex<Vec<(ModelSource, Precision, Weak<Model>)>> = Mutex::new(Vec::new());

/// What one instance steers by.
pub struct Equipment {
    /// Tables of all lanes that steer.
    pub steering: Steering,
    /// What became of each trait's file.
    pub traits: [TraitState; TRAITS],
    /// What is wrong with directions in the user's own folder; the checkpoint's own steer in their place.
    pub notice: Option<String>,
}

/// One checkpoint.
pub struct Model {
    name: String,
    hash: String,
    decoder: Decoder,
    codec: Arc<CodecDecoder>,
    text: TextEncoder,
    steering: Steering,
    notice: Option<String>,
    quality: Option<Quality>,
    format: StreamFormat,
    channels: usize,
    window: usize,
}

impl ModelSource {
    pub(crate) fn checkpoint(&self) -> CheckpointSource {
        match self {
            Self::Embedded => CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES },
            Self::Directory(path) => CheckpointSource::directory(path),
        }
    }
}

impl Model {
    /// Loads a checkpoint as exactly as it is, or shares the copy that another instance has loaded. `progress` hears percent.
    ///
    /// # Errors
    /// When the checkpoint cannot be used. Directions that cannot be used are a [`Model::notice`], not an error: the model
    /// plays unsteered.
    pub fn load(source: &ModelSource, progress: &dyn Fn(u8)) -> Result<Arc<Self>, EngineError> {
        Self::load_at(source, Precision::F32, progress)
    }

    /// As [`Model::load`], at a precision.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_at(
        source: &ModelSource,
        precision: Precision,
        progress: &dyn Fn(u8),
    ) -> Result<Arc<Self>, EngineError> {
        // Held while loading: a second instance waits for the first one's copy instead of making its own.
        let mut loaded = LOADED.lock();
        loaded.retain(|(_, _, model)| model.strong_count() > 0);
        let same = |(other, at, _): &&(ModelSource, Precision, _)| other == source && *at == precision;
        let shared = loaded.iter().find(same).and_then(|(_, _, model)| model.upgrade());
        if let Some(model) = shared {
            return Ok(model);
        }
        let mut model = Self::read(&source.checkpoint(), precision, progress)?;
        model.take_files_beside(&source.checkpoint());
        let model = Arc::new(model);
        loaded.push((source.clone(), precision, Arc::downgrade(&model)));
        Ok(model)
    }

    /// Loads a copy of its own that is steered by these directions only, whatever lies beside the checkpoint: for trying
    /// directions out.
    ///
    /// # Errors
    /// When the checkpoint or the directions cannot be used.
    pub fn steered_by(
        source: &ModelSource,
        precision: Precision,
        directions: &[Directions],
    ) -> Result<Arc<Self>, EngineError> {
        let mut model = Self::read(&source.checkpoint(), precision, &|_| ())?;
        for own in directions {
            let lane = Lane::FAMILIES.into_iter().find(|lane| lane.concept() == own.concept);
            // A concept without a lane cannot be played yet.
            let Some(lane) = lane else { continue };
            let file = directions_file(&own.concept);
            let table = model.table(own, &file, lane)?;
            model.steering.check_rows(&table, &file)?;
            model.steering.set(lane, table);
        }
        Ok(Arc::new(model))
    }

    fn read(source: &CheckpointSource, precision: Precision, progress: &dyn Fn(u8)) -> Result<Self, EngineError> {
        let checkpoint = Checkpoint::load(source, &|share| progress((share * 50.0) as u8))?;
        let (weights, config) = (&checkpoint.weights, &checkpoint.config);
        // A large decoder with fewer bits is packed and measured once, and read from the user's cache folder from then on.
        let few = matches!(precision, Precision::Int8 | Precision::Int4);
        let place = (few && config.decoder.weights_of_step() > SMALL_STEP)
            .then(|| packed::path(&packed::standard_folder(), weights.hash(), precision));
        let kept = place.as_deref().and_then(PackedFile::open);
        let kept = match &kept {
            Some(file) => {
                Decoder::load_packed(weights, config, precision, file)?.map(|decoder| (decoder, file.quality()))
            }
            None => None,
        };
        let fresh = kept.is_none();
        let (mut decoder, mut quality) = match kept {
            Some((decoder, quality)) => (decoder, quality.cloned()),
            None => (Decoder::load_at(weights, config, precision)?, None),
        };
        progress(75);
        let codebooks = config.decoder.codebooks_per_channel();
        let codec = Arc::new(CodecDecoder::load_at(weights, &config.codec, codebooks, precision)?);
        progress(85);
        let text = TextEncoder::load(weights, &config.text, &checkpoint.tokenizer, &source.file("tokenizer.json"))?;
        progress(90);
        if fresh && few {
            let measured = Self::settle(&mut decoder, &checkpoint, &text)?;
            log::info!("{}: layers at {precision}: {measured:?}", checkpoint.name);
            let far = measured.divergence.iter().any(|nats| *nats > MOST_DIVERGENCE || nats.is_nan());
            // Four bits are only ever asked for by someone who knows their price.
            if far && precision == Precision::Int8 {
                decoder = Decoder::load_at(weights, config, Precision::Bf16)?;
            }
            quality = Some(measured);
        }
        if let Some(place) = place.filter(|_| fresh && decoder.precision() == precision)
            && let Err(why) = packed::write(&place, &decoder, quality.as_ref())
        {
            // It is packed again the next time.
            log::warn!("packed weights cannot be kept: {why}");
        }
        progress(95);
        checkpoint.weights.log_unused();
        let (name, hash) = (checkpoint.name.clone(), checkpoint.weights.hash().to_owned());
        let steering = Steering::new(decoder.blocks(), decoder.hidden());
        let mut format = stream_format(config);
        let pattern = DelayPattern::new(config.decoder.num_codebooks, config.decoder.audio_channels);
        format.delay_frames = pattern.max_delay() + codec.lookahead_frames();
        Ok(Self {
            name,
            hash,
            decoder,
            codec,
            text,
            steering,
            notice: None,
            quality,
            format,
            channels: config.decoder.audio_channels,
            window: config.generation.max_length,
        })
    }

    /// Rounds the layers of few bits on music of the decoder's own and measures what they cost; those of 8 bits that stray are
    /// kept in bf16.
    fn settle(decoder: &mut Decoder, checkpoint: &Checkpoint, text: &TextEncoder) -> Result<Quality, EngineError> {
        let encoded = SETTLING_PROMPTS.iter().map(|prompt| text.encode(prompt));
        let states = encoded.map(|prompt| Ok(prompt?.states)).collect::<Result<Vec<_>, EngineError>>()?;
        Ok(decoder.settle(&checkpoint.weights, &checkpoint.config, &states, &pool::shared())?)
    }

    /// Takes the directions beside the checkpoint; those that cannot be used become the notice.
    fn take_files_beside(&mut self, source: &CheckpointSource) {
        let mut notices = Vec::new();
        for lane in Lane::FAMILIES {
            match self.table_beside(source, lane) {
                Ok(Some(table)) => self.steering.set(lane, table),
                Ok(None) => {}
                Err(error) => notices.push(error.to_string()),
            }
        }
        self.notice = (!notices.is_empty()).then(|| notices.join("; "));
    }

    fn table_beside(&self, source: &CheckpointSource, lane: Lane) -> Result<Option<LaneTable>, EngineError> {
        let own = directions_file(lane.concept());
        let Some(bytes) = source.read(&own)? else { return Ok(None) };
        let file = source.file(&own);
        let directions = Directions::from_bytes(&bytes, &file)?;
        let table = self.table(&directions, &file, lane)?;
        self.steering.check_rows(&table, &file)?;
        Ok(Some(table))
    }

    fn table(&self, directions: &Directions, file: &str, lane: Lane) -> Result<LaneTable, DirectionsError> {
        directions.check(file, &self.name, &self.hash, self.decoder.blocks(), self.decoder.hidden())?;
        LaneTable::new(directions, file, lane)
    }

    /// What an instance steers by: the checkpoint's own tables, those of the user's own folder in their place, and those of traits
    /// beside them. One of a trait that cannot be used leaves its lane without a table: it does not steer.
    pub fn equipped(&self, source: &ModelSource, traits: &[Option<TraitReference>; TRAITS]) -> Equipment {
        let folders = trait_files::folders(source, &self.hash);
        let (mut steering, notice) = self.with_own();
        let mut states = [const { TraitState::Unset }; TRAITS];
        for ((lane, reference), state) in Lane::TRAITS.into_iter().zip(traits).zip(&mut states) {
            let Some(reference) = reference else { continue };
            *state = match self.trait_table(&steering, reference, &folders) {
                Ok((table, changed)) => {
                    steering.set(lane, table);
                    TraitState::InUse { changed }
                }
                Err(error) => TraitState::Refused(error.to_string()),
            };
        }
        Equipment { steering, traits: states, notice }
    }

    /// The checkpoint's tables, those that the user learned or imported over them, class by class, and what is wrong with the others of these.
    fn with_own(&self) -> (Steering, Option<String>) {
        let folder = trait_files::user_folder(&self.hash);
        let mut steering = self.steering.clone();
        let mut notices = Vec::new();
        for lane in Lane::FAMILIES {
            let path = folder.join(directions_file(lane.concept()));
            if !path.is_file() {
                continue;
            }
            let file = path.display().to_string();
            let others = steering.without(lane);
            let table = Directions::read(&path).and_then(|own| self.table(&own, &file, lane));
            let fits = table.and_then(|table| others.check_rows(&table, &file).map(|()| table));
            match fits {
                // Who learned some notes only keeps the checkpoint's own of the others.
                Ok(table) => {
                    let table = match steering.table(lane) {
                        Some(below) => table.over(below),
                        None => table,
                    };
                    steering.set(lane, table);
                }
                Err(error) => notices.push(error.to_string()),
            }
        }
        (steering, (!notices.is_empty()).then(|| notices.join("; ")))
    }

    fn trait_table(
        &self,
        steering: &Steering,
        reference: &TraitReference,
        folders: &[PathBuf],
    ) -> Result<(LaneTable, bool), TraitError> {
        let (bytes, path, changed) = trait_files::find(reference, folders)?;
        let file = path.display().to_string();
        let directions = Directions::from_bytes(&bytes, &file)?;
        self.check_trait(&directions, &file)?;
        let table = LaneTable::new(&directions, &file, Lane::Trait1)?;
        steering.check_rows(&table, &file)?;
        Ok((table, changed))
    }

    /// Whether these directions can be a trait's with this checkpoint.
    ///
    /// # Errors
    /// The first thing that is wrong; for another checkpoint's it names both.
    pub fn check_trait(&self, directions: &Directions, file: &str) -> Result<(), TraitError> {
        directions.check(file, &self.name, &self.hash, self.decoder.blocks(), self.decoder.hidden())?;
        trait_files::check_kind(directions, file)
    }

    /// The clock of a checkpoint, from its configuration alone.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn peek_format(source: &ModelSource) -> Result<StreamFormat, CheckpointError> {
        Ok(stream_format(&Config::read(&source.checkpoint())?))
    }

    /// The precision that suits a checkpoint's size: as it is while a step stays small, else 8 bits, without which no
    /// published checkpoint plays in real time on a few cores.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn suited_precision(source: &ModelSource) -> Result<Precision, CheckpointError> {
        let step = Config::read(&source.checkpoint())?.decoder.weights_of_step();
        Ok(if step > SMALL_STEP { Precision::Int8 } else { Precision::F32 })
    }

    /// Whether a step of the checkpoint is so large that it had better be taken by a card.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn suits_card(source: &ModelSource) -> Result<bool, CheckpointError> {
        Ok(Config::read(&source.checkpoint())?.decoder.weights_of_step() > SMALL_STEP)
    }

    /// The threads that play this model: the process's own for a large one. A step of a small one is over before another
    /// thread has woken.
    pub fn pool(&self) -> Arc<Pool> {
        if self.decoder.bytes_per_step() > SMALL_STEP as usize { pool::shared() } else { Arc::new(Pool::new(1)) }
    }

    /// What people call the checkpoint.
    pub fn name_of(source: &ModelSource) -> String {
        source.checkpoint().name()
    }

    /// Encodes a prompt.
    ///
    /// # Errors
    /// When the text cannot be tokenised or encoded.
    pub fn prompt(&self, text: &str) -> Result<Prompt, EngineError> {
        Ok(Prompt::new(text, &self.text, &self.decoder)?)
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its weights, hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// What decides what it plays: its weights and how exactly they are kept.
    pub fn fingerprint(&self) -> String {
        format!("{} {}", self.hash, self.decoder.precision())
    }

    /// The transformer.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The audio decoder.
    pub fn codec(&self) -> &Arc<CodecDecoder> {
        &self.codec
    }

    /// The tables of the lanes that the checkpoint has directions for. Traits are not among them ([`Model::equipped`]).
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// A problem that did not keep the model from playing: why its directions were refused.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// What 8-bit weights cost this checkpoint, where it was loaded with them.
    pub fn quality(&self) -> Option<&Quality> {
        self.quality.as_ref()
    }

    /// Its clock.
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// Audio channels: 1, or 2 for the stereo checkpoints.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Positions of the play window (`generation_config.max_length`).
    pub fn window(&self) -> usize {
        self.window
    }
}

fn stream_format(config: &Config) -> StreamFormat {
    let pattern = DelayPattern::new(config.decoder.num_codebooks, config.decoder.audio_channels);
    let hop = config.codec.hop();
    StreamFormat {
        model_rate: config.codec.sampling_rate,
        frame_samples: hop,
        delay_frames: pattern.max_delay() + lookahead_samples(&config.codec).div_ceil(hop.max(1)),
    }
}

/// Samples of future that one sample of the codec's decoder needs, from the kernels alone: the right padding of every
/// layer, counted at the output's rate. Known before any weight is read, since latency must not depend on the load state.
fn lookahead_samples(codec: &CodecConfig) -> usize {
    let right = |kernel: usize| if codec.use_causal_conv { 0 } else { kernel.saturating_sub(1) / 2 };
    let mut per_sample: usize = codec.hop();
    let mut total = right(codec.kernel_size) * per_sample;
    for ratio in &codec.upsampling_ratios {
        per_sample /= ratio;
        // Transposed convolution with kernel 2 r and stride r: of the r surplus samples, what is not trimmed right is
        // trimmed left, and delays the output by as much.
        let trimmed =
            if codec.use_causal_conv { (*ratio as f64 * codec.trim_right_ratio).ceil() as usize } else { ratio / 2 };
        total += (ratio - trimmed.min(*ratio)) * per_sample;
        for layer in 0..codec.num_residual_layers {
            let dilation = codec.dilation_growth_rate.pow(layer as u32);
            let reach = dilation * codec.residual_kernel_size.saturating_sub(1);
            total += right(reach + 1) * per_sample;
        }
    }
    total + right(codec.last_kernel_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_read_from_the_configuration_is_the_loaded_models() {
        let model = Model::load(&ModelSource::Embedded, &|_| ()).unwrap();
        assert_eq!(Model::peek_format(&ModelSource::Embedded).unwrap(), model.format());
        assert_eq!(model.format(), StreamFormat::PUBLISHED);
        assert_eq!(lookahead_samples(&Config::read(&ModelSource::Embedded.checkpoint()).unwrap().codec), 2402);
        let again = Model::load(&ModelSource::Embedded, &|_| ()).unwrap();
        assert!(Arc::ptr_eq(&model, &again), "one copy of the weights in a process");
    }
}
