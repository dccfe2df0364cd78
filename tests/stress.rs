//! Everything at once, from several real threads, on trees that they share. What must hold of any
//! interleaving is checked: nobody who waits below a cancelled token sleeps on, and what was
//! registered, as waker, callback or cause, is gone once the last token is.
//!
//! `STRESS_SECONDS` says how long (2 by default), `STRESS_THREADS` how many (4).

use cancel_tree::{CancellationToken, Cause, Registration, WaitForCancellationFutureOwned};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// How many of a kind are alive.
#[derive(Default)]
struct Census(AtomicIsize);

/// One that is counted.
struct Counted(Arc<Census>);

impl Counted {
    fn new(census: &Arc<Census>) -> Counted {
        census.0.fetch_add(1, Ordering::Relaxed);
        Counted(census.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0 .0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted")
    }
}

impl std::error::Error for Counted {}

struct Alarm {
    woken: AtomicBool,
    _counted: Counted,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
    }
}

/// A future that was polled, and what it was polled with last.
struct Sleeper {
    future: WaitForCancellationFutureOwned,
    token: CancellationToken,
    alarm: Arc<Alarm>,
    pending: bool,
}

impl Sleeper {
    fn new(token: CancellationToken, alarms: &Arc<Census>) -> Sleeper {
        let mut sleeper = Sleeper {
            future: token.clone().cancelled_owned(),
            token,
            alarm: Sleeper::alarm(alarms),
            pending: false,
        };
        sleeper.poll();
        sleeper
    }

    fn alarm(alarms: &Arc<Census>) -> Arc<Alarm> {
        Arc::new(Alarm {
            woken: AtomicBool::new(false),
            _counted: Counted::new(alarms),
        })
    }

    fn poll(&mut self) {
        let waker = Waker::from(self.alarm.clone());
        let polled = Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker));
        self.pending = polled == Poll::Pending;
        assert!(
            self.pending || self.token.is_cancelled(),
            "ready, but not cancelled"
        );
    }

    /// All cancels have returned: has this one been heard?
    fn check(&self) {
        if self.pending && self.token.is_cancelled() {
            assert!(self.alarm.woken.load(Ordering::Acquire), "a lost wake-up");
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

struct World {
    /// Every other round has `any_of` tokens, and cancels all roots at its end: a callback that was
    /// left on such a token keeps it until then. The other rounds drop everything uncancelled.
    with_any_of: bool,
    roots: Mutex<Vec<CancellationToken>>,
    shared: Mutex<Vec<CancellationToken>>,
    alarms: Arc<Census>,
    causes: Arc<Census>,
    callbacks: Arc<Census>,
    ran: AtomicUsize,
}

impl World {
    fn any(&self, random: &mut Random) -> CancellationToken {
        let shared = self.shared.lock().unwrap();
        shared[random.below(shared.len())].clone()
    }

    fn root(&self) -> CancellationToken {
        let root = CancellationToken::new();
        if self.with_any_of {
            self.roots.lock().unwrap().push(root.clone());
        }
        root
    }

    /// Shares a token; who is pushed out for it is dropped after the lock is released.
    fn share(&self, token: CancellationToken, random: &mut Random) {
        let mut shared = self.shared.lock().unwrap();
        let old = if shared.len() < 40 {
            shared.push(token);
            None
        } else {
            let place = random.below(shared.len());
            Some(std::mem::replace(&mut shared[place], token))
        };
        drop(shared);
        drop(old);
    }
}

#[derive(Default)]
struct Mine {
    tokens: Vec<CancellationToken>,
    sleepers: Vec<Sleeper>,
    registrations: Vec<Registration>,
}

fn step(world: &Arc<World>, mine: &mut Mine, random: &mut Random) {
    let token = world.any(random);
    match random.below(26) {
        0..=5 => mine.tokens.push(token.child_token()),
        6..=7 => {
            let child = token.child_token();
            mine.tokens.push(child.child_token());
            mine.tokens.push(child);
        }
        8 => world.share(token.child_token(), random),
        9 => world.share(world.root(), random),
        10 => {
            token.cancel();
            assert!(token.is_cancelled());
            assert!(token.child_token().is_cancelled());
        }
        11 => {
            token.cancel_with(Cause::new(Counted::new(&world.causes)));
            assert!(token.cause().is_some());
            assert!(token.child_token().cause().is_some());
        }
        12..=14 => mine.sleepers.push(Sleeper::new(token, &world.alarms)),
        15 => {
            if !mine.sleepers.is_empty() {
                let place = random.below(mine.sleepers.len());
                if random.below(2) == 0 {
                    mine.sleepers[place].alarm = Sleeper::alarm(&world.alarms);
                }
                mine.sleepers[place].poll();
            }
        }
        16 => {
            let counted = Counted::new(&world.callbacks);
            let w = world.clone();
            let mut inner = Random(random.0 | 1);
            mine.registrations.push(token.on_cancel(move || {
                let _counted = counted;
                w.ran.fetch_add(1, Ordering::Relaxed);
                // Callbacks use the tree as well.
                let other = w.any(&mut inner);
                let _child = other.child_token();
                if inner.below(8) == 0 {
                    other.cancel();
                }
            }));
        }
        17 => {
            if let Some(registration) = mine.registrations.pop() {
                match random.below(3) {
                    0 => drop(registration.stop()),
                    // Nobody waits for this thread inside a callback, so this ends.
                    1 => drop(registration.stop_on_drop()),
                    _ => drop(registration),
                }
            }
        }
        18 if world.with_any_of => {
            let (a, b) = (world.any(random), world.any(random));
            let any = CancellationToken::any_of([&token, &a, &b]);
            if random.below(2) == 0 {
                mine.sleepers.push(Sleeper::new(any.clone(), &world.alarms));
            }
            world.share(any, random);
        }
        19 => {
            token.blocking_wait_timeout(Duration::from_micros(1));
        }
        _ => {
            if !mine.tokens.is_empty() {
                let place = random.below(mine.tokens.len());
                mine.tokens.swap_remove(place);
            }
            if mine.sleepers.len() > 30 {
                let place = random.below(mine.sleepers.len());
                mine.sleepers.swap_remove(place);
            }
            if mine.tokens.len() > 60 {
                mine.tokens.truncate(20);
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

#[test]
fn everything_at_once() {
    let deadline = Instant::now() + Duration::from_secs(number("STRESS_SECONDS", 2));
    let threads = number("STRESS_THREADS", 4);
    let mut rounds = 0;
    let mut ran = 0;
    while Instant::now() < deadline {
        rounds += 1;
        let world = Arc::new(World {
            with_any_of: rounds % 2 == 0,
            roots: Mutex::default(),
            shared: Mutex::default(),
            alarms: Arc::default(),
            causes: Arc::default(),
            callbacks: Arc::default(),
            ran: AtomicUsize::new(0),
        });
        let first = world.root();
        world.shared.lock().unwrap().push(first);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let world = world.clone();
                std::thread::spawn(move || {
                    let mut random = Random((rounds * 64 + thread + 1).wrapping_mul(0x9E37_79B9));
                    let mut mine = Mine::default();
                    for _ in 0..3_000 {
                        step(&world, &mut mine, &mut random);
                    }
                    mine
                })
            })
            .collect();
        let mine: Vec<Mine> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect();
        // All cancels have returned.
        for sleeper in mine.iter().flat_map(|mine| &mine.sleepers) {
            sleeper.check();
        }
        drop(mine);
        for root in std::mem::take(&mut *world.roots.lock().unwrap()) {
            root.cancel();
        }
        world.shared.lock().unwrap().clear();
        ran += world.ran.load(Ordering::Relaxed);
        for (what, census) in [
            ("wakers", &world.alarms),
            ("causes", &world.causes),
            ("callbacks", &world.callbacks),
        ] {
            assert_eq!(census.0.load(Ordering::Relaxed), 0, "{what} are left");
        }
    }
    println!("{rounds} rounds, {ran} callbacks ran");
    assert!(rounds > 0 && ran > 0);
}
