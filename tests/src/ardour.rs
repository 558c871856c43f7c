//! Ardour without a window: a session with our VST3 on a MIDI track, parameters drawn on the timeline and a region of keys,
//! exported by Ardour's own tool with its default settings. Needs Debian's `ardour` (7).
//!
//! Ardour plays keys, audio and everything else that runs into a plugin ahead by the plugin's latency, but reads the plugin's lanes
//! and its song position at the plugin's output (`Route::process_output_buffers`: "we need to add the latency first"). So a lane is
//! heard a latency after its place, whatever the plugin: the probe shows it. Where the same latency is counted behind the plugin
//! instead, everything is heard in its place.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::host::Outcome;
use crate::measure::gaps;
use crate::midi_file::midi_file;

/// Where Debian puts Ardour's programs and libraries.
const LIBRARY: &str = "/usr/lib/ardour7";

/// Samples per second of the session.
pub const RATE: usize = 48_000;

/// Ardour's own clock: ticks per second of audio time.
const SUPERCLOCK: u64 = 282_240_000;

/// Ardour's ticks of a beat.
const TICKS: u64 = 1_920;

/// Name of the session, of its track and of the region.
const NAME: &str = "tiller";

/// Latency of the probe, samples; it says so in its script.
pub const PROBE_LATENCY: u64 = 10_000;

/// Seconds that one of Ardour's programs may take: an export of 16 s takes five, and now and then one of Ardour's never ends.
const PATIENCE: &str = "120";

/// How often a session is made or exported before Ardour's message is an error.
const ATTEMPTS: usize = 6;

const PROBE: &str = include_str!("ardour/probe.lua");

/// A parameter on the timeline: its name, and its plain values from these samples on, as steps.
pub type Lane<'a> = (&'a str, Vec<(u64, f64)>);

/// What is on the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instrument {
    /// The bundle.
    Tiller,
    /// A script of Ardour's own kind that plays its lane "Level" (left) and its keys (right), [`PROBE_LATENCY`] late.
    Probe,
}

/// Where Ardour counts the instrument's latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// At the instrument, as every new session does.
    There,
    /// Behind it, on the track's fader, and none at the instrument: what a musician gets by giving Tiller the latency 0 and a
    /// plugin after it Tiller's, in the plugins' windows.
    Behind,
}

/// A session's contents.
#[derive(Clone, Copy, Debug)]
pub struct Score<'a> {
    /// What plays.
    pub instrument: Instrument,
    /// Where its latency is counted.
    pub counted: Counted,
    /// What is drawn.
    pub lanes: &'a [Lane<'a>],
    /// Keys: (key, start, end) in ticks of the MIDI file.
    pub keys: &'a [(u8, u32, u32)],
}

/// A session on the disk.
pub struct Session {
    folder: PathBuf,
    /// Latency of the instrument as Ardour sees it, samples.
    pub latency: u64,
}

/// An Ardour of its own: home folder, plugin, plugin cache.
pub struct Ardour {
    folder: PathBuf,
}

impl Ardour {
    /// Puts the bundle into a fresh home under `folder` and lets Ardour scan it.
    ///
    /// # Errors
    /// Ardour is not installed, or does not take the plugin.
    pub fn new(folder: &Path, bundle: &Path) -> Outcome<Self> {
        if !Path::new(LIBRARY).join("luasession").exists() {
            return Err(format!("{LIBRARY} has no luasession: apt-get install ardour"));
        }
        let ardour = Self { folder: folder.to_owned() };
        let home = ardour.home();
        let _ = fs::remove_dir_all(&home);
        let plugin = home.join(".vst3").join(bundle.file_name().ok_or("a bundle has a name")?);
        copy(bundle, &plugin)?;
        let scripts = home.join(".config/ardour7/scripts");
        let failed = |e: std::io::Error| format!("{}: {e}", scripts.display());
        fs::create_dir_all(&scripts).map_err(failed)?;
        fs::write(scripts.join("probe.lua"), PROBE).map_err(failed)?;
        let mut scan = ardour.command("ardour-vst3-scanner");
        said(scan.arg("-f").arg(&plugin).output(), "ardour-vst3-scanner")?;
        let cache = home.join(".cache/ardour7/vst");
        let entries = fs::read_dir(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
        let mut found = 0;
        for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|own| own == "v3i")) {
            // One that is not newer than the plugin is dropped without a word.
            let later = SystemTime::now() + Duration::from_secs(5);
            let file = File::options().append(true).open(entry.path()).map_err(|e| e.to_string())?;
            file.set_modified(later).map_err(|e| e.to_string())?;
            found += 1;
        }
        if found == 0 {
            return Err(format!("Ardour's scanner did not take {}", plugin.display()));
        }
        Ok(ardour)
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=5", PATIENCE])
            .arg(Path::new(LIBRARY).join(program))
            .env("HOME", self.home())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env("LD_LIBRARY_PATH", LIBRARY)
            .env("ARDOUR_DATA_PATH", "/usr/share/ardour7")
            .env("ARDOUR_CONFIG_PATH", "/etc/ardour7")
            .env("ARDOUR_DLL_PATH", LIBRARY)
            .current_dir(&self.folder);
        command
    }

    /// Makes a session of `seconds`. Ardour 7.3 itself aborts in one of six, with its own instruments too: it registers a track's
    /// port twice ("Port already exists"). Such a session is made again.
    ///
    /// # Errors
    /// Ardour's message, or what its session lacks.
    pub fn session(&self, name: &str, seconds: u64, score: &Score) -> Outcome<Session> {
        let session = self.folder.join(name);
        let script = self.folder.join(format!("{name}.lua"));
        fs::write(&script, lua(&session, score)).map_err(|e| format!("{}: {e}", script.display()))?;
        let made = || {
            let _ = fs::remove_dir_all(&session);
            said(self.command("luasession").arg(&script).output(), "luasession")
        };
        let mut words = made();
        for _ in 1..ATTEMPTS {
            let Err(why) = &words else { break };
            eprintln!("made again: {}", why.lines().next().unwrap_or_default());
            words = made();
        }
        let words = words?;
        let latency =
            words.lines().find_map(|line| line.strip_prefix("latency ")).and_then(|own| own.trim().parse().ok());
        let latency = latency.ok_or_else(|| format!("luasession made no session\n{words}"))?;
        let file = session.join(format!("{NAME}.ardour"));
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        fs::write(&file, completed(&text, seconds)?).map_err(|e| format!("{}: {e}", file.display()))?;
        let midi = session.join("interchange").join(name).join("midifiles");
        fs::create_dir_all(&midi).map_err(|e| e.to_string())?;
        fs::write(midi.join("keys.mid"), midi_file(score.keys)).map_err(|e| e.to_string())?;
        Ok(Session { folder: session, latency })
    }

    /// As [`Ardour::export`], again while there is a gap or Ardour ends badly, six times at most: the default settings do not wait
    /// for an engine that other work on the machine makes slower than real time, and Ardour 7.3 itself aborts as it takes its export
    /// graph apart in one export of twenty, without any plugin in the session (`ExportGraphBuilder::reset`, free of its own memory).
    ///
    /// # Errors
    /// As [`Ardour::export`].
    pub fn export_whole(&self, session: &Session, name: &str) -> Outcome<([Vec<f32>; 2], PathBuf)> {
        let mut export = self.export(session, name);
        for _ in 1..ATTEMPTS {
            match &export {
                Ok((sound, _)) if gaps(&sound[0], RATE as f64).is_empty() => break,
                Ok(_) => {}
                Err(why) => eprintln!("exported again: {}", why.lines().next().unwrap_or_default()),
            }
            export = self.export(session, name);
        }
        export
    }

    /// Exports a session with the tool's default settings: left and right, and the file.
    ///
    /// # Errors
    /// Ardour's message; a file that is no sound.
    pub fn export(&self, session: &Session, name: &str) -> Outcome<([Vec<f32>; 2], PathBuf)> {
        let out = self.folder.join(format!("{name}.wav"));
        said(
            self.command("utils/ardour7-export").arg("-o").arg(&out).arg(&session.folder).arg(NAME).output(),
            "ardour7-export",
        )?;
        let mut reader = hound::WavReader::open(&out).map_err(|e| format!("{}: {e}", out.display()))?;
        let spec = reader.spec();
        if (spec.channels, spec.sample_rate as usize, spec.bits_per_sample) != (2, RATE, 16) {
            return Err(format!("{}: {spec:?}", out.display()));
        }
        let samples: Vec<i16> =
            reader.samples::<i16>().collect::<Result<_, _>>().map_err(|e| format!("{}: {e}", out.display()))?;
        let channel = |index: usize| samples.iter().skip(index).step_by(2).map(|s| f32::from(*s) / 32_768.0).collect();
        Ok(([channel(0), channel(1)], out))
    }
}

/// The script that makes the session and draws the lanes.
fn lua(session: &Path, score: &Score) -> String {
    // A script's latency is known once it has run.
    let (name, kind, latency) = match score.instrument {
        Instrument::Tiller => ("Tiller", "VST3", "processor:to_insert():signal_latency()".to_owned()),
        Instrument::Probe => ("Probe", "Lua", PROBE_LATENCY.to_string()),
    };
    let mut script = format!(
        r#"AudioEngine:set_backend("None (Dummy)", "", "")
local session = create_session("{}", "{NAME}", {RATE})
assert(session, "no session")
local plugin = ARDOUR.LuaAPI.new_plugin_info("{name}", ARDOUR.PluginType.{kind})
assert(not plugin:isnil(), "Ardour does not know the plugin")
local one = ARDOUR.ChanCount(ARDOUR.DataType("midi"), 1)
local two = ARDOUR.ChanCount(ARDOUR.DataType("audio"), 2)
local order, mode = ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal
local tracks = session:new_midi_track(one, two, true, plugin, nil, nil, 1, "{NAME}", order, mode, true)
local processor, fader
for track in tracks:iter() do processor, fader = track:nth_plugin(0), track:amp() end
local latency = {latency}
local function draw(name, points)
  local own = processor:to_insert():plugin(0)
  for index = 0, own:parameter_count() - 1 do
    local number = own:nth_parameter(index, true)
    if own:parameter_label(number) == name then
      local _, list = ARDOUR.LuaAPI.plugin_automation(processor, index)
      for _, point in ipairs(points) do
        list:add(Temporal.timepos_t(point[1]), point[2], false, true)
      end
      list:set_interpolation(Evoral.InterpolationStyle.Discrete)
      local parameter = Evoral.Parameter(ARDOUR.AutomationType.PluginAutomation, 0, number)
      processor:to_automatable():automation_control(parameter, true):set_automation_state(ARDOUR.AutoState.Play)
      return
    end
  end
  error("no parameter " .. name)
end
"#,
        session.display()
    );
    for (name, points) in score.lanes {
        let _ = write!(script, "draw(\"{name}\", {{");
        for (sample, value) in points {
            let _ = write!(script, "{{{sample}, {value}}}, ");
        }
        script.push_str("})\n");
    }
    if score.counted == Counted::Behind {
        script.push_str("processor:to_latent():set_user_latency(0)\nfader:to_latent():set_user_latency(latency)\n");
    }
    script.push_str("print(\"latency \" .. latency)\nio.flush()\nsession:save_state(\"\")\nclose_session()\nquit()\n");
    script
}

/// The session with what its scripts cannot make: its range, the region of keys, the track's way to the master.
fn completed(text: &str, seconds: u64) -> Outcome<String> {
    let mut text = text.to_owned();
    put(
        &mut text,
        "<Sources/>",
        "<Sources><Source name=\"keys.mid\" take-id=\"\" type=\"midi\" flags=\"\" id=\"9000\" origin=\"\"/></Sources>",
    )?;
    let end = seconds * SUPERCLOCK;
    put(
        &mut text,
        "<Locations/>",
        &format!(
            "<Locations><Location id=\"9001\" name=\"session\" start=\"a0\" end=\"a{end}\" flags=\"IsSessionRange\" locked=\"0\" \
             timestamp=\"0\" cue=\"0\"/></Locations>"
        ),
    )?;
    for side in [1, 2] {
        let port = format!("<Port type=\"audio\" name=\"{NAME}/audio_out {side}\"");
        // Ardour may have connected the track to the master before it was told to save, or not yet.
        if !text.contains(&format!("{port}>")) {
            put(
                &mut text,
                &format!("{port}/>"),
                &format!("{port}><Connection other=\"Master/audio_in {side}\"/></Port>"),
            )?;
        }
    }
    let opening = format!("name=\"{NAME}\" type=\"midi\" orig-track-id=");
    let start = text.find(&opening).ok_or("the session has no playlist for the track")?;
    let close = start + text[start..].find("/>").ok_or("the playlist has no end")?;
    // 120 beats a minute.
    let length = 2 * seconds * TICKS;
    let region = format!(
        "><Region name=\"keys\" muted=\"0\" opaque=\"1\" locked=\"0\" video-locked=\"0\" automatic=\"0\" whole-file=\"0\" \
         import=\"0\" external=\"0\" hidden=\"0\" position-locked=\"0\" valid-transients=\"0\" start=\"b0\" length=\"b{length}@b0\" \
         sync-position=\"b0\" sync-marked=\"0\" stretch=\"1\" shift=\"1\" layering-index=\"0\" type=\"midi\" \
         first-edit=\"nothing\" layer=\"0\" id=\"9002\" source-0=\"9000\" master-source-0=\"9000\" channels=\"1\"/></Playlist>"
    );
    text.replace_range(close..close + 2, &region);
    Ok(text)
}

/// Puts `new` in the one place of `old`.
fn put(text: &mut String, old: &str, new: &str) -> Outcome<()> {
    match text.matches(old).count() {
        1 => {
            *text = text.replace(old, new);
            Ok(())
        }
        count => Err(format!("the session has `{old}` {count} times")),
    }
}

fn said(output: std::io::Result<Output>, program: &str) -> Outcome<String> {
    let output = output.map_err(|e| format!("{program} could not be started: {e}"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // luasession ends well whatever its script did.
    let failed = !output.status.success() || text.lines().any(|line| line.starts_with("Error:"));
    if failed { Err(format!("{program}: {}\n{text}", output.status)) } else { Ok(text) }
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    let failed = |e: std::io::Error| format!("{} could not be copied to {}: {e}", from.display(), to.display());
    if from.is_dir() {
        fs::create_dir_all(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)?.flatten() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    fs::copy(from, to).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_completed_once_and_what_it_lacks_is_named() {
        let text = format!(
            "<Sources/><Locations/><Port type=\"audio\" name=\"{NAME}/audio_out 1\"/>\
             <Port type=\"audio\" name=\"{NAME}/audio_out 2\"/><Playlist id=\"9\" name=\"{NAME}\" type=\"midi\" orig-track-id=\"4\"/>"
        );
        let done = completed(&text, 16).expect("everything is there");
        for part in
            ["end=\"a4515840000\"", "length=\"b61440@b0\"", "<Connection other=\"Master/audio_in 2\"/>", "</Playlist>"]
        {
            assert!(done.contains(part), "{part}: {done}");
        }
        assert!(completed(&done, 16).is_err_and(|why| why.contains("<Sources/>")));
    }

    #[test]
    fn lanes_are_drawn_by_name() {
        let lanes = [("Chord root", vec![(0, 0.0), (192_000, 9.0)])];
        let score = Score { instrument: Instrument::Tiller, counted: Counted::There, lanes: &lanes, keys: &[] };
        let script = lua(Path::new("/x/y"), &score);
        assert!(script.contains("draw(\"Chord root\", {{0, 0}, {192000, 9}, })"), "{script}");
        assert!(script.contains("create_session(\"/x/y\", \"tiller\", 48000)") && !script.contains("set_user_latency"));
        let probe = Score { instrument: Instrument::Probe, counted: Counted::Behind, ..score };
        let script = lua(Path::new("/x/y"), &probe);
        for part in
            ["new_plugin_info(\"Probe\", ARDOUR.PluginType.Lua)", "local latency = 10000", "set_user_latency(latency)"]
        {
            assert!(script.contains(part), "{part}: {script}");
        }
        assert!(PROBE.contains(&format!("local latency = {PROBE_LATENCY}\n")));
    }
}
