//! Groups: a task's end against who joins, closes, cancels, looks; the limit; the last handle.

use cancel_tree::{set_thread_number, Cause, Context, Group, Member, Panicked};
use cancel_tree_loom::{
    at_once, block_on, model, model_in_all_orders, pause, poll, spawn, Data, Probe, Reason,
    UNBOUNDED, USUAL,
};
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

fn group() -> Group {
    Group::new(&Context::background())
}

/// One look, by nobody who would be woken.
fn look<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn number(cause: &Cause) -> bool {
    cause.downcast_ref::<Reason>().is_some()
}

/// The joiner is woken, and sees what the task did.
#[test]
fn last_task_gone_vs_join() {
    model(USUAL, || {
        let group = group();
        let data = Data::new();
        let (member, written) = (group.enter().unwrap(), data.clone());
        let thread = spawn(move || {
            written.write();
            drop(written);
            drop(member);
        });
        assert!(block_on(group.join()).is_ok());
        data.read();
        thread.join().unwrap();
    });
}

#[test]
fn last_two_tasks_gone_vs_join() {
    model(Some(1), || {
        let group = group();
        let data = Data::new();
        let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
        let written = data.clone();
        let first = spawn(move || drop(a));
        let second = spawn(move || {
            written.write();
            drop(written);
            drop(b);
        });
        block_on(group.wait_idle());
        data.read();
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// Each of them is woken, whoever looks last.
#[test]
fn last_task_gone_vs_two_joiners() {
    model(USUAL, || {
        let group = std::sync::Arc::new(group());
        let member = group.enter().unwrap();
        let other = group.clone();
        let joiner = spawn(move || {
            assert!(block_on(other.join()).is_ok());
        });
        drop(member);
        assert!(block_on(group.join()).is_ok());
        joiner.join().unwrap();
    });
}

/// It may be the second one's look that finds it gone: then that wakes the first.
#[test]
fn last_task_gone_vs_the_look_of_a_second_joiner() {
    model(USUAL, || {
        let group = group();
        let member = group.enter().unwrap();
        let probe = Probe::new();
        let mut first = Box::pin(group.wait_idle());
        assert!(!poll(&mut first, &probe.waker()));
        let thread = spawn(move || drop(member));
        block_on(group.wait_idle());
        thread.join().unwrap();
        assert!(probe.woken() > 0, "a joiner that sleeps for ever");
        drop(first);
    });
}

/// A task hands its work to another one, into a place that the look has passed, and ends.
#[test]
fn task_that_starts_another_vs_wait_until_idle() {
    model(USUAL, || {
        let group = group();
        let data = Data::new();
        let first = group.enter().unwrap();
        // Newer, so looked at before.
        drop(group.enter().unwrap());
        let (spawner, written) = (group.spawner(), data.clone());
        let thread = spawn(move || {
            let second = spawner.enter().unwrap();
            drop(first);
            written.write();
            drop(written);
            drop(second);
        });
        let probe = Probe::new();
        let mut idle = Box::pin(group.wait_idle());
        if poll(&mut idle, &probe.waker()) {
            data.read();
        }
        drop(idle);
        thread.join().unwrap();
        assert!(group.is_empty());
    });
}

/// The same, to and fro: two looks, one after the other, can both be deceived.
#[test]
fn task_that_moves_to_and_fro_vs_who_asks_whether_it_is_there() {
    model(Some(6), || {
        let group = group();
        let data = Data::new();
        let first = group.enter().unwrap();
        // Newer, so looked at before.
        drop(group.enter().unwrap());
        let (spawner, seen) = (group.spawner(), data.clone());
        let thread = spawn(move || {
            if spawner.is_empty() {
                seen.read();
            }
            drop(seen);
        });
        let second = group.enter().unwrap();
        drop(first);
        let third = group.enter().unwrap();
        drop(second);
        let fourth = group.enter().unwrap();
        drop(third);
        data.write();
        drop(fourth);
        thread.join().unwrap();
    });
}

/// Refused, or waited for.
#[test]
fn spawn_vs_close() {
    model(USUAL, || {
        let group = group();
        let data = Data::new();
        let (spawner, written) = (group.spawner(), data.clone());
        let thread = spawn(move || {
            let member = spawner.enter();
            let started = member.is_ok();
            if started {
                written.write();
            }
            drop(written);
            drop(member);
            started
        });
        group.close();
        block_on(group.wait_idle());
        assert!(group.is_empty());
        // Before the thread is waited for: whoever started is done by then.
        let seen = data_seen(&data);
        let started = thread.join().unwrap();
        assert_eq!(seen, started);
    });
}

/// Who joins does not rely on another one's closing, which may be half way.
#[test]
fn join_vs_close() {
    model(USUAL, || {
        let group = Arc::new(group());
        drop(group.enter().unwrap());
        let closed = group.clone();
        let thread = spawn(move || closed.close());
        block_on(group.join()).unwrap();
        assert!(group.enter().is_err());
        thread.join().unwrap();
    });
}

/// The same where the joiner finds nobody, and the other's closing half way.
#[test]
fn join_that_finds_nobody_vs_close() {
    // Many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let group = Arc::new(group());
        drop(group.enter().unwrap());
        let closed = group.clone();
        let thread = spawn(move || closed.close());
        look(pin!(group.join())).unwrap().unwrap();
        assert!(group.enter().is_err());
        thread.join().unwrap();
    });
}

/// Who was there when it began is in the report.
#[test]
fn last_task_gone_vs_report() {
    model(USUAL, || {
        let group = group();
        let member = group.enter().unwrap();
        let limit = Context::background();
        let mut end = Box::pin(group.shutdown(&limit));
        assert!(!poll(&mut end, std::task::Waker::noop()));
        let thread = spawn(move || drop(member));
        let report = block_on(end);
        assert_eq!((report.done, report.stuck.len()), (1, 0));
        thread.join().unwrap();
    });
}

/// Who ends while it is made is counted in it, or named.
#[test]
fn last_task_gone_vs_report_at_its_bound() {
    model(Some(2), || {
        let group = group();
        let member = group.enter().unwrap();
        let (limit, guard) = Context::background().with_cancel();
        let mut end = Box::pin(group.shutdown_with(&limit, Duration::ZERO));
        assert!(!poll(&mut end, std::task::Waker::noop()));
        guard.cancel();
        let thread = spawn(move || drop(member));
        let report = block_on(end);
        let counted = report.done + report.cancelled + report.forced;
        assert!(counted + report.stuck.len() > 0, "a task that is left out");
        thread.join().unwrap();
    });
}

/// The same where there is a place already.
#[test]
fn spawn_into_an_empty_place_vs_close() {
    model(USUAL, || {
        let group = group();
        drop(group.enter().unwrap());
        let data = Data::new();
        let (spawner, written) = (group.spawner(), data.clone());
        let thread = spawn(move || {
            let member = spawner.enter();
            if member.is_ok() {
                written.write();
            }
            drop(written);
            let started = member.is_ok();
            drop(member);
            started
        });
        group.close();
        // Before the thread is waited for: whoever started has to be gone by then.
        let probe = Probe::new();
        let mut gone = Box::pin(group.wait_idle());
        let idle = poll(&mut gone, &probe.waker());
        drop(gone);
        let refused = group.enter().is_err();
        assert!(refused);
        let at_close = idle.then(|| data_seen(&data));
        let started = thread.join().unwrap();
        // Nobody comes in after the look that found nobody.
        if let Some(seen) = at_close {
            assert_eq!(seen, started);
        }
    });
}

/// Whether it was written; reading what is being written at this moment fails the model.
fn data_seen(data: &Data) -> bool {
    data.get()
}

#[test]
fn spawn_vs_cancel() {
    model(USUAL, || {
        let group = group();
        let spawner = group.spawner();
        let thread = spawn(move || match spawner.enter() {
            Ok(member) => Some(member.context()),
            Err(refused) => {
                assert!(number(refused.cause()));
                None
            }
        });
        group.cancel_with(Reason::cause(1));
        if let Some(ctx) = thread.join().unwrap() {
            assert!(ctx.is_done());
        }
        block_on(group.wait_idle());
    });
}

/// The group's cause is one of the two; what `join` returns is the task's.
#[test]
fn first_error_vs_cancel_from_above() {
    model(Some(2), || {
        let (above, guard) = Context::background().with_cancel();
        let group = Group::new(&above);
        let (member, other) = (group.enter().unwrap(), group.enter().unwrap());
        let thread = spawn(move || member.run(|_ctx| Err::<(), _>(Reason::cause(1))));
        guard.cancel();
        // Handed back, it takes no error's place.
        other.run(|ctx| ctx.check());
        let cause = block_on(group.join()).unwrap_err();
        assert!(number(&cause));
        assert!(group.context().is_done());
        thread.join().unwrap();
    });
}

/// One is first, for all.
#[test]
fn first_error_vs_first_error() {
    model(Some(1), || {
        let group = group();
        let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
        let thread = spawn(move || a.run(|_ctx| Err::<(), _>("a")));
        b.run(|_ctx| Err::<(), _>("b"));
        let own = group.context().cause().unwrap().to_string();
        let first = block_on(group.join()).unwrap_err().to_string();
        assert_eq!(own, first);
        thread.join().unwrap();
    });
}

#[test]
fn panic_vs_two_joins() {
    model(Some(1), || {
        let group = std::sync::Arc::new(group());
        let member = group.enter().unwrap();
        let other = group.clone();
        let raised = |group: &Group| match catch_unwind(AssertUnwindSafe(|| block_on(group.join())))
        {
            Err(payload) => {
                assert_eq!(payload.downcast_ref::<&str>(), Some(&"oh no"));
                1
            }
            Ok(answer) => {
                assert!(answer.is_err());
                0
            }
        };
        let joiner = spawn(move || raised(&other));
        member.run(|_ctx| -> () { std::panic::resume_unwind(Box::new("oh no")) });
        assert_eq!(raised(&group) + joiner.join().unwrap(), 1);
    });
}

/// One is first, and the other one's is not left lying about.
#[test]
fn first_error_vs_first_error_at_once() {
    model(Some(2), || {
        let group = group();
        let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
        let thread = spawn(move || at_once(|| a.run(|_ctx| Err::<(), _>(Reason::cause(1)))));
        b.run(|_ctx| Err::<(), _>(Reason::cause(2)));
        thread.join().unwrap();
        let number = |cause: Cause| cause.downcast_ref::<Reason>().unwrap().number();
        let first = number(block_on(group.join()).unwrap_err());
        assert_eq!(group.context().cause().map(number), Some(first));
    });
}

/// Who looks while tasks are still there has the error's content by nothing else than the error.
#[test]
fn first_error_vs_report() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let group = group();
        let member = group.enter().unwrap();
        let limit = Context::background().with_cancel();
        limit.1.cancel();
        let thread = spawn(move || member.run(|_ctx| Err::<(), _>(Reason::cause(1))));
        let report = block_on(group.shutdown_with(&limit.0, Duration::ZERO));
        if let Some(cause) = report.cause {
            assert_eq!(cause.downcast_ref::<Reason>().unwrap().number(), 1);
        }
        thread.join().unwrap();
    });
}

/// One payload is raised, and the other one goes.
#[test]
fn panic_vs_panic() {
    model(Some(2), || {
        let group = group();
        let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
        let panics = |member: Member, number| {
            let payload = Box::new(Reason::new(number));
            member.run(move |_ctx| -> () { std::panic::resume_unwind(payload) });
        };
        let thread = spawn(move || at_once(|| panics(a, 1)));
        panics(b, 2);
        let raised = catch_unwind(AssertUnwindSafe(|| block_on(group.join()))).unwrap_err();
        assert!((1..=2).contains(&raised.downcast_ref::<Reason>().unwrap().number()));
        thread.join().unwrap();
    });
}

/// Each is counted.
#[test]
fn task_gone_vs_task_gone_in_a_report() {
    model(Some(2), || {
        let group = group();
        let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
        let limit = Context::background();
        let mut end = Box::pin(group.shutdown(&limit));
        assert!(!poll(&mut end, std::task::Waker::noop()));
        let thread = spawn(move || at_once(|| a.run(|_ctx| ())));
        b.run(|_ctx| ());
        assert_eq!(block_on(end).done, 2);
        thread.join().unwrap();
    });
}

/// The body is freed once, by whoever comes last.
#[test]
fn last_handle_vs_last_task_gone() {
    model(UNBOUNDED, || {
        let group = group();
        let member = group.enter().unwrap();
        let thread = spawn(move || drop(member));
        drop(group);
        thread.join().unwrap();
    });
}

/// Its name is on its way out when the last handle looks.
#[test]
fn last_handle_vs_end_of_a_named_task() {
    model(UNBOUNDED, || {
        let group = group();
        let member = group.named("a").enter().unwrap();
        let thread = spawn(move || drop(member));
        drop(group);
        thread.join().unwrap();
    });
}

#[test]
fn last_two_handles_vs_last_task_gone() {
    model(USUAL, || {
        let group = group();
        let member = group.enter().unwrap();
        let spawner = group.spawner();
        let task = spawn(move || drop(member));
        let thread = spawn(move || drop(spawner));
        drop(group);
        task.join().unwrap();
        thread.join().unwrap();
    });
}

/// Who wakes the joiner is still at it when the joiner goes, and the group with it.
#[test]
fn joiner_that_drops_the_group_vs_last_task_gone() {
    model(USUAL, || {
        let group = group();
        let member = group.enter().unwrap();
        let thread = spawn(move || drop(member));
        block_on(group.wait_idle());
        drop(group);
        thread.join().unwrap();
    });
}

/// A name is dropped by the task or by who reads it, and never under its eyes.
#[test]
fn reader_vs_end_of_a_named_task() {
    model(USUAL, || {
        let group = group();
        let member = group.named("a").enter().unwrap();
        let thread = spawn(move || drop(member));
        for task in group.running() {
            assert_eq!(task.name.as_deref(), Some("a"));
        }
        thread.join().unwrap();
        assert!(group.is_empty());
        // Whoever comes next has nothing of it.
        let _next = group.enter().unwrap();
        assert_eq!(group.running()[0].name, None);
    });
}

#[test]
fn reader_vs_end_of_a_named_task_vs_join() {
    model(Some(1), || {
        let group = std::sync::Arc::new(group());
        let member = group.named("a").enter().unwrap();
        let other = group.clone();
        let reader = spawn(move || drop(other.running()));
        let task = spawn(move || drop(member));
        block_on(group.wait_idle());
        reader.join().unwrap();
        task.join().unwrap();
        assert!(group.is_empty());
    });
}

#[test]
fn spawn_vs_spawn_vs_end() {
    model(Some(1), || {
        let group = group();
        let member = group.enter().unwrap();
        let (a, b) = (group.spawner(), group.spawner());
        let first = spawn(move || drop(a.enter().unwrap()));
        let second = spawn(move || drop(b.enter().unwrap()));
        drop(member);
        first.join().unwrap();
        second.join().unwrap();
        assert!(group.is_empty());
    });
}

/// Each of two handles that are made at once is counted.
#[test]
fn handle_made_vs_handle_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let spawner = group.spawner();
        let thread = spawn(move || [spawner.clone(), spawner]);
        let another = group.spawner();
        let [a, b] = thread.join().unwrap();
        drop((a, b, group));
        assert!(another.enter().is_err());
    });
}

/// What was done by a handle that goes is done when the last one frees the group.
#[test]
fn look_by_a_handle_vs_last_handle() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        drop(group.enter().unwrap());
        let spawner = group.spawner();
        let thread = spawn(move || {
            assert_eq!(spawner.len(), 0);
            drop(spawner);
        });
        drop(group);
        thread.join().unwrap();
    });
}

/// Who waits asks how often nobody was left: of two times at once, none is lost.
#[test]
fn nobody_left_vs_nobody_left() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let member = group.enter().unwrap();
        let noop = std::task::Waker::noop();
        let mut first = Box::pin(group.wait_idle());
        assert!(!poll(&mut first, noop));
        let thread = spawn(move || drop(member));
        let mut second = Box::pin(group.wait_idle());
        pause();
        at_once(|| {
            for _ in 0..2 {
                let member = group.enter().unwrap();
                assert!(!poll(&mut second, noop));
                drop(member);
            }
        });
        thread.join().unwrap();
        assert!(poll(&mut second, noop), "a joiner that sleeps for ever");
    });
}

/// A joiner takes a seat that was just made, or was just left, while others are woken.
#[test]
fn last_task_gone_vs_a_joiner_that_sits_down() {
    model(USUAL, || {
        let group = group();
        let member = group.enter().unwrap();
        let noop = std::task::Waker::noop();
        let mut first = Box::pin(group.wait_idle());
        assert!(!poll(&mut first, noop));
        let thread = spawn(move || drop(member));
        let probe = Probe::new();
        let mut second = Box::pin(group.wait_idle());
        let ready = poll(&mut second, &probe.waker());
        thread.join().unwrap();
        assert!(ready || probe.woken() > 0, "a joiner that sleeps for ever");
        drop(second);
    });
}

/// Two joiners take seats at once, and leave them.
#[test]
fn joiner_vs_joiner() {
    // Many executions at 3: bound 2.
    model(Some(2), || {
        let group = Arc::new(group());
        let _member = group.enter().unwrap();
        let probe = Probe::new();
        let (other, waker) = (group.clone(), probe.waker());
        let thread = spawn(move || {
            let mut wait = Box::pin(other.wait_idle());
            assert!(!poll(&mut wait, &waker));
        });
        for _ in 0..2 {
            let mut wait = Box::pin(group.wait_idle());
            assert!(!poll(&mut wait, &probe.waker()));
        }
        thread.join().unwrap();
    });
}

/// Two joiners do not sit down on one free seat.
#[test]
fn joiner_vs_joiner_and_one_free_seat() {
    model_in_all_orders(UNBOUNDED, || {
        let group = Arc::new(group());
        let member = group.enter().unwrap();
        assert!(look(pin!(group.wait_idle())).is_none());
        let sit_down = move |group: Arc<Group>| {
            let probe = Probe::new();
            let mut wait = Box::pin(async move { group.wait_idle().await });
            assert!(!poll(&mut wait, &probe.waker()));
            (wait, probe)
        };
        let other = group.clone();
        let thread = spawn(move || at_once(|| sit_down(other)));
        let (mine, probe) = sit_down(group);
        let (theirs, other) = thread.join().unwrap();
        drop(member);
        for (wait, probe) in [(mine, probe), (theirs, other)] {
            assert!(probe.woken() > 0, "a joiner that sleeps for ever");
            drop(wait);
        }
    });
}

/// A look for a free seat goes on where the last one has ended: at a seat that others have just made.
#[test]
fn joiner_vs_seats_just_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = Arc::new(group());
        let _member = group.enter().unwrap();
        let sit_down = |group: Arc<Group>| {
            let mut wait = Box::pin(async move { group.wait_idle().await });
            assert!(look(wait.as_mut()).is_none());
            wait
        };
        // The first look of all marks the task, and who finds that has seen what was made before.
        let _first = sit_down(group.clone());
        let other = group.clone();
        let thread = spawn(move || drop(sit_down(other)));
        at_once(|| {
            let _second = sit_down(group.clone());
            drop(sit_down(group.clone()));
            // Two that end there: one finds the seat that was left, and the last one nothing.
            let _rest = [(); 3].map(|()| sit_down(group.clone()));
        });
        thread.join().unwrap();
    });
}

// ----- places ---------------------------------------------------------------------------------

/// Who comes upon a place that was just made sees it as it was made, whoever has led there: its maker, who took it
/// next, who left it.
#[test]
fn spawn_vs_places_just_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let _first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.enter().unwrap());
        let _mine = at_once(|| {
            let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
            drop(b);
            drop(a);
            group.enter().unwrap()
        });
        let _theirs = thread.join().unwrap();
        assert_eq!(group.len(), 3);
    });
}

/// The same of a place that a task with a name has left.
#[test]
fn spawn_vs_place_of_a_named_task() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let _first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.enter().unwrap());
        let _mine = at_once(|| {
            let a = group.enter().unwrap();
            drop(group.named("b").enter().unwrap());
            a
        });
        let _theirs = thread.join().unwrap();
        assert_eq!(group.len(), 3);
    });
}

/// And of one that a task has left for which somebody waits.
#[test]
fn spawn_vs_place_of_a_watched_task() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let _first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.enter().unwrap());
        let _mine = at_once(|| {
            let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
            assert!(look(pin!(group.wait_idle())).is_none());
            drop(b);
            a
        });
        let _theirs = thread.join().unwrap();
        assert_eq!(group.len(), 3);
    });
}

/// Where a search goes on is a place that others have just made.
#[test]
fn search_vs_places_just_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let _first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.enter().unwrap());
        let _mine = at_once(|| [(); 5].map(|()| group.enter().unwrap()));
        let _theirs = thread.join().unwrap();
        assert_eq!(group.len(), 7);
    });
}

/// A search finds a place that no hint led to. It leaves where it ended, and what it found there, to others who do not
/// know these places.
#[test]
fn search_that_finds_vs_spawn() {
    // Many executions at 2: bound 1.
    model_in_all_orders(Some(1), || {
        let group = group();
        let _first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.enter().unwrap());
        let (a, b) = at_once(|| (group.enter().unwrap(), group.enter().unwrap()));
        let leaving = spawn(move || {
            at_once(|| {
                drop(b);
                drop(a);
            })
        });
        let _mine = group.enter().unwrap();
        let _theirs = thread.join().unwrap();
        leaving.join().unwrap();
        assert_eq!(group.len(), 3);
    });
}

/// Who finds a place that no hint led to makes shards, which another one comes upon.
#[test]
fn growth_vs_spawn() {
    model_in_all_orders(Some(1), || {
        let group = group();
        let first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.enter().unwrap());
        let leaving = spawn(move || at_once(|| drop(first)));
        set_thread_number(1);
        let _mine = group.enter().unwrap();
        let _theirs = thread.join().unwrap();
        leaving.join().unwrap();
        assert_eq!(group.len(), 2);
    });
}

/// Who makes shards while another one closes: nobody comes in by these.
#[test]
fn growth_vs_close() {
    model_in_all_orders(UNBOUNDED, || {
        let group = Arc::new(group());
        let first = group.enter().unwrap();
        let other = group.clone();
        let thread = spawn(move || {
            at_once(|| drop(first));
            pause();
            at_once(|| other.close());
        });
        set_thread_number(1);
        let _mine = group.enter();
        thread.join().unwrap();
        assert!(group.enter().is_err());
    });
}

/// A task that goes leaves a hint to a place that was just made. Who follows it sees the place as it was made.
#[test]
fn end_vs_place_just_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let first = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || at_once(|| spawner.enter().unwrap()));
        drop(first);
        let _mine = [group.enter().unwrap(), group.enter().unwrap()];
        let _theirs = thread.join().unwrap();
        assert_eq!(group.len(), 3);
    });
}

/// A walk comes to places that were just made.
#[test]
fn walk_vs_places_just_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let spawner = group.spawner();
        let thread = spawn(move || spawner.len());
        let _mine = at_once(|| group.enter().unwrap());
        assert!(thread.join().unwrap() <= 1);
    });
}

/// A task does not take the name of the one before it for its own.
#[test]
fn end_of_a_named_task_vs_the_next_one() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let named = group.named("a").enter().unwrap();
        let thread = spawn(move || at_once(|| drop(named)));
        let member = group.enter().unwrap();
        at_once(|| member.run(|_ctx| -> () { std::panic::resume_unwind(Box::new("oh no")) }));
        let cause = group.context().cause().unwrap();
        assert_eq!(cause.downcast_ref::<Panicked>().unwrap().name, None);
        thread.join().unwrap();
    });
}

/// Who reads what is written of a task does not come upon what was written of the one before it.
#[test]
fn reader_vs_end_of_a_named_task_and_the_next_one() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let named = group.named("a").enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || {
            at_once(|| {
                drop(named);
                spawner.enter().unwrap()
            })
        });
        for task in group.running() {
            assert!(task.name.is_none_or(|name| name == "a"));
        }
        let _next = thread.join().unwrap();
    });
}

/// Who finds a task finds its name.
#[test]
fn reader_vs_begin_of_a_named_task() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        drop(group.enter().unwrap());
        let spawner = group.spawner();
        let thread = spawn(move || at_once(|| spawner.named("a").enter().unwrap()));
        for task in group.running() {
            assert_eq!(task.name.as_deref(), Some("a"));
        }
        let _named = thread.join().unwrap();
    });
}

/// A name that comes and goes while its place is read goes with the reader, who has not seen it.
#[test]
fn reader_vs_begin_and_end_of_a_named_task() {
    model_in_all_orders(Some(2), || {
        let group = Arc::new(group());
        drop(group.enter().unwrap());
        let other = group.clone();
        let thread = spawn(move || other.running().len());
        drop(group.named("a").enter().unwrap());
        assert!(thread.join().unwrap() <= 1);
    });
}

/// Who is refused by the group around this one was never a task, and does not take what is left of an earlier one for its own.
#[test]
fn reader_vs_spawn_that_is_refused_for_the_second_time() {
    model_in_all_orders(Some(2), || {
        let around = group();
        let group = around.child("inside");
        drop(group.enter().unwrap());
        around.close();
        assert!(group.enter().is_err());
        let spawner = group.spawner();
        let thread = spawn(move || assert!(spawner.enter().is_err()));
        assert!(group.running().is_empty());
        thread.join().unwrap();
    });
}

/// A name goes when all who read it are through.
#[test]
fn reader_vs_reader_vs_end_of_a_named_task() {
    model_in_all_orders(Some(2), || {
        let group = group();
        let named = group.named("a").enter().unwrap();
        let spawner = Arc::new(group);
        let other = spawner.clone();
        let thread = spawn(move || at_once(|| other.running().len()));
        let task = spawn(move || at_once(|| drop(named)));
        assert!(spawner.running().len() <= 1);
        assert!(thread.join().unwrap() <= 1);
        task.join().unwrap();
        assert!(spawner.is_empty());
    });
}

// ----- the limit ------------------------------------------------------------------------------

/// Who waits is woken when the place is given up.
#[test]
fn wait_for_room_vs_end_of_a_task() {
    model(USUAL, || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let thread = spawn(move || drop(member));
        let ctx = Context::background();
        let next = block_on(group.enter_when(&ctx));
        assert!(next.is_ok());
        thread.join().unwrap();
    });
}

#[test]
fn two_waits_for_room_vs_end_of_a_task() {
    model(Some(1), || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let spawner = group.spawner();
        let other = spawn(move || {
            let ctx = Context::background();
            drop(block_on(spawner.enter_when(&ctx)).unwrap());
        });
        drop(member);
        let ctx = Context::background();
        drop(block_on(group.enter_when(&ctx)).unwrap());
        other.join().unwrap();
        assert!(group.enter().is_ok());
    });
}

/// The room that comes when somebody gives up goes to the next, and is not lost.
#[test]
fn who_gives_up_waiting_for_room_vs_end_of_a_task() {
    model(USUAL, || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let thread = spawn(move || drop(member));
        let ctx = Context::background();
        let probe = Probe::new();
        let mut wait = Box::pin(group.enter_when(&ctx));
        // What it may have got, it gives up too.
        poll(&mut wait, &probe.waker());
        drop(wait);
        thread.join().unwrap();
        assert!(group.enter().is_ok());
    });
}

#[test]
fn who_gives_up_waiting_for_room_vs_end_of_a_task_vs_the_next() {
    model(Some(1), || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let ctx = Context::background();
        let probe = Probe::new();
        let mut first = Box::pin(group.enter_when(&ctx));
        assert!(!poll(&mut first, &probe.waker()));
        let spawner = group.spawner();
        let next = spawn(move || {
            let ctx = Context::background();
            drop(block_on(spawner.enter_when(&ctx)).unwrap());
        });
        let task = spawn(move || drop(member));
        drop(first);
        next.join().unwrap();
        task.join().unwrap();
        assert!(group.enter().is_ok());
    });
}

#[test]
fn wait_for_room_vs_cancel() {
    model(Some(2), || {
        let group = group().limit(1);
        let _member: Member = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || {
            let ctx = Context::background();
            let refused = block_on(spawner.enter_when(&ctx)).unwrap_err();
            assert!(number(refused.cause()));
        });
        group.cancel_with(Reason::cause(1));
        thread.join().unwrap();
    });
}

#[test]
fn wait_for_room_vs_close() {
    model(Some(2), || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || {
            let ctx = Context::background();
            drop(block_on(spawner.enter_when(&ctx)).unwrap_err());
        });
        group.close();
        thread.join().unwrap();
        drop(member);
    });
}

#[test]
fn wait_for_room_vs_a_higher_limit() {
    model(USUAL, || {
        let group = group().limit(1);
        let _member = group.enter().unwrap();
        let spawner = group.spawner();
        let thread = spawn(move || {
            let ctx = Context::background();
            drop(block_on(spawner.enter_when(&ctx)).unwrap());
        });
        group.set_limit(2);
        thread.join().unwrap();
    });
}

/// A group for one task at a time, with a task in it, and a place beside the task's: so that it is the limit alone by which
/// the next one learns what this one did.
fn group_for_one(data: &Data) -> (Group, impl FnOnce() + Send + use<>) {
    let group = group();
    let members = [group.enter().unwrap(), group.enter().unwrap()];
    let [mine, beside] = members;
    drop((mine, beside));
    let group = group.limit(1);
    let (member, written) = (group.enter().unwrap(), data.clone());
    let end = move || {
        written.write();
        drop(written);
        drop(member);
    };
    (group, end)
}

/// Who comes after a task sees what it did.
#[test]
fn data_vs_next_task() {
    model(USUAL, || {
        let data = Data::new();
        let (group, end) = group_for_one(&data);
        let thread = spawn(end);
        if let Ok(next) = group.enter() {
            data.read();
            drop(next);
        }
        thread.join().unwrap();
    });
}

#[test]
fn data_vs_wait_for_room() {
    model(Some(2), || {
        let data = Data::new();
        let (group, end) = group_for_one(&data);
        let ctx = Context::background();
        let mut wait = Box::pin(group.enter_when(&ctx));
        assert!(!poll(&mut wait, std::task::Waker::noop()));
        let thread = spawn(end);
        if let Some(next) = look(wait.as_mut()) {
            data.read();
            drop(next);
        }
        thread.join().unwrap();
    });
}

/// Who hands out the permit that a task has given back hands on what the task did.
#[test]
fn data_vs_wait_for_room_vs_a_limit() {
    model_in_all_orders(Some(2), || {
        let data = Data::new();
        let (group, end) = group_for_one(&data);
        let spawner = group.spawner();
        let wait = async move { spawner.enter_when(&Context::background()).await.ok() };
        let mut wait = Box::pin(wait);
        assert!(look(wait.as_mut()).is_none());
        let task = spawn(move || at_once(end));
        let next = spawn(move || {
            let next = look(wait.as_mut());
            if next.is_some() {
                data.read();
            }
            (wait, next)
        });
        group.set_limit(1);
        task.join().unwrap();
        drop(next.join().unwrap());
    });
}

/// A permit that comes while another one is handed on is not lost.
#[test]
fn end_of_a_task_vs_end_of_a_task_vs_wait_for_room() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group().limit(2);
        let (a, b) = (group.enter().unwrap(), group.enter().unwrap());
        let ctx = Context::background();
        let mut wait = Box::pin(group.enter_when(&ctx));
        assert!(!poll(&mut wait, std::task::Waker::noop()));
        let thread = spawn(move || at_once(|| drop(b)));
        drop(a);
        thread.join().unwrap();
        let _first = look(wait.as_mut()).unwrap();
        assert!(group.enter().is_ok());
    });
}

/// Who gives up either has got the permit, or never gets it.
#[test]
fn who_gives_up_at_once_vs_end_of_a_task() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let ctx = Context::background();
        let mut wait = Box::pin(group.enter_when(&ctx));
        assert!(!poll(&mut wait, std::task::Waker::noop()));
        let thread = spawn(move || drop(member));
        pause();
        at_once(|| drop(wait));
        thread.join().unwrap();
        assert!(group.enter().is_ok());
    });
}

#[test]
fn who_gives_up_vs_end_of_a_task_at_once() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let ctx = Context::background();
        let mut wait = Box::pin(group.enter_when(&ctx));
        assert!(!poll(&mut wait, std::task::Waker::noop()));
        let thread = spawn(move || at_once(|| drop(member)));
        drop(wait);
        thread.join().unwrap();
        assert!(group.enter().is_ok());
    });
}

/// Step by step, both: who takes the permit back does not overlook that the other has left a word.
#[test]
fn who_gives_up_vs_end_of_a_task() {
    model(USUAL, || {
        let group = group().limit(1);
        let member = group.enter().unwrap();
        let spawner = group.spawner();
        let wait = async move { spawner.enter_when(&Context::background()).await.is_ok() };
        let mut wait = Box::pin(wait);
        assert!(!poll(&mut wait, std::task::Waker::noop()));
        let thread = spawn(move || drop(wait));
        drop(member);
        thread.join().unwrap();
        assert!(group.enter().is_ok());
    });
}

// ----- typed outcomes -------------------------------------------------------------------------

/// Two tasks that are made at once are both counted.
#[test]
fn outcome_made_vs_outcome_made() {
    model_in_all_orders(UNBOUNDED, || {
        let group = group();
        let outcomes = Arc::new(group.outcomes::<usize>());
        let other = outcomes.clone();
        let task = || async { Ok::<_, Cause>(1) };
        let thread = spawn(move || at_once(|| other.track(task()).unwrap()));
        let mine = outcomes.track(task()).unwrap();
        let theirs = thread.join().unwrap();
        let mut outcomes = Arc::into_inner(outcomes).unwrap();
        block_on(pin!(mine));
        assert!(block_on(outcomes.next()).is_some());
        assert!(look(pin!(outcomes.next())).is_none());
        block_on(pin!(theirs));
        assert!(block_on(outcomes.next()).is_some());
        assert!(block_on(outcomes.next()).is_none());
    });
}

/// What came of a task is whole for who takes it, by nothing else than the list.
#[test]
fn data_of_an_outcome_vs_one_look() {
    model(USUAL, || {
        let group = group();
        let mut outcomes = group.outcomes::<Reason>();
        let task = async { Ok::<_, Cause>(Reason::new(7)) };
        let task = outcomes.track(task).unwrap();
        let thread = spawn(move || block_on(pin!(task)));
        match look(pin!(outcomes.next())) {
            Some(Some(outcome)) => assert_eq!(outcome.unwrap().number(), 7),
            Some(None) => panic!("an outcome that is missed"),
            None => {}
        }
        thread.join().unwrap();
    });
}

/// What comes when the wait is over is there, or its task is missing.
#[test]
fn outcome_vs_end_of_the_wait_for_all() {
    model(USUAL, || {
        let group = group();
        let mut outcomes = group.outcomes::<usize>();
        let task = outcomes.track(async { Ok::<_, Cause>(7) }).unwrap();
        let (limit, guard) = Context::background().with_cancel();
        guard.cancel();
        let thread = spawn(move || block_on(pin!(task)));
        let partial = block_on(outcomes.join_until(&limit));
        let (came, missing) = (partial.outcomes.len(), partial.missing.len());
        assert!(came + missing > 0, "an outcome that is lost");
        assert_eq!(partial.cause.is_some(), came == 0);
        thread.join().unwrap();
    });
}

/// How many are missing is right, whoever comes and goes.
#[test]
fn outcome_vs_next_task() {
    model(USUAL, || {
        let group = group();
        let mut outcomes = group.outcomes::<usize>();
        let task = outcomes.track(async { Ok::<_, Cause>(1) }).unwrap();
        let thread = spawn(move || block_on(pin!(task)));
        let task = outcomes.track(async { Ok::<_, Cause>(2) }).unwrap();
        thread.join().unwrap();
        assert!(block_on(outcomes.next()).is_some());
        assert!(look(pin!(outcomes.next())).is_none());
        block_on(pin!(task));
        assert!(block_on(outcomes.next()).is_some());
        assert!(block_on(outcomes.next()).is_none());
    });
}

#[test]
fn outcome_vs_who_waits_for_the_next() {
    model(USUAL, || {
        let group = group();
        let mut outcomes = group.outcomes::<usize>();
        let task = outcomes.track(async { Ok::<_, Cause>(7) }).unwrap();
        let thread = spawn(move || {
            let task = pin!(task);
            block_on(task);
        });
        assert_eq!(block_on(outcomes.next()).unwrap().unwrap(), 7);
        assert!(block_on(outcomes.next()).is_none());
        thread.join().unwrap();
    });
}
