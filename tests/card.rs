//! The CUDA library through the engine, on the first card of this machine or on the emulated driver: `cargo xtask emulate`
//! builds that and runs these. They are left out otherwise, since neither a card nor a CUDA compiler belongs to the tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tiller_engine::backend::Device;
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::cuda::{Card, CudaBackend, CudaModel, Library, choose};
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::status::State;
use tiller_engine::text::Prompt;
use tiller_tests::answers::{answers, steered, unsteered};
use tiller_tests::card::{company, compare, prefilled};
use tiller_tests::turn;

/// Of a bf16 model.
const BOUND: f64 = 2e-2;

/// The emulated driver, if it is what these tests run on.
fn emulated() -> Option<&'static libloading::Library> {
    static DRIVER: OnceLock<Option<libloading::Library>> = OnceLock::new();
    let open = || {
        let path = PathBuf::from(std::env::var_os("TILLER_EMULATED_DRIVER")?);
        // SAFETY: it is built from this repository. Opened first, it is what the system's name for a driver then means.
        Some(unsafe { libloading::Library::new(&path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    DRIVER.get_or_init(open).as_ref()
}

/// Tells the emulated driver what to be like.
fn tell<T>(driver: &libloading::Library, name: &str, value: T) {
    // SAFETY: driver.cpp has these functions, each with one argument of the type that is given here.
    unsafe { driver.get::<extern "C" fn(T)>(name.as_bytes()).expect("a function of the driver")(value) };
}

fn library() -> &'static Library {
    emulated();
    Library::open().unwrap_or_else(|error| panic!("{error}"))
}

fn fixture(name: &str) -> ModelSource {
    ModelSource::Directory(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name))
}

/// A model on the processor and on the card.
struct Rig {
    model: Arc<Model>,
    on_card: Arc<CudaModel>,
    prompt: Arc<Prompt>,
}

impl Rig {
    fn load(source: &ModelSource) -> Self {
        let (library, card) = (library(), card());
        let model = Model::load(source, &|_| ()).unwrap();
        let on_card = CudaModel::shared(library, &card, source, Player::capacity(&model, None)).unwrap();
        let prompt = Arc::new(model.prompt("slow warm strings pad").unwrap());
        Self { model, on_card, prompt }
    }

    fn cpu(&self, capacity: usize) -> CpuBackend {
        CpuBackend::new(self.model.clone(), Arc::new(Pool::new(1)), capacity)
    }

    fn card(&self, capacity: usize) -> CudaBackend {
        CudaBackend::new(self.on_card.clone(), capacity).unwrap()
    }

    fn player(&self, window: usize) -> Player {
        let backend = self.card(Player::capacity(&self.model, Some(window)));
        let pool = Arc::new(Pool::new(1));
        Player::computed_by(Box::new(backend), pool, self.model.clone(), self.prompt.clone(), Some(window))
    }
}

fn card() -> Card {
    choose(library(), None).unwrap_or_else(|error| panic!("{error}"))
}

/// Heads of 16 and of 8, stereo, text of the hidden width; the demo, whose directions hold, with few steps.
fn cases() -> [(ModelSource, usize); 3] {
    [(fixture("decoder-stereo"), 24), (fixture("parity-equal-width"), 24), (ModelSource::Embedded, 5)]
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn cards_are_listed_with_their_memory() {
    let _turn = turn();
    let card = card();
    assert!(!card.name.is_empty() && card.free <= card.total && card.total > 0 && card.multiprocessors > 0);
    assert!(card.to_string().contains(&card.name) && card.driver >= 13_000, "{card:?}");
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_card_computes_what_the_processor_does() {
    let _turn = turn();
    for (source, positions) in cases() {
        let rig = Rig::load(&source);
        let (mut exact, mut card) = (rig.cpu(positions), rig.card(positions));
        let compared = compare(&rig.model, &rig.prompt, &mut exact, &mut card, positions).unwrap();
        eprintln!("{}: {compared:?}", rig.model.name());
        assert!(compared.logits_max_rel < BOUND && compared.taps_max_rel < BOUND, "{compared:?}");
        assert!(compared.steering_max_rel > 1e-3 && compared.drawn_equal_share > 0.99, "{compared:?}");
        assert!(compared.greedy_equal_share > 0.9, "{compared:?}");
    }
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_row_has_the_same_bits_in_any_company() {
    let _turn = turn();
    for (source, positions) in cases() {
        let rig = Rig::load(&source);
        company(&rig.model, &rig.prompt, &mut rig.card(positions), positions).unwrap();
    }
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_rolled_over_window_is_a_fresh_prefill() {
    let _turn = turn();
    let rig = Rig::load(&fixture("decoder-stereo"));
    let controls = unsteered(1, 100, 1.0);
    let heard = answers(&mut rig.player(64), &controls, std::slice::from_ref(&rig.prompt)).unwrap();
    assert_eq!(heard.work.iter().filter(|work| work.switched).count(), 2);
    for (base, step) in [(0, 40), (32, 64), (64, 96)] {
        let mut fresh = rig.card(80);
        let codes =
            prefilled(&rig.model, &rig.prompt, &mut fresh, &heard.columns, &controls[step], base, step).unwrap();
        assert_eq!(codes, heard.columns[step], "step {step}");
    }
    // The same again, with the lanes moving: same input, same codes.
    let play = || answers(&mut rig.player(64), &steered(1, 80, 1.0), std::slice::from_ref(&rig.prompt)).unwrap();
    assert_eq!(play().columns, play().columns);
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn prompts_change_under_way() {
    let _turn = turn();
    let rig = Rig::load(&fixture("decoder-stereo"));
    let texts = ["slow warm strings pad", "fast loud", "pad", "warm", "strings", "loud pad, fast"];
    let prompts: Vec<Arc<Prompt>> = texts.map(|text| Arc::new(rig.model.prompt(text).unwrap())).into();
    let mut controls = unsteered(1, 24, 0.0);
    controls.iter_mut().for_each(|control| control.prompt = control.index / 4);
    // More prompts than are kept on the card, and the first one again.
    controls[22].prompt = 0;
    controls[23].prompt = 0;
    let on_card = answers(&mut rig.player(64), &controls, &prompts).unwrap();
    let mut player = Player::new(rig.model.clone(), rig.prompt.clone(), Some(64));
    let on_cpu = answers(&mut player, &controls, &prompts).unwrap();
    let same = on_card.columns.iter().zip(&on_cpu.columns).take_while(|(a, b)| a == b).count();
    assert!(same > 6, "the first {same} greedy columns agree");
}

#[test]
#[ignore = "needs the emulated driver: cargo xtask emulate"]
fn threads_may_take_turns_in_any_order() {
    let _turn = turn();
    let Some(driver) = emulated() else { return };
    let rig = Rig::load(&fixture("decoder-stereo"));
    // What a barrier should have kept apart comes out otherwise in another order.
    let played = |backwards: i32| {
        tell(driver, "emulated_backwards", backwards);
        let heard = answers(&mut rig.player(64), &steered(1, 40, 1.0), std::slice::from_ref(&rig.prompt)).unwrap();
        let same = company(&rig.model, &rig.prompt, &mut rig.card(16), 16);
        tell(driver, "emulated_backwards", 0);
        same.unwrap();
        heard.columns
    };
    assert_eq!(played(0), played(1));
}

#[test]
#[ignore = "needs the emulated driver: cargo xtask emulate"]
fn what_a_card_lacks_is_told_with_its_remedy_and_the_processor_plays() {
    let _turn = turn();
    let Some(driver) = emulated() else { return };
    let source = fixture("decoder-stereo");
    let settled = |device| {
        let handle = Handle::new();
        handle.set_model(source.clone());
        handle.set_device(device);
        handle.start().unwrap();
        assert_eq!(handle.wait_settled(Duration::from_secs(60)), State::Ready);
        let status = handle.status();
        (status.device, status.notice)
    };
    let (device, notice) = settled(Device::Gpu(0));
    assert!(device.contains("Emulated card") && device.contains("GB free") && notice.is_empty(), "{device}: {notice}");
    for (name, value, normal, said) in
        [("emulated_memory", 100_000u64, 8 << 30, "MB are needed"), ("emulated_version", 12_080, 13_000, "580")]
    {
        tell(driver, name, value);
        let (device, notice) = settled(Device::Gpu(0));
        tell(driver, name, normal);
        assert!(device == "CPU" && notice.contains(said) && notice.contains("CPU"), "{device}: {notice}");
    }
}

#[test]
#[ignore = "needs the emulated driver: cargo xtask emulate"]
fn a_lost_card_hands_over_to_the_processor_and_leaves_no_memory_behind() {
    let _turn = turn();
    let Some(driver) = emulated() else { return };
    // SAFETY: driver.cpp has this function.
    let used = || unsafe { driver.get::<extern "C" fn() -> u64>(b"emulated_used").expect("a function")() };
    let before = used();
    let rig = Rig::load(&fixture("decoder-stereo"));
    let mut player = rig.player(64);
    assert!(used() > before && player.place().contains("Emulated"));
    tell(driver, "emulated_lose_after", 10i64);
    let heard = answers(&mut player, &unsteered(1, 30, 1.0), std::slice::from_ref(&rig.prompt)).unwrap();
    tell(driver, "emulated_lose_after", -1i64);
    assert_eq!((heard.columns.len(), player.place().as_str()), (30, "CPU"));
    assert!(player.take_notice().is_some_and(|notice| notice.contains("no longer answers")));
    drop((player, rig));
    assert_eq!(used(), before, "every byte was given back");
}
