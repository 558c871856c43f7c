//! Whether it is music and leaves pitch free: keys, tempo, long runs, pitch classes. Worker threads.

use super::piece::Heard;
use super::session::{HeldOut, Piece};
use super::sound::percentile;
use super::splits::{LabelledPrompt, Tempo};
use super::tonality::Pitches;
use serde::Serialize;

/// How a figure of the long runs stands beside rendered windows of equal length.
#[derive(Debug, Clone, Serialize)]
pub struct Range {
    /// Median over the runs.
    pub median: f32,
    /// 5th percentile of the rendered windows.
    pub low: f32,
    /// 95th percentile of the rendered windows.
    pub high: f32,
    /// Whether the median lies between them.
    pub within: bool,
}

/// Onsets per second by tempo word.
#[derive(Debug, Clone, Serialize)]
pub struct Rates {
    /// Mean under slow prompts.
    pub slow: f32,
    /// Mean under medium prompts.
    pub medium: f32,
    /// Mean under fast prompts.
    pub fast: f32,
    /// slow < medium < fast.
    pub in_order: bool,
}

/// One long run.
#[derive(Debug, Clone, Serialize)]
pub struct LongRun {
    /// Its prompt.
    pub prompt: String,
    /// Share of silent frames.
    pub silence_share: f32,
    /// Spectral flatness of what sounds.
    pub flatness: Option<f32>,
    /// Entropy of the strongest pitch class in bits.
    pub entropy: f32,
    /// Share of the commonest pitch class.
    pub max_share: f32,
}

/// Figures of music.
#[derive(Debug, Clone, Serialize)]
pub struct MusicReport {
    /// Share of the sounding frames whose strongest pitch class is in the piece's best-fitting key. One held tone has 1: read
    /// it beside `piece_entropy`.
    pub in_key_share: f32,
    /// The same of held-out renders, and of these after the codec.
    pub in_key_share_rendered: f32,
    /// After the codec.
    pub in_key_share_decoded: f32,
    /// What pieces without any key would get: pitch classes drawn from the pieces' own spread, whole runs kept together.
    pub in_key_share_shuffled: f32,
    /// As the first three, of all amplitude instead of the strongest class.
    pub in_key_amplitude: [f32; 3],
    /// Median entropy in bits of the strongest pitch class: of the pieces, of held-out renders, of these after the codec.
    pub piece_entropy: [f32; 3],
    /// Median over the long runs.
    pub silence_share: f32,
    /// Onset rate by tempo word of the generated pieces.
    pub onset_rate: Rates,
    /// Onset rate by tempo of held-out renders.
    pub onset_rate_rendered: Rates,
    /// Long runs beside rendered windows: silence share.
    pub silence: Range,
    /// Spectral flatness.
    pub flatness: Range,
    /// Entropy of the strongest pitch class in bits.
    pub entropy: Range,
    /// Each long run.
    pub long_runs: Vec<LongRun>,
}

/// Figures of the freedom of pitch.
#[derive(Debug, Clone, Serialize)]
pub struct PitchReport {
    /// Pieces.
    pub generations: usize,
    /// Share of all sounding frames that the commonest pitch class has.
    pub max_share: f32,
    /// Share of each pitch class, C first.
    pub shares: [f32; 12],
    /// Largest share of one pitch class over one prompt's pieces.
    pub max_share_of_a_prompt: f32,
    /// The prompt that it belongs to.
    pub prompt: String,
    /// The largest share of each prompt.
    pub by_prompt: Vec<(String, f32)>,
    /// The largest share over groups of as many held-out renders as a prompt has pieces.
    pub max_share_of_rendered_group: f32,
    /// The share that half of the pieces have of their own commonest class.
    pub max_share_of_a_piece: f32,
    /// The same of held-out renders.
    pub max_share_of_a_render: f32,
    /// The largest share of each prompt of the whole split, which has but few pieces: median, and the largest.
    pub max_share_of_few: [f32; 2],
}

/// Figures of the pieces, the long runs and what was rendered to compare them with.
pub fn music(
    pieces: &[Piece],
    held_out: &[HeldOut],
    long: &[(&LabelledPrompt, Heard)],
    windows: &[Heard],
) -> MusicReport {
    let made: Vec<Pitches> = pieces.iter().map(|p| p.heard.pitches).collect();
    let rendered: Vec<Pitches> = held_out.iter().map(|h| h.rendered.pitches).collect();
    let decoded: Vec<Pitches> = held_out.iter().map(|h| h.decoded.pitches).collect();
    let runs: Vec<&Heard> = long.iter().map(|(_, heard)| heard).collect();
    let windows: Vec<&Heard> = windows.iter().collect();
    let silence = range(&runs, &windows, |h| Some(h.pitches.silence_share()));
    MusicReport {
        in_key_share: in_key(&made),
        in_key_share_rendered: in_key(&rendered),
        in_key_share_decoded: in_key(&decoded),
        in_key_share_shuffled: in_key(&shuffled(&made)),
        in_key_amplitude: [&made, &rendered, &decoded].map(|pitches| in_key_amplitude(pitches)),
        piece_entropy: [&made, &rendered, &decoded].map(|pitches| median_entropy(pitches)),
        silence_share: silence.median,
        onset_rate: rates(pieces.iter().map(|p| (p.asked.tempo, p.heard.onset_rate)).collect()),
        onset_rate_rendered: rates(held_out.iter().map(|h| (h.tempo, h.rendered.onset_rate)).collect()),
        silence,
        flatness: range(&runs, &windows, |h| h.flatness),
        entropy: range(&runs, &windows, |h| (h.pitches.sounding() > 0).then(|| h.pitches.entropy())),
        long_runs: long.iter().map(|(prompt, heard)| LongRun::of(prompt, heard)).collect(),
    }
}

/// Largest share of one pitch class over each prompt's pieces, the largest first.
fn by_prompt(pieces: &[Piece]) -> Vec<(String, f32)> {
    let mut pooled: Vec<(usize, &str, Pitches)> = Vec::new();
    for piece in pieces {
        match pooled.last_mut().filter(|(prompt, _, _)| *prompt == piece.prompt) {
            Some((_, _, pitches)) => pitches.add(&piece.heard.pitches),
            None => pooled.push((piece.prompt, &piece.asked.text, piece.heard.pitches)),
        }
    }
    let mut shares: Vec<(String, f32)> =
        pooled.into_iter().map(|(_, text, pitches)| (text.to_owned(), pitches.max_share())).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

/// Figures of the pieces' pitch classes: many pieces of a few prompts, few of every prompt. `group` is how many the former
/// have each.
pub fn pitch_free(many: &[Piece], few: &[Piece], held_out: &[HeldOut], group: usize) -> PitchReport {
    let mut all = Pitches::default();
    many.iter().for_each(|piece| all.add(&piece.heard.pitches));
    let of_few: Vec<f32> = by_prompt(few).into_iter().map(|(_, share)| share).collect();
    let by_prompt = by_prompt(many);
    let grouped = held_out.chunks(group.max(1)).filter(|clips| clips.len() == group).map(|clips| {
        let mut pitches = Pitches::default();
        clips.iter().for_each(|clip| pitches.add(&clip.rendered.pitches));
        pitches.max_share()
    });
    let median = |shares: Vec<f32>| percentile(&shares, 0.5).unwrap_or(0.0);
    let (prompt, largest) = by_prompt.first().cloned().unwrap_or_default();
    PitchReport {
        generations: many.len(),
        max_share: all.max_share(),
        shares: all.counts.map(|count| count as f32 / all.sounding().max(1) as f32),
        max_share_of_a_prompt: largest,
        prompt,
        by_prompt,
        max_share_of_rendered_group: grouped.fold(0.0, f32::max),
        max_share_of_a_piece: median(many.iter().map(|piece| piece.heard.pitches.max_share()).collect()),
        max_share_of_a_render: median(held_out.iter().map(|clip| clip.rendered.pitches.max_share()).collect()),
        max_share_of_few: [median(of_few.clone()), of_few.first().copied().unwrap_or(0.0)],
    }
}

impl LongRun {
    fn of(prompt: &LabelledPrompt, heard: &Heard) -> Self {
        Self {
            prompt: prompt.text.clone(),
            silence_share: heard.pitches.silence_share(),
            flatness: heard.flatness,
            entropy: heard.pitches.entropy(),
            max_share: heard.pitches.max_share(),
        }
    }
}

/// Each piece has a key of its own; frames count alike.
fn in_key(pieces: &[Pitches]) -> f32 {
    let sounding: u32 = pieces.iter().map(Pitches::sounding).sum();
    let inside = |p: &Pitches| p.in_key_share().unwrap_or(0.0) * p.sounding() as f32;
    pieces.iter().map(inside).sum::<f32>() / sounding.max(1) as f32
}

fn in_key_amplitude(pieces: &[Pitches]) -> f32 {
    let shares: Vec<f32> = pieces.iter().filter_map(Pitches::in_key_amplitude).collect();
    shares.iter().sum::<f32>() / shares.len().max(1) as f32
}

fn median_entropy(pieces: &[Pitches]) -> f32 {
    let sounding = pieces.iter().filter(|p| p.sounding() > 0);
    percentile(&sounding.map(Pitches::entropy).collect::<Vec<f32>>(), 0.5).unwrap_or(0.0)
}

/// Pieces of the same shape without keys: the n-th commonest pitch class of each goes to a random place.
fn shuffled(pieces: &[Pitches]) -> Vec<Pitches> {
    let shuffle = |(i, piece): (usize, &Pitches)| {
        let order: [usize; 12] = crate::dataset::random::Random::new(1, i as u64, 12).permutation();
        Pitches { counts: order.map(|from| piece.counts[from]), shares: order.map(|from| piece.shares[from]), ..*piece }
    };
    pieces.iter().enumerate().map(shuffle).collect()
}

fn rates(heard: Vec<(Tempo, f32)>) -> Rates {
    let [slow, medium, fast] = [Tempo::Slow, Tempo::Medium, Tempo::Fast].map(|tempo| {
        let rates: Vec<f32> = heard.iter().filter(|(t, _)| *t == tempo).map(|(_, rate)| *rate).collect();
        rates.iter().sum::<f32>() / rates.len().max(1) as f32
    });
    Rates { slow, medium, fast, in_order: slow < medium && medium < fast }
}

fn range(runs: &[&Heard], windows: &[&Heard], value: fn(&Heard) -> Option<f32>) -> Range {
    let values = |heard: &[&Heard]| heard.iter().filter_map(|h| value(h)).collect::<Vec<f32>>();
    let (runs, windows) = (values(runs), values(windows));
    let median = percentile(&runs, 0.5).unwrap_or(0.0);
    let [low, high] = [0.05, 0.95].map(|p| percentile(&windows, p).unwrap_or(0.0));
    Range { median, low, high, within: !runs.is_empty() && (low..=high).contains(&median) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(counts: [u32; 12], onset_rate: f32) -> Heard {
        let frames = counts.iter().sum::<u32>() + 10;
        Heard {
            pitches: Pitches { counts, frames, ..Pitches::default() },
            onset_rate,
            flatness: Some(0.1),
            ..Heard::default()
        }
    }

    fn prompt(text: &str, tempo: Tempo) -> LabelledPrompt {
        LabelledPrompt { text: text.to_owned(), instrument: None, texture: None, mix: None, tempo }
    }

    #[test]
    fn shares_are_pooled_over_a_prompts_pieces() {
        let (a, b) = (prompt("a", Tempo::Slow), prompt("b", Tempo::Fast));
        let mut c = [0; 12];
        c[0] = 30;
        let mut d = [0; 12];
        d[2] = 10;
        let all = [heard(c, 1.0), heard(d, 2.0), heard(d, 3.0), heard(d, 4.0)];
        let of = |prompt, asked, i: usize| Piece { prompt, asked, heard: &all[i] };
        let pieces = [of(0, &a, 0), of(0, &a, 1), of(1, &b, 2), of(1, &b, 3)];
        let report = pitch_free(&pieces, &pieces[1..], &[], 2);
        assert_eq!((report.generations, report.max_share, report.max_share_of_a_prompt), (4, 0.5, 1.0));
        assert_eq!((report.max_share_of_a_piece, report.max_share_of_few), (1.0, [1.0, 1.0]));
        assert_eq!((report.prompt.as_str(), report.by_prompt[1].1), ("b", 0.75));
        let report = music(&pieces, &[], &[(&a, all[0].clone())], &[all[1].clone(), all[2].clone()]);
        assert_eq!((report.onset_rate.slow, report.onset_rate.fast, report.onset_rate.in_order), (1.5, 3.5, false));
        assert_eq!((report.silence.median, report.silence.low, report.silence.within), (0.25, 0.5, false));
        assert!(report.flatness.within && report.entropy.within && report.in_key_share == 1.0);
    }

    #[test]
    fn key_figures_weigh_frames_and_shuffling_takes_the_key_away() {
        let scale: [u32; 12] = std::array::from_fn(|pc| if [0, 2, 4, 5, 7, 9, 11].contains(&pc) { 10 } else { 0 });
        let chromatic = [5u32; 12];
        let of = |counts| Pitches { counts, frames: 100, ..Pitches::default() };
        let share = in_key(&[of(scale), of(chromatic)]);
        assert!((share - (70.0 + 35.0) / 130.0).abs() < 1e-6);
        let many = vec![of(scale); 50];
        assert!(in_key(&many) == 1.0 && in_key(&shuffled(&many)) < 0.9, "{}", in_key(&shuffled(&many)));
    }
}
