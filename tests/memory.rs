//! What a parent keeps: nodes are counted by a global allocator of this test's own, by their
//! size. One test, so that nothing else allocates meanwhile.

use cancel_tree::CancellationToken;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

struct Counting;

/// Bytes allocated with the sizes that chunks of nodes have.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Eight words.
const NODE: usize = size_of::<[usize; 8]>();

fn is_chunk(layout: Layout) -> bool {
    let nodes = layout.size() / NODE;
    layout.size() % NODE == 0 && nodes.is_power_of_two() && nodes <= 64 && layout.align() >= 16
}

// SAFETY: hands on to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_chunk(layout) {
            BYTES.fetch_add(layout.size(), Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_chunk(layout) {
            BYTES.fetch_sub(layout.size(), Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn nodes() -> usize {
    BYTES.load(Relaxed) / NODE
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }
}

/// Each thread makes and drops children in random order.
fn random_churn(parent: &CancellationToken, seed: u64, peak: usize, rounds: usize) {
    let mut random = Random(seed * 7919 + 1);
    let mut mine = Vec::with_capacity(peak);
    for _ in 0..rounds {
        if mine.len() < peak && (mine.is_empty() || random.next() % 2 == 0) {
            mine.push(parent.child_token());
        } else {
            let place = random.next() as usize % mine.len();
            mine.swap_remove(place);
        }
    }
}

/// Each thread drops what its neighbour has made.
fn hand_over(
    parent: &CancellationToken,
    queues: &[Mutex<VecDeque<CancellationToken>>],
    me: usize,
    peak: usize,
    rounds: usize,
) {
    for _ in 0..rounds {
        let child = parent.child_token();
        let mut theirs = queues[(me + 1) % queues.len()].lock().unwrap();
        if theirs.len() < peak {
            theirs.push_back(child);
        }
        drop(theirs);
        let child = queues[me].lock().unwrap().pop_front();
        drop(child);
    }
}

#[test]
fn a_parent_keeps_a_small_multiple_of_its_peak() {
    const ROUNDS: usize = 200_000;
    for threads in [1, 2, 4, 8] {
        for peak in [1, 8, 100, 1000] {
            for handing_over in [false, true] {
                let before = nodes();
                let parent = CancellationToken::new();
                let queues: Arc<Vec<_>> =
                    Arc::new((0..threads).map(|_| Mutex::default()).collect());
                let workers: Vec<_> = (0..threads)
                    .map(|me| {
                        let (parent, queues) = (parent.clone(), queues.clone());
                        std::thread::spawn(move || {
                            let rounds = ROUNDS / threads;
                            if handing_over {
                                hand_over(&parent, &queues, me, peak, rounds);
                            } else {
                                random_churn(&parent, me as u64, peak, rounds);
                            }
                        })
                    })
                    .collect();
                for worker in workers {
                    worker.join().unwrap();
                }
                let kept = nodes() - before;
                // And 64 shards, if threads got into each other's way, each with its first chunks.
                let limit = 4 * (peak + 1) * threads + 64 + 32 * threads;
                assert!(
                    kept <= limit,
                    "{threads} threads, peak {peak} each, handing over: {handing_over}: \
                     {kept} nodes, more than {limit}"
                );
                queues
                    .iter()
                    .for_each(|queue| queue.lock().unwrap().clear());
                drop(parent);
                assert_eq!(nodes(), before, "nodes are left");
            }
        }
    }

    // A place that is free keeps no more than a request's few children below it.
    let before = nodes();
    let parent = CancellationToken::new();
    for grandchildren in [3, 7, 8, 100] {
        for cancel in [false, true] {
            let child = parent.child_token();
            let below: Vec<_> = (0..grandchildren).map(|_| child.child_token()).collect();
            if cancel {
                child.cancel();
            }
            drop(below);
            drop(child);
            assert!(nodes() - before <= 2 + 7, "{} nodes", nodes() - before);
        }
    }
    drop(parent);
    assert_eq!(nodes(), before, "nodes are left");

    for peak in [20, 200, 1000] {
        for burst in [2, 27, 137] {
            waiters_come_and_go(peak, burst);
        }
    }
}

/// The waiters of one token need the room of their peak number, in whatever order they come and go.
fn waiters_come_and_go(peak: usize, burst: usize) {
    let before = nodes();
    let token = CancellationToken::new();
    let waiting = || {
        let mut future = Box::pin(token.cancelled());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        future
    };
    let mut random = Random(7);
    let mut all: VecDeque<_> = (0..peak + burst).map(|_| waiting()).collect();
    all.truncate(peak);
    let at_first = nodes();
    for round in 0..1000 {
        match round % 4 {
            // The oldest go; then any.
            0 => drop(all.drain(..burst.min(peak))),
            1 => (0..burst.min(peak)).for_each(|_| {
                let i = random.next() as usize % all.len();
                all.swap_remove_back(i);
            }),
            // One comes back, and others come for a moment.
            2 => drop(all.remove(random.next() as usize % peak)),
            _ => drop((0..burst).map(|_| waiting()).collect::<Vec<_>>()),
        }
        while all.len() < peak {
            all.push_back(waiting());
        }
    }
    let more = nodes() - at_first;
    // One room, for the places of the first few that nobody takes again once there are rooms.
    assert!(
        more <= 8,
        "{peak} waiters in bursts of {burst}: {more} nodes"
    );
    drop(all);
    drop(token);
    assert_eq!(nodes(), before, "nodes are left");
}
