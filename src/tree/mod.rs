//! The tree: nodes that are never unlinked while anybody may be walking past them.
//!
//! A node's memory belongs to the child list of its parent from the moment it is linked
//! until the parent itself is dead. A child that nobody holds any more stays linked, marked
//! FREE, and the parent's next child moves in. So there is no reclamation scheme, and whoever
//! walks a list may meet the earlier or the later occupant of a node: cancelling the parent
//! must cancel either.
//!
//! It promises the floors above counted handles, and that a cancel marks all that is below before it wakes anybody there. It needs
//! atomics and the catching of panics, and the timer for deadlines of nodes and for what a worker is to run.
//!
//! Invariants, cited by number where the code relies on them; docs/INTERNALS.md argues them:
//!
//! - **I1** `parent` and, once linked, `sibling` are fixed while the parent is not DEAD.
//! - **I2** A linked node is memory of its parent's list and is freed, or reset, only by the
//!   one that has made the parent DEAD or is freeing the parent, and then by that one alone.
//! - **I3** A node with CANCELLED and INHERITED is *frozen*: neither claimed nor reset, nor is
//!   anything below it, before the cancelled ancestor dies, which the canceller's handle prevents.
//! - **I4** Every strong reference to a node is counted in its word, and only whoever owns one can make
//!   another. So "one handle", found by a load by its owner, stays true until it acts. (Weak handles are
//!   in the way of that until the owner has settled them: `weak.rs`. The node of a static always has one
//!   handle more than anybody can give up: `fixed.rs`.)
//! - **I5** A living child of a node without handles of its own has ORPHAN and owns one handle
//!   of it. So parents of living nodes are alive, and climbing by `parent` is safe.
//! - **I6** A cancel, own or inherited, is a read-modify-write on the word of each node that
//!   has one. A creator announces itself by another on its parent's word, after linking and before
//!   anybody can claim what it linked. Of the two, the later sees the earlier.
//! - **I7** Below a FREE or DEAD node nobody lives; below a cancelled one nobody is born live.
//! - **I8** What is in the slot belongs to whoever cleared WAITER, and to nobody else.
//! - **I9** User code runs when no invariant is broken and nothing is held.

mod above;
mod any_of;
#[cfg(feature = "std")]
mod arming;
#[cfg(feature = "std")]
mod asked;
mod below;
mod cancel;
mod cause;
mod cause_from;
mod children;
mod chunk;
#[cfg(feature = "std")]
mod deadline;
mod edge;
#[cfg(feature = "std")]
mod elsewhere;
mod extension;
mod fired;
mod fixed;
mod handle;
#[cfg(feature = "inspect")]
pub(crate) mod inspect;
mod link;
#[cfg(feature = "std")]
mod moves;
#[cfg(feature = "std")]
mod moving;
mod node;
mod node_map;
mod origins;
mod own;
mod raw_cause;
mod reclaim;
mod room;
mod rooms;
mod slot;
#[cfg(feature = "std")]
mod stand_in;
#[cfg(feature = "std")]
mod start;
pub(crate) mod telling;
#[cfg(feature = "std")]
mod timing;
pub(crate) mod waiter;
mod wake;
mod wake_list;
mod walk;
mod weak;
mod why;
mod word;

pub use above::TokenId;
pub use cause::{Cause, ContextError, GuardDropped};
#[cfg(feature = "std")]
pub(crate) use elsewhere::Elsewhere;
pub(crate) use fixed::Fixed;
pub(crate) use handle::Handle;
#[cfg(feature = "std")]
pub(crate) use moving::Moving;
pub(crate) use node::Node;
#[cfg(feature = "std")]
pub(crate) use timing::Signal;
pub(crate) use weak::Weak;
