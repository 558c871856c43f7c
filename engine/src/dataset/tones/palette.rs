//! What each tone is made of, and which General MIDI programs it stands for. The figures are ours: textbook acoustics (plucked
//! and struck strings, bars, pipes, formants), set by ear and by measure. Constant data.

use super::file::Envelope;

/// How a tone is excited.
#[derive(Clone, Copy)]
pub enum Body {
    /// Once: it dies away.
    Struck {
        /// Seconds in which a note on middle C falls by 80 dB; half of that an octave and a half higher.
        decay: f64,
        /// How much faster each higher partial dies, 1/s a harmonic.
        damping: f64,
        /// Seconds of the hammer's or the plectrum's noise.
        knock: f64,
    },
    /// For as long as it is held.
    Held {
        /// Seconds until it is loudest.
        attack: f64,
        /// Seconds in which its brightness unfolds.
        bloom: f64,
        /// Cents that several players are apart; 0 for one.
        spread: f64,
        /// Seconds after the release.
        release: f64,
        /// Cents of vibrato.
        vibrato: f64,
    },
}

/// Which partials there are.
#[derive(Clone, Copy)]
pub enum Series {
    /// Harmonics that fall by this power of their number; even ones by this factor more.
    Harmonic { fall: f64, even: f64 },
    /// Those of a string plucked or struck at this share of its length, as stiff as the last number says.
    String { fall: f64, at: f64, stiffness: f64 },
    /// These ratios and amplitudes.
    Given(&'static [(f64, f64)]),
}

/// A tone.
pub struct Tone {
    /// For the file's tables.
    pub name: &'static str,
    /// Keys of its first and last sample.
    pub keys: (u8, u8),
    pub body: Body,
    pub series: Series,
    /// Resonances: Hz, width in Hz, gain over what is between them.
    pub formants: &'static [(f64, f64, f64)],
    /// Hz from which it falls by 12 dB an octave, and how far this moves with the key: 0 not at all, 1 wholly.
    pub cutoff: (f64, f64),
    /// Noise beside the partials, and the Hz up to which it reaches.
    pub noise: (f64, f64),
    /// Decibels of tremolo.
    pub tremolo: f64,
}

/// Middle C.
const MIDDLE: f64 = 261.63;

impl Tone {
    /// Seconds before the loop.
    pub fn onset(&self) -> f64 {
        match self.body {
            Body::Struck { decay, .. } => (0.15 * decay).clamp(0.2, 1.0),
            Body::Held { attack, bloom, .. } => (attack + 4.0 * bloom).clamp(0.1, 0.6),
        }
    }

    /// Partials of a note at `hertz` below `highest`: ratio and amplitude.
    pub fn spectrum(&self, hertz: f64, highest: f64) -> Vec<(f64, f64)> {
        let amplitude = |ratio: f64, own: f64| {
            let at = ratio * hertz;
            let cutoff = self.cutoff.0 * (hertz / MIDDLE).powf(self.cutoff.1);
            let resonance = |(middle, width, gain): &(f64, f64, f64)| gain / (1.0 + ((at - middle) / width).powi(2));
            let body = 1.0 + self.formants.iter().map(resonance).sum::<f64>();
            own * body / (1.0 + (at / cutoff).powi(2))
        };
        let within = |ratio: &f64| ratio * hertz < highest;
        let of = |ratio: f64, own: f64| (ratio, amplitude(ratio, own));
        let loud = |(_, amplitude): &(f64, f64)| *amplitude > 1e-4;
        match self.series {
            Series::Given(given) => {
                given.iter().filter(|(ratio, _)| within(ratio)).map(|&(ratio, own)| of(ratio, own)).collect()
            }
            Series::Harmonic { fall, even } => (1..=80u32)
                .map(|k| (f64::from(k), if k % 2 == 0 { even } else { 1.0 }))
                .take_while(|(ratio, _)| within(ratio))
                .map(|(ratio, share)| of(ratio, share * ratio.powf(-fall)))
                .filter(loud)
                .collect(),
            Series::String { fall, at, stiffness } => (1..=80u32)
                .map(f64::from)
                .map(|k| (k, k * ((1.0 + stiffness * k * k) / (1.0 + stiffness)).sqrt()))
                .take_while(|(_, ratio)| within(ratio))
                .map(|(k, ratio)| of(ratio, (std::f64::consts::PI * k * at).sin().abs() * k.powf(-fall)))
                .filter(loud)
                .collect(),
        }
    }

    /// Its envelope at a key.
    pub fn envelope(&self, key: u8) -> Envelope {
        let higher = (f64::from(key) - 60.0) / 18.0;
        let (attack, decay, release, vibrato) = match self.body {
            Body::Struck { decay, .. } => (0.001, Some(decay * 0.5f64.powf(higher)), 0.35, 0.0),
            Body::Held { attack, release, vibrato, .. } => (attack, None, release, vibrato),
        };
        Envelope { attack, decay, release, vibrato: (vibrato, 5.3), tremolo: (self.tremolo, 5.8) }
    }
}

const fn struck(decay: f64, damping: f64, knock: f64) -> Body {
    Body::Struck { decay, damping, knock }
}

const fn held(attack: f64, bloom: f64, spread: f64, release: f64, vibrato: f64) -> Body {
    Body::Held { attack, bloom, spread, release, vibrato }
}

const fn harmonic(fall: f64, even: f64) -> Series {
    Series::Harmonic { fall, even }
}

const fn string(fall: f64, at: f64, stiffness: f64) -> Series {
    Series::String { fall, at, stiffness }
}

/// Every tone, as [`PROGRAMS`] numbers them.
pub const PALETTE: [Tone; 30] = [
    Tone {
        name: "piano",
        keys: (28, 92),
        body: struck(9.0, 0.55, 0.02),
        series: string(0.9, 0.122, 3.5e-4),
        formants: &[(180.0, 120.0, 0.5)],
        cutoff: (1_500.0, 0.5),
        noise: (0.12, 900.0),
        tremolo: 0.0,
    },
    Tone {
        name: "electric piano",
        keys: (28, 92),
        body: struck(8.0, 0.35, 0.008),
        series: Series::Given(&[(1.0, 1.0), (2.0, 0.22), (3.0, 0.05), (4.0, 0.03), (7.1, 0.16), (12.3, 0.05)]),
        formants: &[],
        cutoff: (3_500.0, 0.5),
        noise: (0.05, 2_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "plectrum keys",
        keys: (28, 92),
        body: struck(5.0, 0.3, 0.004),
        series: string(0.35, 0.09, 5e-5),
        formants: &[(3_200.0, 900.0, 1.2)],
        cutoff: (5_500.0, 0.2),
        noise: (0.1, 4_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "bells",
        keys: (44, 92),
        body: struck(7.0, 0.5, 0.003),
        series: Series::Given(&[(1.0, 1.0), (2.0, 0.3), (2.76, 0.45), (5.4, 0.3), (8.93, 0.15)]),
        formants: &[],
        cutoff: (8_000.0, 0.2),
        noise: (0.04, 6_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "vibraphone",
        keys: (36, 92),
        body: struck(8.5, 0.6, 0.004),
        series: Series::Given(&[(1.0, 1.0), (4.0, 0.3), (10.0, 0.08)]),
        formants: &[],
        cutoff: (6_000.0, 0.3),
        noise: (0.04, 1_500.0),
        tremolo: 2.5,
    },
    Tone {
        name: "marimba",
        keys: (36, 92),
        body: struck(1.6, 2.2, 0.006),
        series: Series::Given(&[(1.0, 1.0), (3.93, 0.35), (9.6, 0.12)]),
        formants: &[(450.0, 250.0, 0.4)],
        cutoff: (4_000.0, 0.3),
        noise: (0.2, 700.0),
        tremolo: 0.0,
    },
    Tone {
        name: "drawbar organ",
        keys: (28, 92),
        body: held(0.008, 0.004, 0.0, 0.12, 0.0),
        series: Series::Given(&[
            (0.5, 0.55),
            (1.0, 1.0),
            (1.5, 0.5),
            (2.0, 0.6),
            (3.0, 0.35),
            (4.0, 0.35),
            (6.0, 0.18),
            (8.0, 0.22),
        ]),
        formants: &[],
        cutoff: (5_000.0, 0.3),
        noise: (0.01, 5_000.0),
        tremolo: 0.8,
    },
    Tone {
        name: "pipe organ",
        keys: (28, 92),
        body: held(0.04, 0.02, 2.0, 0.4, 0.0),
        series: Series::Given(&[
            (1.0, 1.0),
            (2.0, 0.75),
            (3.0, 0.22),
            (4.0, 0.5),
            (5.0, 0.08),
            (6.0, 0.2),
            (8.0, 0.35),
            (12.0, 0.1),
            (16.0, 0.12),
        ]),
        formants: &[],
        cutoff: (7_000.0, 0.2),
        noise: (0.04, 3_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "accordion",
        keys: (36, 92),
        body: held(0.03, 0.015, 9.0, 0.15, 0.0),
        series: harmonic(0.75, 0.9),
        formants: &[(1_400.0, 500.0, 1.5)],
        cutoff: (3_800.0, 0.2),
        noise: (0.02, 3_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "nylon guitar",
        keys: (28, 92),
        body: struck(4.5, 0.9, 0.005),
        series: string(1.0, 0.27, 4e-5),
        formants: &[(105.0, 35.0, 1.2), (220.0, 70.0, 1.0)],
        cutoff: (1_900.0, 0.4),
        noise: (0.08, 1_200.0),
        tremolo: 0.0,
    },
    Tone {
        name: "harp",
        keys: (28, 92),
        body: struck(5.5, 0.45, 0.004),
        series: string(1.35, 0.48, 2e-5),
        formants: &[(320.0, 200.0, 0.6)],
        cutoff: (2_600.0, 0.6),
        noise: (0.05, 900.0),
        tremolo: 0.0,
    },
    Tone {
        name: "clean guitar",
        keys: (28, 92),
        body: struck(7.0, 0.4, 0.003),
        series: string(0.7, 0.15, 6e-5),
        formants: &[(2_600.0, 900.0, 1.0)],
        cutoff: (3_400.0, 0.2),
        noise: (0.04, 3_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "double bass",
        keys: (28, 68),
        body: struck(3.5, 1.4, 0.012),
        series: string(1.1, 0.21, 8e-5),
        formants: &[(95.0, 40.0, 0.8), (240.0, 90.0, 0.6)],
        cutoff: (700.0, 0.3),
        noise: (0.15, 500.0),
        tremolo: 0.0,
    },
    Tone {
        name: "electric bass",
        keys: (28, 68),
        body: struck(7.0, 0.6, 0.004),
        series: string(0.85, 0.16, 7e-5),
        formants: &[(600.0, 300.0, 0.8)],
        cutoff: (1_500.0, 0.2),
        noise: (0.05, 2_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "synth bass",
        keys: (28, 68),
        body: held(0.004, 0.003, 0.0, 0.1, 0.0),
        series: harmonic(1.0, 1.0),
        formants: &[(500.0, 200.0, 1.5)],
        cutoff: (900.0, 0.3),
        noise: (0.0, 0.0),
        tremolo: 0.0,
    },
    Tone {
        name: "violin",
        keys: (44, 92),
        body: held(0.07, 0.03, 0.0, 0.2, 14.0),
        series: harmonic(0.9, 0.85),
        formants: &[(480.0, 120.0, 1.0), (1_000.0, 250.0, 0.7), (2_600.0, 700.0, 1.8)],
        cutoff: (5_500.0, 0.1),
        noise: (0.05, 5_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "cello",
        keys: (28, 84),
        body: held(0.09, 0.04, 0.0, 0.25, 11.0),
        series: harmonic(1.0, 0.9),
        formants: &[(200.0, 70.0, 1.2), (420.0, 130.0, 0.9), (1_100.0, 400.0, 0.7)],
        cutoff: (2_200.0, 0.2),
        noise: (0.05, 2_500.0),
        tremolo: 0.0,
    },
    Tone {
        name: "string ensemble",
        keys: (28, 92),
        body: held(0.18, 0.05, 14.0, 0.5, 4.0),
        series: harmonic(1.0, 0.95),
        formants: &[(350.0, 150.0, 0.6), (1_300.0, 500.0, 0.8)],
        cutoff: (3_000.0, 0.2),
        noise: (0.03, 4_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "choir",
        keys: (36, 92),
        body: held(0.15, 0.06, 18.0, 0.4, 6.0),
        series: harmonic(1.3, 0.9),
        formants: &[(650.0, 90.0, 6.0), (1_080.0, 110.0, 5.0), (2_650.0, 200.0, 3.0)],
        cutoff: (3_200.0, 0.0),
        noise: (0.06, 3_500.0),
        tremolo: 0.0,
    },
    Tone {
        name: "trumpet",
        keys: (44, 92),
        body: held(0.03, 0.03, 0.0, 0.12, 5.0),
        series: harmonic(0.45, 1.0),
        formants: &[(1_250.0, 500.0, 1.6)],
        cutoff: (2_800.0, 0.35),
        noise: (0.02, 3_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "brass section",
        keys: (28, 92),
        body: held(0.06, 0.06, 8.0, 0.2, 2.0),
        series: harmonic(0.75, 1.0),
        formants: &[(600.0, 250.0, 1.3)],
        cutoff: (1_700.0, 0.35),
        noise: (0.02, 2_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "saxophone",
        keys: (36, 92),
        body: held(0.04, 0.03, 0.0, 0.15, 8.0),
        series: harmonic(0.6, 1.25),
        formants: &[(850.0, 200.0, 1.8), (1_900.0, 350.0, 1.2)],
        cutoff: (2_600.0, 0.2),
        noise: (0.07, 4_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "oboe",
        keys: (44, 92),
        body: held(0.04, 0.02, 0.0, 0.15, 7.0),
        series: harmonic(0.4, 1.0),
        formants: &[(1_100.0, 220.0, 2.5), (2_900.0, 450.0, 1.2)],
        cutoff: (3_600.0, 0.1),
        noise: (0.03, 3_000.0),
        tremolo: 0.0,
    },
    Tone {
        name: "clarinet",
        keys: (36, 92),
        body: held(0.04, 0.025, 0.0, 0.15, 3.0),
        series: harmonic(0.75, 0.09),
        formants: &[(1_500.0, 400.0, 0.8)],
        cutoff: (2_400.0, 0.25),
        noise: (0.03, 2_500.0),
        tremolo: 0.0,
    },
    Tone {
        name: "flute",
        keys: (44, 92),
        body: held(0.06, 0.03, 0.0, 0.15, 9.0),
        series: harmonic(2.1, 1.2),
        formants: &[(800.0, 300.0, 0.5)],
        cutoff: (3_000.0, 0.4),
        noise: (0.14, 5_500.0),
        tremolo: 1.2,
    },
    Tone {
        name: "saw lead",
        keys: (28, 92),
        body: held(0.005, 0.002, 6.0, 0.1, 0.0),
        series: harmonic(0.95, 1.0),
        formants: &[],
        cutoff: (9_000.0, 0.0),
        noise: (0.0, 0.0),
        tremolo: 0.0,
    },
    Tone {
        name: "warm pad",
        keys: (28, 92),
        body: held(0.35, 0.08, 16.0, 0.8, 0.0),
        series: harmonic(1.15, 0.8),
        formants: &[],
        cutoff: (750.0, 0.5),
        noise: (0.0, 0.0),
        tremolo: 0.0,
    },
    Tone {
        name: "wood block",
        keys: (44, 92),
        body: struck(0.25, 9.0, 0.012),
        series: Series::Given(&[(1.0, 1.0), (2.6, 0.5), (4.1, 0.2)]),
        formants: &[],
        cutoff: (5_000.0, 0.2),
        noise: (0.6, 2_500.0),
        tremolo: 0.0,
    },
    Tone {
        name: "drum",
        keys: (28, 76),
        body: struck(1.0, 3.0, 0.03),
        series: Series::Given(&[(0.5, 1.0), (0.8, 0.5), (1.07, 0.35), (1.5, 0.2)]),
        formants: &[],
        cutoff: (900.0, 0.3),
        noise: (0.5, 800.0),
        tremolo: 0.0,
    },
    Tone {
        name: "synth drum",
        keys: (28, 76),
        body: struck(0.8, 2.0, 0.05),
        series: Series::Given(&[(0.75, 1.0), (1.5, 0.3)]),
        formants: &[],
        cutoff: (3_000.0, 0.3),
        noise: (0.9, 4_000.0),
        tremolo: 0.0,
    },
];

/// The tone of each General MIDI program, as good a stand-in as there is.
pub const PROGRAMS: [u8; 128] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 3, 3, 6, 6, 6, 7, 7, 8, 8, 8, 9, 9, 11, 11, 11, 11, 11, 11, 12, 13, 13,
    13, 13, 13, 14, 14, 15, 15, 16, 16, 17, 10, 10, 28, 17, 17, 17, 17, 18, 18, 18, 20, 19, 19, 20, 19, 20, 20, 20, 20,
    21, 21, 21, 21, 22, 22, 22, 23, 24, 24, 24, 24, 24, 24, 24, 24, 25, 25, 25, 25, 25, 25, 25, 25, 26, 26, 26, 18, 26,
    26, 26, 26, 26, 26, 3, 26, 26, 26, 26, 26, 9, 9, 9, 9, 5, 22, 15, 22, 3, 3, 3, 27, 28, 28, 29, 29, 29, 29, 29, 29,
    29, 29, 29, 29,
];
