//! Hubs that are not there, say nothing, refuse or mean harm, and whom the licence and the token keep out.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use tiller_engine::background::{Background, Kind, Standing};
use tiller_engine::models::{self, Hub, ModelsError, PUBLISHED, download, licence};
use tiller_tests::hub::{HubServer, Manners};

use crate::place::{FILES, OWN, Place, SMALL, alone, alone_with, hf_layout, on_a_hub, until};

#[test]
fn nothing_is_asked_before_the_licence_is_accepted() {
    alone("refusals::nothing_is_asked_before_the_licence_is_accepted", |folder| {
        let server = HubServer::start(&on_a_hub(folder), SMALL.repository, 0).expect("it serves");
        let hub = Hub::at(&server.url(), &folder.join("hub"));
        let background = Background::default();
        let said = download::begin(&background, SMALL, &hub).expect_err("it was not accepted");
        assert!(matches!(&said, ModelsError::Licence { .. }) && said.to_string().contains("CC-BY-NC-4.0"), "{said}");
        assert!(background.reports().is_empty() && server.take_asked().is_empty());
        models::list_of(&hub, &[]);
        licence::accept(PUBLISHED[1].repository).expect("accepted");
        assert!(!licence::accepted(SMALL.repository) && licence::accepted(PUBLISHED[1].repository));
        licence::accept(SMALL.repository).expect("accepted");
        assert!(licence::accepted(SMALL.repository));
        assert!(server.take_asked().is_empty(), "a list and a licence ask nobody");
        download::begin(&background, SMALL, &hub).expect("it begins");
    });
}

#[test]
fn who_is_not_there_is_named_at_once() {
    alone("refusals::who_is_not_there_is_named_at_once", |folder| {
        let mut place = Place::new(folder);
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let cache = place.hub.cache.clone();
        for (endpoint, words) in [
            (format!("http://{closed}"), vec!["refuses the connection", "HF_ENDPOINT"]),
            ("http://no-such-hub.invalid".to_owned(), vec!["no-such-hub.invalid", "offline", "check"]),
            ("ftp://hub".to_owned(), vec!["HF_ENDPOINT"]),
            ("no address".to_owned(), vec!["HF_ENDPOINT"]),
        ] {
            place.hub = Hub::at(&endpoint, &cache);
            place.begin();
            let said = place.fails();
            assert!(words.iter().all(|word| said.contains(word)), "{endpoint}: {said}");
        }
        place.hub = Hub::at(&place.server.url(), &cache);
        place.hub.offline = true;
        place.begin();
        assert!(place.fails().contains("HF_HUB_OFFLINE"));
        assert!(place.server.take_asked().is_empty());
        assert_eq!(place.entry().partial_bytes, 0);
    });
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    alone("refusals::a_hub_that_says_nothing_is_given_up", |folder| {
        let place = Place::new(folder);
        place.server.behave(Manners { stalls: true, ..Manners::default() });
        place.begin();
        let said = place.fails();
        assert!(said.contains("not answered for 9 seconds") && said.contains("check the connection"), "{said}");
    });
}

#[test]
fn a_body_that_stops_is_given_up_and_kept() {
    alone("refusals::a_body_that_stops_is_given_up_and_kept", |folder| {
        let place = Place::new(folder);
        place.server.behave(Manners { stalls_after: Some(100_000), ..Manners::default() });
        place.begin();
        until(Duration::from_secs(5), || place.done() > 100_000);
        // Every connection brings another 100,000 bytes, four seconds apart, until the last of them.
        place.server.behave(Manners { stalls: true, ..Manners::default() });
        let said = place.fails();
        assert!(said.contains("goes on where it stopped"), "{said}");
        let half = fs::metadata(place.blob("model.safetensors", ".incomplete")).expect("a part").len();
        assert_eq!(half, 100_000);
        place.server.behave(Manners::default());
        place.begin();
        place.is_done();
    });
}

#[test]
fn a_stop_is_noticed_wherever_it_waits() {
    alone("refusals::a_stop_is_noticed_wherever_it_waits", |folder| {
        let place = Place::new(folder);
        let silent = Manners { stalls: true, ..Manners::default() };
        let stops = Manners { stalls_after: Some(100_000), ..Manners::default() };
        for manners in [silent, stops] {
            place.server.behave(manners);
            place.begin();
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(place.standing(), Standing::Running);
            place.background.stop(Kind::Download, SMALL.name);
            let (standing, took) = place.end();
            assert!(standing == Standing::Stopped && took < Duration::from_secs(2), "{standing:?} {took:?}");
        }
    });
}

#[test]
fn refusals_say_what_to_do() {
    alone("refusals::refusals_say_what_to_do", |folder| {
        let mut place = Place::new(folder);
        for (token, status, words) in [
            (None, 401, ["HF_TOKEN", "settings/tokens"]),
            (None, 403, ["HF_TOKEN", "settings/tokens"]),
            (Some("hf_wrong"), 401, ["token", "HF_TOKEN"]),
            (Some("hf_wrong"), 403, ["token", "access"]),
            (None, 404, ["facebook/musicgen-small", "404"]),
            (None, 429, ["too many", "wait"]),
            (None, 500, ["problem of its own", "500"]),
            (None, 503, ["problem of its own", "later"]),
            (None, 418, ["418", "HF_ENDPOINT"]),
        ] {
            place.server.behave(Manners { status: Some(status), ..Manners::default() });
            place.hub.token = token.map(str::to_owned);
            place.begin();
            let said = place.fails();
            assert!(words.iter().all(|word| said.contains(word)), "{status}: {said}");
            assert!(!said.contains("hf_wrong"), "{said}");
        }
    });
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    alone("refusals::the_token_goes_to_the_hub_and_to_nobody_else", |folder| {
        let mut place = Place::new(folder);
        place.server.behave(Manners { token: Some("hf_right".to_owned()), ..Manners::default() });
        place.hub.token = Some("hf_right".to_owned());
        place.begin();
        place.is_done();
        let asked = place.server.take_asked();
        assert!(asked.iter().any(|one| !one.at_hub), "large files come from another origin");
        for one in asked {
            assert_eq!(one.authorization.as_deref(), one.at_hub.then_some("Bearer hf_right"), "{one:?}");
        }
    });
}

#[test]
fn a_hub_that_means_harm_writes_nothing_outside_the_cache() {
    alone("refusals::a_hub_that_means_harm_writes_nothing_outside_the_cache", |folder| {
        let place = Place::new(folder);
        let lies = |lies: &[(&str, u64)]| Manners {
            lies: lies.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect(),
            ..Manners::default()
        };
        // Names that lead elsewhere are nobody's; more bytes than were announced are not taken, nor sizes that none has.
        place.server.behave(lies(&[("model.safetensors", 1_000)]));
        place.begin();
        let said = place.fails();
        assert!(said.contains("more than the 1000 bytes") && said.contains("model.safetensors"), "{said}");
        place.server.behave(lies(&[("model.safetensors", 1 << 60)]));
        place.begin();
        assert!(place.fails().contains("more than a file of its kind has"));
        place.server.behave(lies(&[("model.safetensors", (64 << 30) - 1)]));
        let mut hub = place.hub.clone();
        hub.free_space = |_| Ok(1 << 30);
        download::begin(&place.background, SMALL, &hub).expect("it begins");
        assert!(place.fails().contains("make room"));
        place.server.behave(lies(&[("../../../evil", 10), ("/tmp/evil", 10)]));
        place.begin();
        place.is_done();
        let names = |folder: &Path| -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(folder)
                .expect("lists")
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&place.hub.cache), [".locks", "models--facebook--musicgen-small"]);
        assert_eq!(names(&hf_layout(&place.hub.cache)), FILES);
    });
}

/// The proxy of [`a_proxy_of_the_environment_is_used`]: nobody may listen there but the test.
const PROXY: &str = "TILLER_TEST_PROXY";

#[test]
fn a_proxy_of_the_environment_is_used() {
    let name = "refusals::a_proxy_of_the_environment_is_used";
    if env::var_os(OWN).is_some() {
        return alone(name, |folder| {
            let mut hub = Hub::from_env();
            hub.cache = folder.join("hub");
            assert_eq!((hub.endpoint.as_str(), hub.token.as_deref()), ("http://hub.example", Some("hf_mine")));
            licence::accept(SMALL.repository).expect("accepted");
            let background = Background::default();
            download::begin(&background, SMALL, &hub).expect("it begins");
            let standing = || background.report(Kind::Download, SMALL.name).expect("a report").standing;
            until(Duration::from_secs(20), || standing().is_over());
            match env::var(PROXY).as_deref() {
                Ok("open") => assert!(matches!(standing(), Standing::Done(_)), "{:?}", standing()),
                _ => {
                    let Standing::Failed(said) = standing() else { panic!("{:?}", standing()) };
                    assert!(said.contains("through the proxy 127.0.0.1:") && said.contains("the proxy"), "{said}");
                }
            }
        });
    }
    let folder = env::temp_dir().join(format!("tiller-proxy-{}", std::process::id()));
    let server = HubServer::start(&on_a_hub(&folder), SMALL.repository, 0).expect("it serves");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let own = [("HF_ENDPOINT", "http://hub.example/"), ("HF_TOKEN", "hf_mine")];
    for (proxy, state) in [(server.url(), "open"), (format!("http://{closed}"), "closed")] {
        let more = [own[0], own[1], ("HTTP_PROXY", proxy.as_str()), (PROXY, state)];
        alone_with(name, &more, |_| ());
    }
    let asked = server.take_asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("CONNECT", "hub.example:80"));
    assert!(asked.iter().any(|one| one.authorization.as_deref() == Some("Bearer hf_mine")));
    fs::remove_dir_all(folder).expect("cleaned");
}
