//! What each operation does to shared cache lines, and a model of what that means on many cores: see run.sh.
//!
//! One program, built twice. With `--cfg cancel_tree_counting` it counts, and fails if something needs more than
//! `expected.csv` says; without, it measures, and compares the model with what it has measured.

#[path = "../../machine/mod.rs"]
mod machine;
#[path = "../../operations/mod.rs"]
mod operations;

mod contenders;
#[cfg(cancel_tree_counting)]
mod count;
#[cfg(cancel_tree_counting)]
mod counted;
mod counts;
#[cfg(not(cancel_tree_counting))]
mod measure;
#[cfg(not(cancel_tree_counting))]
mod model;
#[cfg(not(cancel_tree_counting))]
mod report;
mod shard;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use contenders::{cancel_tree, mutex_tree, CancelTree};
use operations::{contexts, groups, tokens, Visitor};

#[cfg(cancel_tree_counting)]
use count::all as run;
#[cfg(not(cancel_tree_counting))]
use report::write as run;

fn main() -> ExitCode {
    let Some(counts) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("the counts' file is missing: see run.sh");
        return ExitCode::from(2);
    };
    match run(&counts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("scale: {wrong}");
            ExitCode::FAILURE
        }
    }
}

/// All operations, each contender's beside the other's.
fn each(visitor: &mut impl Visitor) {
    use contexts::{WithCancel, WithTimeout};
    use tokens::{
        CancelWide, CloneDrop, CreateCancelDrop, CreateDrop, FirstPoll, PollAgain, Read, Request,
        WaitCancel,
    };

    macro_rules! of_both {
        ($($operation:ident $(, $n:literal)?;)*) => {$(
            visitor.visit::<$operation<cancel_tree::Token $(, $n)?>>(cancel_tree::Token::NAME);
            visitor.visit::<$operation<mutex_tree::Token $(, $n)?>>(mutex_tree::Token::NAME);
        )*};
    }

    of_both! {
        Read;
        CreateDrop;
        CreateCancelDrop;
        Request;
        CloneDrop;
        FirstPoll;
        PollAgain;
        WaitCancel;
        CancelWide, 10000;
    }
    visitor.visit::<WithCancel>(cancel_tree::Token::NAME);
    visitor.visit::<WithTimeout>(cancel_tree::Token::NAME);
    visitor.visit::<groups::Track>(cancel_tree::Token::NAME);
}
