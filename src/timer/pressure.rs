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
struct Pending(AtomicUsize);

static PENDING: Pending = Pending(AtomicUsize::new(0));

/// What whoever pushes has to pay.
#[derive(Debug, PartialEq)]
enum Pause {
    Yield,
    Sleep,
}

impl Pending {
    /// One more.
    fn add(&self) -> Option<Pause> {
        let before = self.0.fetch_add(1, Relaxed);
        // Less than nothing is much, as a number without a sign: then nobody has to pay.
        if !(MANY..usize::MAX / 2).contains(&before) {
            None
        } else if before < TOO_MANY {
            (before % YIELD == 0).then_some(Pause::Yield)
        } else {
            (before >= 2 * TOO_MANY || before % SLEEP == 0).then_some(Pause::Sleep)
        }
    }

    fn subtract(&self, entries: usize) {
        self.0.fetch_sub(entries, Relaxed);
    }
}

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
    let Some(pause) = PENDING.add() else { return };
    if is_in_parent() {
        return;
    }
    wake();
    match pause {
        Pause::Yield => thread::yield_now(),
        Pause::Sleep => thread::sleep(MOMENT),
    }
}

/// So many less.
pub(super) fn taken_in(entries: usize) {
    if entries != 0 {
        PENDING.subtract(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::{begin, is_in_parent, process, pushed, taken_in};
    use super::{AtomicUsize, Duration, Pause, Pending, Relaxed, PENDING, PROCESS};
    use std::cell::Cell;
    use std::time::Instant;

    /// How many of so many pushes yield, and sleep, where so many are there.
    fn pauses(there: usize, pushes: usize) -> (usize, usize) {
        let pending = Pending(AtomicUsize::new(there));
        let (mut yields, mut sleeps) = (0, 0);
        for _ in 0..pushes {
            match pending.add() {
                None => (),
                Some(Pause::Yield) => yields += 1,
                Some(Pause::Sleep) => sleeps += 1,
            }
        }
        (yields, sleeps)
    }

    #[test]
    fn who_pushes_pays_from_a_number_on() {
        assert_eq!(pauses(0, 8192), (0, 0));
        assert_eq!(pauses(8192, 1), (1, 0));
        assert_eq!(pauses(8193, 63), (0, 0));
        // Up to 32,768 every 64th yields.
        assert_eq!(pauses(8192, 32_768 - 8192), (384, 0));
        assert_eq!(pauses(32_768, 1), (0, 1));
        assert_eq!(pauses(32_769, 15), (0, 0));
        // Up to twice as many every 16th sleeps, and from there on every one.
        assert_eq!(pauses(32_768, 32_768), (0, 2048));
        assert_eq!(pauses(65_536, 1000), (0, 1000));
    }

    #[test]
    fn less_than_nothing_is_no_pressure() {
        assert_eq!(pauses(usize::MAX - 999, 1000), (0, 0));
    }

    #[test]
    fn what_is_taken_in_counts_no_more() {
        let pending = Pending(AtomicUsize::new(65_536));
        assert_eq!(pending.add(), Some(Pause::Sleep));
        pending.subtract(65_536);
        assert_eq!(pending.add(), None);
    }

    /// One test, for these are statics.
    #[test]
    fn who_pays_wakes_the_timer_before_and_nobody_in_a_child() {
        let wakes = Cell::new(0);
        let push = || {
            let begin = Instant::now();
            pushed(|| wakes.set(wakes.get() + 1));
            begin.elapsed()
        };
        assert!(!is_in_parent());
        push();
        assert_eq!(wakes.get(), 0);
        PENDING.0.fetch_add(65_536, Relaxed);
        // Each of them: one that only yields may take as long now and then.
        let quickest = (0..20).map(|_| push()).min().unwrap();
        assert!(quickest >= Duration::from_micros(50));
        assert_eq!(wakes.get(), 20);
        begin();
        assert!(!is_in_parent());
        push();
        assert_eq!(wakes.get(), 21);
        // As in the child of one that has the timer.
        PROCESS.store(process::id() + 1, Relaxed);
        assert!(is_in_parent());
        push();
        assert_eq!(wakes.get(), 21);
        begin();
        assert!(!is_in_parent());
        taken_in(65_536);
        push();
        assert_eq!(wakes.get(), 21);
        taken_in(24);
    }
}
