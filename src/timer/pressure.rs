//! A thread that gives the timer more than it can take in pays for it. Numbers, from which nothing follows but a pause: so
//! they are Relaxed, and pair with nothing.

use std::process;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// From so many entries in the inbox on, whoever pushes every 64th gives up its time slice. (Each of them would be too much:
/// where the processors are busy a slice is long.)
const MANY: usize = 8192;
const YIELD: usize = 64;
/// From so many on, whoever pushes every 16th sleeps for a moment; from twice as many on, whoever pushes another one. 32,768 take the
/// timer some two milliseconds.
const TOO_MANY: usize = 4 * MANY;
const SLEEP: usize = 16;
const MOMENT: Duration = Duration::from_micros(50);

/// How many have been pushed and not been taken in. The timer's are subtracted after they were added, or about to be:
/// it may be less than nothing for a moment, and wrap.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// The process that has the timer's thread. In a child of its there is nobody to take anything in, so no pause helps.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Whether the timer's thread is another process's, of which this one was made by `fork`: then it can be had neither now
/// nor later. Asks the system.
pub(crate) fn is_in_parent() -> bool {
    let process = PROCESS.load(Relaxed);
    process != 0 && process != process::id()
}

/// The timer's thread is started.
pub(super) fn begin() {
    PROCESS.store(process::id(), Relaxed);
}

/// One more. `wake` is called before a pause.
pub(super) fn pushed(wake: impl FnOnce()) {
    let before = PENDING.fetch_add(1, Relaxed);
    // Less than nothing is much, as a number without a sign: then nobody has to pay.
    if !(MANY..usize::MAX / 2).contains(&before) {
        return;
    }
    if is_in_parent() {
        return;
    }
    wake();
    if before < TOO_MANY {
        if before % YIELD == 0 {
            thread::yield_now();
        }
    } else if before >= 2 * TOO_MANY || before % SLEEP == 0 {
        thread::sleep(MOMENT);
    }
}

/// So many less.
pub(super) fn taken_in(entries: usize) {
    if entries != 0 {
        PENDING.fetch_sub(entries, Relaxed);
    }
}
