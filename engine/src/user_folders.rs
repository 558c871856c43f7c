//! Where things lie that belong to the user and not to a project. Any thread but the audio thread's.

use std::path::PathBuf;

/// Tiller's folder among the user's caches, for what can be made again: by XDG, on Windows the local application data, else
/// the temporary folder.
pub fn cache() -> PathBuf {
    folder("XDG_CACHE_HOME", "LOCALAPPDATA", ".cache")
}

/// Tiller's folder among what the user's applications remember: by XDG, on Windows the application data, else the temporary
/// folder.
pub fn data() -> PathBuf {
    folder("XDG_DATA_HOME", "APPDATA", ".local/share")
}

/// Tiller's folder among the user's settings, for how the user likes the application and not the music: by XDG, on Windows the
/// application data, else the temporary folder.
pub fn config() -> PathBuf {
    folder("XDG_CONFIG_HOME", "APPDATA", ".config")
}

fn folder(xdg: &str, windows: &str, in_home: &str) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(in_home));
    let user = variable(xdg).or_else(|| variable(windows)).or_else(home);
    user.unwrap_or_else(std::env::temp_dir).join("tiller")
}
