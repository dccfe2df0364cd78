//! What a program does with its tokens and contexts all day, as `benches/scale` and `benches/instructions` count it.

// Each package has its own copy of this, and not all need everything.
#![allow(dead_code)]

pub mod contexts;
pub mod groups;
pub mod tokens;

/// An operation on something that threads share.
pub trait Operation {
    /// As in `benches/tree`, where that measures it too.
    const NAME: &'static str;
    const ABOUT: &'static str;

    /// So many of what is counted are in one run of it.
    const UNITS: u64 = 1;

    type Shared: Send + Sync;

    fn share() -> Self::Shared;

    /// Hands the operation to `measure`, once, for the calling thread.
    fn on(shared: &Self::Shared, measure: &mut impl Measure);
}

/// Who measures, or counts.
pub trait Measure {
    /// `run` can be run again and again, and leaves things as they were.
    fn again(&mut self, mut run: impl FnMut()) {
        self.afresh(|| (), |()| run());
    }

    /// Each `run` needs what `ready` makes; neither making that nor dropping it is part of the operation.
    fn afresh<S>(&mut self, ready: impl FnMut() -> S, run: impl FnMut(&mut S));
}

/// Something to do with each operation; a closure cannot be generic.
pub trait Visitor {
    fn visit<O: Operation>(&mut self, contender: &'static str);
}

macro_rules! operations {
    ($(
        $name:ident $(<$t:ident: $bound:ident>)?, $id:literal, $about:literal, $share:expr,
        |$shared:ident: &$type:ty, $measure:ident| $on:expr;
    )*) => {$(
        #[doc = $about]
        pub struct $name $(<$t>(std::marker::PhantomData<$t>))?;

        impl $(<$t: $bound>)? Operation for $name $(<$t>)? {
            const NAME: &'static str = $id;
            const ABOUT: &'static str = $about;

            type Shared = $type;

            fn share() -> $type {
                $share
            }

            fn on($shared: &$type, $measure: &mut impl Measure) {
                $on
            }
        }
    )*};
}
use operations;
