//! SoundFont 2.01 bytes (Creative Labs and E-mu Systems, SoundFont Technical Specification 2.01): samples, one instrument for
//! each tone, one preset for each program. Plain arithmetic; any thread.

/// A looped sample.
pub struct Sample {
    /// 16-bit mono.
    pub data: Vec<i16>,
    /// Samples a second.
    pub rate: u32,
    /// First sample of the loop, which goes on to the end.
    pub loop_start: usize,
}

/// How loud a note is over time, and how it wavers.
#[derive(Clone, Copy)]
pub struct Envelope {
    /// Seconds until it is loudest.
    pub attack: f64,
    /// Seconds in which a held note falls by 80 dB; none where it stays.
    pub decay: Option<f64>,
    /// Seconds in which a released note falls by 80 dB.
    pub release: f64,
    /// Cents of vibrato, and its Hz.
    pub vibrato: (f64, f64),
    /// Decibels of tremolo, and its Hz.
    pub tremolo: (f64, f64),
}

/// A sample and where it is played.
pub struct Zone {
    /// First and last key.
    pub keys: (u8, u8),
    /// Key at which it sounds as it is.
    pub root: u8,
    /// What sounds.
    pub sample: Sample,
    /// How.
    pub envelope: Envelope,
}

/// Generators, by their numbers in the specification (8.1.2).
mod generator {
    pub const VIBRATO_TO_PITCH: u16 = 6;
    pub const TREMOLO_TO_VOLUME: u16 = 13;
    pub const REVERB: u16 = 16;
    pub const TREMOLO_FREQUENCY: u16 = 22;
    pub const VIBRATO_DELAY: u16 = 23;
    pub const VIBRATO_FREQUENCY: u16 = 24;
    pub const ATTACK: u16 = 34;
    pub const DECAY: u16 = 36;
    pub const SUSTAIN: u16 = 37;
    pub const RELEASE: u16 = 38;
    pub const INSTRUMENT: u16 = 41;
    pub const KEYS: u16 = 43;
    pub const SAMPLE: u16 = 53;
    pub const MODE: u16 = 54;
}

/// A tenth of a decibel each: silence.
const SILENT: i16 = 1_440;
/// Tenths of a percent that go to the room.
const ROOM: i16 = 300;
/// The sample's loop goes on for as long as the note sounds.
const LOOPED: i16 = 1;
/// Zeros after every sample.
const GAP: usize = 46;

/// A SoundFont under way.
pub struct Bank {
    name: &'static str,
    rights: &'static str,
    samples: Vec<i16>,
    sample_headers: Vec<u8>,
    instruments: Vec<u8>,
    instrument_bags: Vec<u8>,
    instrument_generators: Vec<u8>,
    presets: Vec<u8>,
    preset_bags: Vec<u8>,
    preset_generators: Vec<u8>,
}

impl Bank {
    /// An empty one.
    pub fn new(name: &'static str, rights: &'static str) -> Self {
        Self {
            name,
            rights,
            samples: Vec::new(),
            sample_headers: Vec::new(),
            instruments: Vec::new(),
            instrument_bags: Vec::new(),
            instrument_generators: Vec::new(),
            presets: Vec::new(),
            preset_bags: Vec::new(),
            preset_generators: Vec::new(),
        }
    }

    /// Adds an instrument of these zones; instruments are numbered in their order.
    pub fn add_instrument(&mut self, name: &str, zones: Vec<Zone>) {
        self.instruments.extend(padded_name(name));
        self.instruments.extend(((self.instrument_bags.len() / 4) as u16).to_le_bytes());
        for zone in zones {
            let number = (self.sample_headers.len() / SAMPLE_HEADER) as i16;
            self.add_sample(name, &zone);
            bag(&mut self.instrument_bags, self.instrument_generators.len());
            let own = zone.envelope;
            let mut put = |kind: u16, value: i16| {
                self.instrument_generators.extend(kind.to_le_bytes());
                self.instrument_generators.extend(value.to_le_bytes());
            };
            put(generator::KEYS, i16::from_le_bytes([zone.keys.0, zone.keys.1]));
            put(generator::VIBRATO_TO_PITCH, own.vibrato.0.round() as i16);
            put(generator::VIBRATO_DELAY, timecents(0.25));
            put(generator::VIBRATO_FREQUENCY, cents(own.vibrato.1));
            put(generator::TREMOLO_TO_VOLUME, (10.0 * own.tremolo.0).round() as i16);
            put(generator::TREMOLO_FREQUENCY, cents(own.tremolo.1));
            put(generator::REVERB, ROOM);
            put(generator::ATTACK, timecents(own.attack));
            if let Some(decay) = own.decay {
                put(generator::DECAY, timecents(decay));
                put(generator::SUSTAIN, SILENT);
            }
            put(generator::RELEASE, timecents(own.release));
            put(generator::MODE, LOOPED);
            // The specification wants it last.
            put(generator::SAMPLE, number);
        }
    }

    /// Gives a program of bank 0 its instrument.
    pub fn add_program(&mut self, program: u8, instrument: usize) {
        self.presets.extend(padded_name(&format!("Program {}", u16::from(program) + 1)));
        for number in [u16::from(program), 0, (self.preset_bags.len() / 4) as u16] {
            self.presets.extend(number.to_le_bytes());
        }
        self.presets.extend([0; 12]);
        bag(&mut self.preset_bags, self.preset_generators.len());
        self.preset_generators.extend(generator::INSTRUMENT.to_le_bytes());
        self.preset_generators.extend((instrument as u16).to_le_bytes());
    }

    fn add_sample(&mut self, name: &str, zone: &Zone) {
        let (start, sample) = (self.samples.len(), &zone.sample);
        let end = start + sample.data.len();
        self.samples.extend(&sample.data);
        // An interpolator may look past the end of the loop, where its start goes on.
        self.samples.extend(sample.data[sample.loop_start..].iter().take(8));
        self.samples.extend([0; GAP]);
        self.sample_headers.extend(padded_name(name));
        for number in [start, end, start + sample.loop_start, end, sample.rate as usize] {
            self.sample_headers.extend((number as u32).to_le_bytes());
        }
        // Key, correction in cents, no other channel, mono.
        self.sample_headers.extend([zone.root, 0, 0, 0, 1, 0]);
    }

    /// The file.
    pub fn into_bytes(mut self) -> Vec<u8> {
        // Every list ends with a record that says where the one before it ended.
        let bags = |bags: &[u8]| ((bags.len() / 4) as u16).to_le_bytes();
        self.presets.extend(padded_name("EOP"));
        self.presets.extend([0; 4]);
        self.presets.extend(bags(&self.preset_bags));
        self.presets.extend([0; 12]);
        self.instruments.extend(padded_name("EOI"));
        self.instruments.extend(bags(&self.instrument_bags));
        bag(&mut self.preset_bags, self.preset_generators.len());
        bag(&mut self.instrument_bags, self.instrument_generators.len());
        self.preset_generators.extend([0; 4]);
        self.instrument_generators.extend([0; 4]);
        self.sample_headers.extend(padded_name("EOS"));
        self.sample_headers.extend([0; SAMPLE_HEADER - NAME]);
        let text = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.extend(vec![0; 2 - text.len() % 2]);
            bytes
        };
        let info = [
            chunk(b"ifil", &[2, 0, 1, 0]),
            chunk(b"isng", &text("EMU8000")),
            chunk(b"INAM", &text(self.name)),
            chunk(b"ICOP", &text(self.rights)),
        ];
        let samples: Vec<u8> = self.samples.iter().flat_map(|x| x.to_le_bytes()).collect();
        let parameters = [
            chunk(b"phdr", &self.presets),
            chunk(b"pbag", &self.preset_bags),
            chunk(b"pmod", &[0; 10]),
            chunk(b"pgen", &self.preset_generators),
            chunk(b"inst", &self.instruments),
            chunk(b"ibag", &self.instrument_bags),
            chunk(b"imod", &[0; 10]),
            chunk(b"igen", &self.instrument_generators),
            chunk(b"shdr", &self.sample_headers),
        ];
        let lists = [
            list(b"LIST", b"INFO", &info.concat()),
            list(b"LIST", b"sdta", &chunk(b"smpl", &samples)),
            list(b"LIST", b"pdta", &parameters.concat()),
        ];
        list(b"RIFF", b"sfbk", &lists.concat())
    }
}

/// Bytes of a name and of a sample's header.
const NAME: usize = 20;
const SAMPLE_HEADER: usize = 46;

fn padded_name(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    // The last byte stays 0.
    bytes.iter_mut().zip(name.bytes().take(NAME - 1)).for_each(|(out, byte)| *out = byte);
    bytes
}

/// Where a zone's generators begin; it has no modulators.
fn bag(bags: &mut Vec<u8>, generators: usize) {
    bags.extend(((generators / 4) as u16).to_le_bytes());
    bags.extend([0; 2]);
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn list(kind: &[u8; 4], name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    chunk(kind, &[&name[..], data].concat())
}

/// Seconds, as the specification counts them.
fn timecents(seconds: f64) -> i16 {
    (1_200.0 * seconds.max(0.001).log2()).round().clamp(-12_000.0, 8_000.0) as i16
}

/// Hertz, in cents above 8.176 Hz.
fn cents(hertz: f64) -> i16 {
    (1_200.0 * (hertz.max(0.01) / 8.176).log2()).round().clamp(-16_000.0, 4_500.0) as i16
}
