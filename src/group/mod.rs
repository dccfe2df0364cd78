//! Groups: work that belongs together. A group tells when all of it is gone, what failed first, and what does not
//! stop. It promises the floor above (which spawns on other people's runtimes) a *place*: counted from before a task's first
//! step until after its last, whatever becomes of it. Built on contexts and tokens; from below it needs atomics, wakers, parking and
//! the catching of panics, and from the timer to know whether this process can have workers.
//!
//! The names, as one whole:
//!
//! | | |
//! | --- | --- |
//! | [`Group::new`]`(&ctx)` | a group and its context below `ctx`; dropping it cancels, and neither blocks nor aborts |
//! | [`Group::context`]`()`, [`Group::cancel`]`()` | what all tasks see; ends them |
//! | [`Group::keep_going`]`()`, [`Group::limit`]`(n)` | errors cancel nothing; `n` tasks at once |
//! | `group.`[`track`](Spawner::track)`(future)`, [`track_with`](Spawner::track_with)`(\|ctx\| …)` | a future that is counted, to be run wherever |
//! | [`spawn_thread`](Spawner::spawn_thread)`(\|ctx\| …)`; with tokio `spawn(\|ctx\| …)`, `spawn_blocking(\|ctx\| …)` | a task of its own |
//! | [`enter`](Spawner::enter)`()`, [`enter_when`](Spawner::enter_when)`(&ctx)` | a place held by hand: a [`Member`]; waiting for room under the limit |
//! | `…_when(&ctx, …)`, `try_spawn` | wait for room in order of arrival; never wait |
//! | [`named`](Spawner::named)`("flush").spawn…` | what a [`Report`] calls it |
//! | [`spawner`](Group::spawner)`()` | a [`Spawner`] for tasks that start tasks: all of the above, without the right to end the group |
//! | [`Refused`] | what could not be started, given back, and why |
//! | [`join`](Group::join)`()`, [`join_blocking`](Group::join_blocking)`()` | all gone; closes the group; the first error |
//! | [`wait_idle`](Group::wait_idle)`()`, [`join_until`](Group::join_until)`(&limit)` | all gone for once; all gone, or what is missing |
//! | [`outcomes`](Group::outcomes)`::<T>()`: [`next`](Outcomes::next), [`join_until`](Outcomes::join_until) | typed outcomes one by one, as they come; the same ways in: [`track`](Outcomes::track), [`track_with`](Outcomes::track_with), [`spawn_thread`](Outcomes::spawn_thread), with tokio `spawn`, `spawn_blocking` |
//! | [`race`](Group::race)`::<T>()`: [`winner`](Outcomes::winner) | the first success ends the rest |
//! | [`close`](Group::close)`()`, [`shutdown`](Group::shutdown)`(&limit) -> `[`Report`] | nothing new; and then ends, always |
//! | [`running`](Group::running)`()` | what is there: [`TaskInfo`] |
//! | [`child`](Group::child)`("db")` | a group inside, whose tasks count here too |
//! | [`scope`](Group::scope)`(&ctx, \|g\| …)` | threads that borrow from the stack |
//!
//! docs/GROUPS.md holds them beside errgroup, TaskTracker with JoinSet, StructuredTaskScope and nurseries.
//!
//! Invariants, cited by number:
//!
//! - **G1** A task's *place* is memory of its group's [`Body`](body::Body). It is taken by a CAS on the place's own word
//!   and given up by another; all that the task does is before the second.
//! - **G2** A look marks each living place WATCHED by a CAS on its word, after it has counted it in the tally. So of a
//!   look and a task's end, the later sees the earlier: the look finds the place empty, or the end finds WATCHED and
//!   counts it off.
//! - **G3** Closing marks every place, every list of places and the table of lists CLOSED by a CAS each. What was taken or linked
//!   before is found by that walk; what comes after finds CLOSED.
//! - **G4** A place counts its takers (*generation*). Two walks that find all places empty, with the same
//!   generations, have between them a moment at which nobody was there.
//! - **G5** The body is freed by whoever finds that the last handle is gone, that no place is taken and that nobody is waking
//!   others: all three are in the tally.
//! - **G6** User code runs when nothing is held and no invariant is broken.

// First, for it begins the group's page in the documentation.
#[allow(clippy::module_inception)]
mod group;

mod body;
mod failures;
mod info;
mod inside;
mod label;
mod limit;
mod member;
/// For models, which do without the feature.
#[cfg(cancel_tree_loom)]
pub mod noted;
mod outcomes;
mod place;
mod places;
#[cfg(any(feature = "inspect", cancel_tree_loom))]
#[cfg_attr(not(feature = "inspect"), allow(dead_code))]
mod probe;
mod refused;
mod report;
#[cfg(feature = "inspect")]
mod roll;
mod scope;
mod seats;
#[cfg(feature = "inspect")]
pub mod snapshot;
mod spawner;
mod tally;
mod task;

pub use group::Group;
pub use info::{Panicked, TaskInfo};
pub use member::Member;
pub use outcomes::{Outcomes, Partial};
pub use refused::{Closed, Full, Refused};
pub use report::{Report, Unfinished};
pub use scope::Scope;
pub use spawner::{Named, Spawner};
pub use task::{Outcome, Tracked};
/// What the floor above may need.
#[allow(unused_imports, reason = "it may need none of it")]
pub(crate) use {
    info::{in_line, one_line},
    place::End,
    spawner::{with_work, Start},
    task::Job,
};
