//! How a context came to be, for people: `background.with_cancel.with_value(RequestId)`.
//!
//! The steps are kept as a number of four bits each, so that no context pays more than a word for it. Each value
//! layer keeps the steps before it. Of more than 14 steps without a value, the oldest are forgotten.

#[derive(Clone, Copy)]
pub(crate) enum Step {
    Background = 1,
    Todo,
    Token,
    Foreign,
    AnyOf,
    Cancel,
    /// The earliest deadline so far.
    Deadline,
    /// A deadline that came too late to matter.
    LaterDeadline,
    Value,
    WithoutCancel,
    /// A deadline that can be moved, or an idle timeout.
    Moving,
    Grace,
    Shield,
    /// A clock of tests.
    Clock,
    /// Steps that were forgotten.
    More,
}

const BITS: u32 = 4;
const MASK: u64 = (1 << BITS) - 1;
const STEPS: u32 = u64::BITS / BITS;

#[derive(Clone, Copy)]
pub(super) struct Chain(u64);

impl Chain {
    pub(super) const fn new(step: Step) -> Chain {
        Chain(step as u64)
    }

    /// Nothing since the newest value.
    pub(super) const fn none() -> Chain {
        Chain(0)
    }

    #[inline]
    pub(super) fn then(self, step: Step) -> Chain {
        let mut steps = self.0;
        if steps >> ((STEPS - 1) * BITS) != 0 {
            // Full: the two oldest become "more".
            let oldest = (STEPS - 2) * BITS;
            steps =
                steps & !(MASK << oldest | MASK << (oldest + BITS)) | (Step::More as u64) << oldest;
        }
        Chain(steps << BITS | step as u64)
    }

    /// The oldest first.
    pub(super) fn steps(self) -> impl Iterator<Item = u64> {
        (0..STEPS)
            .rev()
            .map(move |i| self.0 >> (i * BITS) & MASK)
            .filter(|step| *step != 0)
    }
}
