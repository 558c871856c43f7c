//! Pooled hidden states of many clips, kept on disk in parts, so that learning goes on where it was stopped and a second
//! method or class costs no listening (`method.md` 2). Worker threads, all cores.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use super::LearnError;
use super::listener::{FIRST_FRAME, Heard, Listener};
use super::watch::{Stage, Watch};
use crate::evaluation::cache::Cache;
use crate::whole_file;

/// Clips in a part: what an interruption can cost.
const PART: usize = 32;

/// Version of what a part holds.
const FORMAT: &str = "tiller-states-1";

/// States of clips in their order; a clip without sound has none.
#[derive(Debug, Clone, PartialEq)]
pub struct States {
    /// `[clip]`.
    pub heard: Vec<Option<Heard>>,
    /// Decoder blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
}

impl States {
    /// Features `[clip][hidden]` of one block, for clips that sounded.
    ///
    /// # Panics
    /// When one of `clips` was silent.
    pub fn features(&self, block: usize, clips: impl Iterator<Item = usize>) -> Vec<f32> {
        let mut features = Vec::new();
        for clip in clips {
            let Some(heard) = &self.heard[clip] else { panic!("clip {clip} is silent and has no states") };
            features.extend_from_slice(&heard.mean[block * self.hidden..][..self.hidden]);
        }
        features
    }

    /// Mean over the sounding clips of each block's norm, `[block]`.
    pub fn block_norms(&self) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.blocks];
        let sounding = self.heard.iter().flatten();
        let count = sounding.clone().count().max(1) as f64;
        sounding.for_each(|heard| sums.iter_mut().zip(&heard.norms).for_each(|(sum, norm)| *sum += f64::from(*norm)));
        sums.into_iter().map(|sum| (sum / count) as f32).collect()
    }
}

/// A folder that keeps parts of states.
#[derive(Debug, Clone)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// Where parts belong: beside the results of evaluations.
    pub fn standard() -> Self {
        Self(Cache::default_folder().with_file_name("tiller-states"))
    }

    /// Parts in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Where fits to states of these clips may be kept.
    pub fn fits(&self, listener: &Listener, key: &[&str]) -> PathBuf {
        self.0.join(digest(listener, key)).join("fits")
    }

    /// Listens to clips `0..count` of at most `samples` samples, but for those that were kept. `key` says everything that
    /// the clips depend on; the checkpoint and how it listens are added here. `render` gives a clip's audio, or `None`
    /// where it is silent.
    ///
    /// # Errors
    /// [`LearnError::Stopped`]; what the clips or the checkpoint refuse, or a folder that cannot be written.
    pub fn listen<R>(
        &self,
        listener: &Listener,
        key: &[&str],
        (count, samples): (usize, usize),
        watch: Watch,
        render: R,
    ) -> Result<States, LearnError>
    where
        R: Fn(usize) -> Result<Option<Vec<f32>>, LearnError> + Sync,
    {
        let folder = self.0.join(digest(listener, key));
        let failed = |path: &Path, source| LearnError::States { path: path.to_owned(), source };
        fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
        let (blocks, hidden) = (listener.blocks(), listener.hidden());
        let done = AtomicUsize::new(0);
        let mut heard = Vec::with_capacity(count);
        for first in (0..count).step_by(PART) {
            let clips = first..count.min(first + PART);
            let path = folder.join(format!("{first:06}.safetensors"));
            if let Some(part) = fs::read(&path).ok().and_then(|bytes| unpack(&bytes, clips.len(), blocks, hidden)) {
                watch.check()?;
                watch.hear(Stage::Listening, done.fetch_add(part.len(), Ordering::Relaxed) + part.len(), count);
                heard.extend(part);
                continue;
            }
            let part: Vec<Option<Heard>> = clips
                .into_par_iter()
                .map_init(
                    || listener.ear(samples),
                    |ear, clip| {
                        watch.check()?;
                        let heard = match render(clip)? {
                            Some(audio) => Some(listener.listen(ear, &audio, watch)?),
                            None => None,
                        };
                        watch.hear(Stage::Listening, done.fetch_add(1, Ordering::Relaxed) + 1, count);
                        Ok(heard)
                    },
                )
                .collect::<Result<_, LearnError>>()?;
            whole_file::write(&path, pack(&part, blocks, hidden)?).map_err(|source| failed(&path, source))?;
            heard.extend(part);
        }
        Ok(States { heard, blocks, hidden })
    }
}

/// Name of the folder of everything that states depend on.
fn digest(listener: &Listener, key: &[&str]) -> String {
    let mut digest = Sha256::new();
    let first = FIRST_FRAME.to_string();
    for part in [FORMAT, listener.hash(), listener.layout().name(), &first].iter().chain(key) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

fn pack(part: &[Option<Heard>], blocks: usize, hidden: usize) -> Result<Vec<u8>, LearnError> {
    let silent = Heard { mean: vec![0.0; blocks * hidden], norms: vec![0.0; blocks] };
    let each = || part.iter().map(|heard| heard.as_ref().unwrap_or(&silent));
    let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let tensors = [
        ("mean", vec![part.len(), blocks, hidden], bytes(each().flat_map(|h| h.mean.clone()).collect())),
        ("norm", vec![part.len(), blocks], bytes(each().flat_map(|h| h.norms.clone()).collect())),
        ("sounds", vec![part.len()], bytes(part.iter().map(|h| if h.is_some() { 1.0 } else { 0.0 }).collect())),
    ];
    let mut views = Vec::new();
    let odd = |error: safetensors::SafeTensorError| LearnError::TooLittle(format!("states cannot be kept: {error}"));
    for (name, shape, data) in &tensors {
        views.push((*name, TensorView::new(Dtype::F32, shape.clone(), data).map_err(odd)?));
    }
    let metadata = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(odd)
}

/// `None` for anything that is not a whole part of these sizes: it is heard again.
fn unpack(bytes: &[u8], count: usize, blocks: usize, hidden: usize) -> Option<Vec<Option<Heard>>> {
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let read = |name: &str, shape: &[usize]| {
        let view = tensors.tensor(name).ok().filter(|view| view.dtype() == Dtype::F32 && view.shape() == shape)?;
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        values.iter().all(|value| value.is_finite()).then_some(values)
    };
    let (mean, norm) = (read("mean", &[count, blocks, hidden])?, read("norm", &[count, blocks])?);
    let sounds = read("sounds", &[count])?;
    let heard = |(mean, norms): (&[f32], &[f32])| Heard { mean: mean.to_vec(), norms: norms.to_vec() };
    let each = mean.chunks_exact(blocks * hidden).zip(norm.chunks_exact(blocks)).map(heard);
    Some(each.zip(sounds).map(|(heard, sounds)| (sounds > 0.5).then_some(heard)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_were_and_cut_ones_do_not() {
        let heard = |x: f32| Heard { mean: vec![x, 2.0, 3.0, -x, 5.0, 6.0], norms: vec![x, 0.5] };
        let part = [Some(heard(1.0)), None, Some(heard(-4.0))];
        let bytes = pack(&part, 2, 3).expect("packs");
        assert_eq!(unpack(&bytes, 3, 2, 3).as_deref(), Some(&part[..]));
        assert_eq!(unpack(&bytes, 4, 2, 3), None);
        assert_eq!(unpack(&bytes, 3, 3, 2), None);
        for length in 0..bytes.len() {
            assert_eq!(unpack(&bytes[..length], 3, 2, 3), None, "cut to {length} bytes");
        }
        let states = States { heard: part.to_vec(), blocks: 2, hidden: 3 };
        assert_eq!(states.features(1, [2, 0].into_iter()), [4.0, 5.0, 6.0, -1.0, 5.0, 6.0]);
        assert_eq!(states.block_norms(), [-1.5, 0.5]);
    }
}
