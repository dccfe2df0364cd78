//! What happens at the edge of the count of handles. With a word of 64 bits nobody gets there; run it with
//! `RUSTFLAGS="--cfg cancel_tree_narrow"` for a word of 32, as targets without 64-bit atomics have.

use cancel_tree::CancellationToken;
use std::mem;

/// Clones the token until it has so many handles, all but the one leaked.
fn handles(token: &CancellationToken, n: usize) {
    for _ in 1..n {
        mem::forget(token.clone());
    }
}

#[test]
#[cfg(not(cancel_tree_narrow))]
fn more_handles_than_24_bits_count() {
    let root = CancellationToken::new();
    let token = root.child_token();
    handles(&token, (1 << 24) + 2);
    // The flags below the count are as they were, and so is what they stand for.
    assert!(!token.is_cancelled());
    root.cancel();
    assert!(token.is_cancelled());
}

#[cfg(cancel_tree_narrow)]
mod narrow {
    use super::*;
    use std::env;
    use std::process::Command;

    /// What a word of 32 bits has room for.
    const MOST: usize = 16_383;

    #[test]
    fn as_many_handles_as_fit() {
        let root = CancellationToken::new();
        let token = root.child_token();
        handles(&token, MOST);
        assert!(!token.is_cancelled());
        root.cancel();
        assert!(token.is_cancelled());
    }

    /// Runs the test of that name in a process of its own, which it is to end.
    #[cfg(unix)]
    fn assert_aborts(test: &str) {
        use std::os::unix::process::ExitStatusExt;
        const SIGABRT: i32 = 6;
        let this = env::current_exe().expect("a path");
        let mut command = Command::new(this);
        command.args(["--exact", test, "--ignored"]);
        let status = command.status().expect("a process");
        assert_eq!(status.signal(), Some(SIGABRT), "{test}: {status}");
    }

    #[test]
    #[cfg(unix)]
    fn one_handle_too_many_ends_the_process() {
        assert_aborts("narrow::clones_too_often");
        assert_aborts("narrow::orphans_too_many");
    }

    #[test]
    #[ignore = "ends the process"]
    fn clones_too_often() {
        let token = CancellationToken::new();
        handles(&token, MOST + 1);
    }

    /// A parent that is dropped leaves each child that lives on one of its handles.
    #[test]
    #[ignore = "ends the process"]
    fn orphans_too_many() {
        let parent = CancellationToken::new();
        let children: Vec<_> = (0..MOST + 1).map(|_| parent.child_token()).collect();
        drop(parent);
        drop(children);
    }
}
