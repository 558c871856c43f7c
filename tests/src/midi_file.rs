//! Keys as a standard MIDI file, for hosts that read one.

/// Ticks of a beat.
pub const BEAT: u32 = 480;

/// A file of one track, [`BEAT`] ticks a beat, for 120 beats per minute: (key, start, end) in ticks, in any order.
pub fn midi_file(keys: &[(u8, u32, u32)]) -> Vec<u8> {
    // Keys come up before others go down at the same tick.
    let mut events: Vec<(u32, bool, u8)> =
        keys.iter().flat_map(|(key, start, end)| [(*start, true, *key), (*end, false, *key)]).collect();
    events.sort_unstable();
    let mut track = Vec::new();
    let mut now = 0;
    for (tick, down, key) in events {
        delta(&mut track, tick - now);
        track.extend(if down { [0x90, key, 100] } else { [0x80, key, 0] });
        now = tick;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_bytes_of_the_standard() {
        let file = midi_file(&[(60, 0, 480)]);
        assert_eq!(&file[..14], b"MThd\0\0\0\x06\0\0\0\x01\x01\xe0");
        assert_eq!(file[14..], *b"MTrk\0\0\0\x0d\0\x90\x3c\x64\x83\x60\x80\x3c\0\0\xff\x2f\0");
    }

    #[test]
    fn overlapping_keys_are_in_order_of_time() {
        let file = midi_file(&[(64, 10, 30), (60, 0, 20)]);
        assert_eq!(file[22..36], [0, 0x90, 60, 100, 10, 0x90, 64, 100, 10, 0x80, 60, 0, 10, 0x80]);
    }
}
