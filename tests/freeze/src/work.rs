//! What threads do, all on the same trees: they hand tokens and contexts to each other through places that one swap
//! empties or fills.

use crate::cold::{waited_by_the_library, Clock};
use std::any::Any;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::AcqRel;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// The kinds of operation, in whose names lateness is reported.
pub const KINDS: [&str; 13] = [
    "create and drop",
    "clone and drop",
    "cancel",
    "park",
    "poll and drop",
    "set a deadline and drop it",
    "be told of a deadline",
    "callbacks",
    "drop what another thread made",
    "tasks of a group",
    "touch",
    "move a deadline",
    "wait until a deadline",
];
pub const CREATE: usize = 0;
pub const CLONE: usize = 1;
pub const CANCEL: usize = 2;
pub const PARK: usize = 3;
pub const POLL: usize = 4;
pub const DEADLINE: usize = 5;
pub const TOLD: usize = 6;
pub const CALLBACK: usize = 7;
pub const HANDED: usize = 8;
pub const GROUP: usize = 9;
pub const TOUCH: usize = 10;
pub const MOVE: usize = 11;
pub const WAIT: usize = 12;

/// Where one thread leaves something for another.
pub struct Mailbox<T>(AtomicPtr<T>);

impl<T> Mailbox<T> {
    pub const fn new() -> Mailbox<T> {
        Mailbox(AtomicPtr::new(ptr::null_mut()))
    }

    pub fn swap(&self, new: Option<T>) -> Option<T> {
        let new = new.map_or(ptr::null_mut(), |new| Box::into_raw(Box::new(new)));
        let old = self.0.swap(new, AcqRel);
        // SAFETY: who has swapped it out has it alone.
        (!old.is_null()).then(|| *unsafe { Box::from_raw(old) })
    }
}

/// A random number, good enough for choices.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What is asked to do the work: this crate, or another one for comparison.
pub trait Tree: Send + Sync + 'static {
    /// Which kinds it has.
    const KINDS: &'static [usize];

    fn new() -> Self;

    /// One operation of the kind; how late it was, in microseconds.
    fn run(&self, kind: usize, dice: &mut Dice, clock: &mut Clock) -> u64;
}

const PLACES: usize = 8;

/// This crate.
pub struct Ours {
    root: cancel_tree::CancellationToken,
    tokens: [Mailbox<cancel_tree::CancellationToken>; PLACES],
    contexts: [Mailbox<(cancel_tree::Context, cancel_tree::CancelGuard)>; PLACES],
    /// Whose deadline some wait for below, and others by themselves.
    short: [Mailbox<cancel_tree::Context>; PLACES],
    garbage: [Mailbox<Vec<cancel_tree::CancellationToken>>; PLACES],
    group: cancel_tree::Group,
    members: [Mailbox<cancel_tree::Member>; PLACES],
    idle: (cancel_tree::Context, cancel_tree::IdleGuard),
    moving: (cancel_tree::Context, cancel_tree::DeadlineGuard),
}

/// Neither passes while this runs.
const LONG: Duration = Duration::from_secs(3600);

impl Ours {
    /// A token that others have as well: one that was left here, or a new one.
    fn shared(&self, dice: &mut Dice) -> cancel_tree::CancellationToken {
        let place = &self.tokens[dice.roll(PLACES as u64) as usize];
        let token = place.swap(None);
        let token = token
            .filter(|token| !token.is_cancelled())
            .unwrap_or_else(|| self.root.child_token());
        drop(place.swap(Some(token.clone())));
        token
    }
}

/// With a deadline of any kind; and what keeps it.
fn short_lived(dice: &mut Dice) -> (cancel_tree::Context, Duration, Box<dyn Any>) {
    let timeout = Duration::from_micros(200 + dice.roll(1_500));
    let background = cancel_tree::Context::background();
    let (context, guard): (_, Box<dyn Any>) = match dice.roll(3) {
        0 => boxed(background.with_timeout(timeout)),
        1 => boxed(background.with_movable_deadline(Instant::now() + timeout)),
        _ => boxed(background.with_idle_timeout(timeout)),
    };
    (context, timeout, guard)
}

fn boxed<G: 'static>(pair: (cancel_tree::Context, G)) -> (cancel_tree::Context, Box<dyn Any>) {
    (pair.0, Box::new(pair.1))
}

fn poll_once<F: std::future::Future + Unpin>(future: &mut F) {
    let _ = std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
}

impl Tree for Ours {
    const KINDS: &'static [usize] = &[
        CREATE, CLONE, CANCEL, PARK, POLL, DEADLINE, TOLD, CALLBACK, HANDED, GROUP, TOUCH, MOVE,
        WAIT,
    ];

    fn new() -> Ours {
        let background = cancel_tree::Context::background();
        Ours {
            root: cancel_tree::CancellationToken::new(),
            tokens: [const { Mailbox::new() }; PLACES],
            contexts: [const { Mailbox::new() }; PLACES],
            short: [const { Mailbox::new() }; PLACES],
            garbage: [const { Mailbox::new() }; PLACES],
            group: cancel_tree::Group::new(&background),
            members: [const { Mailbox::new() }; PLACES],
            idle: background.with_idle_timeout(LONG),
            moving: background.with_movable_deadline(None),
        }
    }

    fn run(&self, kind: usize, dice: &mut Dice, clock: &mut Clock) -> u64 {
        use cancel_tree::CancellationToken as Token;
        let start = clock.start();
        let token = self.shared(dice);
        match kind {
            CREATE => {
                let children: [Token; 4] = std::array::from_fn(|_| token.child_token());
                drop(children[0].child_token());
                drop(children);
            }
            CLONE => {
                let clones = [token.clone(), token.clone()];
                drop(token);
                drop(clones);
            }
            CANCEL => {
                let top = token.child_token();
                let wide: Vec<Token> = (0..dice.roll(40)).map(|_| top.child_token()).collect();
                let any = Token::any_of([&top, &token, &self.shared(dice)]);
                let mut futures: Vec<_> = wide.iter().map(|token| token.cancelled()).collect();
                futures.iter_mut().map(unsafe_pin).for_each(poll_pinned);
                let callback = any.on_cancel(|| ());
                let whom = if dice.roll(4) == 0 { &token } else { &top };
                whom.cancel();
                assert!(top.is_cancelled() && any.is_cancelled());
                assert!(wide.iter().all(Token::is_cancelled));
                callback.stop();
            }
            PARK => {
                let timeout = Duration::from_micros(dice.roll(300));
                // Sleeping: what it takes beyond the timeout.
                token.blocking_wait_timeout(timeout);
                return clock
                    .micros_since(start)
                    .saturating_sub(timeout.as_micros() as u64);
            }
            POLL => {
                let mut futures: [_; 3] = std::array::from_fn(|_| token.clone().cancelled_owned());
                futures.iter_mut().for_each(poll_once);
                futures.iter_mut().for_each(poll_once);
                drop(futures);
            }
            DEADLINE => {
                let timeout = Duration::from_micros(500 + dice.roll(1 << 20));
                let context = token.context();
                let pair = context.with_timeout(timeout);
                // Dropped by this thread, or by another one.
                if dice.roll(2) == 0 {
                    let place = &self.contexts[dice.roll(PLACES as u64) as usize];
                    drop(place.swap(Some(pair)));
                } else {
                    drop(pair);
                }
            }
            TOLD => {
                // A token below waits without a deadline: for the timer, and beside whoever waits for the context. That the
                // scheduler lets the library's threads wait is not counted.
                let waited = waited_by_the_library();
                let start = clock.start();
                let (context, timeout, _guard) = short_lived(dice);
                let place = &self.short[dice.roll(PLACES as u64) as usize];
                drop(place.swap(Some(context.clone())));
                let below = context.child_token();
                let told = below.blocking_wait_timeout(Duration::from_secs(20));
                let late = clock
                    .micros_since(start)
                    .saturating_sub(timeout.as_micros() as u64);
                assert!(told, "a deadline that nobody was told of");
                let waited = waited_by_the_library().saturating_sub(waited) / 1_000;
                return late.saturating_sub(waited);
            }
            CALLBACK => {
                let top = token.child_token();
                let one = top.on_cancel(|| ());
                let two = token.on_cancel(|| ());
                let context = top.context();
                let later = context.after_func(|| ());
                one.stop();
                if dice.roll(2) == 0 {
                    top.cancel();
                }
                later.stop();
                two.stop();
            }
            GROUP => {
                // Tasks that end, that are dropped, and that another thread ends; and a look for who is there.
                let through = self.group.track(async {}).expect("it is open");
                let mut through = Box::pin(through);
                poll_once(&mut through);
                let ctx = token.context();
                let pending = self.group.track_with(|own| async move {
                    ctx.done().await;
                    drop(own);
                });
                let mut pending = Box::pin(pending.expect("it is open"));
                poll_once(&mut pending);
                drop(pending);
                let member = match dice.roll(2) {
                    0 => self.group.enter(),
                    _ => self.group.named("task").enter(),
                };
                let place = &self.members[dice.roll(PLACES as u64) as usize];
                drop(place.swap(member.ok()));
                // It joins its own, and waits for nobody but those of the whole.
                let own = cancel_tree::Group::new(self.group.context());
                let task = own.enter();
                drop(task);
                assert!(is_ready(own.join()), "all are gone, and it is not joined");
                let _ = is_ready(self.group.wait_idle());
            }
            TOUCH => {
                for _ in 0..16 {
                    self.idle.1.touch();
                }
                assert!(!self.idle.0.is_done());
            }
            MOVE => {
                let guard = &self.moving.1;
                let timeout = LONG + Duration::from_micros(dice.roll(1 << 30));
                assert!(guard.set_timeout(timeout) && guard.extend(LONG));
                assert!(dice.roll(4) != 0 || guard.take_away());
                assert!(!self.moving.0.is_done());
            }
            WAIT => {
                let waited = waited_by_the_library();
                let start = clock.start();
                let place = &self.short[dice.roll(PLACES as u64) as usize];
                let (context, _guard) = match place.swap(None) {
                    Some(context) => (context, None),
                    None => {
                        let (context, _, guard) = short_lived(dice);
                        (context, Some(guard))
                    }
                };
                let left = context.remaining().unwrap_or_default();
                let error = context.blocking_wait_timeout(Duration::from_secs(20));
                assert!(error.is_some(), "a deadline that nobody has noticed");
                let late = clock
                    .micros_since(start)
                    .saturating_sub(left.as_micros() as u64);
                let waited = waited_by_the_library().saturating_sub(waited) / 1_000;
                return late.saturating_sub(waited);
            }
            _ => {
                let place = &self.garbage[dice.roll(PLACES as u64) as usize];
                let mine = (0..8).map(|_| token.child_token()).collect();
                drop(place.swap(Some(mine)));
            }
        }
        clock.micros_since(start)
    }
}

/// By one poll.
fn is_ready<F: std::future::Future>(future: F) -> bool {
    let future = std::pin::pin!(future);
    future
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

/// A future in a vector that is not moved any more.
fn unsafe_pin<F>(future: &mut F) -> std::pin::Pin<&mut F> {
    // SAFETY: the callers' vectors stay where they are until they are dropped.
    unsafe { std::pin::Pin::new_unchecked(future) }
}

fn poll_pinned<F: std::future::Future>(future: std::pin::Pin<&mut F>) {
    let _ = future.poll(&mut Context::from_waker(Waker::noop()));
}

/// tokio-util's token, which has a mutex for each tree: what lateness looks like.
pub struct TokioUtil {
    root: tokio_util::sync::CancellationToken,
    tokens: [Mailbox<tokio_util::sync::CancellationToken>; PLACES],
}

impl Tree for TokioUtil {
    const KINDS: &'static [usize] = &[CREATE, CLONE, CANCEL, POLL];

    fn new() -> TokioUtil {
        TokioUtil {
            root: tokio_util::sync::CancellationToken::new(),
            tokens: [const { Mailbox::new() }; PLACES],
        }
    }

    fn run(&self, kind: usize, dice: &mut Dice, clock: &mut Clock) -> u64 {
        use tokio_util::sync::CancellationToken as Token;
        let start = clock.start();
        let place = &self.tokens[dice.roll(PLACES as u64) as usize];
        let token = place
            .swap(None)
            .filter(|token| !token.is_cancelled())
            .unwrap_or_else(|| self.root.child_token());
        drop(place.swap(Some(token.clone())));
        match kind {
            CREATE => {
                let children: [Token; 4] = std::array::from_fn(|_| token.child_token());
                drop(children[0].child_token());
                drop(children);
            }
            CLONE => {
                let clones = [token.clone(), token.clone()];
                drop(token);
                drop(clones);
            }
            CANCEL => {
                let top = token.child_token();
                let _wide: Vec<Token> = (0..dice.roll(40)).map(|_| top.child_token()).collect();
                let whom = if dice.roll(4) == 0 { &token } else { &top };
                whom.cancel();
                // Not that all is cancelled: it is not promised where another cancel is on its way.
            }
            _ => {
                let mut futures: Vec<_> = (0..3).map(|_| token.cancelled()).collect();
                futures.iter_mut().map(unsafe_pin).for_each(poll_pinned);
            }
        }
        clock.micros_since(start)
    }
}
