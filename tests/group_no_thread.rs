//! Where no thread can be started, neither the timer's nor a task's: the work comes back, and a shutdown ends. One test: it
//! takes the process's address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;

use address_space::Limited;
use cancel_tree::{Cause, Context, Group};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn without_threads_the_work_comes_back_and_a_shutdown_ends() {
    let group = Group::new(&Context::background()).limit(2);
    let mut outcomes = group.outcomes();
    let member = group.named("sits there").enter().unwrap();
    // Room for what is small; none for a thread's stack.
    let limited = Limited::to(256 << 10);
    let refused = group.spawn_thread(|_ctx| ()).unwrap_err();
    let told = outcomes.spawn_thread(|_ctx| Ok::<_, Cause>(7)).unwrap_err();
    let (bound, _guard) = Context::background().with_timeout(Duration::from_millis(30));
    let begin = Instant::now();
    let full = group.enter().unwrap();
    let waited = group.enter_when_blocking(&bound).unwrap_err();
    drop(full);
    let report = group.shutdown_blocking(&bound);
    let took = begin.elapsed();
    drop(limited);
    refused.into_inner()(Context::background());
    assert_eq!(told.into_inner()(Context::background()).unwrap(), 7);
    assert!(outcomes.next_blocking().is_none());
    assert_eq!(waited.cause().kind(), bound.err().unwrap());
    assert_eq!(report.stuck.len(), 1, "{report}");
    assert_eq!(
        (report.done, report.cancelled, report.forced),
        (0, 0, 0),
        "{report}"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(member);
    assert!(group.join_blocking().is_ok());

    // A race, groups inside, a scope.
    let around = Group::new(&Context::background()).limit(1);
    let inside = around.child("inside");
    let mut race = inside.race();
    let owned = Arc::new(());
    let keeps = owned.clone();
    let limited = Limited::to(256 << 10);
    let named = around.named("flush").spawn_thread(|_ctx| Ok::<_, Cause>(1));
    let inner = inside.spawn_thread(|_ctx| ());
    let raced = race.spawn_thread(|_ctx| Ok::<_, Cause>(7));
    let scoped = Group::scope(&Context::background(), |g| {
        let refused = g.spawn_thread(move |_ctx| drop(keeps)).unwrap_err();
        refused.into_inner()(Context::background());
        g.context().is_done()
    });
    drop(limited);
    assert_eq!(
        named.unwrap_err().into_inner()(Context::background()).unwrap(),
        1
    );
    assert!(inner.is_err());
    assert_eq!(
        raced.unwrap_err().into_inner()(Context::background()).unwrap(),
        7
    );
    // The work came back, and that is no error of the scope's.
    assert_eq!(scoped.ok(), Some(false));
    assert_eq!(Arc::strong_count(&owned), 1);
    assert!(race.next_blocking().is_none());
    assert!(around.is_empty() && inside.is_empty());
    // The room has been given back.
    drop(around.enter().unwrap());
    assert!(inside.join_blocking().is_ok());
    assert!(around.join_blocking().is_ok());
    #[cfg(feature = "tokio")]
    on_tokio();
}

/// tokio panics where it cannot start a thread, and keeps what it was given until it can. The work comes back all the same, and is not
/// run later.
#[cfg(feature = "tokio")]
fn on_tokio() {
    use std::panic::{catch_unwind, set_hook, take_hook, AssertUnwindSafe};

    let group = Group::new(&Context::background());
    let mut outcomes = group.outcomes();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let owned = Arc::new(());
    let (keeps, too) = (owned.clone(), owned.clone());
    let inside = runtime.enter();
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let limited = Limited::to(256 << 10);
    let one = catch_unwind(AssertUnwindSafe(|| {
        group.named("flush").spawn_blocking(move |_ctx| drop(keeps))
    }));
    let two = catch_unwind(AssertUnwindSafe(|| {
        outcomes.spawn_blocking(move |_ctx| {
            drop(too);
            Ok::<_, Cause>(7)
        })
    }));
    #[cfg(feature = "process")]
    let (file, ended) = {
        use cancel_tree::integrations::process::Supervised;
        let file = std::env::temp_dir().join(format!("cancel-tree-none-{}", std::process::id()));
        let mut command = std::process::Command::new("touch");
        command.arg(&file);
        let ctx = Context::background();
        let output = Supervised::new(command).output(&ctx);
        let output = AssertUnwindSafe(|| futures::executor::block_on(output));
        (file, catch_unwind(output))
    };
    drop(limited);
    set_hook(hook);
    let one = one.expect("tokio's panic").expect_err("there was a thread");
    let two = two.expect("tokio's panic").expect_err("there was a thread");
    assert!(one.cause().to_string().contains("os error"), "{one:?}");
    assert!(two.cause().to_string().contains("os error"), "{two:?}");
    assert!(group.is_empty());
    assert!(outcomes.next_blocking().is_none());
    assert_eq!(Arc::strong_count(&owned), 3);
    // Now there is a thread, which finds nothing of them.
    let (says, told) = std::sync::mpsc::channel();
    group
        .spawn_blocking(move |_ctx| says.send(()).unwrap())
        .unwrap();
    told.recv().unwrap();
    #[cfg(feature = "process")]
    {
        let error = ended.expect("tokio's panic").unwrap_err();
        assert!(error.to_string().contains("os error"), "{error:?}");
        assert!(!file.exists());
    }
    drop(inside);
    drop(runtime);
    assert_eq!(Arc::strong_count(&owned), 3);
    one.into_inner()(Context::background());
    assert_eq!(two.into_inner()(Context::background()).unwrap(), 7);
    assert_eq!(Arc::strong_count(&owned), 1);
    let limit = Context::background().with_timeout(Duration::from_secs(20));
    let report = group.shutdown_blocking(&limit.0);
    assert_eq!((report.forced, report.stuck.len()), (0, 0), "{report}");
    assert!(group.join_blocking().is_ok());
}
