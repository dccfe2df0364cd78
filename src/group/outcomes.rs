//! Typed outcomes, one by one, as they come.

use super::group::{cause_of, until, Group};
use super::info::TaskInfo;
use super::member::Member;
use super::place::End;
use super::refused::Refused;
use super::spawner::{block_on_until, spawn_detached, start_thread, with_work, Spawner};
use crate::context::Context;
use crate::sync::{Acquire, Arc, AtomicPtr, AtomicU64, OneWaiter, Panics, Relaxed, Release};
use crate::tree::Cause;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::future::{poll_fn, Future};
use core::ptr;
use core::task::{self, Poll};

/// # Starting tasks whose outcomes are taken
impl Group {
    /// Returns a way to start tasks of this group whose outcomes are taken one by one, as they come.
    #[must_use]
    pub fn outcomes<T: Send + 'static>(&self) -> Outcomes<T> {
        Outcomes::new(self.spawner(), false)
    }

    /// Returns a way to start tasks of this group of which only the first success matters: see [`Outcomes::winner`]. Their errors cancel nothing, and
    /// are not errors of the group.
    #[must_use]
    pub fn race<T: Send + 'static>(&self) -> Outcomes<T> {
        Outcomes::new(self.spawner(), true)
    }
}

/// Starts tasks of a group, and returns their outcomes one by one, as they come; made by [`Group::outcomes`] or [`Group::race`].
///
/// Tasks are started as in the group: by `track`, `track_with`, `spawn_thread`, and with tokio `spawn` and `spawn_blocking`.
///
/// ```
/// use cancel_tree::{Cause, Context, Group};
/// let group = Group::new(&Context::background());
/// let mut sizes = group.outcomes();
/// for text in ["tea", "coffee"] {
///     sizes.spawn_thread(move |_ctx| Ok::<_, Cause>(text.len())).unwrap();
/// }
/// let mut total = 0;
/// while let Some(size) = sizes.next_blocking() {
///     total += size.unwrap();
/// }
/// assert_eq!(total, 9);
/// ```
pub struct Outcomes<T> {
    queue: Arc<Queue<T>>,
    /// What was taken out, the oldest first.
    ready: *mut Node<T>,
    /// How many tasks have a sender: counted by whoever has a reference to this.
    made: AtomicU64,
    /// Of how many the outcome was seen.
    seen: u64,
}

// SAFETY: `ready` is a list of boxes that are this one's own; the values are Send.
unsafe impl<T: Send> Send for Outcomes<T> {}
// SAFETY: `&Outcomes` hands out no value.
unsafe impl<T: Send> Sync for Outcomes<T> {}

/// The outcomes that have come, and the tasks that are still there.
#[derive(Debug)]
#[non_exhaustive]
pub struct Partial<T> {
    /// In the order in which they came.
    pub outcomes: Vec<Result<T, Cause>>,
    /// Tasks of the group that are still there; none if all outcomes have come. One that ends meanwhile may be here beside its outcome.
    pub missing: Vec<TaskInfo>,
    /// Why the wait ended, if not all outcomes have come.
    pub cause: Option<Cause>,
}

struct Node<T> {
    outcome: Result<T, Cause>,
    next: *mut Node<T>,
}

struct Queue<T> {
    /// The newest first.
    newest: AtomicPtr<Node<T>>,
    waiter: OneWaiter,
    /// The group whose tasks they are of.
    spawner: Spawner,
    /// The first success ends the group, and errors are not the group's.
    is_race: bool,
}

// SAFETY: the nodes are handed from one thread to another; nobody shares a value.
unsafe impl<T: Send> Send for Queue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Queue<T> {}

impl<T> Queue<T> {
    fn push(&self, outcome: Result<T, Cause>) {
        let next = ptr::null_mut();
        let node = Box::into_raw(Box::new(Node { outcome, next }));
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.newest.load(Relaxed);
        loop {
            // SAFETY: made above, and not shared yet.
            unsafe { (*node).next = seen };
            // Release: pairs with the swap in `take_all`. What is linked to comes with it, by the release sequence: all steps on
            // `newest` are RMWs.
            match self
                .newest
                .compare_exchange_weak(seen, node, Release, Relaxed)
            {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        // The waker is the reader's: its panic is not the task's.
        let failures = &self.spawner.body().failures;
        failures.saying_panics(|| self.waiter.wake());
    }

    /// What has come, the newest first; the list is the caller's.
    fn take_all(&self) -> *mut Node<T> {
        // Acquire: pairs with `push`.
        self.newest.swap(ptr::null_mut(), Acquire)
    }
}

// Values are handed over whole: whoever has one has it alone.
impl<T> core::panic::UnwindSafe for Outcomes<T> {}
impl<T> core::panic::RefUnwindSafe for Outcomes<T> {}

impl<T: Send + 'static> Outcomes<T> {
    pub(super) fn new(spawner: Spawner, is_race: bool) -> Outcomes<T> {
        Outcomes {
            queue: Arc::new(Queue {
                newest: AtomicPtr::new(ptr::null_mut()),
                waiter: OneWaiter::default(),
                spawner,
                is_race,
            }),
            ready: ptr::null_mut(),
            made: AtomicU64::new(0),
            seen: 0,
        }
    }

    /// Like [`Spawner::track`], with the outcome for [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn track<F, E>(
        &self,
        future: F,
    ) -> Result<impl Future<Output = ()> + use<T, F, E>, Refused<F>>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<Cause>,
    {
        let (member, future) = with_work(self.spawner().enter(), future)?;
        Ok(member.track(self.telling(future)))
    }

    /// Like [`Spawner::track_with`], with the outcome for [`next`](Self::next).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use cancel_tree::{Cause, Context, Group};
    /// # let group = Group::new(&Context::background());
    /// let mut race = group.race();
    /// let slow = race.track_with(|ctx| async move { Err::<&str, _>(ctx.done().await) }).unwrap();
    /// let quick = race.track_with(|_ctx| async { Ok::<_, Cause>("tea") }).unwrap();
    /// let (winner, ..) = futures::join!(race.winner(), slow, quick);
    /// assert_eq!(winner.unwrap(), "tea");
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn track_with<F, Fut, E>(
        &self,
        f: F,
    ) -> Result<impl Future<Output = ()> + use<T, F, Fut, E>, Refused<F>>
    where
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Cause>,
    {
        let (member, f) = with_work(self.spawner().enter(), f)?;
        // A panic of `f` is the caller's, and there is no outcome then.
        let future = f(member.context());
        Ok(member.track(self.telling(future)))
    }

    /// Like [`Spawner::spawn_thread`], with the outcome for [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn spawn_thread<F, E>(&self, f: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        E: Into<Cause>,
    {
        type Work<T, F> = (Member, Teller<T>, F);
        let (member, f) = with_work(self.spawner().enter(), f)?;
        let run = |(member, teller, f): Work<T, F>| {
            member.run(move |ctx| teller.tell(f(ctx).map_err(Into::into)));
        };
        start_thread(None, (member, self.teller(), f), run, spawn_detached).map_err(
            |((member, teller, f), cause)| {
                self.call_off(teller);
                member.end(End::Refused);
                Refused::new(f, cause)
            },
        )
    }

    /// The future, and then the word on it.
    pub(crate) fn telling<F, E>(
        &self,
        future: F,
    ) -> impl Future<Output = Result<(), Cause>> + use<T, F, E>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<Cause>,
    {
        let teller = self.teller();
        // Unpolled, it drops first what it mentions first: the work, and then the word on it.
        async move {
            let outcome = future.await;
            teller.tell(outcome.map_err(Into::into))
        }
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.queue.spawner
    }

    pub(crate) fn teller(&self) -> Teller<T> {
        // Relaxed, here and below: the reader of the number has all of this for itself, so it comes after all that had a reference.
        self.made.fetch_add(1, Relaxed);
        Teller(Some(self.queue.clone()))
    }

    /// There is no such task.
    pub(crate) fn call_off(&self, mut teller: Teller<T>) {
        teller.0 = None;
        self.made.fetch_sub(1, Relaxed);
    }

    /// Returns the next outcome, or `None` when all have been seen. A task that panicked, or was dropped, is an error here too.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<T, Cause>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Like [`next`](Self::next), but parks the calling thread.
    pub fn next_blocking(&mut self) -> Option<Result<T, Cause>> {
        let ctx = self.spawner().context().clone();
        block_on_until([&ctx], || None, self.next())
    }

    /// Returns the first success, or the first error if no task succeeds. A success cancels the group, in a [race](Group::race) at once; [`Group::join`] waits for the
    /// other tasks. It also says what has panicked that was called at that cancel ([`on_cancel`](Context::on_cancel)), as an error.
    ///
    /// # Errors
    ///
    /// All have failed, or there was none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses errors that it has seen.
    pub async fn winner(&mut self) -> Result<T, Cause> {
        let mut first = None;
        while let Some(outcome) = self.next().await {
            match outcome {
                Ok(value) => {
                    let body = self.spawner().body();
                    // Callbacks are others': their panics take nobody's success away.
                    body.failures.saying_panics(|| _ = body.cancel());
                    return Ok(value);
                }
                Err(cause) => _ = first.get_or_insert(cause),
            }
        }
        Err(first.unwrap_or_else(|| "nobody took part".into()))
    }

    /// Waits until all outcomes have come or `limit` is done. Returns the outcomes, and the tasks that are still there.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the outcomes that it has seen.
    pub async fn join_until(&mut self, limit: &Context) -> Partial<T> {
        let mut outcomes = Vec::new();
        loop {
            let next = until(self.next(), limit).await;
            let (mut missing, mut cause) = (Vec::new(), None);
            match next {
                Some(Some(outcome)) => {
                    outcomes.push(outcome);
                    continue;
                }
                Some(None) => {}
                None => {
                    let are_there = self.spawner().body().running_quietly();
                    // What has come meanwhile: of a task that was not found, the outcome is here.
                    while let Some(outcome) = self.take() {
                        outcomes.push(outcome);
                    }
                    if self.missing() != 0 {
                        (missing, cause) = (are_there, Some(cause_of(limit)));
                    }
                }
            }
            return Partial {
                outcomes,
                missing,
                cause,
            };
        }
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<T, Cause>>> {
        if let Some(outcome) = self.take() {
            return Poll::Ready(Some(outcome));
        }
        if self.missing() == 0 {
            return Poll::Ready(None);
        }
        // Before the look: what is pushed after it wakes us.
        self.queue.waiter.register(cx.waker());
        match self.take() {
            Some(outcome) => Poll::Ready(Some(outcome)),
            None => Poll::Pending,
        }
    }

    fn take(&mut self) -> Option<Result<T, Cause>> {
        if self.ready.is_null() {
            let mut newest = self.queue.take_all();
            while !newest.is_null() {
                // SAFETY: the list is ours now.
                let next = unsafe { (*newest).next };
                // SAFETY: as above.
                unsafe { (*newest).next = self.ready };
                self.ready = newest;
                newest = next;
            }
        }
        if self.ready.is_null() {
            return None;
        }
        // SAFETY: of a Box, and ours.
        let node = *unsafe { Box::from_raw(self.ready) };
        self.ready = node.next;
        self.seen += 1;
        Some(node.outcome)
    }
}

impl<T> Outcomes<T> {
    /// Of how many tasks the outcome has not been seen.
    fn missing(&self) -> u64 {
        // Relaxed: see `teller`. (Where it is only borrowed, a number for people.)
        self.made.load(Relaxed) - self.seen
    }
}

/// The duty to say how a task went: to the reader, and then to the group. Dropped, it says that the task did not come to its end.
pub(crate) struct Teller<T>(Option<Arc<Queue<T>>>);

impl<T> Teller<T> {
    pub(crate) fn tell(mut self, outcome: Result<T, Cause>) -> Result<(), Cause> {
        let Some(queue) = self.0.take() else {
            return Ok(());
        };
        let wins = queue.is_race && outcome.is_ok();
        let error = outcome.as_ref().err().filter(|_| !queue.is_race).cloned();
        queue.push(outcome);
        if wins {
            let body = queue.spawner.body();
            // The callbacks are others': their panics are not the task's either.
            body.failures.saying_panics(|| _ = body.cancel());
        }
        error.map_or(Ok(()), Err)
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.push(Err("the task did not come to its end".into()));
        }
    }
}

/// Frees a list of outcomes, of which each is user code: the panic of one keeps no other.
fn drop_list<T>(mut at: *mut Node<T>, panics: &mut Panics) {
    while !at.is_null() {
        // SAFETY: the caller gives the list away.
        let node = *unsafe { Box::from_raw(at) };
        at = node.next;
        panics.catch(|| drop(node.outcome));
    }
}

impl<T> Drop for Outcomes<T> {
    fn drop(&mut self) {
        let mut panics = Panics::default();
        drop_list(self.ready, &mut panics);
        drop_list(self.queue.take_all(), &mut panics);
        panics.resume();
    }
}

impl<T> Drop for Queue<T> {
    /// What came after the reader went. By the task that was the last, whose panics these are not.
    fn drop(&mut self) {
        let mut panics = Panics::default();
        drop_list(self.take_all(), &mut panics);
        self.spawner.body().failures.note_panics(panics);
    }
}

impl<T> fmt::Debug for Outcomes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes")
            .field("missing", &self.missing())
            .finish_non_exhaustive()
    }
}
