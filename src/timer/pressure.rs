//! A thread that gives the timer more than it can take in pays for it. Numbers, from which nothing follows but a pause: so
//! they are Relaxed, and pair with nothing.

#[cfg(unix)]
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

static PRESSURE: Pressure = Pressure::new();

struct Pressure {
    /// How many have been pushed and not been taken in. The timer's are subtracted after they were added, or about to be:
    /// it may be less than nothing for a moment, and wrap.
    pending: AtomicUsize,
    /// The process that has the timer's thread. In a child of its there is nobody to take anything in, so no pause helps.
    process: AtomicU32,
}

/// What whoever pushes has to pay.
#[derive(Debug, PartialEq)]
enum Pause {
    Yield,
    Sleep,
}

impl Pressure {
    const fn new() -> Pressure {
        Pressure {
            pending: AtomicUsize::new(0),
            process: AtomicU32::new(0),
        }
    }

    /// One more.
    fn add(&self) -> Option<Pause> {
        let before = self.pending.fetch_add(1, Relaxed);
        if !is_many(before) {
            None
        } else if before < TOO_MANY {
            (before % YIELD == 0).then_some(Pause::Yield)
        } else {
            (before >= 2 * TOO_MANY || before % SLEEP == 0).then_some(Pause::Sleep)
        }
    }

    fn pushed(&self, wake: impl FnOnce() -> bool) {
        let Some(pause) = self.add() else { return };
        if self.is_in_parent() {
            // Nobody will take it in. So the number does not grow for ever.
            self.taken_in(1);
            return;
        }
        if !wake() {
            return;
        }
        match pause {
            Pause::Yield => thread::yield_now(),
            Pause::Sleep => thread::sleep(MOMENT),
        }
    }

    fn taken_in(&self, entries: usize) {
        if entries != 0 {
            self.pending.fetch_sub(entries, Relaxed);
        }
    }

    /// Elsewhere there is no `fork`, and not everywhere a number for a process.
    fn begin(&self) {
        #[cfg(unix)]
        self.process.store(process::id(), Relaxed);
    }

    fn is_in_parent(&self) -> bool {
        let process = self.process.load(Relaxed);
        #[cfg(unix)]
        return process != 0 && process != process::id();
        #[cfg(not(unix))]
        return process != 0;
    }
}

fn is_many(pending: usize) -> bool {
    // Less than nothing is very much, as a number without a sign: then nobody has to pay.
    (MANY..usize::MAX / 2).contains(&pending)
}

/// Whether the timer's thread is another process's, of which this one was made by `fork`: then it can be had neither now
/// nor later. Asks the system.
pub(crate) fn is_in_parent() -> bool {
    PRESSURE.is_in_parent()
}

/// The timer's thread is started.
pub(super) fn begin() {
    PRESSURE.begin();
}

/// Whether so much waits in the inbox that some who push have to pay.
pub(super) fn is_much() -> bool {
    is_many(PRESSURE.pending.load(Relaxed))
}

/// One more. `wake` is called before a pause, and says whether there is somebody: if not, there is none.
pub(super) fn pushed(wake: impl FnOnce() -> bool) {
    PRESSURE.pushed(wake);
}

/// So many less.
pub(super) fn taken_in(entries: usize) {
    PRESSURE.taken_in(entries);
}

#[cfg(test)]
mod tests {
    use super::{AtomicUsize, Pause, Pressure, Relaxed};
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    fn with(there: usize) -> Pressure {
        let pending = AtomicUsize::new(there);
        Pressure {
            pending,
            ..Pressure::new()
        }
    }

    /// How many of so many pushes yield, and sleep, where so many are there.
    fn pauses(there: usize, pushes: usize) -> (usize, usize) {
        let pressure = with(there);
        let (mut yields, mut sleeps) = (0, 0);
        for _ in 0..pushes {
            match pressure.add() {
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
        let pressure = with(65_536);
        assert_eq!(pressure.add(), Some(Pause::Sleep));
        pressure.taken_in(65_536);
        assert_eq!(pressure.add(), None);
    }

    #[test]
    fn who_pays_wakes_the_timer_before() {
        let pressure = with(65_536);
        let wakes = Cell::new(0);
        let push = || {
            let begin = Instant::now();
            pressure.pushed(|| {
                wakes.set(wakes.get() + 1);
                true
            });
            begin.elapsed()
        };
        assert!(push() >= Duration::from_micros(50));
        assert_eq!(wakes.get(), 1);
        pressure.taken_in(65_536);
        push();
        assert_eq!(wakes.get(), 1);
    }

    #[test]
    fn nobody_pays_where_there_is_no_thread() {
        let pressure = with(65_536);
        let begin = Instant::now();
        for _ in 0..10_000 {
            pressure.pushed(|| false);
        }
        assert!(begin.elapsed() < 10_000 * Duration::from_micros(50));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_pays_in_a_child() {
        let pressure = with(65_536);
        let wakes = Cell::new(0);
        let push = || {
            pressure.pushed(|| {
                wakes.set(wakes.get() + 1);
                true
            });
        };
        assert!(!pressure.is_in_parent());
        push();
        pressure.begin();
        assert!(!pressure.is_in_parent());
        push();
        assert_eq!(wakes.get(), 2);
        // As in the child of one that has the timer.
        pressure.process.store(std::process::id() + 1, Relaxed);
        assert!(pressure.is_in_parent());
        push();
        assert_eq!(wakes.get(), 2);
        pressure.begin();
        push();
        assert_eq!(wakes.get(), 3);
    }
}
