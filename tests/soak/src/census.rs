//! How many of each kind are alive, by what their drops say.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Request,
    Token,
    Value,
    Cause,
    Waker,
    Callback,
}

pub const KINDS: [(Kind, &str); 6] = [
    (Kind::Request, "requests"),
    (Kind::Token, "tokens"),
    (Kind::Value, "values"),
    (Kind::Cause, "causes"),
    (Kind::Waker, "wakers"),
    (Kind::Callback, "callbacks"),
];

static ALIVE: [CachePadded<AtomicIsize>; KINDS.len()] =
    [const { CachePadded::new(AtomicIsize::new(0)) }; KINDS.len()];

/// One of them.
#[derive(Debug)]
pub struct Counted(Kind);

impl Counted {
    pub fn new(kind: Kind) -> Counted {
        ALIVE[kind as usize].fetch_add(1, Relaxed);
        Counted(kind)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE[self.0 as usize].fetch_sub(1, Relaxed);
    }
}

/// Those of which there are some, or too few: "3 values, -1 wakers". None if all are gone.
pub fn left() -> Option<String> {
    let left: Vec<String> = KINDS
        .iter()
        .map(|(kind, name)| (ALIVE[*kind as usize].load(Relaxed), name))
        .filter(|(alive, _)| *alive != 0)
        .map(|(alive, name)| format!("{alive} {name}"))
        .collect();
    (!left.is_empty()).then(|| left.join(", "))
}

/// Something with a count of its own.
pub struct Live<T> {
    pub it: T,
    _counted: Counted,
}

impl<T> Live<T> {
    pub fn new(kind: Kind, it: T) -> Live<T> {
        Live {
            it,
            _counted: Counted::new(kind),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.it.fmt(f)
    }
}
