//! Who gives the timer more than it can take in pays for it. Numbers, from which nothing follows but a pause.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// From so many entries in the inbox on, who pushes every 64th gives up its time slice. (Each of them would be too much:
/// where the processors are busy a slice is long.)
const MANY: usize = 8192;
const YIELD: usize = 64;
/// From so many on, who pushes another one sleeps for a moment: 32,768 take the timer some two milliseconds.
const TOO_MANY: usize = 4 * MANY;
const MOMENT: Duration = Duration::from_micros(50);

/// How many have been pushed and not been taken in. The timer's are subtracted after they were added, or about to be:
/// it may be less than nothing for a moment, and wrap.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// One more. True: they have become many.
pub(super) fn pushed() -> bool {
    let before = PENDING.fetch_add(1, Relaxed);
    // Less than nothing is much, as a number without a sign: then nobody has to pay.
    if !(MANY..usize::MAX / 2).contains(&before) {
        return false;
    }
    if before < TOO_MANY {
        if before % YIELD == 0 {
            thread::yield_now();
        }
    } else {
        thread::sleep(MOMENT);
    }
    true
}

/// So many less.
pub(super) fn taken_in(entries: usize) {
    if entries != 0 {
        PENDING.fetch_sub(entries, Relaxed);
    }
}
