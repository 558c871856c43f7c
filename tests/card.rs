//! The CUDA library through the engine, on the first card of this machine or on the emulated driver: `cargo xtask emulate`
//! builds that and runs these. They are left out otherwise, since neither a card nor a CUDA compiler belongs to the tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tiller_engine::backend::conformance::{company, compare};
use tiller_engine::backend::cpu::CpuBackend;
use tiller_engine::backend::cuda::{Card, CudaBackend, CudaCodec, CudaModel, Library, choose};
use tiller_engine::backend::gpu::Gpu;
use tiller_engine::backend::proof::MOST_APART;
use tiller_engine::backend::{CodecStream, Device, proof};
use tiller_engine::checkpoint::{Checkpoint, CheckpointSource, Config, Weights};
use tiller_engine::codec::{CodecDecoder, DecoderStream};
use tiller_engine::control::MOST_HOP;
use tiller_engine::handle::{Handle, ModelSource};
use tiller_engine::model::Model;
use tiller_engine::player::Player;
use tiller_engine::pool::Pool;
use tiller_engine::status::State;
use tiller_engine::text::Prompt;
use tiller_tests::answers::{Answers, answers, prompts_in_turn, steered, unsteered};
use tiller_tests::card::{decode, prefilled};
use tiller_tests::codec::{arbitrary, checkpoint};
use tiller_tests::random::Random;
use tiller_tests::tensors::Tensors;
use tiller_tests::turn;

/// Of a sample, over the largest one: f32 sums in another order.
const SAMPLES: f64 = 1e-5;

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

fn folder_of(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture)
}

fn fixture(name: &str) -> ModelSource {
    ModelSource::Directory(folder_of(name))
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

/// What is asked for, on a card whose layers are one launch, and on one of compute capability 8, where each is a launch. A real
/// card is what it is.
fn on_either_card(ask: impl Fn()) {
    ask();
    if let Some(driver) = emulated() {
        tell(driver, "emulated_capability", 8i32);
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&ask));
        tell(driver, "emulated_capability", 9i32);
        asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn card() -> Card {
    choose(library(), None).unwrap_or_else(|error| panic!("{error}"))
}

/// A fixture with one block as wide as the large models': a norm of two segments to a warp, inputs that are staged in parts, heads
/// of 128. Weights are arbitrary.
fn wide() -> ModelSource {
    const HIDDEN: usize = 1152;
    const FEED: usize = 4608;
    let (from, folder) = (folder_of("parity-mono"), Path::new(env!("CARGO_TARGET_TMPDIR")).join("wide"));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["generation_config.json", "tokenizer.json"] {
        std::fs::copy(from.join(name), folder.join(name)).unwrap();
    }
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    let decoder = &mut config["decoder"];
    let number = |name: &str| decoder[name].as_u64().unwrap() as usize;
    let widths = [(number("hidden_size"), HIDDEN), (number("ffn_dim"), FEED)];
    for (name, value) in
        [("hidden_size", HIDDEN), ("ffn_dim", FEED), ("num_attention_heads", 9), ("num_hidden_layers", 1)]
    {
        decoder[name] = value.into();
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut tensors = Tensors::read(&from);
    let blocks = "decoder.model.decoder.layers.";
    tensors.0.retain(|name, _| name.strip_prefix(blocks).is_none_or(|rest| rest.starts_with("0.")));
    let mut random = Random(3);
    for (name, (shape, values)) in &mut tensors.0 {
        if !name.starts_with("decoder.") && !name.starts_with("enc_to_dec_proj") {
            continue;
        }
        for size in shape.iter_mut() {
            *size = widths.iter().find(|(old, _)| old == size).map_or(*size, |(_, new)| *new);
        }
        let gain = name.contains("layer_norm.weight");
        let scale = if shape.len() == 1 { 0.1 } else { 1.7 / (shape[1] as f64).sqrt() };
        let value = || (f64::from(u8::from(gain)) + scale * (2.0 * random.unit() - 1.0)) as f32;
        *values = std::iter::repeat_with(value).take(shape.iter().product()).collect();
    }
    tensors.write(&folder);
    ModelSource::Directory(folder)
}

/// Heads of 16 and of 8, stereo, text of the hidden width, attention in two chunks; the demo, whose directions hold, with few steps; one
/// wide block.
fn cases() -> [(ModelSource, usize); 4] {
    [(fixture("decoder-stereo"), 24), (fixture("parity-equal-width"), 140), (ModelSource::Embedded, 5), (wide(), 6)]
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
    on_either_card(|| {
        for (source, positions) in cases() {
            compute_alike(&source, positions);
        }
    });
}

fn compute_alike(source: &ModelSource, positions: usize) {
    let rig = Rig::load(source);
    let (mut exact, mut card) = (rig.cpu(positions), rig.card(positions));
    let compared = compare(&rig.model, &rig.prompt, &mut exact, &mut card, positions).unwrap();
    eprintln!("{}: {compared:?}", rig.model.name());
    assert!(compared.logits_max_rel < MOST_APART && compared.taps_max_rel < MOST_APART, "{compared:?}");
    assert!(compared.steering_max_rel > 1e-3 && compared.drawn_equal_share > 0.99, "{compared:?}");
    assert!(compared.greedy_equal_share > 0.9, "{compared:?}");
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_row_has_the_same_bits_in_any_company() {
    let _turn = turn();
    on_either_card(|| {
        for (source, positions) in cases() {
            let rig = Rig::load(&source);
            company(&rig.model, &rig.prompt, &mut rig.card(positions), positions).unwrap();
        }
    });
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
    let (controls, prompts) = prompts_in_turn(&rig.model).unwrap();
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

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_card_that_computes_otherwise_is_entrusted_with_no_model() {
    let _turn = turn();
    let gpu = Gpu::Cuda(card());
    proof::prove(&gpu).unwrap();
    let Some(driver) = emulated() else { return };
    // One kernel does nothing: of every step, of some passes that fill a window, of the draw.
    for (kernel, what) in [(c"attend", "its steps"), (c"linear_6", "positions"), (c"sample", "codes")] {
        tell(driver, "emulated_idle", kernel.as_ptr());
        let said = proof::examine(&gpu).expect_err("it computes otherwise").to_string();
        tell(driver, "emulated_idle", c"".as_ptr());
        assert!(said.contains(what) && said.contains("CPU"), "{kernel:?}: {said}");
    }
}

/// A codec on the processor, and on the card.
fn codec(source: &CheckpointSource) -> (Arc<CodecDecoder>, Arc<CudaCodec>) {
    let config = Config::read(source).unwrap().codec;
    let weights = Weights::read(source, &|_| ()).unwrap();
    let decoder = Arc::new(CodecDecoder::load(&weights, &config, config.num_quantizers).unwrap());
    let on_card = CudaCodec::load(library(), &card(), &weights, &config, &decoder).unwrap();
    (decoder, on_card)
}

/// Odd codecs: causal, padded with zeros, with shortcuts, dilated, of two channels, with other numbers of layers.
fn codecs() -> Vec<(String, CheckpointSource)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut cases = Vec::new();
    for case in ["published", "odd", "causal", "half-trim", "zero-pad"] {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("codec-card-{case}"));
        let source = checkpoint(&fixtures.join(format!("codec-{case}.safetensors")), &folder);
        cases.push((case.to_owned(), source.unwrap_or_else(|error| panic!("{error}"))));
    }
    for case in ["parity-odd", "parity-stereo-codec", "parity-equal-width"] {
        cases.push((case.to_owned(), CheckpointSource::directory(folder_of(case))));
    }
    cases
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_card_decodes_what_the_processor_does() {
    let _turn = turn();
    for (name, source) in codecs() {
        let (decoder, on_card) = codec(&source);
        // Pieces that end before anything is determined, one that is dropped, and one that is long enough for every ring to come
        // round.
        for (hop, pieces) in [(1, &[1, 3, 6, 0, 20][..]), (2, &[2, 5])] {
            let mut exact = DecoderStream::with_hop(decoder.clone(), hop);
            let mut other = on_card.stream(hop).unwrap();
            let found = decode(&decoder, &mut exact, &mut other, pieces, hop)
                .unwrap_or_else(|error| panic!("{name}, hop {hop}: {error}"));
            eprintln!("{name}, hop {hop}: {found:?}");
            assert!(found.samples > 50 && found.largest > 0.0, "{name}, hop {hop}: {found:?}");
            assert!(found.apart < SAMPLES * found.largest, "{name}, hop {hop}: {found:?}");
        }
    }
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn the_demos_codec_is_decoded_alike_at_the_precision_of_its_model() {
    let _turn = turn();
    let model = Model::load(&ModelSource::Embedded, &|_| ()).unwrap();
    let on_card = CudaCodec::shared(library(), &card(), &ModelSource::Embedded, model.codec()).unwrap();
    let apart = on_card.apart().unwrap();
    eprintln!("demo: {apart:e} of the largest sample");
    assert!(apart < SAMPLES, "{apart:e}");
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_piece_sounds_the_same_decoded_on_the_card() {
    let _turn = turn();
    let source = fixture("decoder-stereo");
    let rig = Rig::load(&source);
    let on_card = CudaCodec::shared(library(), &card(), &source, rig.model.codec()).unwrap();
    for hop in [1, MOST_HOP] {
        // Three pieces, each begun before the one before it is flushed; the last ends before anything of it is heard.
        let mut controls = steered(1, 70, 1.0);
        controls.extend(steered(2, 9, 1.0));
        controls.extend(steered(3, 2, 1.0));
        controls.iter_mut().for_each(|control| control.hop = hop);
        let prompts = std::slice::from_ref(&rig.prompt);
        let want = answers(&mut rig.player(64), &controls, prompts).unwrap();
        let mut player = rig.player(64);
        player.decode_by(|| on_card.boxed()).unwrap();
        let heard = answers(&mut player, &controls, prompts).unwrap();
        assert_eq!(heard.columns, want.columns, "hop {hop}");
        let floats = 2 * rig.model.format().frame_samples;
        for piece in 1..=3 {
            let slots = |answers: &Answers| -> Vec<(u32, bool)> {
                let own = answers.headers.iter().filter(|header| header.piece == piece);
                own.map(|header| (header.slot, header.last)).collect()
            };
            assert_eq!(slots(&heard), slots(&want), "hop {hop}, piece {piece}");
            let (a, b) = (heard.of(piece, floats), want.of(piece, floats));
            assert_eq!(a.len(), b.len());
            let most = b.iter().fold(0.0f32, |most, sample| most.max(sample.abs()));
            let apart = a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(most > 0.0 && f64::from(apart) < SAMPLES * f64::from(most), "{apart:e} of {most:e}");
        }
    }
}

#[test]
#[ignore = "needs a card or the emulated driver: cargo xtask emulate"]
fn a_frame_decoded_beside_a_step_is_no_later_than_frames_decoded_in_pairs() {
    let _turn = turn();
    let source = fixture("decoder-stereo");
    let rig = Rig::load(&source);
    let on_card = CudaCodec::shared(library(), &card(), &source, rig.model.codec()).unwrap();
    let mut controls = unsteered(1, 30, 1.0);
    controls.iter_mut().for_each(|control| control.hop = MOST_HOP);
    // How many frames have left after each answer.
    let left = |mut player: Player| {
        let mut count = 0;
        let answered = controls[..30].iter().map(|control| {
            player.answer(control, &mut |_, _| count += 1).unwrap();
            count
        });
        answered.collect::<Vec<usize>>()
    };
    let pairs = left(rig.player(64));
    let mut player = rig.player(64);
    player.decode_by(|| on_card.boxed()).unwrap();
    let beside = left(player);
    // In pairs the first of two frames waits for the second: a frame may be late by one answer, and never by more.
    for answer in 1..30 {
        assert!(beside[answer] >= pairs[answer - 1].max(pairs[answer].saturating_sub(1)), "{pairs:?} {beside:?}");
    }
    assert!(beside[29] > 15);
}

#[test]
#[ignore = "needs the emulated driver: cargo xtask emulate"]
fn the_codec_does_not_depend_on_the_order_of_threads() {
    let _turn = turn();
    let Some(driver) = emulated() else { return };
    let played = |backwards: i32| {
        tell(driver, "emulated_backwards", backwards);
        let mut samples = Vec::new();
        for (_, source) in codecs() {
            let (decoder, on_card) = codec(&source);
            let mut stream = on_card.stream(1).unwrap();
            let codes = arbitrary(6, decoder.codebooks(), decoder.codebook_size(), 3);
            for frame in codes.chunks(decoder.codebooks()) {
                stream.push(frame).unwrap();
            }
            stream.finish().unwrap();
            stream.collect().unwrap();
            let mut all = vec![0.0; stream.available()];
            stream.read(&mut all);
            samples.extend(all.iter().map(|sample| sample.to_bits()));
        }
        tell(driver, "emulated_backwards", 0);
        samples
    };
    assert_eq!(played(0), played(1));
}

#[test]
#[ignore = "needs the emulated driver: cargo xtask emulate"]
fn a_codec_that_strays_or_finds_no_room_leaves_the_processors_in_place() {
    let _turn = turn();
    let Some(driver) = emulated() else { return };
    // Another checkpoint's weights are as good as a card that computes wrongly.
    let load = |name| Checkpoint::load(&CheckpointSource::directory(folder_of(name)), &|_| ()).unwrap();
    let (other, own) = (load("decoder-mono"), load("decoder-stereo"));
    let config = &own.config.codec;
    let decoder = Arc::new(CodecDecoder::load(&own.weights, config, config.num_quantizers).unwrap());
    let strays = CudaCodec::load(library(), &card(), &other.weights, config, &decoder).unwrap();
    let said = strays.verify().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("of full scale"), "{said}");
    drop(strays);

    let source = fixture("decoder-stereo");
    let rig = Rig::load(&source);
    // SAFETY: driver.cpp has this function.
    let used = unsafe { driver.get::<extern "C" fn() -> u64>(b"emulated_used").expect("a function")() };
    let mut player = rig.player(64);
    let codec = CudaCodec::shared(library(), &card(), &source, rig.model.codec()).unwrap();
    tell(driver, "emulated_memory", used + 100);
    let refused = player.decode_by(|| codec.boxed());
    tell(driver, "emulated_memory", 8u64 << 30);
    assert!(refused.is_err_and(|why| why.to_string().contains("MB are needed")));
    let heard = answers(&mut player, &unsteered(1, 20, 1.0), std::slice::from_ref(&rig.prompt)).unwrap();
    assert_eq!(heard.headers.len(), 20);
}

#[test]
#[ignore = "needs the emulated driver: cargo xtask emulate"]
fn a_card_lost_under_its_codec_hands_both_over() {
    let _turn = turn();
    let Some(driver) = emulated() else { return };
    // SAFETY: driver.cpp has this function.
    let used = || unsafe { driver.get::<extern "C" fn() -> u64>(b"emulated_used").expect("a function")() };
    let before = used();
    let source = fixture("decoder-stereo");
    let rig = Rig::load(&source);
    let codec = CudaCodec::shared(library(), &card(), &source, rig.model.codec()).unwrap();
    // The card goes at a step, or at either channel's codec.
    for graphs in 40..44i64 {
        let mut player = rig.player(64);
        player.decode_by(|| codec.boxed()).unwrap();
        tell(driver, "emulated_lose_after", graphs);
        let heard = answers(&mut player, &unsteered(1, 24, 1.0), std::slice::from_ref(&rig.prompt));
        tell(driver, "emulated_lose_after", -1i64);
        let heard = heard.unwrap();
        assert_eq!((heard.columns.len(), player.place().as_str()), (24, "CPU"));
        assert!(player.take_notice().is_some_and(|notice| notice.contains("no longer answers")));
        assert!(heard.audio.iter().all(|sample| sample.is_finite()));
    }
    drop((codec, rig));
    assert_eq!(used(), before, "every byte was given back");
}
