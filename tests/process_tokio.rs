//! Child processes as tasks of tokio wait for them.
#![cfg(unix)]

use cancel_tree::integrations::process::Supervised;
use cancel_tree::Context;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(100);

fn sh(script: &str) -> Supervised {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Supervised::new(command)
}

#[tokio::test]
async fn one_that_ends_and_one_that_is_stopped() {
    let ctx = Context::background();
    let ended = sh("echo tea").output(&ctx).await.unwrap();
    assert!(ended.success());
    assert_eq!(ended.stdout, b"tea\n");
    for after in (0..).map(|n| SOON * (1 << n)) {
        let begin = Instant::now();
        let (ctx, _guard) = ctx.with_timeout_cause(after, "too slow");
        match sh("exec sleep 3600").run(&ctx).await {
            Ok(ended) => {
                assert_eq!(ended.stopped.unwrap().to_string(), "too slow");
                assert!(begin.elapsed() < after + Duration::from_secs(60));
                break;
            }
            // On a busy machine, before it has begun: once more, with twice the time.
            Err(_) => assert!(begin.elapsed() >= after),
        }
    }
    let (ctx, guard) = ctx.with_cancel();
    guard.cancel();
    let error = sh("exit 0").run(&ctx).await.unwrap_err();
    assert!(error.get_ref().unwrap().is::<cancel_tree::Cause>());
}

#[tokio::test]
async fn dropping_the_future_stops_the_child() {
    let file = std::env::temp_dir().join(format!("cancel-tree-stopped-{}", std::process::id()));
    // One that was left behind by a process that had this one's number is none of this one's.
    let _ = std::fs::remove_file(&file);
    let script = format!(
        "trap 'echo stopped >{0}; exit 0' TERM; echo begun >{0}; while :; do sleep 0.01; done",
        file.display()
    );
    let says = |what: &'static str| {
        let file = file.clone();
        async move {
            let begin = Instant::now();
            while std::fs::read_to_string(&file).unwrap_or_default().trim() != what {
                assert!(begin.elapsed() < Duration::from_secs(60), "not {what}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let ctx = Context::background();
    tokio::select! {
        _ = sh(&script).run(&ctx) => panic!("it never ends by itself"),
        () = says("begun") => {}
    }
    says("stopped").await;
    std::fs::remove_file(&file).unwrap();
}

/// The runtime has one thread for what blocks, and that is taken.
#[test]
fn a_context_that_is_done_before_a_thread_is_free() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let file = std::env::temp_dir().join(format!("cancel-tree-late-{}", std::process::id()));
    runtime.block_on(async {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
        let (ctx, _guard) = Context::background().with_timeout_cause(SOON, "too slow");
        let script = format!("echo begun >{}", file.display());
        let run = sh(&script).run(&ctx);
        let error = tokio::time::timeout(Duration::from_secs(30), run)
            .await
            .expect("it does not wait for a thread")
            .unwrap_err();
        assert_eq!(error.to_string(), "too slow");
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        // When the thread has come past it.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    assert!(!file.exists());
}
