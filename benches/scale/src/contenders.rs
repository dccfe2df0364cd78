//! Those that are counted: this crate, and the textbook's tree.

// They can more than is asked here.
#![allow(dead_code, unused_imports)]

#[path = "../../contenders/cancel_tree.rs"]
pub mod cancel_tree;
#[path = "../../contenders/contender.rs"]
mod contender;
#[path = "../../contenders/mutex_tree.rs"]
pub mod mutex_tree;

pub use contender::{CancelTree, Need};

pub fn is_ours(contender: &str) -> bool {
    contender == <cancel_tree::Token as CancelTree>::NAME
}

/// What the mutex tree is made of.
#[cfg(not(cancel_tree_counting))]
mod sync {
    pub use std::sync::atomic::AtomicBool;
    pub use std::sync::{Arc, Mutex, MutexGuard, Weak};
}
#[cfg(cancel_tree_counting)]
use crate::counted as sync;
