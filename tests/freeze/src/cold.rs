//! Threads that stand still: a timer of the thread's own processor time sends it a signal, whose handler sleeps.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

/// So long a thread stands still.
pub const FROZEN_MS: i64 = 100;

/// An operation that takes longer, in microseconds, has waited: what the scheduler does is not counted.
pub const LATE: u64 = FROZEN_MS as u64 * 1_000 / 2;

/// How often a thread has stood still, and where it does at this moment.
pub struct Place {
    pub times: AtomicU64,
    pub instruction: AtomicUsize,
}

pub const VICTIMS: usize = 16;
pub static PLACES: [Place; VICTIMS] = [const {
    Place {
        times: AtomicU64::new(0),
        instruction: AtomicUsize::new(0),
    }
}; VICTIMS];

thread_local! {
    static ME: Cell<usize> = const { Cell::new(usize::MAX) };
}

extern "C" fn stand_still(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: what a handler may do: errno, a sleep, atomics, a thread-local without a destructor.
    unsafe {
        let errno = *libc::__errno_location();
        if let Some(place) = PLACES.get(ME.get()) {
            let context = context.cast::<libc::ucontext_t>();
            #[cfg(target_arch = "x86_64")]
            let at = (*context).uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
            #[cfg(target_arch = "aarch64")]
            let at = (*context).uc_mcontext.pc as usize;
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let at = context.addr();
            place.times.fetch_add(1, Relaxed);
            place.instruction.store(at, Relaxed);
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: FROZEN_MS * 1_000_000,
            };
            libc::nanosleep(&time, std::ptr::null_mut());
            place.instruction.store(0, Relaxed);
        }
        *libc::__errno_location() = errno;
    }
}

/// From now on the calling thread stands still now and then.
pub fn begin(victim: usize) {
    ME.set(victim);
    // SAFETY: calls to the system as their manuals say.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = stand_still as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()),
            0
        );
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGUSR1;
        event.sigev_notify_thread_id = libc::syscall(libc::SYS_gettid) as i32;
        let mut timer: libc::timer_t = std::mem::zeroed();
        assert_eq!(
            libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &mut event, &mut timer),
            0
        );
        let every = libc::timespec {
            tv_sec: 0,
            tv_nsec: 137_000 + 10_000 * victim as i64,
        };
        let times = libc::itimerspec {
            it_interval: every,
            it_value: every,
        };
        assert_eq!(
            libc::timer_settime(timer, 0, &times, std::ptr::null_mut()),
            0
        );
    }
}

/// How long the calling thread was ready and had no processor, in nanoseconds: none of anybody's doing here.
pub struct Queue(libc::c_int);

impl Queue {
    pub fn of_this_thread() -> Queue {
        // SAFETY: a string that ends with 0.
        Queue(unsafe { libc::open(c"/proc/thread-self/schedstat".as_ptr(), libc::O_RDONLY) })
    }

    pub fn waited(&self) -> u64 {
        let mut text = [0_u8; 64];
        // SAFETY: a buffer of that length.
        let n = unsafe { libc::pread(self.0, text.as_mut_ptr().cast(), text.len(), 0) };
        let text = std::str::from_utf8(&text[..n.max(0) as usize]).unwrap_or("");
        text.split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }
}

/// The same of all threads of the library's, one after the other.
pub fn waited_by_the_library() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with("cancel-tree") {
            let text = read("schedstat");
            sum += text
                .split(' ')
                .nth(1)
                .and_then(|n| n.parse().ok())
                .unwrap_or(0_u64);
        }
    }
    sum
}

/// How long processors were not there though the system had work for them, in microseconds: a machine around this one has taken
/// them. All of them together.
fn stolen() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or("");
    let ticks = first.split_whitespace().nth(8).and_then(|n| n.parse().ok());
    // There are a hundred in a second.
    ticks.unwrap_or(0_u64) * 10_000
}

/// It is read from a file that is long where there are many processors, so not each time; and is noted there at ticks of theirs.
const STOLEN_IS_LOOKED_AT: Duration = Duration::from_millis(20);

/// A clock that leaves out the time in which the thread had no processor.
pub struct Clock {
    queue: Queue,
    waited: u64,
    looked: Instant,
    stolen: u64,
    looked_for_thieves: Instant,
}

impl Clock {
    pub fn new() -> Clock {
        let queue = Queue::of_this_thread();
        Clock {
            waited: queue.waited(),
            queue,
            looked: Instant::now(),
            stolen: stolen(),
            looked_for_thieves: Instant::now(),
        }
    }

    /// Before an operation.
    pub fn start(&mut self) -> Instant {
        let now = Instant::now();
        if (now - self.looked).as_micros() > 500 {
            self.looked = now;
            self.waited = self.queue.waited();
        }
        if now - self.looked_for_thieves > STOLEN_IS_LOOKED_AT {
            self.looked_for_thieves = now;
            self.stolen = stolen();
        }
        now
    }

    /// How long the operation took, in microseconds.
    pub fn micros_since(&mut self, start: Instant) -> u64 {
        let micros = start.elapsed().as_micros() as u64;
        if micros < 1_000 {
            return micros;
        }
        let before = std::mem::replace(&mut self.waited, self.queue.waited());
        self.looked = Instant::now();
        let micros = micros.saturating_sub((self.waited - before) / 1_000);
        if micros < LATE {
            return micros;
        }
        std::thread::sleep(STOLEN_IS_LOOKED_AT);
        let before = std::mem::replace(&mut self.stolen, stolen());
        self.looked_for_thieves = Instant::now();
        micros.saturating_sub(self.stolen - before)
    }
}
