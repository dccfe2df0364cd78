//! Why a token is cancelled: what its nearest ancestor with an own cancel says.

#[cfg(feature = "std")]
use super::cause::ContextError;
use super::cause::{Bare, Cause, GuardDropped};
use super::edge::Edge;
use super::extension::AnyOf;
use super::raw_cause::RawCause;
use super::word::State;
use super::{Handle, Node};
use core::ptr;

/// The flags and the counted pointer of a cause.
pub(super) fn raw_cause(cause: Cause) -> (State, Option<RawCause>) {
    let kind = cause.kind();
    let of_kind = State::of_kind(kind);
    match cause.into_raw() {
        Ok(custom) => (
            of_kind.with(State::CUSTOM),
            Some(RawCause::new(custom, kind)),
        ),
        Err(Bare::Kind(_)) => (of_kind.with(State::PLAIN), None),
        Err(Bare::GuardDropped) => (of_kind.with(State::GUARD), None),
    }
}

/// Why `node` is cancelled: what its nearest ancestor with an own cancel says.
pub(super) fn cause(node: &Node) -> Option<Cause> {
    origin(node).map(|node| own_cause(node, node.word.load()))
}

/// Why a node with an own cancel is cancelled.
pub(super) fn own_cause(node: &Node, state: State) -> Cause {
    let custom = if state.has_all(State::CUSTOM) {
        // SAFETY: held, or above what is held, and the cause that won: it stays (I5). Without
        // CUSTOM, what is in `link` may belong to a call that lost and takes it back.
        unsafe { node.link.clone_cause() }
    } else {
        None
    };
    custom.unwrap_or_else(|| match state.only(State::CUSTOM) {
        State::GUARD => GuardDropped.into(),
        _ => state.kind().into(),
    })
}

/// The node whose own cancel has cancelled this one.
pub(super) fn origin(node: &Node) -> Option<&Node> {
    let mut state = node.word.load();
    if !state.is_cancelled() {
        return None;
    }
    let mut node = node;
    while !state.has_any(State::OWN) {
        // SAFETY: the caller holds the node it asks about (I5). A node without an own cancel
        // was marked from above, so a cancelled parent exists, and its state is visible.
        node = unsafe { node.parent() }?;
        state = node.word.load();
    }
    Some(node)
}

/// The ancestor whose own cancel a node inherits.
pub(super) fn origin_of(top: &Node) -> *const Node {
    origin(top).map_or(ptr::null(), ptr::from_ref)
}

impl Handle {
    /// Why the token is cancelled, if it is.
    pub(crate) fn cause(&self) -> Option<Cause> {
        cause(self.node())
    }

    /// Which of its sources the `any_of` token so many steps above was cancelled by: the number that was given for it.
    pub(crate) fn any_of_source(&self, steps: usize) -> Option<usize> {
        any_of_source(self.node_above(steps))
    }

    /// The kind of that.
    #[cfg(feature = "std")]
    pub(crate) fn kind(&self) -> Option<ContextError> {
        let state = self.node().word.load();
        state.is_cancelled().then(|| state.kind())
    }
}

/// Which of its sources an `any_of` token was cancelled by: its number.
fn any_of_source(node: &Node) -> Option<usize> {
    let state = node.word.load();
    if !state.is_cancelled() {
        return None;
    }
    match node.link.extension()?.any_of {
        AnyOf::No => None,
        AnyOf::Born(source) => Some(source.get()),
        // From above, for an own cancel that came later leaves no trace.
        AnyOf::Below(source) if !state.has_any(State::OWN) => Some(source.get()),
        // Without CUSTOM, what is in `link` may belong to a call that lost.
        AnyOf::Below(_) if !state.has_all(State::CUSTOM) => None,
        AnyOf::Below(_) => node.link.edge_of_cause().map(Edge::number),
    }
}
