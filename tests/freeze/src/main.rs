//! Some threads stand still at any instruction for a tenth of a second at a time; two others do the same operations on
//! the same trees. If one of theirs takes as long, it has waited for a thread that stood still.
//!
//!     freeze [SECONDS] [ours]          fails if an operation was late
//!     freeze [SECONDS] between         the same pauses, but between operations: fails if one was late, which is the machine's doing
//!     freeze [SECONDS] tokio-util      the same with tokio-util's token: fails if none was

mod cold;
mod heap;
mod work;

use cold::{Clock, FROZEN_MS, LATE, PLACES};
use std::collections::BTreeMap;
use std::process::exit;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use work::{Dice, Ours, TokioUtil, Tree, KINDS};

#[global_allocator]
static HEAP: heap::Heap = heap::Heap;

/// About as long a thread works between two pauses: the system looks at its time at each of its ticks.
const WARM: Duration = Duration::from_millis(4);
/// How many threads are never frozen.
const FREE: usize = 2;

#[derive(Default, Clone)]
struct Figures {
    count: u64,
    slowest: u64,
    late: u64,
    /// What stood still at the end of such an operation: the kind, the instruction.
    suspects: BTreeMap<(usize, usize), u64>,
}

/// Where the program was loaded: an instruction less this is what addr2line wants.
fn base() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let first = maps.split('-').next().unwrap_or("");
    usize::from_str_radix(first, 16).unwrap_or(0)
}

fn measure<T: Tree>(tree: &T, number: usize, stop: &AtomicBool) -> Vec<Figures> {
    let mut figures = vec![Figures::default(); KINDS.len()];
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (number as u64) << 32);
    let mut clock = Clock::new();
    let mut seen: Vec<u64> = Vec::new();
    while !stop.load(Relaxed) {
        // Those that sleep, less often.
        let mut kind = T::KINDS[dice.roll(T::KINDS.len() as u64) as usize];
        if matches!(kind, work::PARK | work::TOLD) && dice.roll(64) != 0 {
            kind = work::CREATE;
        }
        seen.clear();
        seen.extend(
            PLACES
                .iter()
                .map(|place| place.instruction.load(Relaxed) as u64),
        );
        let micros = tree.run(kind, &mut dice, &mut clock);
        let figures = &mut figures[kind];
        figures.count += 1;
        figures.slowest = figures.slowest.max(micros);
        if micros >= LATE {
            figures.late += 1;
            for (victim, before) in seen.iter().enumerate() {
                // Frozen before, or at this moment still.
                let now = PLACES[victim].instruction.load(Relaxed);
                for at in [*before as usize, now] {
                    if at != 0 {
                        *figures.suspects.entry((victim, at)).or_default() += 1;
                    }
                }
            }
        }
    }
    figures
}

fn run<T: Tree>(seconds: u64, between: bool) -> u64 {
    let tree = Arc::new(T::new());
    let stop = Arc::new(AtomicBool::new(false));
    // The library's own threads start before anybody stands still.
    for kind in T::KINDS {
        tree.run(*kind, &mut Dice(1), &mut Clock::new());
    }
    for (victim, kind) in T::KINDS.iter().copied().enumerate() {
        let (tree, stop) = (tree.clone(), stop.clone());
        // Not joined: it may stand still for a while yet.
        thread::spawn(move || {
            let mut dice = Dice(77 + victim as u64);
            let mut clock = Clock::new();
            if between {
                while !stop.load(Relaxed) {
                    let begun = Instant::now();
                    while begun.elapsed() < WARM {
                        tree.run(kind, &mut dice, &mut clock);
                    }
                    PLACES[victim].times.fetch_add(1, Relaxed);
                    thread::sleep(Duration::from_millis(FROZEN_MS as u64));
                }
            }
            cold::begin(victim);
            while !stop.load(Relaxed) {
                tree.run(kind, &mut dice, &mut clock);
            }
        });
    }
    let free: Vec<_> = (0..FREE)
        .map(|number| {
            let (tree, stop) = (tree.clone(), stop.clone());
            thread::spawn(move || measure(&*tree, number, &stop))
        })
        .collect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Relaxed);
    let mut all = vec![Figures::default(); KINDS.len()];
    for thread in free {
        for (sum, one) in all.iter_mut().zip(thread.join().expect("a panic")) {
            sum.count += one.count;
            sum.late += one.late;
            sum.slowest = sum.slowest.max(one.slowest);
            for (suspect, times) in one.suspects {
                *sum.suspects.entry(suspect).or_default() += times;
            }
        }
    }
    println!(
        "{:<30} {:>6} {:>12} {:>12} {:>6}",
        "", "frozen", "measured", "slowest", "late"
    );
    let mut late = 0;
    for kind in T::KINDS.iter().copied() {
        let figures = &all[kind];
        let victim = T::KINDS
            .iter()
            .position(|other| *other == kind)
            .unwrap_or(0);
        let frozen = PLACES[victim].times.load(Relaxed);
        println!(
            "{:<30} {frozen:>6} {:>12} {:>9} µs {:>6}",
            KINDS[kind], figures.count, figures.slowest, figures.late
        );
        late += figures.late;
        if frozen == 0 || figures.count == 0 {
            println!("FAILED: nothing was frozen, or nothing measured");
            exit(1);
        }
        let mut suspects: Vec<_> = figures.suspects.iter().collect();
        suspects.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        for ((victim, at), times) in suspects.into_iter().take(8) {
            println!(
                "    {times} times while \"{}\" stood still at {:#x}",
                KINDS[T::KINDS[*victim]],
                at.wrapping_sub(base())
            );
        }
    }
    late
}

/// The exit code of what another attempt may find otherwise.
const AS_TIME_GOES: i32 = 3;

fn main() {
    // Threads that stand still are not joined, so nobody else would hear of a panic there.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        exit(101);
    }));
    let mut args = std::env::args().skip(1);
    let seconds = args
        .next()
        .map_or(12, |seconds| seconds.parse().expect("seconds"));
    match args.next().as_deref() {
        Some("between") => {
            if run::<Ours>(seconds, true) > 0 {
                println!("operations were late though nobody stood still in the middle of one");
                exit(AS_TIME_GOES);
            }
        }
        None | Some("ours") => {
            if run::<Ours>(seconds, false) > 0 {
                println!("FAILED: operations were late because another thread stood still");
                exit(AS_TIME_GOES);
            }
        }
        Some("tokio-util") => {
            if run::<TokioUtil>(seconds, false) == 0 {
                println!("FAILED: a tree with a mutex was not found late");
                exit(AS_TIME_GOES);
            }
        }
        Some(other) => panic!("ours, between or tokio-util, not {other}"),
    }
    // Threads may stand still.
    exit(0);
}
