//! What is on this machine, without a question to any hub: the list, sizes, removal, the ten-second trial.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tiller_engine::background::{Background, Kind, Standing};
use tiller_engine::handle::ModelSource;
use tiller_engine::model::Model;
use tiller_engine::models::{self, Hub, ModelsError, Origin, PUBLISHED, trial};
use tiller_engine::precision::Precision;
use tiller_tests::bench::shape::{Shape, config_of};

use crate::place::{FILES, alone, fixture, size, until};

#[test]
fn the_list_is_what_is_on_disk() {
    alone("list::the_list_is_what_is_on_disk", |folder| {
        let hub = Hub::from_env();
        assert_eq!(hub.cache, folder.join("hf/hub"));
        assert_eq!((hub.endpoint.as_str(), hub.token.as_deref()), ("https://huggingface.co", None));
        let list = models::list(&[]);
        assert_eq!((list.len(), list[0].origin, &list[0].source), (7, Origin::Embedded, &Some(ModelSource::Embedded)));
        for (entry, published) in list[1..].iter().zip(&PUBLISHED) {
            assert_eq!((entry.name.as_str(), entry.origin, &entry.source), (published.name, Origin::Hub, &None));
            assert_eq!((entry.problem.as_ref(), entry.disk_bytes, entry.published), (None, 0, Some(published)));
            assert!(entry.memory.windows(2).all(|two| two[0].1 > two[1].1), "{entry:?}");
        }
        // What other tools left in the cache: one of MusicGen, whole, one half, one of another kind.
        let snapshot = |name: &str| hub.cache.join(format!("models--{name}/snapshots/0123"));
        let copy = |name: &str, files: &[&str]| {
            fs::create_dir_all(snapshot(name)).expect("a folder");
            files
                .iter()
                .for_each(|file| fs::copy(fixture().join(file), snapshot(name).join(file)).map(drop).expect("copied"));
        };
        copy("someone--tuned", &FILES);
        copy("facebook--musicgen-medium", &FILES[..2]);
        copy("someone--words", &[]);
        fs::write(snapshot("someone--words").join("config.json"), r#"{"model_type": "bert"}"#).expect("written");
        let gone = folder.join("gone");
        for own in [&fixture(), &gone, &fixture()] {
            models::remember_folder(own).expect("remembered");
        }
        let list = models::list(&[folder.join("hf/hub/models--someone--tuned/snapshots/0123")]);
        assert_eq!(list.len(), 10, "{list:?}");
        let find = |name: &str| list.iter().find(|entry| entry.name == name).expect("it is listed");
        let tuned = find("tuned");
        assert_eq!(tuned.source, Some(ModelSource::Directory(snapshot("someone--tuned"))));
        assert_eq!((tuned.published, tuned.problem.as_ref()), (None, None));
        assert!(tuned.disk_bytes > size("model.safetensors") && tuned.partial_bytes == 0);
        let half = find("musicgen-medium");
        assert!(half.problem.as_ref().is_some_and(|why| why.contains("interrupted")), "{half:?}");
        assert!(half.source.is_none() && half.partial_bytes == size("config.json") + size("generation_config.json"));
        let own = find("parity-mono");
        assert_eq!(
            (own.origin, own.disk_bytes, own.problem.as_ref()),
            (Origin::Folder, size("model.safetensors"), None)
        );
        let lost = find("gone");
        assert!(lost.source.is_none() && lost.problem.as_ref().is_some_and(|why| why.contains("gone")), "{lost:?}");
        models::forget_folder(&gone).expect("forgotten");
        assert_eq!(models::remembered_folders(), [fixture()]);
    });
}

#[test]
fn the_published_sizes_are_those_of_their_configurations() {
    for (published, shape) in PUBLISHED.iter().zip([Shape::Small, Shape::Medium, Shape::Large]) {
        let (own, read) = (published.config(), config_of(shape).expect("the shape's configuration"));
        assert_eq!(own.decoder.weights_of_step(), read.decoder.weights_of_step(), "{}", published.name);
        assert_eq!((&own.codec, own.generation.max_length), (&read.codec, read.generation.max_length));
        let words =
            |text: &tiller_engine::checkpoint::TextConfig| (text.vocab_size, text.d_model, text.d_ff, text.num_layers);
        assert_eq!(words(&own.text), words(&read.text));
    }
}

#[test]
fn a_folder_of_the_users_own_is_never_removed() {
    alone("list::a_folder_of_the_users_own_is_never_removed", |folder| {
        let own = folder.join("models--mine--own");
        fs::create_dir_all(&own).expect("a folder");
        let list = models::list(std::slice::from_ref(&own));
        for entry in list.iter().filter(|entry| entry.origin != Origin::Hub || entry.place.is_none()) {
            assert!(matches!(models::remove(entry), Err(ModelsError::NotOfCache { .. })), "{entry:?}");
        }
        assert!(own.is_dir());
    });
}

#[test]
fn a_trial_says_whether_this_machine_holds_real_time() {
    alone("list::a_trial_says_whether_this_machine_holds_real_time", |_| {
        let background = Background::default();
        let source = ModelSource::Directory(fixture());
        assert_eq!((trial::kept(&source, None), trial::hash_of(&source)), (None, None));
        trial::begin(&background, &source, None).expect("it begins");
        // The one that runs is the one that was asked for.
        trial::begin(&background, &source, None).expect("it begins");
        let standing = || background.report(Kind::Trial, "parity-mono").expect("a report").standing;
        until(Duration::from_secs(60), || standing().is_over());
        let Standing::Done(said) = standing() else { panic!("{:?}", standing()) };
        let found = trial::kept(&source, None).expect("it is kept");
        assert_eq!(found.verdict(), said);
        assert!(found.real_time > 0.05 && found.slowest_ms > 0.0 && found.memory_bytes > 500_000, "{found:?}");
        assert_eq!((found.precision, found.device.as_str()), (Precision::F32, "CPU"));
        assert_eq!(trial::kept(&source, Some(Precision::Int4)), None, "another precision is another trial");
        let model = Model::load(&source, &|_| ()).expect("it loads");
        assert_eq!(trial::hash_of(&source).as_deref(), Some(model.hash()));
        // What cannot be loaded says why, and a trial that is stopped leaves nothing running.
        let gone = ModelSource::Directory(PathBuf::from("/nowhere/at-all"));
        trial::begin(&background, &gone, None).expect("it begins");
        let standing = |name| background.report(Kind::Trial, name).expect("a report").standing;
        until(Duration::from_secs(10), || standing("at-all").is_over());
        assert!(matches!(standing("at-all"), Standing::Failed(why) if why.contains("/nowhere/at-all")));
        trial::begin(&background, &ModelSource::Embedded, None).expect("it begins");
        let since = Instant::now();
        drop(background);
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_eq!(trial::kept(&ModelSource::Embedded, None), None);
    });
}
