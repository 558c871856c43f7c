//! Audio outputs: devices of the system's, or none at all, which is played into at the clock's pace. Control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, Device, FromSample, SampleFormat, SizedSample, Stream, StreamConfig, SupportedBufferSize};
use tiller::editor::devices::{Chosen, Output};

use crate::player::Player;

/// Samples per second and per block where nothing asks for others.
const RATE: u32 = 48_000;
const BLOCK: u32 = 512;
/// The block that is made room for where the system does not say.
const LONGEST: u32 = 2_048;

/// How an output is going to be played.
pub struct Plan {
    device: Option<Device>,
    format: SampleFormat,
    config: StreamConfig,
    /// Samples per second.
    pub rate: u32,
    /// Longest block, samples.
    pub block: u32,
    /// The device, for people.
    pub name: String,
}

/// An open output. Dropping it ends the playing and gives the instrument back.
#[allow(dead_code, reason = "it plays until it is dropped")]
pub enum Running {
    /// A device's.
    Device(Stream),
    /// The clock's.
    Clock(ClockOutput),
}

/// The names of the outputs that there are.
pub fn names() -> Vec<String> {
    let Ok(devices) = cpal::default_host().output_devices() else { return Vec::new() };
    let mut names: Vec<String> = devices.filter_map(|device| name_of(&device)).collect();
    names.sort();
    names.dedup();
    names
}

fn name_of(device: &Device) -> Option<String> {
    device.description().ok().map(|description| description.name().to_owned())
}

/// Why, to stand within a sentence.
fn reason(error: &cpal::Error) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

impl Plan {
    /// Playing into nothing.
    pub fn nothing(chosen: &Chosen) -> Self {
        let (rate, block) = (chosen.rate.unwrap_or(RATE), chosen.block.unwrap_or(BLOCK));
        let config = StreamConfig { channels: 2, sample_rate: rate, buffer_size: BufferSize::Default };
        Self { device: None, format: SampleFormat::F32, config, rate, block, name: "no device".to_owned() }
    }

    /// What suits the choice.
    ///
    /// # Errors
    /// A sentence: the device is not there, or cannot do what is asked.
    pub fn of(chosen: &Chosen) -> Result<Self, String> {
        let host = cpal::default_host();
        let device = match &chosen.output {
            Output::None => return Ok(Self::nothing(chosen)),
            Output::Default => host.default_output_device().ok_or("This system has no audio output.")?,
            Output::Device(name) => {
                let mut all = host
                    .output_devices()
                    .map_err(|error| format!("The outputs cannot be listed: {}.", reason(&error)))?;
                let found = all.find(|device| name_of(device).as_ref() == Some(name));
                found.ok_or_else(|| format!("The output {name} is not there."))?
            }
        };
        let name = name_of(&device).unwrap_or_else(|| "an output without a name".to_owned());
        let own = device.default_output_config();
        let own = own.map_err(|error| format!("{name} cannot be used: {}.", reason(&error)))?;
        let rate = chosen.rate.unwrap_or_else(|| own.sample_rate());
        let asked = chosen.block.unwrap_or(BLOCK);
        let (buffer_size, block) = match own.buffer_size() {
            SupportedBufferSize::Range { min, max } if *min <= *max => {
                let block = asked.clamp((*min).max(1), (*max).max(1));
                (BufferSize::Fixed(block), block)
            }
            _ => (BufferSize::Default, asked.max(LONGEST)),
        };
        let config = StreamConfig { channels: own.channels(), sample_rate: rate, buffer_size };
        Ok(Self { device: Some(device), format: own.sample_format(), config, rate, block, name })
    }

    /// Starts. `lost` hears of a device that stops of itself.
    ///
    /// # Errors
    /// A sentence; the player is dropped.
    pub fn start(self, player: Player, lost: impl Fn(String) + Send + 'static) -> Result<Running, String> {
        let Some(device) = self.device else { return ClockOutput::start(player, self.rate, self.block) };
        let config = self.config;
        let stream = match self.format {
            SampleFormat::F32 => open::<f32>(&device, config, player, lost),
            SampleFormat::F64 => open::<f64>(&device, config, player, lost),
            SampleFormat::I16 => open::<i16>(&device, config, player, lost),
            SampleFormat::I24 => open::<cpal::I24>(&device, config, player, lost),
            SampleFormat::I32 => open::<i32>(&device, config, player, lost),
            SampleFormat::U16 => open::<u16>(&device, config, player, lost),
            SampleFormat::U8 => open::<u8>(&device, config, player, lost),
            other => return Err(format!("{} takes {other} samples, which Tiller does not make.", self.name)),
        };
        let stream = stream.and_then(|stream| stream.play().map(|()| stream));
        let rate = self.rate;
        stream
            .map(Running::Device)
            .map_err(|error| format!("{} cannot be opened at {rate} Hz: {}.", self.name, reason(&error)))
    }
}

fn open<T: SizedSample + FromSample<f32>>(
    device: &Device,
    config: StreamConfig,
    mut player: Player,
    lost: impl Fn(String) + Send + 'static,
) -> Result<Stream, cpal::Error> {
    let channels = usize::from(config.channels);
    let failed = move |error: cpal::Error| match error.kind() {
        // The stream goes on.
        cpal::ErrorKind::Xrun | cpal::ErrorKind::RealtimeDenied | cpal::ErrorKind::DeviceChanged => {
            log::warn!("{error}");
        }
        _ => lost(reason(&error)),
    };
    device.build_output_stream(config, move |data: &mut [T], _| player.fill(data, channels), failed, None)
}

/// Plays at the clock's pace, and throws away what is played.
pub struct ClockOutput {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ClockOutput {
    fn start(mut player: Player, rate: u32, block: u32) -> Result<Running, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let body = move || {
            let mut samples = vec![0.0f32; 2 * block as usize];
            let pace = Duration::from_secs_f64(f64::from(block) / f64::from(rate));
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                player.fill(&mut samples, 2);
                next += pace;
                match next.checked_duration_since(Instant::now()) {
                    Some(early) => std::thread::sleep(early),
                    // As a device would, it does not make up for what was missed.
                    None => next = Instant::now(),
                }
            }
        };
        let thread = std::thread::Builder::new().name("tiller-no-device".to_owned()).spawn(body);
        let thread = thread.map_err(|error| format!("The system gave no thread to play in ({error})."))?;
        Ok(Running::Clock(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for ClockOutput {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
