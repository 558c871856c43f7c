//! The built VST3 in a DAW engine that we did not write: DawDreamer (JUCE), each render in a cold process of its own.
//! It claims real time and pulls as fast as blocks come back; settings are the defaults.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tiller_tests::host::{Outcome, dev_bundle};
use tiller_tests::measure::{self, first_difference};
use tiller_tests::turn;

const RATE: usize = 48_000;
const SECONDS: f64 = 6.0;

/// Files of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("tiller-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The VST3 beside the dev CLAP, and the Python that `cargo xtask test` set up.
fn tools() -> Outcome<(PathBuf, PathBuf)> {
    let clap = dev_bundle()?;
    let target = clap.ancestors().nth(3).ok_or("the bundle is not under target/bundled/dev")?;
    let python = target.join(if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" });
    if !python.exists() {
        return Err(format!("{} is missing: `cargo xtask test` makes it", python.display()));
    }
    Ok((clap.with_extension("vst3"), python))
}

/// Keys as a MIDI file, 480 ticks a beat at 120 beats per minute: (key, start, end) in ticks, in order, not overlapping.
fn midi_file(keys: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut track = Vec::new();
    let mut now = 0;
    for (key, start, end) in keys {
        delta(&mut track, start - now);
        track.extend([0x90, *key, 100]);
        delta(&mut track, end - start);
        track.extend([0x80, *key, 0]);
        now = *end;
    }
    delta(&mut track, 0);
    track.extend([0xff, 0x2f, 0]);
    let mut file = b"MThd\0\0\0\x06\0\0\0\x01\x01\xe0MTrk".to_vec();
    file.extend((track.len() as u32).to_be_bytes());
    file.extend(track);
    file
}

/// A variable-length quantity of at most three bytes.
fn delta(track: &mut Vec<u8>, ticks: u32) {
    for shift in [14, 7] {
        if ticks >> shift != 0 {
            track.push((ticks >> shift & 0x7f) as u8 | 0x80);
        }
    }
    track.push((ticks & 0x7f) as u8);
}

/// One render in a process of its own: interleaved samples and the reported latency.
fn render(folder: &Path, block: usize, midi: &Path, automation: &Value) -> Outcome<(Vec<f32>, usize)> {
    let (plugin, python) = tools()?;
    let out = folder.join("out.f32");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/render.py");
    let output = Command::new(python)
        .arg(script)
        .arg("--plugin")
        .arg(plugin)
        .arg("--out")
        .arg(&out)
        .arg("--midi")
        .arg(midi)
        .args(["--rate", &RATE.to_string(), "--block", &block.to_string(), "--seconds", &SECONDS.to_string()])
        .args(["--automation", &automation.to_string()])
        .output()
        .map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let report: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).ok_or("no report")?;
    let latency = report["latency"].as_u64().ok_or("no latency in the report")? as usize;
    let bytes = std::fs::read(&out).map_err(|e| e.to_string())?;
    Ok((bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(), latency))
}

#[test]
fn a_cold_bounce_is_music_from_the_start_and_repeats_itself() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-cold")?;
    let midi = folder.0.join("keys.mid");
    // Two beats of E from 1 s, one key shorter than a frame, G# to the end.
    let keys = midi_file(&[(64, 960, 1_920), (67, 2_000, 2_005), (68, 2_880, 5_760)]);
    std::fs::write(&midi, keys).map_err(|e| e.to_string())?;
    let ramp: Vec<[f64; 2]> = (0..40).map(|i| [f64::from(i) * 6_007.0, 0.5 + f64::from(i) / 80.0]).collect();
    let automation = json!({ "Note strength": ramp });
    let (first, latency) = render(&folder.0, 512, &midi, &automation)?;
    assert!(latency > 0, "no latency is reported");
    assert!(first.iter().all(|s| s.is_finite()));
    let left: Vec<f32> = first.iter().step_by(2).copied().collect();
    let music = &left[latency..];
    let onset = measure::rms(&music[..RATE / 10]);
    assert!(onset > 0.000_5, "the first 100 ms have an RMS of {onset}");
    for (second, part) in music.chunks(RATE).enumerate() {
        let rms = measure::rms(part);
        assert!(rms > 0.002, "second {second} has an RMS of {rms}");
    }
    assert_eq!(measure::gaps(&left, RATE as f64), []);
    let (second, _) = render(&folder.0, 512, &midi, &automation)?;
    assert_eq!(first_difference(&first, &second), None, "two renders differ");
    // The keys and the automation are heard: without them it is other music, but the same before the first key sounds.
    let none = folder.0.join("none.mid");
    std::fs::write(&none, midi_file(&[])).map_err(|e| e.to_string())?;
    let (plain, _) = render(&folder.0, 512, &none, &automation)?;
    let at = first_difference(&first, &plain).ok_or("the keys were not heard")? / 2;
    assert!(at >= latency + RATE - RATE / 5 && at < latency + RATE + RATE / 5, "first key heard at {at}");
    Ok(())
}

#[test]
fn block_sizes_do_not_change_a_sample() -> Outcome<()> {
    let _turn = turn();
    let folder = Folder::new("daw-blocks")?;
    let midi = folder.0.join("keys.mid");
    std::fs::write(&midi, midi_file(&[(66, 480, 960), (71, 3_360, 4_320)])).map_err(|e| e.to_string())?;
    // DawDreamer looks at automation once a block: 24,000 is a multiple of all three sizes.
    let automation = json!({
        "Note": [[0, 0.0], [24_000, 7.0 / 12.0], [144_000, 3.0 / 12.0], [216_000, 0.0]],
        "Note strength": [[0, 1.0], [72_000, 0.25], [120_000, 0.75]],
        "Gain": [[0, 0.8], [192_000, 0.6]],
    });
    let (reference, latency) = render(&folder.0, 64, &midi, &automation)?;
    assert!(measure::rms(&reference) > 0.002, "silent");
    for block in [480, 1_000] {
        let (other, other_latency) = render(&folder.0, block, &midi, &automation)?;
        let common = (reference.len() - 2 * latency).min(other.len() - 2 * other_latency);
        let difference = first_difference(&reference[2 * latency..][..common], &other[2 * other_latency..][..common]);
        assert_eq!(difference, None, "block size {block}");
    }
    Ok(())
}

#[test]
fn midi_files_have_the_bytes_of_the_standard() {
    let file = midi_file(&[(60, 0, 480)]);
    assert_eq!(&file[..14], b"MThd\0\0\0\x06\0\0\0\x01\x01\xe0");
    assert_eq!(file[14..], *b"MTrk\0\0\0\x0d\0\x90\x3c\x64\x83\x60\x80\x3c\0\0\xff\x2f\0");
}
