//! Project state as hosts keep it: whole, cut, foreign, old, in small pieces, from another thread, before and after
//! activation.

use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use tiller_tests::host::{Host, Outcome};
use tiller_tests::measure::{first_difference, rms};
use tiller_tests::player::{Blocks, Pace};
use tiller_tests::project::Project;
use tiller_tests::random::{Random, cases};
use tiller_tests::score::Score;
use tiller_tests::turn;

use crate::{bounce, fixture, load};

const RATE: f64 = 48_000.0;

/// A host whose every field is another than a fresh one's.
fn busy() -> Outcome<(Host, Vec<u8>)> {
    let mut host = load()?;
    for (name, text) in [("note", "A"), ("note_strength", "-0.5"), ("seed", "1234"), ("gain", "-3"), ("top_k", "all")] {
        host.set(name, text)?;
    }
    let mut project = Project::open(&host.save()?)?;
    project.document["prompt"] = json!("slow \"warm\" strings\nwith a ☂");
    project.document["controllers"] = json!({ "74": "strength", "7": "gain" });
    project.document["latch"] = json!(true);
    project.document["window"] = json!([1_000, 800]);
    host.restore(&project.close()?)?;
    let state = host.save()?;
    Ok((host, state))
}

/// At most so many bytes at a time, as hosts with buffers of their own hand them over.
struct Piecemeal<T>(T, usize);

impl<T: Read> Read for Piecemeal<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

impl<T: Write> Write for Piecemeal<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let most = self.1.min(bytes.len());
        self.0.write(&bytes[..most])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn it_comes_back_byte_for_byte_before_during_and_after_playing() -> Outcome<()> {
    let _turn = turn();
    let (_, state) = busy()?;
    let mut host = load()?;
    host.restore(&state)?;
    assert!(host.save()? == state, "before activation");
    let mut player = host.activate(RATE, 256)?;
    assert!(host.save()? == state, "after activation");
    player.play(&Score::playing(), 0..9_600, Blocks::Fixed(256), Pace::FlatOut)?;
    assert!(host.save()? == state, "while it plays");
    let plain = load()?.save()?;
    host.restore(&plain)?;
    assert!(host.save()? == plain, "another state while it plays");
    player.play(&Score::playing(), 9_600..19_200, Blocks::Fixed(256), Pace::FlatOut)?;
    host.restore(&state)?;
    player.reset();
    assert!(host.save()? == state, "after a reset");
    host.deactivate(player);
    assert!(host.save()? == state, "after deactivation");
    Ok(())
}

#[test]
fn what_sounds_does_not_depend_on_when_it_was_set() -> Outcome<()> {
    let _turn = turn();
    let (mut first, state) = busy()?;
    let reference = bounce(&mut first, &Score::playing(), RATE, 1.0, Blocks::Fixed(512))?;
    assert!(rms(&reference.left) > 0.000_3);
    // No editor was ever open here.
    let mut before = load()?;
    before.restore(&state)?;
    let heard = bounce(&mut before, &Score::playing(), RATE, 1.0, Blocks::Fixed(512))?;
    assert_eq!(first_difference(&heard.left, &reference.left), None, "set before activation");
    let mut after = load()?;
    after.set_offline(true)?;
    let mut player = after.activate(RATE, 512)?;
    after.restore(&state)?;
    let latency = u64::from(after.latency()?);
    let heard = player.play(&Score::playing(), 0..latency + 48_000, Blocks::Fixed(512), Pace::FlatOut)?;
    after.deactivate(player);
    let heard = heard.compensated(latency as usize);
    assert_eq!(first_difference(&heard.left, &reference.left), None, "set after activation");
    Ok(())
}

#[test]
fn cut_at_every_byte_it_changes_nothing() -> Outcome<()> {
    let _turn = turn();
    let (_, state) = busy()?;
    let mut host = load()?;
    let before = host.save()?;
    for length in 0..state.len() {
        assert!(host.restore(&state[..length]).is_err(), "{length} of {} bytes are no state", state.len());
        if length % 64 == 0 || length + 16 > state.len() {
            assert!(host.save()? == before, "{length} bytes changed it");
        }
    }
    host.restore(&state)?;
    assert!(host.save()? == state);
    println!("{} cuts", state.len());
    Ok(())
}

#[test]
fn random_megabytes_change_nothing() -> Outcome<()> {
    let _turn = turn();
    let mut random = Random::of("random_megabytes_change_nothing");
    let (mut host, state) = busy()?;
    for round in 0..cases(12) {
        let mut bytes = random.bytes(1 << 20);
        if round % 2 == 0 {
            // The length that nice-plug puts before its JSON is right; the rest is not.
            bytes[..8].copy_from_slice(&((1_u64 << 20) - 8).to_le_bytes());
        }
        assert!(host.restore(&bytes).is_err(), "round {round}");
        assert!(host.save()? == state, "round {round}");
    }
    Ok(())
}

#[test]
fn lengths_that_lie_take_no_memory() -> Outcome<()> {
    let _turn = turn();
    let (mut host, state) = busy()?;
    for length in [0, 1, u64::from(u32::MAX), 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        let mut bytes = state.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        let before = tiller_tests::memory::peak_resident();
        let outcome = host.restore(&bytes);
        if let (Some(before), Some(after)) = (before, tiller_tests::memory::peak_resident()) {
            assert!(after - before < 64 << 20, "{length} bytes claimed: {} taken", after - before);
        }
        // One that claims more than there is may still be whole JSON; what counts is that nothing else came of it.
        assert!(outcome.is_err() || host.save()? == state, "{length}");
    }
    assert!(host.save()? == state);
    Ok(())
}

#[test]
fn it_is_read_and_written_in_pieces_of_any_size() -> Outcome<()> {
    let _turn = turn();
    let (mut busy, state) = busy()?;
    for size in [1, 2, 7, 13, 61, 509, 4_093] {
        let mut host = load()?;
        host.restore_from(&mut Piecemeal(std::io::Cursor::new(&state), size))?;
        assert!(host.save()? == state, "read in pieces of {size}");
        let mut written = Vec::new();
        busy.save_to(&mut Piecemeal(&mut written, size))?;
        assert!(written == state, "written in pieces of {size}");
    }
    Ok(())
}

/// A stream that breaks off with an error, or a disk that is full.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| std::io::Error::other("torn off"))?;
        buffer[0] = 1;
        Ok(1)
    }
}

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| std::io::Error::other("full"))?;
        Ok(bytes.len().min(100))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn streams_that_break_off_are_errors() -> Outcome<()> {
    let _turn = turn();
    let (mut host, state) = busy()?;
    for after in [0, 3, 8, 20] {
        assert!(host.restore_from(&mut Broken(after)).is_err(), "{after} bytes, then an error");
        assert!(host.save_to(&mut Broken(after.min(3))).is_err(), "{after} writes, then an error");
        assert!(host.save()? == state);
    }
    Ok(())
}

/// A host whose state calls a test makes from another thread, as some hosts do.
struct Elsewhere<'a>(&'a mut Host);

// SAFETY: the thread that lends it waits for the other one, so calls never overlap; that the plugin's threads do not
// care who calls is what the test is about.
unsafe impl Send for Elsewhere<'_> {}

#[test]
fn it_is_saved_and_restored_on_another_thread() -> Outcome<()> {
    let _turn = turn();
    let (_, state) = busy()?;
    let mut host = load()?;
    let plain = host.save()?;
    let mut player = host.activate(RATE, 256)?;
    for round in 0..20 {
        let wanted = if round % 2 == 0 { &state } else { &plain };
        let lent = Elsewhere(&mut host);
        let saved = std::thread::scope(|scope| {
            let work = scope.spawn(move || {
                let lent = lent;
                lent.0.restore(wanted)?;
                lent.0.save()
            });
            work.join().map_err(|_| "the thread panicked".to_owned())?
        })?;
        assert!(saved == *wanted, "round {round}");
        player.play(&Score::playing(), 0..2_000, Blocks::Fixed(256), Pace::FlatOut)?;
    }
    host.deactivate(player);
    Ok(())
}

/// The states of `fixtures/states`: a file of each kind that a released or unreleased Tiller has written, and what is
/// heard of it in a host.
#[test]
fn older_states_load() -> Outcome<()> {
    let _turn = turn();
    let folder = fixture("states");
    let mut count = 0;
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let state = framed(&path)?;
        let mut host = load()?;
        host.restore(&state).map_err(|why| format!("{}: {why}", path.display()))?;
        for (name, text) in [("seed", "4711"), ("note", "D#")] {
            let value = host.value(name)?;
            assert_eq!(host.text_of(name, value)?, text, "{}: {name}", path.display());
        }
        let saved = Project::open(&host.save()?)?;
        assert_eq!(saved.prompt()?, "slow warm strings pad", "{}", path.display());
        let heard = bounce(&mut host, &Score::playing(), RATE, 0.3, Blocks::Fixed(512))?;
        assert!(rms(&heard.left) > 0.000_1, "{}", path.display());
        count += 1;
    }
    println!("{count} older states");
    assert!(count >= 4, "{count}");
    Ok(())
}

/// The bytes that nice-plug makes of a state's JSON.
fn framed(path: &Path) -> Outcome<Vec<u8>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let json = serde_json::to_vec(&value).map_err(|e| e.to_string())?;
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    Ok(bytes)
}

#[test]
fn foreign_states_are_refused_or_change_nothing() -> Outcome<()> {
    let _turn = turn();
    let (mut host, state) = busy()?;
    let texts = [
        "",
        "{}",
        "[]",
        "null",
        "7",
        "\"\"",
        "{\"version\":\"0.1.0\"}",
        "{\"params\":{},\"fields\":{}}",
        "{\"version\":1,\"params\":[],\"fields\":{}}",
        "<?xml version=\"1.0\"?><state/>",
        "\u{feff}{}",
    ];
    for text in texts {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        if host.restore(&bytes).is_ok() {
            assert_eq!(Project::open(&host.save()?)?.prompt()?, Project::open(&state)?.prompt()?, "{text}");
            host.restore(&state)?;
        }
        assert!(host.save()? == state, "{text}");
    }
    Ok(())
}

#[test]
fn a_missing_model_is_silence_and_a_found_one_plays() -> Outcome<()> {
    let _turn = turn();
    let mut host = load()?;
    let plain = host.save()?;
    let mut project = Project::open(&plain)?;
    project.document["model"] = json!({ "name": "gone", "path": "/no/such/folder" });
    let missing = project.close()?;
    host.restore(&missing)?;
    let heard = bounce(&mut host, &Score::playing(), RATE, 0.3, Blocks::Fixed(512))?;
    assert_eq!(rms(&heard.left), 0.0);
    // The state that names a model that is here, given while the instance is active.
    host.set_offline(true)?;
    let mut player = host.activate(RATE, 512)?;
    player.play(&Score::playing(), 0..9_600, Blocks::Fixed(512), Pace::FlatOut)?;
    host.restore(&plain)?;
    let heard = player.play(&Score::playing(), 9_600..105_600, Blocks::Fixed(512), Pace::FlatOut)?;
    assert!(rms(&heard.left) > 0.000_3, "the built-in model is there again");
    host.deactivate(player);
    assert!(host.save()? == plain);
    Ok(())
}
