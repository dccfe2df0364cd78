//! Causes as errors among others: what keeps its kind, what is found, what `?` takes.

use cancel_tree::{CancellationToken, Cause, Context, ContextError};
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};
use ContextError::{Cancelled, DeadlineExceeded};

type BoxError = Box<dyn Error + Send + Sync>;

/// An error with a number, and maybe another that it came from.
#[derive(Debug)]
struct Failed(u32, Option<BoxError>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} failed", self.0)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|error| error as _)
    }
}

fn failed(number: u32) -> Failed {
    Failed(number, None)
}

fn from(number: u32, source: impl Into<BoxError>) -> Failed {
    Failed(number, Some(source.into()))
}

fn late(text: &'static str) -> Cause {
    Cause::with_kind(DeadlineExceeded, text)
}

/// The ways in which an error gets into another's hands.
fn wrapped<E: Error + Send + Sync + Clone + 'static>(error: E) -> Vec<(&'static str, BoxError)> {
    vec![
        ("as it is", error.clone().into()),
        ("Box", Box::new(Box::new(error.clone()))),
        ("Arc", Box::new(Arc::new(error.clone()))),
        ("Arc<dyn>", {
            let shared: Arc<dyn Error + Send + Sync> = Arc::new(error.clone());
            Box::new(shared)
        }),
        ("io::Error", io::Error::other(error.clone()).into()),
        (
            "io::Error twice",
            io::Error::other(io::Error::other(error.clone())).into(),
        ),
        ("source", from(1, error.clone()).into()),
        ("source's source", from(1, from(2, error.clone())).into()),
        ("Box as a source", from(1, Box::new(error.clone())).into()),
        ("Arc as a source", from(1, Arc::new(error.clone())).into()),
        ("cause", Cause::new(from(1, error.clone())).into()),
        (
            "anyhow, with a context",
            anyhow::Error::new(error.clone())
                .context("while asking")
                .into(),
        ),
        (
            "anyhow, given another box",
            anyhow::Error::new(error).reallocate_into_boxed_dyn_error_without_backtrace(),
        ),
    ]
}

// ----- the kind ---------------------------------------------------------------------------------

#[test]
fn a_kind_keeps_being_one_however_it_is_wrapped() {
    for kind in [Cancelled, DeadlineExceeded] {
        for (how, error) in wrapped(kind) {
            assert_eq!(Cause::new(error).kind(), kind, "{how}");
        }
        for (how, error) in wrapped(Cause::with_kind(kind, failed(7))) {
            assert_eq!(Cause::from(error).kind(), kind, "a cause: {how}");
        }
    }
}

#[test]
fn what_is_a_cause_is_not_wrapped_again() {
    let bare = Cause::new(BoxError::from(DeadlineExceeded));
    assert_eq!(format!("{bare:?}"), "Cause(DeadlineExceeded)");
    let bare = Cause::new(BoxError::from(Cause::from(DeadlineExceeded)));
    assert_eq!(format!("{bare:?}"), "Cause(DeadlineExceeded)");

    let cause = Cause::with_kind(DeadlineExceeded, failed(7));
    let shown = format!("{cause:?}");
    let again: [BoxError; 3] = [
        cause.clone().into(),
        Box::new(Box::new(cause.clone())),
        Box::new(Arc::new(cause.clone())),
    ];
    for again in again.map(Cause::new) {
        assert_eq!(format!("{again:?}"), shown);
        let (a, b) = (
            again.downcast_ref::<Failed>(),
            cause.downcast_ref::<Failed>(),
        );
        assert!(std::ptr::eq(a.unwrap(), b.unwrap()), "the same error");
    }
}

#[test]
fn the_first_of_a_chain_decides() {
    let error = from(1, Cause::with_kind(Cancelled, from(2, DeadlineExceeded)));
    assert_eq!(Cause::new(error).kind(), Cancelled);
    let error = from(1, Cause::with_kind(DeadlineExceeded, from(2, Cancelled)));
    assert_eq!(Cause::new(error).kind(), DeadlineExceeded);
}

#[test]
fn the_timeouts_of_others_are_no_kind() {
    assert_eq!(
        Cause::from(io::Error::from(io::ErrorKind::TimedOut)).kind(),
        Cancelled
    );
    assert_eq!(
        Cause::from(mpsc::RecvTimeoutError::Timeout).kind(),
        Cancelled
    );
    assert_eq!(Cause::new("context deadline exceeded").kind(), Cancelled);
}

#[test]
fn with_kind_decides_for_itself() {
    for (how, error) in wrapped(DeadlineExceeded) {
        let cause = Cause::with_kind(Cancelled, error);
        assert_eq!(cause.kind(), Cancelled, "{how}");
        assert_eq!(
            cause.find::<ContextError>(),
            Some(&DeadlineExceeded),
            "the error stays: {how}"
        );
    }
    let other = Cause::with_kind(Cancelled, late("too slow"));
    assert_eq!(
        (other.kind(), other.to_string().as_str()),
        (Cancelled, "too slow")
    );
    let same = Cause::with_kind(DeadlineExceeded, DeadlineExceeded);
    assert_eq!(format!("{same:?}"), "Cause(DeadlineExceeded)");
}

/// A backend answers late, its error passes a layer that knows only boxes, and a handler makes a status of it.
#[test]
fn a_504_stays_one() {
    fn backend() -> Result<(), ContextError> {
        let (ctx, _guard) = Context::background().with_timeout(Duration::ZERO);
        ctx.check()
    }
    fn layer() -> Result<(), BoxError> {
        Ok(backend()?)
    }
    fn handler() -> Result<(), Cause> {
        Ok(layer()?)
    }
    let token = CancellationToken::new();
    let cause = handler().unwrap_err();
    assert_eq!(cause.kind(), DeadlineExceeded);
    assert!(token.cancel_with(cause));
    assert_eq!(token.cause().unwrap().kind(), DeadlineExceeded);

    // As a box, to the token itself.
    let token = CancellationToken::new();
    assert!(token.cancel_with(layer().unwrap_err()));
    assert_eq!(token.cause().unwrap().kind(), DeadlineExceeded);
    assert_eq!(token.context().err(), Some(DeadlineExceeded));
}

#[test]
fn a_cause_equals_its_kind() {
    for cause in [
        DeadlineExceeded.into(),
        late("too slow"),
        Cause::with_kind(DeadlineExceeded, failed(1)),
    ] {
        assert!(cause == DeadlineExceeded);
        assert!(DeadlineExceeded == cause);
        assert!(cause != Cancelled);
        assert!(Cancelled != cause);
    }
    // Its kind, not what it may carry.
    assert!(Cause::with_kind(Cancelled, DeadlineExceeded) == Cancelled);
}

// ----- what is found ----------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq)]
struct NotFound(&'static str);

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {}", self.0)
    }
}

impl Error for NotFound {}

#[test]
fn find_walks_all_that_an_error_came_from() {
    for (how, error) in wrapped(NotFound("page")) {
        let cause = Cause::new(error);
        assert_eq!(cause.find::<NotFound>(), Some(&NotFound("page")), "{how}");
        assert!(cause.find::<fmt::Error>().is_none(), "{how}");
        // Passed on, as an error of one's own kind again.
        let again = Cause::new(from(9, cause));
        assert_eq!(
            again.find::<NotFound>(),
            Some(&NotFound("page")),
            "again: {how}"
        );
        assert_eq!(again.find::<Failed>().unwrap().0, 9, "the first: {how}");
    }
    assert_eq!(
        Cause::from(Cancelled).find::<ContextError>(),
        Some(&Cancelled)
    );
    assert!(
        Cause::from("text").find::<ContextError>().is_none(),
        "its kind is no error inside"
    );
}

#[test]
fn downcast_ref_looks_through_pointers_and_at_no_source() {
    for (how, error) in wrapped(NotFound("page")) {
        let itself = [
            "as it is",
            "Box",
            "Arc",
            "Arc<dyn>",
            "anyhow, given another box",
        ]
        .contains(&how);
        let cause = Cause::new(error);
        assert_eq!(cause.downcast_ref::<NotFound>().is_some(), itself, "{how}");
    }
    // The pointer can be asked for too.
    let cause = Cause::new(Arc::new(NotFound("page")));
    assert!(cause.downcast_ref::<Arc<NotFound>>().is_some());
    assert!(cause.error().is::<Arc<NotFound>>());
}

/// What the docs say of `anyhow::Error`: a box of it shows neither its error nor the kind of that.
#[test]
fn anyhow_without_a_context_hides_what_it_holds() {
    let cause = Cause::new(anyhow::Error::new(DeadlineExceeded));
    assert_eq!(
        (cause.kind(), cause.find::<ContextError>()),
        (Cancelled, None)
    );
    assert_eq!(cause.to_string(), "context deadline exceeded");
    let cause = Cause::new(anyhow::Error::new(from(1, DeadlineExceeded)));
    assert!(cause.find::<Failed>().is_none());
    assert_eq!(cause.kind(), DeadlineExceeded, "its sources are there");
}

#[test]
fn anyhow_finds_the_cause_and_what_is_in_it() {
    for error in [
        anyhow::Error::new(Cause::new(from(1, NotFound("page")))),
        anyhow::Error::new(Cause::new(from(1, NotFound("page")))).context("asking"),
        anyhow::Error::new(Cause::new({
            let shared: Arc<dyn Error + Send + Sync> = Arc::new(from(1, NotFound("page")));
            shared
        })),
    ] {
        assert!(error
            .downcast_ref::<Cause>()
            .unwrap()
            .find::<NotFound>()
            .is_some());
        assert!(error.chain().any(|error| error.is::<Failed>()));
        assert_eq!(
            error.chain().filter(|error| error.is::<NotFound>()).count(),
            1
        );
        assert!(error.root_cause().is::<NotFound>());
    }
}

#[test]
fn a_text_and_a_bare_kind_are_shown_once() {
    for (cause, text) in [
        (Cause::from("closed"), "closed"),
        (Cause::from(String::from("closed")), "closed"),
        (Cause::new("closed"), "closed"),
        (Cause::new(String::from("closed")), "closed"),
        (Cause::new(std::borrow::Cow::from("closed")), "closed"),
        (late("too slow"), "too slow"),
        (Cause::new(late("too slow")), "too slow"),
        (Cancelled.into(), "context cancelled"),
        (DeadlineExceeded.into(), "context deadline exceeded"),
    ] {
        assert!(cause.source().is_none(), "{cause:?}");
        assert_eq!(cause.to_string(), text);
        assert_eq!(format!("{:#}", anyhow::Error::new(cause)), text);
    }
    // A text that need not live for ever.
    let (short, shown) = (String::from("short"), "short");
    assert_eq!(Cause::new(short.as_str()).to_string(), shown);
}

/// What the docs say: who prints each error of a chain prints that of a cause twice, but not from `error()` on.
#[test]
fn the_error_inside_is_the_source_of_a_cause() {
    let cause = Cause::new(from(1, NotFound("page")));
    let source = cause.source().unwrap();
    assert!(source.is::<Failed>());
    assert!(source.source().unwrap().is::<NotFound>());
    assert_eq!(
        format!("{:#}", anyhow::Error::new(cause.clone())),
        "step 1 failed: step 1 failed: no page"
    );
    let chain: Vec<_> = anyhow::Chain::new(cause.error())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(chain, ["step 1 failed", "no page"]);
}

/// Its own source, in a circle.
#[derive(Debug)]
struct Circle(AtomicUsize);

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("circle")
    }
}

impl Error for Circle {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.fetch_add(1, Relaxed);
        Some(self)
    }
}

#[test]
fn a_circle_of_sources_ends() {
    let cause = Cause::new(Circle(AtomicUsize::new(0)));
    assert_eq!(cause.kind(), Cancelled);
    assert!(cause.find::<NotFound>().is_none());
    assert!(cause.find::<Circle>().is_some());
    let asked = cause.downcast_ref::<Circle>().unwrap().0.load(Relaxed);
    assert!((1..10_000).contains(&asked), "{asked}");
}

/// A long chain that ends is walked.
#[test]
fn a_long_chain_is_walked_to_its_end() {
    let mut error = failed(0);
    error.1 = Some(DeadlineExceeded.into());
    for number in 1..500 {
        error = from(number, error);
    }
    let cause = Cause::new(error);
    assert_eq!(cause.kind(), DeadlineExceeded);
    assert!(cause.find::<ContextError>().is_some());
}

/// Explodes when it is asked where it came from, and again when it goes.
#[derive(Debug)]
struct Bomb(Arc<AtomicBool>);

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bomb")
    }
}

impl Error for Bomb {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        panic!("asked")
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
        panic!("dropped");
    }
}

#[test]
fn an_error_that_panics_when_asked_leaves_the_token_live() {
    let (token, gone) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let panicked = std::panic::catch_unwind(|| token.cancel_with(Cause::new(Bomb(gone.clone()))));
    assert_eq!(
        panicked.unwrap_err().downcast_ref(),
        Some(&"asked"),
        "once, and the first"
    );
    assert!(gone.load(Relaxed));
    assert!(token.cause().is_none());
    assert!(token.cancel_with("again"));
}

// ----- `?` --------------------------------------------------------------------------------------

#[test]
fn question_mark_takes_the_errors_of_std() {
    fn check<E: Error + Send + Sync + 'static>(result: Result<(), E>)
    where
        Cause: From<E>,
    {
        let text = result.as_ref().unwrap_err().to_string();
        let through = || -> Result<(), Cause> { Ok(result?) };
        let cause = through().unwrap_err();
        assert_eq!(cause.to_string(), text);
        assert!(cause.downcast_ref::<E>().is_some(), "{text}");
    }
    check("x".parse::<u32>().map(drop));
    check("x".parse::<f32>().map(drop));
    check("x".parse::<bool>().map(drop));
    check("xy".parse::<char>().map(drop));
    check("x".parse::<std::net::IpAddr>().map(drop));
    check(u8::try_from(300).map(drop));
    check(char::try_from(u32::MAX).map(drop));
    check(<&[u8; 2]>::try_from(&[1u8][..]).map(drop));
    check(String::from_utf8(vec![255]).map(drop));
    check(String::from_utf16(&[0xd800]).map(drop));
    let not_utf8 = vec![255u8];
    check(std::str::from_utf8(&not_utf8).map(drop));
    check(std::ffi::CString::new("a\0").map(drop));
    check(std::ffi::CStr::from_bytes_with_nul(b"a").map(drop));
    check(Vec::<u8>::new().try_reserve(usize::MAX));
    check(Duration::try_from_secs_f32(-1.0).map(drop));
    check(Err(fmt::Error));
    check(std::env::var("no such variable").map(drop));
    check(std::fs::read("/no/such/file").map(drop));
    check(std::path::Path::new("/a").strip_prefix("/b").map(drop));
    let (sender, receiver) = mpsc::channel::<u8>();
    check(receiver.try_recv().map(drop));
    check(receiver.recv_timeout(Duration::ZERO).map(drop));
    drop(receiver);
    check(sender.send(1));
    let (_, receiver) = mpsc::channel::<u8>();
    check(receiver.recv().map(drop));
}

#[test]
fn errors_of_ones_own_need_a_word() {
    fn step() -> Result<(), Failed> {
        Err(failed(3))
    }
    fn through() -> Result<(), Cause> {
        step().map_err(Cause::new)?;
        Ok(())
    }
    assert_eq!(
        through().unwrap_err().downcast_ref::<Failed>().unwrap().0,
        3
    );
}

#[test]
fn an_io_error_carries_a_cause_there_and_back() {
    for (cause, kind) in [
        (Cause::from(Cancelled), io::ErrorKind::Other),
        (Cause::from(DeadlineExceeded), io::ErrorKind::TimedOut),
        (Cause::new(failed(5)), io::ErrorKind::Other),
        (
            Cause::with_kind(DeadlineExceeded, failed(5)),
            io::ErrorKind::TimedOut,
        ),
    ] {
        let error = io::Error::from(cause.clone());
        assert_eq!(error.kind(), kind);
        assert_eq!(error.to_string(), cause.to_string());
        let back = Cause::from(error);
        assert_eq!(back.kind(), cause.kind());
        assert_eq!(
            back.find::<Failed>().is_some(),
            cause.find::<Failed>().is_some()
        );
        assert!(back.downcast_ref::<io::Error>().is_some());
    }
    for kind in [Cancelled, DeadlineExceeded] {
        assert_eq!(Cause::from(io::Error::from(kind)).kind(), kind);
    }
}

/// std tries again what was `Interrupted`: a cancelled copy would spin.
#[test]
fn a_cancelled_copy_ends() {
    struct Reader(Context);
    impl io::Read for Reader {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.cause() {
                None => Ok(buf.len()),
                Some(cause) => Err(cause.into()),
            }
        }
    }
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("enough");
    let error = io::copy(&mut Reader(ctx), &mut io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}

/// Here and not among the rules of contexts: nobody in this process has so many deadlines that the timer takes more than
/// one step for these.
#[test]
fn of_two_deadlines_that_pass_at_once_the_earlier_one_is_the_cause() {
    // So soon that they stay in the order in which the timer has come to them.
    let mut wait = Duration::from_millis(8);
    loop {
        let at = Instant::now() + wait;
        let later = at + Duration::from_micros(1);
        let parent = |_| Context::background().with_deadline_cause(later, "parent");
        let parents: Vec<_> = (0..30).map(parent).collect();
        // It comes to them before what is put below them.
        thread::sleep(Duration::from_millis(2));
        let child = |(parent, _): &(Context, _)| parent.with_deadline_cause(at, "child");
        let children: Vec<_> = parents.iter().map(child).collect();
        if Instant::now() < at {
            // Nobody waits for one: who does may be there before the timer.
            while !children.iter().all(|(child, _)| child.is_done()) {
                thread::sleep(Duration::from_millis(1));
            }
            for (child, _) in &children {
                assert_eq!(child.cause().unwrap().to_string(), "child");
            }
            return;
        }
        // So slow a machine has more time.
        wait *= 2;
    }
}
