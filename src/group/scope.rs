//! Threads that borrow from the stack.

use super::group::Group;
use super::refused::Refused;
use super::spawner::{Main, Spawner};
use super::task::Outcome;
use crate::context::Context;
use crate::tree::Cause;
use core::fmt;
use std::thread;

/// Starts threads that borrow from the stack of the caller of [`Group::scope`]. A clone may be given to such a
/// thread, to start further ones.
#[derive(Clone)]
pub struct Scope<'scope, 'env: 'scope> {
    threads: &'scope thread::Scope<'scope, 'env>,
    spawner: Spawner,
}

impl Group {
    /// Runs `f` with a group of threads that may borrow from the caller, and returns when all of them are gone. It is built
    /// on [`std::thread::scope`].
    ///
    /// The first error of a thread, a panic of one, or a panic of `f` cancels the group, so that the others can stop.
    ///
    /// ```
    /// use cancel_tree::{Context, Group};
    /// let words = ["tea", "coffee"];
    /// let total = std::sync::atomic::AtomicUsize::new(0);
    /// Group::scope(&Context::background(), |g| {
    ///     for word in &words {
    ///         let total = &total;
    ///         g.spawn_thread(move |_ctx| {
    ///             total.fetch_add(word.len(), std::sync::atomic::Ordering::Relaxed);
    ///         }).unwrap();
    ///     }
    /// }).unwrap();
    /// assert_eq!(total.into_inner(), 9);
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Group::join`].
    ///
    /// # Panics
    ///
    /// With the panic of `f` or of a thread, after all are gone.
    pub fn scope<'env, F, T>(ctx: &Context, f: F) -> Result<T, Cause>
    where
        F: for<'scope> FnOnce(&Scope<'scope, 'env>) -> T,
    {
        thread::scope(|threads| {
            // Dropped, and so cancelled, before std waits for the threads if `f` panics.
            let group = Group::new(ctx);
            let spawner = group.spawner();
            let answer = f(&Scope { threads, spawner });
            group.join_blocking().map(|()| answer)
        })
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Returns the group's context.
    pub fn context(&self) -> &Context {
        self.spawner.context()
    }

    /// Starts a thread that is a task of the group: see [`Spawner::spawn_thread`].
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn spawn_thread<F, R>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> R + Send + 'scope,
        R: Outcome,
    {
        let spawn = |builder: thread::Builder, main: Main<'scope>| {
            builder.spawn_scoped(self.threads, main).map(drop)
        };
        self.spawner.start().spawn_thread(f, spawn)
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scope").field(&self.spawner).finish()
    }
}
