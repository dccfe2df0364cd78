//! Instructions of the hot operations, counted by callgrind and compared with `expected.csv`: see run.sh.
//!
//! The program runs itself under valgrind, once for each operation, so that none depends on what was before it. Callgrind
//! counts in one function, and not in the allocator (`--toggle-collect`). That is all that is needed of it; a harness like
//! gungraun keeps what it compares with in the target directory, and wants a second program installed.

#[path = "../../operations/mod.rs"]
mod operations;

mod callgrind;
mod compare;
mod contenders;
mod heap;
mod report;
mod run;

use std::env;
use std::process::ExitCode;

use contenders::{cancel_tree, mutex_tree, tokio_util, CancelTree};
use operations::{contexts, groups, tokens, Visitor};

const CHILDREN: usize = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["run", op, contender] => {
            each(&mut run::Run { op, contender });
            Ok(())
        }
        [] => report::all(false),
        ["--update"] => report::all(true),
        _ => Err("what is asked? See run.sh".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("instructions: {wrong}");
            ExitCode::FAILURE
        }
    }
}

/// All operations, the contenders of each side by side.
fn each(visitor: &mut impl Visitor) {
    use tokens::{
        AnyOf, CancelWide, CloneDrop, CreateCancelDrop, CreateDrop, CreateFirst, FirstPoll,
        OnCancel, PollAgain, Read, Request, RootDrop, WaitCancel,
    };

    macro_rules! of_all {
        ($($operation:ident $(, $n:ident)?;)*) => {$(
            visitor.visit::<$operation<cancel_tree::Token $(, $n)?>>(cancel_tree::Token::NAME);
            visitor.visit::<$operation<tokio_util::Token $(, $n)?>>(tokio_util::Token::NAME);
            visitor.visit::<$operation<mutex_tree::Token $(, $n)?>>(mutex_tree::Token::NAME);
        )*};
    }

    macro_rules! of_ours {
        ($($operation:ty;)*) => {$(
            visitor.visit::<$operation>(cancel_tree::Token::NAME);
        )*};
    }

    of_all! {
        Read;
        RootDrop;
        CreateFirst;
        CreateDrop;
        CreateCancelDrop;
        Request;
        CloneDrop;
        FirstPoll;
        PollAgain;
        WaitCancel;
        CancelWide, CHILDREN;
    }
    of_ours! {
        OnCancel;
        AnyOf;
        contexts::WithCancel;
        contexts::WithCancelValues;
        contexts::WithTimeout;
        contexts::CloneDrop;
        contexts::CloneDropValues;
        contexts::Err;
        contexts::Value;
        contexts::ValueMiss;
        contexts::WithValue;
        groups::Track;
        groups::TrackNamed;
        groups::Touch;
        groups::TouchAt;
        groups::Extend;
        groups::ErrMovable;
        groups::TimeoutMovable;
        groups::TimeoutInGroup;
    }
}
