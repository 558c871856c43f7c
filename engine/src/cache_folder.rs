//! Where things lie that can be made again. Any thread but the audio thread's.

use std::path::PathBuf;

/// Tiller's folder among the user's caches: by XDG, on Windows the local application data, else the temporary folder.
pub fn user() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".cache"));
    let user = variable("XDG_CACHE_HOME").or_else(|| variable("LOCALAPPDATA")).or_else(home);
    user.unwrap_or_else(std::env::temp_dir).join("tiller")
}
