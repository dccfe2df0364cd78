//! How much the processors have done for this process.

use std::mem;
use std::time::Duration;

/// Of all threads so far.
pub fn cpu_time() -> Duration {
    // SAFETY: plain data, which the call fills in.
    let used = unsafe {
        let mut used: libc::rusage = mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut used), 0);
        used
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(used.ru_utime) + time(used.ru_stime)
}
