//! Bytes on their way: whole, interrupted, broken, damaged, paused, cancelled, too many for the disk, in shards.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tiller_engine::background::{Background, Kind, Standing, Unit};
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::models::{self, Hub, ModelsError, licence};
use tiller_engine::player::Player;
use tiller_tests::answers::{answers, unsteered};
use tiller_tests::hub::{Asked, HubServer, Manners};

use crate::place::{FILES, Place, SMALL, alone, fixture, hf_layout, on_a_hub, reads, size, slow, until};

#[test]
fn a_download_is_whole_and_plays_as_the_original() {
    alone("download::a_download_is_whole_and_plays_as_the_original", |folder| {
        let place = Place::new(folder);
        place.begin();
        place.is_done();
        let report = place.background.report(Kind::Download, SMALL.name).expect("a report");
        let all: u64 = FILES.into_iter().map(size).sum();
        assert_eq!((report.unit, report.done, report.all), (Unit::Bytes, all, all));
        let asked = place.server.take_asked();
        let named = |file: &&Asked| !file.file.as_deref().is_none_or(|name| FILES.contains(&name));
        assert_eq!(asked.iter().find(named), None, "only what the loader reads is asked for");
        assert!(
            FILES.into_iter().all(|file| reads(&asked, file).iter().map(|one| one.sent).sum::<u64>() == size(file))
        );
        // Any tool of Hugging Face finds it: the revision, by name, and pointers to blobs.
        let entry = place.entry();
        assert_eq!((entry.disk_bytes, entry.partial_bytes, entry.problem.as_ref()), (all, 0, None));
        let cache = hf_layout(&place.hub.cache);
        assert_eq!(fs::read(cache.join("model.safetensors")).ok(), fs::read(fixture().join("model.safetensors")).ok());
        #[cfg(unix)]
        assert!(fs::read_link(cache.join("config.json")).expect("a pointer").starts_with("../../blobs"));

        let source = place.source();
        assert_eq!(Model::name_of(&source), SMALL.name);
        let played = |source: &ModelSource| {
            let model = Model::load(source, &|_| ()).expect("it loads");
            let prompt = Arc::new(model.prompt("piano").expect("it encodes"));
            answers(&mut Player::new(model, prompt, None), &unsteered(1, 50, 1.0), &[]).expect("it plays").audio
        };
        let heard = played(&source);
        assert!(heard.iter().any(|sample| sample.abs() > 1e-4), "it is no silence");
        assert_eq!(heard, played(&ModelSource::Directory(fixture())), "sample for sample");

        // Once more: it is checked, and nothing of it is sent again.
        place.begin();
        place.is_done();
        assert!(place.server.take_asked().iter().all(|one| one.file.is_none() || one.sent == 0));
        models::remove(&entry).expect("removed");
        let entry = place.entry();
        assert_eq!((entry.source, entry.disk_bytes, entry.problem), (None, 0, None));
        assert!(!place.hub.cache.join("models--facebook--musicgen-small").exists());
    });
}

#[test]
fn a_download_that_was_interrupted_asks_only_for_what_is_missing() {
    alone("download::a_download_that_was_interrupted_asks_only_for_what_is_missing", |folder| {
        let mut place = Place::new(folder);
        place.server.behave(slow());
        place.begin();
        until(Duration::from_secs(10), || place.done() > 200_000);
        // The host unloads the plugin.
        let since = Instant::now();
        place.background = Background::default();
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        place.server.take_asked();
        let entry = place.entry();
        let half = fs::metadata(place.blob("model.safetensors", ".incomplete")).expect("a part").len();
        assert!(half > 100_000 && half < size("model.safetensors"), "{half}");
        assert!(entry.source.is_none() && entry.partial_bytes >= half, "{entry:?}");
        assert!(entry.problem.is_some_and(|why| why.contains("interrupted")));

        place.server.behave(Manners::default());
        place.begin();
        place.is_done();
        let asked = place.server.take_asked();
        let own = reads(&asked, "model.safetensors");
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!((own[0].start, own[0].sent), (Some(half), size("model.safetensors") - half));
        for file in ["config.json", "tokenizer.json"] {
            assert!(reads(&asked, file).is_empty(), "{file} was here");
        }
        assert!(place.entry().source.is_some());
    });
}

#[test]
fn connections_that_break_are_opened_again_where_they_broke() {
    alone("download::connections_that_break_are_opened_again_where_they_broke", |folder| {
        let place = Place::new(folder);
        place.server.behave(Manners { cut_after: Some(300_000), ..Manners::default() });
        place.begin();
        place.is_done();
        let starts: Vec<u64> =
            reads(&place.server.take_asked(), "model.safetensors").iter().map(|one| one.start.unwrap_or(0)).collect();
        assert_eq!(starts, [0, 300_000, 600_000]);
        // A hub that knows no ranges sends all of it again, and what comes of it is right all the same.
        models::remove(&place.entry()).expect("removed");
        place.server.behave(Manners {
            cut_after: Some(300_000),
            cuts: Some(1),
            ignores_ranges: true,
            ..Manners::default()
        });
        place.begin();
        place.is_done();
        let asked = place.server.take_asked();
        let sent: Vec<u64> = reads(&asked, "model.safetensors").iter().map(|one| one.sent).collect();
        assert_eq!(sent, [300_000, size("model.safetensors")]);
    });
}

#[test]
fn a_damaged_byte_is_found_named_and_removed() {
    alone("download::a_damaged_byte_is_found_named_and_removed", |folder| {
        let place = Place::new(folder);
        for file in ["model.safetensors", "tokenizer.json"] {
            place.server.behave(Manners { corrupt_once: Some(file.to_owned()), ..Manners::default() });
            place.begin();
            let said = place.fails();
            assert!(said.contains(file) && said.contains("damaged") && said.contains("download again"), "{said}");
            assert!(!place.blob(file, "").exists() && !place.blob(file, ".incomplete").exists(), "{file} is gone");
            assert!(place.entry().source.is_none());
            place.begin();
            place.is_done();
            // A byte that changes on the disk is found too, when the model is downloaded again.
            let mut bytes = fs::read(place.blob(file, "")).expect("the blob");
            bytes[1000] ^= 1;
            fs::write(place.blob(file, ""), bytes).expect("written");
            place.server.take_asked();
            place.begin();
            place.is_done();
            assert_eq!(reads(&place.server.take_asked(), file).len(), 1);
            assert_eq!(fs::read(place.blob(file, "")).ok(), fs::read(fixture().join(file)).ok());
            models::remove(&place.entry()).expect("removed");
        }
    });
}

#[test]
fn a_download_pauses_goes_on_and_is_cancelled() {
    alone("download::a_download_pauses_goes_on_and_is_cancelled", |folder| {
        let place = Place::new(folder);
        // So slow that what the system takes in meanwhile is not all of it.
        place.server.behave(Manners { throttle: Some(30_000), ..Manners::default() });
        place.begin();
        until(Duration::from_secs(10), || place.done() > 100_000);
        place.background.pause(Kind::Download, SMALL.name);
        std::thread::sleep(Duration::from_millis(500));
        let paused = place.done();
        // Longer than a hub may keep us waiting.
        std::thread::sleep(Duration::from_millis(9_500));
        assert_eq!((place.standing(), place.done()), (Standing::Paused, paused));
        place.background.resume(Kind::Download, SMALL.name);
        until(Duration::from_secs(10), || place.done() > paused);
        let report = place.background.report(Kind::Download, SMALL.name).expect("a report");
        assert!(report.per_second > 15_000.0 && report.per_second < 1e6, "pauses are left out: {report:?}");
        assert!(report.left.is_some_and(|left| left < Duration::from_secs(40)), "{report:?}");
        let busy = models::remove(&place.entry()).expect_err("it is being downloaded");
        assert!(matches!(busy, ModelsError::Busy { .. }), "{busy}");
        place.background.cancel(Kind::Download, SMALL.name);
        let (standing, took) = place.end();
        assert!(standing == Standing::Stopped && took < Duration::from_secs(2), "{standing:?} {took:?}");
        assert!(!place.hub.cache.join("models--facebook--musicgen-small").exists(), "nothing is left");
        place.server.behave(Manners::default());
        place.begin();
        place.is_done();
    });
}

#[test]
fn cancelling_keeps_the_model_that_was_whole() {
    alone("download::cancelling_keeps_the_model_that_was_whole", |folder| {
        let place = Place::new(folder);
        place.begin();
        place.is_done();
        fs::remove_file(place.blob("model.safetensors", "")).expect("removed");
        let older = hf_layout(&place.hub.cache).with_file_name("older");
        fs::create_dir_all(&older).expect("a folder");
        FILES.into_iter().for_each(|file| fs::copy(fixture().join(file), older.join(file)).map(drop).expect("copied"));
        place.server.behave(slow());
        place.begin();
        until(Duration::from_secs(10), || place.blob("model.safetensors", ".incomplete").exists());
        place.background.cancel(Kind::Download, SMALL.name);
        assert_eq!(place.end().0, Standing::Stopped);
        assert!(!place.blob("model.safetensors", ".incomplete").exists());
        assert_eq!(place.source(), ModelSource::Directory(older));
    });
}

#[test]
fn a_disk_without_room_is_found_out_before() {
    alone("download::a_disk_without_room_is_found_out_before", |folder| {
        let mut place = Place::new(folder);
        place.hub.free_space = |_| Ok((64 << 20) + 700_000);
        place.begin();
        let said = place.fails();
        assert!(said.contains("713") && said.contains("HF_HUB_CACHE") && said.contains("make room"), "{said}");
        assert!(place.server.take_asked().iter().all(|one| one.sent == 0), "not a byte is asked for");
        // Nobody knows: the disk itself will tell.
        place.hub.free_space = |_| Err(io::ErrorKind::Unsupported.into());
        place.begin();
        place.is_done();
    });
}

#[test]
#[cfg(unix)]
fn a_disk_that_fills_up_keeps_what_is_there() {
    alone("download::a_disk_that_fills_up_keeps_what_is_there", |folder| {
        let place = Place::new(folder);
        limit_files(400_000);
        place.begin();
        let said = place.fails();
        assert!(said.contains("full") && said.contains("make room"), "{said}");
        let half = fs::metadata(place.blob("model.safetensors", ".incomplete")).expect("a part").len();
        assert!(half > 100_000 && half <= 400_000, "{half}");
        limit_files(u64::MAX);
        place.server.take_asked();
        place.begin();
        place.is_done();
        assert_eq!(reads(&place.server.take_asked(), "model.safetensors")[0].start, Some(half));
    });
}

/// Files of this process cannot grow beyond `bytes`, as on a disk that is full.
#[cfg(unix)]
fn limit_files(bytes: u64) {
    // SAFETY: a signal is ignored and a limit set, both of this process alone.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: u64::MAX };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
}

#[test]
fn shards_come_by_their_index() {
    alone("download::shards_come_by_their_index", |folder| {
        let served = on_a_hub(folder);
        let whole = fs::read(served.join("model.safetensors")).expect("the weights");
        let tensors = SafeTensors::deserialize(&whole).expect("safetensors");
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let mut map = serde_json::Map::new();
        for (number, name) in names.into_iter().enumerate() {
            let all = tensors.tensors();
            let own: Vec<(String, TensorView<'_>)> = all
                .into_iter()
                .enumerate()
                .filter(|(index, _)| index % 2 == number)
                .map(|(_, tensor)| tensor)
                .collect();
            own.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.into())));
            fs::write(served.join(name), safetensors::serialize(own, None).expect("serialised")).expect("written");
        }
        let index = |map: serde_json::Value| {
            let text = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
            fs::write(served.join("model.safetensors.index.json"), text).expect("written");
        };
        fs::remove_file(served.join("model.safetensors")).expect("removed");
        licence::accept(SMALL.repository).expect("accepted");
        let serve = || HubServer::start(&served, SMALL.repository, 0).expect("it serves");
        // An index that leads out of the folder is none.
        index(serde_json::json!({ "a": "../../../evil.safetensors" }));
        let server = serve();
        let mut place =
            Place { hub: Hub::at(&server.url(), &folder.join("hub")), server, background: Background::default() };
        place.begin();
        let said = place.fails();
        assert!(said.contains("index"), "{said}");
        index(map.into());
        place.server = serve();
        place.hub = Hub::at(&place.server.url(), &folder.join("hub"));
        place.begin();
        place.is_done();
        let model = Model::load(&place.source(), &|_| ()).expect("it loads");
        assert_eq!(model.channels(), 1);
        assert!(place.entry().disk_bytes > whole.len() as u64);
        // Without safetensors there is nothing to take.
        names.into_iter().for_each(|name| fs::remove_file(served.join(name)).expect("removed"));
        fs::remove_file(served.join("model.safetensors.index.json")).expect("removed");
        place.server = serve();
        place.hub = Hub::at(&place.server.url(), &folder.join("other"));
        place.begin();
        assert!(place.fails().contains("pickled"));
    });
}
