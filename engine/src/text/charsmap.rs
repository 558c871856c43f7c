//! The precompiled character map of SentencePiece tokenizers (T5's is one), checked before it is used. Loader thread.
//! Its reader takes memory by the map's own word and indexes without asking. Format: u32 bytes of a trie of u32 units
//! (Darts-clone, Yoneda and Tamiwa 2008), then the replacements, each ended by a zero byte.

use serde::Deserialize;
use serde_json::Value;

/// Where a normalizer keeps its map, in base64.
const FIELD: &str = "precompiled_charsmap";

#[derive(Deserialize)]
struct Tokenizer {
    normalizer: Option<Value>,
}

/// Checks the maps in `tokenizer`, the text of a `tokenizer.json`. What does not parse is left to the tokenizer's reader.
///
/// # Errors
/// What is wrong with a map.
pub(super) fn check(tokenizer: &[u8]) -> Result<(), String> {
    let normalizer = serde_json::from_slice::<Tokenizer>(tokenizer).ok().and_then(|tokenizer| tokenizer.normalizer);
    normalizer.as_ref().map_or(Ok(()), check_normalizer)
}

fn check_normalizer(normalizer: &Value) -> Result<(), String> {
    if normalizer.get("type").is_some_and(|kind| kind == "Precompiled") || normalizer.get(FIELD).is_some() {
        let map = normalizer.get(FIELD).and_then(Value::as_str).and_then(base64);
        map.map_or(Err("is no base64 text".to_owned()), |map| check_map(&map))
            .map_err(|reason| format!("its {FIELD} {reason}"))?;
    }
    // A sequence holds further ones. The JSON parser has bounded the depth.
    let parts = normalizer.get("normalizers").and_then(Value::as_array);
    parts.into_iter().flatten().try_for_each(check_normalizer)
}

fn check_map(map: &[u8]) -> Result<(), String> {
    let Some((size, rest)) = map.split_first_chunk::<4>() else {
        return Err(format!("has {} byte(s)", map.len()));
    };
    let size = u32::from_le_bytes(*size) as usize;
    if size < 4 || !size.is_multiple_of(4) || size > rest.len() {
        return Err(format!("claims a trie of {size} bytes and holds {}", rest.len()));
    }
    let (trie, replacements) = rest.split_at(size);
    let Ok(replacements) = str::from_utf8(replacements) else {
        return Err("holds replacements that are not UTF-8".to_owned());
    };
    let units: Vec<u32> = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let mut seen = vec![false; units.len()];
    // Places from which the reader goes on, by exclusive or, to any byte's place.
    let mut bases = vec![offset(units[0])];
    while let Some(base) = bases.pop() {
        for byte in 1..=0xff {
            let place = base ^ byte;
            let Some(&unit) = units.get(place) else {
                return Err("has a trie that points out of itself".to_owned());
            };
            if unit & (1 << 31 | 0xff) != byte as u32 || std::mem::replace(&mut seen[place], true) {
                continue;
            }
            let next = place ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = units.get(next).map(|leaf| (leaf & !(1 << 31)) as usize);
                if !value.is_some_and(|value| replacements.is_char_boundary(value)) {
                    return Err("has a trie that points out of its replacements".to_owned());
                }
            }
            bases.push(next);
        }
    }
    Ok(())
}

/// Where a unit's children are, relative to its own place.
fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}

/// Standard alphabet with padding; `None` for anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    for group in digits.chunks(4) {
        let mut bits = 0;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie that maps "a" to the replacement at 0: root, and 256 units that "a" and its leaf are among.
    fn map(replacements: &[u8]) -> Vec<u8> {
        let mut units = vec![0u32; 512];
        // Children of the root at 256 ^ byte.
        units[0] = 256 << 10;
        let a = 256 ^ usize::from(b'a');
        // "a": its label, a leaf, children (and the leaf) at a ^ 1.
        units[a] = u32::from(b'a') | 1 << 8 | 1 << 10;
        units[a ^ 1] = 1 << 31;
        let mut map = (4 * units.len() as u32).to_le_bytes().to_vec();
        map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        map.extend(replacements);
        map
    }

    #[test]
    fn base64_as_in_rfc_4648() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")] {
            assert_eq!(base64(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert_eq!([base64("Zm 9"), base64("Zm9"), base64("Z==="), base64("=Zm9")], [None, None, None, None]);
    }

    #[test]
    fn a_sound_map_passes_and_damaged_ones_do_not() {
        assert_eq!(check_map(&map(b"A\0")), Ok(()));
        let refused = |change: &dyn Fn(&mut Vec<u8>), reason: &str| {
            let mut map = map(b"A\0");
            change(&mut map);
            let error = check_map(&map).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        refused(&|map| map[..4].fill(0xff), "claims a trie of 4294967295 bytes");
        refused(&|map| map[..4].fill(0), "claims a trie of 0 bytes");
        refused(&|map| map.truncate(3), "has 3 byte");
        refused(&|map| map.truncate(1000), "claims a trie of 2048 bytes and holds 996");
        refused(&|map| map[4..8].copy_from_slice(&(512u32 << 10).to_le_bytes()), "out of itself");
        let leaf = 4 + 4 * (256 ^ usize::from(b'a') ^ 1);
        refused(&|map| map[leaf] = 3, "out of its replacements");
        refused(&|map| *map.last_mut().unwrap() = 0xff, "not UTF-8");
    }

    #[test]
    fn maps_are_found_inside_sequences() {
        let inner = r#"{"type": "Precompiled", "precompiled_charsmap": "////fw=="}"#;
        let text = format!(r#"{{"normalizer": {{"type": "Sequence", "normalizers": [{{"type": "NFC"}}, {inner}]}}}}"#);
        assert!(check(text.as_bytes()).unwrap_err().contains("claims a trie of 2147483647 bytes"));
        let bare = check(br#"{"normalizer": {"type": "Precompiled"}}"#).unwrap_err();
        assert!(bare.contains("is no base64 text"), "{bare}");
        assert_eq!(check(br#"{"normalizer": null}"#), Ok(()));
        assert_eq!(check(b"{"), Ok(()));
    }
}
