//! How a context shows itself.

use super::chain::{Chain, Step};
use super::values::Values;
use super::Context;
use alloc::{vec, vec::Vec};
use core::fmt;
use std::time::Instant;

impl fmt::Display for Context {
    /// The steps from the root to here, as Go's contexts show themselves. Of values, the type; of deadlines,
    /// how far the one that holds is away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From the newest to the oldest, and out the other way round.
        let mut parts: Vec<(Chain, Option<&'static str>)> = vec![(self.chain, None)];
        let mut values: Option<&Values> = Some(&self.values);
        while let Some(layer) = values.and_then(Values::newest) {
            if let Some(last) = parts.last_mut() {
                last.1 = Some(layer.type_name());
            }
            parts.push((layer.chain(), None));
            values = layer.before();
        }
        let deadlines = parts.iter().flat_map(|(chain, _)| chain.steps());
        let mut deadlines = deadlines.filter(|s| *s == Step::Deadline as u64).count();
        let mut first = true;
        for (chain, type_name) in parts.iter().rev() {
            for step in chain.steps() {
                if !std::mem::take(&mut first) {
                    f.write_str(".")?;
                }
                match step {
                    s if s == Step::Background as u64 => f.write_str("background")?,
                    s if s == Step::Todo as u64 => f.write_str("todo")?,
                    s if s == Step::Token as u64 => f.write_str("token")?,
                    s if s == Step::Foreign as u64 => f.write_str("foreign")?,
                    s if s == Step::AnyOf as u64 => f.write_str("any_of")?,
                    s if s == Step::Cancel as u64 => f.write_str("with_cancel")?,
                    s if s == Step::Deadline as u64 => {
                        deadlines -= 1;
                        f.write_str("with_deadline")?;
                        // An earlier one holds instead of all but the last. Asked once: it may be a climb.
                        let shown = (deadlines == 0).then(|| self.deadline());
                        if let Some(deadline) = shown.flatten() {
                            write_distance(f, self.now(), deadline)?;
                        }
                    }
                    s if s == Step::LaterDeadline as u64 => f.write_str("with_deadline(later)")?,
                    s if s == Step::Value as u64 => {
                        write!(f, "with_value({})", type_name.unwrap_or("?"))?;
                    }
                    s if s == Step::WithoutCancel as u64 => f.write_str("without_cancel")?,
                    s if s == Step::Moving as u64 => f.write_str("with_movable_deadline")?,
                    s if s == Step::Grace as u64 => f.write_str("with_grace")?,
                    s if s == Step::Shield as u64 => f.write_str("shield")?,
                    s if s == Step::Clock as u64 => f.write_str("with_clock")?,
                    _ => f.write_str("…")?,
                }
            }
        }
        Ok(())
    }
}

fn write_distance(f: &mut fmt::Formatter<'_>, now: Instant, deadline: Instant) -> fmt::Result {
    if deadline > now {
        write!(f, "(in {:.1?})", deadline - now)
    } else {
        write!(f, "({:.1?} ago)", now - deadline)
    }
}

/// How the context came to be, whether it is done and why, how long it has, and the id of its token. Of values, the type.
///
/// ```
/// # use cancel_tree::Context;
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel_with("the page was closed");
/// let shown = format!("{ctx:?}");
/// assert!(shown.contains(r#"is_done: true, err: Cancelled, cause: "the page was closed""#));
/// ```
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Asked once, so that all of it is of one moment.
        let cause = self.why_ended();
        let mut debug = f.debug_struct("Context");
        debug.field("chain", &format_args!("{self}"));
        debug.field("is_done", &cause.is_some());
        if let Some(cause) = cause {
            debug.field("err", &cause.kind());
            debug.field("cause", &format_args!("\"{cause}\""));
        }
        if let Some(remaining) = self.remaining() {
            debug.field("remaining", &remaining);
        }
        if let Some(token) = &self.token {
            debug.field("id", &token.id());
        }
        debug.finish()
    }
}
