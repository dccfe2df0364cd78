//! A server's life in a hurry: requests with children, waiters and deadlines, cancelled and dropped by whatever thread.
//! Nobody is forgotten, memory stays flat, and at the end nothing is left.

mod counts;
mod heap;
mod load;
mod waiter;

use cancel_tree::{CancellationToken, Context};
use indicatif::ProgressBar;
use lexopt::{Arg, Parser, ValueExt};
use load::{Load, World, LIMIT};
use std::process;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{mpsc, Arc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const HELP: &str = "soak [--seconds N] [--threads N] [--parked N]

  --seconds N   how long the load lasts (10); it takes some more until the last threads of the library have gone
  --threads N   how many threads make it (2)
  --parked N    how many threads wait, parked, for what these do (4)";

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(50);
/// Deadlines that no request lives to see pass so long after the stop, or up to a second later.
const AFTER_STOP: Duration = Duration::from_secs(4);
/// When they have, and the library's workers have gone for want of work, it has no reason to keep memory; on a busy
/// machine it may take longer.
const SETTLES: Duration = Duration::from_secs(7);
const HAS_SETTLED: Duration = Duration::from_secs(60);

/// In both, memory may be more in the second half than in the first by a twentieth and so much: the load is random,
/// and an allocator has its habits.
const MORE_HEAP: u64 = 256 << 10;
const MORE_RESIDENT: u64 = 4 << 20;
/// In less time an allocator has not come to rest: the resident set says nothing then, and is not looked at.
const LONG_ENOUGH_FOR_RESIDENT: u64 = 20;
/// What may be left at the end: tables of the library's own threads, as large as they once had to be.
const MORE_AT_THE_END: u64 = 32 << 10;

/// The exit code where the heap has grown, and nothing else is wrong: `run.sh` looks again.
const GROWS: i32 = 3;

/// Says what is wrong, and ends the process: threads may hang.
fn fail(what: &str) -> ! {
    eprintln!("FAILED: {what}");
    process::exit(1);
}

struct Options {
    seconds: u64,
    threads: usize,
    parked: usize,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        seconds: 10,
        threads: 2,
        parked: 4,
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("seconds") => options.seconds = parser.value()?.parse()?,
            Arg::Long("threads") => options.threads = parser.value()?.parse::<usize>()?.max(1),
            Arg::Long("parked") => options.parked = parser.value()?.parse::<usize>()?.max(1),
            Arg::Long("help") | Arg::Short('h') => {
                println!("{HELP}");
                process::exit(0);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

/// Means of what was seen in some time.
#[derive(Default)]
struct Memory {
    samples: u64,
    heap: u64,
    resident: u64,
}

impl Memory {
    fn look(&mut self) {
        self.samples += 1;
        self.heap += heap::in_use();
        self.resident += heap::resident().unwrap_or(0);
    }

    fn means(&self) -> [u64; 2] {
        let samples = self.samples.max(1);
        [self.heap / samples, self.resident / samples]
    }
}

/// Sees that every thread gets on, or says what all are at.
struct Watchdog {
    seen: Vec<(u64, Instant)>,
}

impl Watchdog {
    fn look(&mut self, world: &World, threads: &[JoinHandle<()>]) {
        let turns = |at: usize| world.threads[at].turns.load(Relaxed);
        self.seen.resize(threads.len(), (0, Instant::now()));
        for (at, (thread, (seen, since))) in threads.iter().zip(&mut self.seen).enumerate() {
            // One that waits, parked, may do so until those have gone who make the load.
            let turns_now = match world.threads.get(at) {
                Some(_) => turns(at),
                None => (0..world.threads.len()).map(turns).sum(),
            };
            if *seen != turns_now || thread.is_finished() {
                (*seen, *since) = (turns_now, Instant::now());
            } else if since.elapsed() > LIMIT {
                eprintln!(
                    "thread {at} of {} has not moved for {LIMIT:?}",
                    threads.len()
                );
                for (at, shared) in world.threads.iter().enumerate() {
                    let over = if threads[at].is_finished() {
                        ", and is over"
                    } else {
                        ""
                    };
                    let step = *shared.step.lock().unwrap();
                    eprintln!("thread {at}: {step}{over}, after {} turns", turns(at));
                }
                fail("nothing moves");
            }
        }
    }
}

/// The load, for so long. Of the memory, the first fifth of the time is not looked at.
fn soak(options: &Options, lasts: Duration, progress: &ProgressBar) -> (Arc<World>, [Memory; 2]) {
    let begun = Instant::now();
    let (server, guard) = Context::background().with_cancel();
    let never = begun + lasts + AFTER_STOP;
    let world = Arc::new(World::new(server, options.threads, never));

    let mut threads = Vec::new();
    let (parkers, jobs): (Vec<_>, Vec<_>) =
        (0..options.parked).map(|_| mpsc::sync_channel(0)).unzip();
    for me in 0..options.threads {
        let load = Load::new(world.clone(), me, parkers.clone());
        threads.push(thread::spawn(|| load.run()));
    }
    drop(parkers);
    for jobs in jobs {
        let world = world.clone();
        threads.push(thread::spawn(move || waiter::park(jobs, &world.figures)));
    }

    let mut halves = <[Memory; 2]>::default();
    let mut watchdog = Watchdog { seen: Vec::new() };
    while !threads.iter().all(JoinHandle::is_finished) {
        thread::sleep(SAMPLE);
        let passed = begun.elapsed();
        if passed >= lasts {
            world.stop.store(true, Relaxed);
        } else if passed >= lasts * 3 / 5 {
            halves[1].look();
        } else if passed >= lasts / 5 {
            halves[0].look();
        }
        watchdog.look(&world, &threads);
        progress.set_position(passed.as_secs());
        progress.set_message(format!("{} requests", world.figures.requests.get()));
    }
    for thread in threads {
        if thread.join().is_err() {
            fail("a thread has panicked");
        }
    }
    for thread in &world.threads {
        thread.run_errands();
    }
    drop(guard);
    (world, halves)
}

/// Waits until no more of the heap is in use than that, and nothing of what is counted. Otherwise: what is left.
fn settle(heap: u64) -> Result<(), String> {
    thread::sleep(SETTLES);
    let since = Instant::now();
    loop {
        let (in_use, left) = (heap::in_use(), counts::left());
        if in_use <= heap && left.is_empty() {
            return Ok(());
        }
        if since.elapsed() > HAS_SETTLED {
            let more = in_use.saturating_sub(heap);
            return Err(format!(
                "{more} bytes too many of the heap in use, and alive: [{left}]"
            ));
        }
        thread::sleep(SAMPLE);
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

fn main() {
    let options = options().unwrap_or_else(|error| {
        eprintln!("{error}\n\n{HELP}");
        process::exit(2);
    });
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        fail("a panic");
    }));

    let progress = ProgressBar::new(options.seconds);
    // What is set up once and stays: the service thread, its wheel, this thread's parker.
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    ctx.blocking_wait();
    CancellationToken::new().blocking_wait_timeout(Duration::from_millis(1));
    drop(ctx);
    let baseline = heap::in_use();

    let (world, [first, second]) = soak(&options, Duration::from_secs(options.seconds), &progress);
    progress.set_message("waiting for the library's threads to settle");
    let figures = world.figures.to_string();
    drop(world);
    let settled = settle(baseline + MORE_AT_THE_END);
    progress.finish_and_clear();

    let [[heap, resident], [heap_then, resident_then]] = [first.means(), second.means()];
    let left = heap::in_use() as i64 - baseline as i64;
    println!(
        "{}, {} s, {} threads: {figures}; heap {} then {}, resident {} then {}; at the end {left} bytes more than at first",
        heap::NAME,
        options.seconds,
        options.threads,
        mib(heap),
        mib(heap_then),
        mib(resident),
        mib(resident_then),
    );
    if let Err(left) = settled {
        fail(&left);
    }
    let is_long_enough = options.seconds >= LONG_ENOUGH_FOR_RESIDENT;
    if is_long_enough && resident_then > resident + resident / 20 + MORE_RESIDENT {
        fail("the resident set grows");
    }
    if heap_then > heap + heap / 20 + MORE_HEAP {
        eprintln!("FAILED: more and more of the heap is in use");
        process::exit(GROWS);
    }
}
