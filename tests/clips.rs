//! The clips that travel with the repository are what their list says: five of twenty seconds, music, not clipped.

use std::path::Path;

use tiller_engine::sound_file::Sound;

#[test]
fn the_committed_clips_are_the_listed_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/clips");
    let text = std::fs::read_to_string(folder.join("clips.json")).expect("the list is there");
    let list: serde_json::Value = serde_json::from_str(&text).expect("the list is JSON");
    let seconds = list["seconds"].as_f64().expect("a length");
    let clips = list["clips"].as_array().expect("clips");
    assert_eq!((seconds, clips.len()), (20.0, 5));
    for clip in clips {
        let file = clip["file"].as_str().expect("a file");
        assert!(!clip["prompt"].as_str().expect("a prompt").is_empty() && clip["seed"].is_u64(), "{file}");
        let sound = Sound::read(&folder.join(file)).expect("reads");
        assert_eq!((sound.rate, sound.samples.len() as f64 / f64::from(sound.channels) / 32_000.0), (32_000, seconds));
        let bytes = std::fs::metadata(folder.join(file)).expect("is there").len();
        assert!(bytes < 1_000_000, "{file}: {bytes} bytes travel with every clone");
        let clipped = sound.samples.iter().filter(|s| s.abs() > 0.999).count();
        assert!(clipped * 1000 < sound.samples.len(), "{file}: {clipped} samples at full scale");
        // Every second sounds: -45 dB of full scale at least.
        for (second, part) in sound.mono().chunks(32_000).enumerate() {
            let rms = (part.iter().map(|s| s * s).sum::<f32>() / part.len() as f32).sqrt();
            assert!(rms > 0.0056, "{file}: RMS {rms} in second {second}");
        }
    }
    assert!(folder.join("spectrograms.png").exists());
}
