//! What this process holds, as the system and its allocator tell. Any thread.

/// Resident memory in bytes, where the system tells. The allocator's free pages are part of it until [`give_back`].
pub fn resident() -> Option<u64> {
    told("VmRSS:")
}

/// The most that was ever resident, in bytes, where the system tells.
pub fn peak_resident() -> Option<u64> {
    told("VmHWM:")
}

fn told(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Bytes that were allocated and not freed, in every arena of glibc's allocator and in its mappings: a library's, too, that
/// was loaded and has the system's allocator. None with any other.
pub fn allocated() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes nothing, and locks the arenas that it counts.
        let all = unsafe { libc::mallinfo2() };
        Some((all.uordblks + all.hblkhd) as u64)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Has threads that start from now on allocate from the arenas of glibc's allocator that are there: the top of each keeps some
/// free megabytes, whatever [`give_back`] does. Nothing with any other allocator.
pub fn no_more_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes numbers alone.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Has glibc's allocator hand free pages to the system, which it otherwise does when it likes; nothing with any other.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number alone, and locks the arenas that it trims.
    unsafe {
        libc::malloc_trim(0);
    }
}
