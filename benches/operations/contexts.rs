//! Operations on contexts, which this crate alone has.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use cancel_tree::Context;

use super::{operations, Measure, Operation};

/// As long as a server's limits are.
const LIMIT: Duration = Duration::from_secs(30);

// What `with_cancel` and its like return goes at the end of a scope: the guard first.
operations! {
    WithCancel, "ctx_cancel_drop", "`with_cancel` + drop", live(),
    |context: &Context, measure| measure.again(|| {
        let (context, _guard) = black_box(context).with_cancel();
        black_box(&context);
    });

    WithCancelValues, "ctx_cancel_drop_values", "… with values", deep(),
    |context: &Context, measure| measure.again(|| {
        let (context, _guard) = black_box(context).with_cancel();
        black_box(&context);
    });

    WithTimeout, "ctx_timeout_drop", "`with_timeout(30 s)` + drop", live(),
    |context: &Context, measure| measure.again(|| {
        let (context, _guard) = black_box(context).with_timeout(LIMIT);
        black_box(&context);
    });

    CloneDrop, "ctx_clone_drop", "clone a context + drop", live(),
    |context: &Context, measure| measure.again(|| drop(black_box(black_box(context).clone())));

    CloneDropValues, "ctx_clone_drop_values", "… with values", deep(),
    |context: &Context, measure| measure.again(|| drop(black_box(black_box(context).clone())));

    Err, "ctx_err", "`err()` with a deadline", live().with_timeout(LIMIT),
    |shared: &(Context, cancel_tree::CancelGuard), measure| measure.again(|| {
        black_box(black_box(&shared.0).err());
    });

    Value, "ctx_value", "`value()` at depth 100", deep(),
    |context: &Context, measure| measure.again(|| {
        black_box(black_box(context).value::<First>());
    });

    ValueMiss, "ctx_value_miss", "`value()`, a miss at depth 100", deep(),
    |context: &Context, measure| measure.again(|| {
        black_box(black_box(context).value::<Absent>());
    });

    WithValue, "ctx_with_value", "`with_value` + drop", live(),
    |context: &Context, measure| measure.again(|| drop(black_box(black_box(context).with_value(FIRST))));
}

// Values are found by a hash of their type, which differs with where a type of our own was compiled; so these are std's.
type First = Ipv4Addr;
type Other = u64;
type Absent = Ipv6Addr;

const FIRST: First = Ipv4Addr::LOCALHOST;

/// A context that can be cancelled, whose guard is given up.
fn live() -> Context {
    let (context, guard) = Context::background().with_cancel();
    guard.detach();
    context
}

/// A hundred values, the first of a type of its own.
fn deep() -> Context {
    (1..100).fold(live().with_value(FIRST), |context, n| {
        context.with_value::<Other>(n)
    })
}
