//! What does not stop? (feature `inspect`)
//!
//! [`snapshot`] returns all that has a name in this process, and all groups with their tasks, as a tree: as text, as JSON, for
//! `dot`. Of what was told to stop and is still there it says which [`Situation`] it is. docs/INSPECT.md has what it costs, the
//! schema, and how each situation is known.
//!
//! ```
//! use cancel_tree::inspect::{snapshot, Situation};
//! use cancel_tree::{Context, Group};
//!
//! let server = Context::background().with_name("server");
//! let group = Group::new(&server);
//! let task = group.named("flush").track(std::future::pending::<()>()).unwrap();
//! group.cancel_with("shutting down");
//!
//! let snapshot = snapshot();
//! let flush = snapshot.stuck().find(|node| node.name.as_deref() == Some("flush")).unwrap();
//! assert_eq!(flush.situation, Some(Situation::NotPolled));
//! println!("{snapshot}");
//! # drop(task);
//! ```
//!
//! It stops nobody and waits for nobody. What is there from before the call until after it is in it once; what comes or goes
//! meanwhile, once or not at all.

mod dot;
mod json;
mod text;
mod walk;

pub use crate::context::observe::{observe, Event, Observer};

pub use super::probe::{Progress, SinceCancel, Situation, Work};

use super::body::Body;
use super::info::shown;
use super::places;
use crate::context::registry;
use crate::sync::Panics;
use crate::tree::{Cause, ContextError};
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::panic::Location;
use std::time::{Duration, Instant};

pub(crate) use super::roll::end_elsewhere;
pub(crate) use walk::all;

/// Returns everything that has a name at this moment, and all groups and their tasks.
///
/// # Panics
///
/// With the panic of a destructor: what ends while the snapshot looks at it is dropped here.
pub fn snapshot() -> Snapshot {
    let (snapshot, panics) = all(Panics::default());
    panics.resume();
    snapshot
}

/// What belongs to a group, and is below it. What others' destructors do runs elsewhere, and is none of its affair.
pub(super) fn of_group(body: &Body) -> Option<Snapshot> {
    let (part, panics) = walk::part(NodeId::of_group(body.record().number()));
    end_elsewhere(panics);
    part
}

/// What there was at one moment; made by [`snapshot`].
///
/// Its [`Display`](fmt::Display) is the tree as text, with a line for each node.
#[derive(Clone)]
#[must_use]
pub struct Snapshot {
    /// Each node before those below it.
    nodes: Vec<Node>,
    at: Instant,
    took: Duration,
}

/// A context that has a name, a group, or a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node {
    /// Its identity: the same in the next snapshot, if it is still there.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Option<Cow<'static, str>>,
    /// Where it was made.
    pub at: &'static Location<'static>,
    /// When it was made; for a task, only if it has a name.
    pub since: Option<Instant>,
    /// For a context or a group that is done: when and why.
    pub done: Option<alloc::boxed::Box<DoneInfo>>,
    /// For a task that has a name: what it does.
    pub progress: Option<Progress>,
    /// Why it is still there, if it was told to stop and that is known.
    pub situation: Option<Situation>,
    above: Option<u32>,
    depth: u32,
}

/// What a [`Node`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A context that was given a name.
    Context,
    /// A group.
    Group,
    /// A future, or any task without a name.
    Task,
    /// A task that is a thread of its own, or one of a runtime's.
    Thread,
    /// A place that is held by hand: a [`Member`](crate::Member).
    Member,
}

/// How a context or a group was cancelled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DoneInfo {
    /// Cancelled, or past a deadline.
    pub kind: ContextError,
    /// The cause.
    pub cause: Cause,
    /// When it was cancelled, if that could be noted.
    pub at: Option<Instant>,
    /// The name of the thread that cancelled, if it has one. At a deadline it is one of this crate's.
    pub by: Option<String>,
    /// It was cancelled itself, rather than through something above.
    pub is_own: bool,
}

/// The identity of a node: no other node of this process ever has the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodeId {
    record: registry::Number,
    is_group: bool,
    task: Option<places::Number>,
}

impl NodeId {
    fn of_name(record: registry::Number) -> NodeId {
        NodeId {
            record,
            is_group: false,
            task: None,
        }
    }

    fn of_group(record: registry::Number) -> NodeId {
        NodeId {
            is_group: true,
            ..NodeId::of_name(record)
        }
    }

    fn of_task(self, task: places::Number) -> NodeId {
        NodeId {
            task: Some(task),
            ..self
        }
    }
}

/// `c3.1`, `g4.1`, `g4.1/0.17.3`.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = if self.is_group { 'g' } else { 'c' };
        write!(
            f,
            "{letter}{}.{}",
            self.record.record, self.record.generation
        )?;
        if let Some(task) = &self.task {
            write!(f, "/{}.{}.{}", task.shard, task.place, task.taken)?;
        }
        Ok(())
    }
}

impl Kind {
    /// Returns the word that stands for it in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Context => "context",
            Kind::Group => "group",
            Kind::Task => "task",
            Kind::Thread => "thread",
            Kind::Member => "member",
        }
    }

    fn is_task(self) -> bool {
        !matches!(self, Kind::Context | Kind::Group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Snapshot {
    /// Returns everything that was found, each node before those below it.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the nodes that were told to stop and are still there, or can never be told.
    pub fn stuck(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.situation.is_some())
    }

    /// Returns the nearest one above a node of this snapshot: what cancels it, or else what it was derived from.
    #[must_use]
    pub fn above(&self, node: &Node) -> Option<&Node> {
        self.nodes.get(node.above? as usize)
    }

    /// Returns when it was taken.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Returns how long that took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Returns the snapshot as JSON: one object, whose schema is in docs/INSPECT.md. It contains causes and names, but never values of contexts.
    #[must_use]
    pub fn json(&self) -> String {
        json::of(self)
    }

    /// Returns the snapshot as a graph for `dot`.
    #[must_use]
    pub fn dot(&self) -> String {
        dot::of(self)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write(self, f)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("nodes", &self.nodes.len())
            .field("stuck", &self.stuck().count())
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}

/// Whether the cause says more than its kind.
fn says_more(cause: &Cause) -> bool {
    cause.downcast_ref::<ContextError>().is_none()
}
