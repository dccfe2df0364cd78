//! Who is measured: one trait, the list of those who have it, and who is left out of what, and why.
//!
//! A contender is a file beside this one, of a type that is a [`CancelTree`], and its two lines here: its `mod`, and
//! its name in [`each`]. [`check`] then holds it to what the trait promises before it is measured.

// Each bench has its own copy of this, and not all need everything.
#![allow(dead_code, unused_imports, unused_macros)]

mod cancel_tree;
mod chain;
pub mod check;
mod contender;
mod event_listener;
mod halo_core;
mod mutex_tree;
mod stop_token;
mod tokio_util;
mod watch;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::BenchmarkGroup;

pub use contender::{CancelTree, Need};

/// What `mutex_tree` is made of. `benches/scale` has the same with counters.
mod sync {
    pub use std::sync::atomic::AtomicBool;
    pub use std::sync::{Arc, Mutex, MutexGuard, Weak};
}

/// Something to do with each contender; a closure cannot be generic.
pub trait Visitor {
    fn visit<T: CancelTree>(&mut self);
}

/// The list. Those with aims come first: the shorter pace of the others stays with a group of benchmarks.
pub fn each(visitor: &mut impl Visitor) {
    visitor.visit::<cancel_tree::Token>();
    visitor.visit::<tokio_util::Token>();
    visitor.visit::<event_listener::Token>();
    visitor.visit::<watch::Token>();
    visitor.visit::<stop_token::Token>();
    visitor.visit::<halo_core::Token>();
    visitor.visit::<mutex_tree::Token>();
}

/// Runs a generic benchmark, named as its group is, for each contender that has what it needs, side by side in time,
/// so that a slow drift of the machine does not end up in their ratio.
macro_rules! each_contender {
    ($bench:ident, $group:expr, [$($need:ident),*]) => {{
        struct Run<'a, 'b>(&'a mut Group<'b>);

        impl $crate::contenders::Visitor for Run<'_, '_> {
            fn visit<T: CancelTree>(&mut self) {
                let needs = [$($crate::contenders::Need::$need),*];
                if $crate::contenders::can::<T>(stringify!($bench), &needs) {
                    if !T::HAS_AIMS {
                        $crate::contenders::hurry(self.0);
                    }
                    $bench::<T>(self.0);
                }
            }
        }

        $crate::contenders::each(&mut Run($group));
    }};
}
pub(crate) use each_contender;

/// The pace of those that there is no aim against.
pub fn hurry(group: &mut BenchmarkGroup<'_, WallTime>) {
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
}

/// A contender that did not take part.
#[derive(Clone, Copy)]
pub struct LeftOut {
    pub of: &'static str,
    pub name: &'static str,
    pub because: &'static str,
}

static LEFT_OUT: Mutex<Vec<LeftOut>> = Mutex::new(Vec::new());

/// Those that [`can`] has turned down.
pub fn left_out() -> MutexGuard<'static, Vec<LeftOut>> {
    LEFT_OUT.lock().expect("nobody panics with it")
}

/// Whether the contender has what is needed for `what`; if not, that is written down with the reason.
pub fn can<T: CancelTree>(what: &'static str, needs: &[Need]) -> bool {
    let cannot = why_not::<T>(needs);
    if let Some(because) = cannot {
        left_out().push(LeftOut {
            of: what,
            name: T::NAME,
            because,
        });
    }
    cannot.is_none()
}

/// The reason why the contender cannot do what is needed, if it cannot.
pub fn why_not<T: CancelTree>(needs: &[Need]) -> Option<&'static str> {
    let lacks = T::LACKS.iter().find(|(lack, _)| needs.contains(lack));
    lacks.map(|&(_, because)| because)
}
