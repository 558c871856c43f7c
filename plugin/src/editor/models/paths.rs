//! Paths as people type and paste them: several at once, in quotes, as `file://` addresses, with `~`. Pure text.

use std::path::PathBuf;

/// The paths in a text, one a line, as file managers copy them.
pub fn paths(text: &str) -> Vec<PathBuf> {
    text.lines().filter_map(path).collect()
}

/// One path.
pub fn path(line: &str) -> Option<PathBuf> {
    let line = line.trim();
    let quoted = |quote: char| line.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let line = quoted('"').or_else(|| quoted('\'')).unwrap_or(line);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    if let Some(address) = line.strip_prefix("file://") {
        let address = address.strip_prefix("localhost").unwrap_or(address);
        let path = unescaped(address);
        // `file:///C:/music` on Windows.
        let drive = path.strip_prefix('/').filter(|rest| rest.as_bytes().get(1) == Some(&b':')).map(str::to_owned);
        return Some(PathBuf::from(drive.unwrap_or(path)));
    }
    if let Some(rest) = line.strip_prefix("~/")
        && let Some(home) = std::env::var_os("HOME")
    {
        return Some(PathBuf::from(home).join(rest));
    }
    Some(PathBuf::from(line))
}

/// With `%20` and its like as what they mean.
fn unescaped(address: &str) -> String {
    let mut bytes = Vec::with_capacity(address.len());
    let mut rest = address.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_file_managers_copy_is_read() {
        let text = "/a/one two.wav\n\n \"/b/x.flac\" \r\nfile:///c/l%C3%A4rm%20%231.wav\n# a comment\nfile://localhost/d/100%\n";
        let expected = ["/a/one two.wav", "/b/x.flac", "/c/lärm #1.wav", "/d/100%"];
        assert_eq!(paths(text), expected.map(PathBuf::from));
        assert_eq!(path("file:///C:/music/a.wav"), Some(PathBuf::from("C:/music/a.wav")));
        assert_eq!(path("  "), None);
    }
}
