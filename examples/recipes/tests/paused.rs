//! The clock that tests advance, beside tokio's, which is paused.

use cancel_tree::{Context, ContextError, TestClock};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What has happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn say(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The two clocks, in step.
async fn advance_both(clock: &TestClock, by: Duration) {
    let until = clock.now() + by;
    loop {
        let next = clock.next_deadline().unwrap_or(until).min(until);
        let step = next - clock.now();
        // tokio's timers first, with what they wake; then ours.
        tokio::time::advance(step).await;
        clock.advance(step);
        tokio::task::yield_now().await;
        if next == until {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beside_a_paused_runtime() {
    let clock = TestClock::new();
    let root = Context::background().with_clock(&clock);
    let log = Log::default();
    let (begin, theirs) = (clock.now(), tokio::time::Instant::now());
    let (request, _guard) = root.with_timeout(10 * SECOND);
    let (ctx, said) = (request.clone(), log.clone());
    let task = tokio::spawn(async move {
        // Their sleep under our limit, ours under theirs.
        assert_eq!(ctx.run(tokio::time::sleep(3 * SECOND)).await, Ok(()));
        said.say("three");
        assert_eq!(
            ctx.run(tokio::time::sleep(HOUR)).await,
            Err(ContextError::DeadlineExceeded)
        );
        said.say("ten");
        let ctx = ctx.without_cancel();
        let slow = tokio::time::timeout(SECOND, ctx.sleep(2 * SECOND)).await;
        assert!(slow.is_err());
        assert_eq!(
            tokio::time::timeout(2 * SECOND, ctx.sleep(SECOND)).await,
            Ok(Ok(()))
        );
        said.say("twelve");
    });
    tokio::task::yield_now().await;
    for secs in [3, 10, 11, 12] {
        let left = begin + secs * SECOND - clock.now();
        advance_both(&clock, left).await;
        assert_eq!(clock.now() - begin, theirs.elapsed());
    }
    task.await.unwrap();
    assert_eq!(log.take(), ["three", "ten", "twelve"]);
}
