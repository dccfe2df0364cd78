//! The resident set: how large it is, and what makes it large or small.

use std::fs;

/// An empty vector whose memory is in the resident set already, so that filling it costs the
/// contenders nothing but what they need themselves.
pub fn touched_room<T: Clone>(filler: &T, capacity: usize) -> Vec<T> {
    let mut room = vec![filler.clone(); capacity];
    room.clear();
    room
}

/// Returns freed memory to the system, so that whoever comes next starts cold.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it is the C library's own, declared as there, and only gives back what is free.
        unsafe { malloc_trim(0) };
    }
}

/// From where the kernel counts pages; the figures elsewhere are off by what each thread has not
/// yet added to them.
pub fn resident_bytes() -> Option<f64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: f64 = rss.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
