//! The second signal shows what does not stop. Unix.
#![cfg(unix)]

use cancel_tree::integrations::signals::Signals;
use cancel_tree::{Context, Group};
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const CHILD: &str = "CANCEL_TREE_INSPECT_CHILD";

#[test]
fn the_second_signal_writes_the_tree_to_stderr() {
    if std::env::var_os(CHILD).is_some() {
        be_the_child();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_second_signal_writes_the_tree_to_stderr"])
        .arg("--nocapture")
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.find(|line| line.as_ref().unwrap().starts_with("SIGTERM, the second: "));
    assert!(first.is_some());
    let shown: Vec<String> = lines.by_ref().take(3).map(Result::unwrap).collect();
    assert!(shown[0].starts_with("s-server (context, "), "{shown:?}");
    assert!(
        shown[1].starts_with("└─ a group (") && shown[1].ends_with(": SIGTERM"),
        "{shown:?}"
    );
    assert!(
        shown[2].starts_with("   └─ s-deaf (task, ")
            && shown[2].ends_with(": not polled since the cancel"),
        "{shown:?}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

fn be_the_child() -> ! {
    let signals = Signals::new().show_at_second();
    let signals = signals.install(&Context::background()).unwrap();
    let group = Group::new(&signals.context().with_name("s-server"));
    let _task = group.named("s-deaf").track(pending::<()>()).unwrap();
    for which in [signals.context(), signals.forced()] {
        // SAFETY: to ourselves, where there is a handler.
        unsafe { libc::raise(libc::SIGTERM) };
        which.blocking_wait();
    }
    // The parent ends this, or goes.
    let _ = std::io::stdin().read_line(&mut String::new());
    std::process::exit(0);
}
