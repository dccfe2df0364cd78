//! Groups that all threads have: tasks that come and go, fail and panic, limits and who waits for room, who joins.

use super::{pick, Bell, Thread};
use arbitrary::Arbitrary;
use cancel_tree::{Cause, Closed, Context, ContextError, Full, Group, Member, Refused, Spawner};
use cancel_tree_fuzz::history::{Event, Seen};
use cancel_tree_fuzz::probes::{Reason, PANICKED};
use cancel_tree_fuzz::span::{stamp, Span};
use cancel_tree_fuzz::tasks::{Known, TaskEvent};
use std::future::Future;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::{self, Poll, Waker};

/// Below which context, or inside which group, with which limit (0: none), and which threads have it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct New {
    below: u8,
    inside: Option<u8>,
    limit: u8,
    holders: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    Enter(u8, bool),
    EnterWhen(u8),
    Leave(u8, How),
    Close(u8),
    Cancel(u8, bool),
    Join(u8),
    WaitIdle(u8),
    Poll(u8, bool),
    DropWait(u8),
    Look(u8, Ask),
    Clone(u8),
    Drop(u8),
}

/// How a task goes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum How {
    Dropped,
    Succeeds,
    Fails,
    HandsBack,
    Panics,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Ask {
    Len,
    Running,
    IsEmpty,
    Why,
}

struct TaskPanic(#[allow(dead_code)] Arc<()>);

/// A handle of a group.
#[derive(Clone)]
pub struct Handle {
    index: usize,
    group: Arc<Group>,
    /// Which threads have it at first.
    pub holders: u8,
}

struct Task {
    group: usize,
    member: Member,
    entered: Span,
}

type Room = Result<Member, Refused<()>>;

enum Future_ {
    Room(Pin<Box<dyn Future<Output = Room> + Send>>),
    Idle(Pin<Box<dyn Future<Output = ()> + Send>>),
    Join(Pin<Box<dyn Future<Output = Result<(), Cause>> + Send>>),
}

struct Wait {
    group: usize,
    future: Future_,
    bell: Arc<Bell>,
    /// When it began.
    since: u64,
    pending: bool,
}

/// What one thread has of groups.
#[derive(Default)]
pub struct Own {
    pub handles: Vec<Handle>,
    tasks: Vec<Task>,
    waits: Vec<Wait>,
}

fn end(task: Task, how: How, number: u32, life: &Arc<()>) {
    let Task { member, .. } = task;
    match how {
        How::Dropped => drop(member),
        How::Succeeds => member.run(|_ctx| ()),
        How::Fails => {
            let cause = Reason::cause(number, ContextError::Cancelled, life);
            member.run(move |_ctx| Err::<(), Cause>(cause));
        }
        How::HandsBack => member.run(|ctx| ctx.check_cause()),
        How::Panics => {
            let payload = Box::new(TaskPanic(life.clone()));
            member.run(move |_ctx| -> () { resume_unwind(payload) });
        }
    }
}

impl Thread {
    pub(super) fn new_group(&mut self, new: New) {
        let outer = new.inside.and_then(|n| pick(self.groups.handles.len(), n));
        let (parent, made) = match outer.map(|i| self.groups.handles[i].clone()) {
            Some(outer) => {
                let fact = self.history.groups[outer.index].fact;
                let made = Span::of(|| outer.group.child("inside"));
                // All of it is made before the threads begin.
                drop(outer.group);
                (fact, made)
            }
            None => {
                let Some(i) = self.handle(new.below) else {
                    return;
                };
                // Under a grace a group has a hard token of its own: the contexts fuzzer's.
                if self.handles[i].under.is_some() {
                    return;
                }
                let ctx = self.handles[i].ctx();
                (self.handles[i].fact, Span::of(|| Group::new(&ctx)))
            }
        };
        let (span, group) = made;
        let limit = Some(usize::from(new.limit) % 4).filter(|limit| *limit != 0);
        if let Some(limit) = limit {
            group.set_limit(limit);
        }
        let fact = self.fact();
        self.history.note(
            span,
            Event::Made {
                fact,
                parents: vec![parent],
                deadline: None,
            },
        );
        let index = self.history.groups.len();
        let outer = outer.map(|i| self.groups.handles[i].index);
        self.history.groups.push(Known { fact, outer, limit });
        let group = Arc::new(group);
        self.groups.handles.push(Handle {
            index,
            group,
            holders: new.holders,
        });
    }

    fn note_task(&mut self, span: Span, event: TaskEvent) {
        self.history.note(span, Event::Task(event));
    }

    fn fact_of(&self, group: usize) -> usize {
        self.facts_of_groups[group]
    }

    fn group(&self, n: u8) -> Option<(usize, Arc<Group>)> {
        let i = pick(self.groups.handles.len(), n)?;
        let handle = &self.groups.handles[i];
        Some((handle.index, handle.group.clone()))
    }

    /// What became of a wish to come in.
    fn answered(&mut self, group: usize, span: Span, answer: Room) {
        match answer {
            Ok(member) => self.groups.tasks.push(Task {
                group,
                member,
                entered: span,
            }),
            Err(refused) if refused.cause().downcast_ref::<Closed>().is_some() => {
                self.note_task(span, TaskEvent::FoundClosed { group });
                self.note_task(span, TaskEvent::Tried { group });
            }
            Err(refused) if refused.cause().downcast_ref::<Full>().is_some() => {
                self.note_task(span, TaskEvent::FoundFull { group });
            }
            Err(refused) => {
                self.note_task(span, TaskEvent::Tried { group });
                let because = Seen::Because(Reason::number_of(refused.cause()));
                self.refused(group, span, because);
            }
        }
    }

    /// Refused because it is done, or one around it.
    fn refused(&mut self, group: usize, span: Span, seen: Seen) {
        let fact = self.fact_of(group);
        self.history.note(span, Event::Seen { fact, seen });
    }

    fn leave(&mut self, i: usize, how: How) {
        let task = self.groups.tasks.swap_remove(i);
        let (group, entered) = (task.group, task.entered);
        let number = self.shared.causes.fetch_add(1, Ordering::Relaxed);
        let life = self.shared.life.clone();
        let (left, ()) = Span::of(|| end(task, how, number, &life));
        let event = TaskEvent::Was {
            group,
            entered,
            left,
        };
        self.note_task(left, event);
        let cause = match how {
            How::Fails => number,
            How::Panics => PANICKED,
            _ => return,
        };
        let fact = self.fact_of(group);
        let event = Event::Cancel {
            fact,
            cause,
            first: None,
        };
        self.history.note(left, event);
    }

    fn drop_group(&mut self, handle: Handle) {
        let fact = self.fact_of(handle.index);
        let (span, ()) = Span::of(|| drop(handle));
        self.history.note(span, Event::MayCancel { fact });
    }

    fn wait(&mut self, group: usize, future: Future_) {
        self.groups.waits.push(Wait {
            group,
            future,
            bell: Arc::default(),
            since: stamp(),
            pending: false,
        });
        self.poll_wait(self.groups.waits.len() - 1, false);
    }

    /// True: it is over.
    fn poll_wait(&mut self, i: usize, other_waker: bool) -> bool {
        let wait = &mut self.groups.waits[i];
        if other_waker {
            wait.bell = Arc::default();
        }
        let (group, since) = (wait.group, wait.since);
        let waker = Waker::from(wait.bell.clone());
        let mut cx = task::Context::from_waker(&waker);
        match &mut wait.future {
            Future_::Room(future) => {
                let (span, polled) = Span::of(|| future.as_mut().poll(&mut cx));
                match polled {
                    Poll::Pending => self.note_task(span, TaskEvent::Queued { group }),
                    Poll::Ready(answer) => {
                        self.groups.waits.swap_remove(i);
                        self.answered(group, span, answer);
                        return true;
                    }
                }
            }
            Future_::Idle(future) => {
                let (span, polled) = Span::of(|| future.as_mut().poll(&mut cx));
                if polled.is_ready() {
                    self.note_task(span, TaskEvent::FoundIdle { group, since });
                    self.drop_wait(i);
                    return true;
                }
            }
            Future_::Join(future) => {
                let poll = AssertUnwindSafe(|| future.as_mut().poll(&mut cx));
                let (span, polled) = Span::of(|| catch_unwind(poll));
                let result = match polled {
                    Ok(Poll::Pending) => {
                        self.note_task(span, TaskEvent::Joins { group });
                        self.groups.waits[i].pending = true;
                        return false;
                    }
                    Ok(Poll::Ready(result)) => result,
                    Err(payload) => {
                        assert!(payload.is::<TaskPanic>(), "another panic");
                        Ok(())
                    }
                };
                self.note_task(span, TaskEvent::Joined { group });
                if let Err(cause) = result {
                    self.joined_with(group, span, &cause);
                }
                self.drop_wait(i);
                return true;
            }
        }
        self.groups.waits[i].pending = true;
        false
    }

    /// If a task's error is what the group ended by, `join` says so.
    fn joined_with(&mut self, group: usize, span: Span, cause: &Cause) {
        let number = Reason::number_of(cause);
        let event = TaskEvent::JoinedWith { group, number };
        self.note_task(span, event);
    }

    /// It may have the last handle of the group.
    fn drop_wait(&mut self, i: usize) {
        let wait = self.groups.waits.swap_remove(i);
        let fact = self.fact_of(wait.group);
        let (span, ()) = Span::of(|| drop(wait));
        self.history.note(span, Event::MayCancel { fact });
    }

    pub(super) fn step_of_groups(&mut self, step: Step) {
        match step {
            Step::Enter(n, is_named) => {
                let Some(i) = pick(self.groups.handles.len(), n) else {
                    return;
                };
                let handle = &self.groups.handles[i];
                let group = handle.index;
                let (span, answer) = Span::of(|| match is_named {
                    true => handle.group.named("a task").enter(),
                    false => handle.group.enter(),
                });
                self.answered(group, span, answer);
            }
            Step::EnterWhen(n) => {
                let Some(i) = pick(self.groups.handles.len(), n) else {
                    return;
                };
                let handle = &self.groups.handles[i];
                let (group, spawner): (usize, Spawner) = (handle.index, handle.group.spawner());
                let room = async move { spawner.enter_when(&Context::background()).await };
                self.wait(group, Future_::Room(Box::pin(room)));
            }
            Step::Leave(n, how) => {
                if let Some(i) = pick(self.groups.tasks.len(), n) {
                    self.leave(i, how);
                }
            }
            Step::Close(n) => {
                let Some(i) = pick(self.groups.handles.len(), n) else {
                    return;
                };
                let handle = &self.groups.handles[i];
                let group = handle.index;
                let (span, ()) = Span::of(|| handle.group.close());
                self.note_task(span, TaskEvent::Closed { group });
            }
            Step::Cancel(n, with_cause) => {
                let Some(i) = pick(self.groups.handles.len(), n) else {
                    return;
                };
                let (number, cause) = match with_cause {
                    true => {
                        let (number, cause) = self.cause(ContextError::Cancelled);
                        (number, Some(cause))
                    }
                    false => (0, None),
                };
                let handle = &self.groups.handles[i];
                let fact = self.fact_of(handle.index);
                let (span, first) = Span::of(|| match cause {
                    Some(cause) => handle.group.cancel_with(cause),
                    None => handle.group.cancel(),
                });
                let event = Event::Cancel {
                    fact,
                    cause: number,
                    first: Some(first),
                };
                self.history.note(span, event);
            }
            Step::Join(n) => {
                if let Some((group, handle)) = self.group(n) {
                    let join = async move { handle.join().await };
                    self.wait(group, Future_::Join(Box::pin(join)));
                }
            }
            Step::WaitIdle(n) => {
                if let Some((group, handle)) = self.group(n) {
                    let idle = async move { handle.wait_idle().await };
                    self.wait(group, Future_::Idle(Box::pin(idle)));
                }
            }
            Step::Poll(n, other_waker) => {
                if let Some(i) = pick(self.groups.waits.len(), n) {
                    self.poll_wait(i, other_waker);
                }
            }
            Step::DropWait(n) => {
                if let Some(i) = pick(self.groups.waits.len(), n) {
                    self.drop_wait(i);
                }
            }
            Step::Look(n, ask) => {
                let Some(i) = pick(self.groups.handles.len(), n) else {
                    return;
                };
                self.look_at_group(i, ask);
            }
            Step::Clone(n) => {
                if let Some(i) = pick(self.groups.handles.len(), n) {
                    self.groups.handles.push(self.groups.handles[i].clone());
                }
            }
            Step::Drop(n) => {
                if let Some(i) = pick(self.groups.handles.len(), n) {
                    let handle = self.groups.handles.swap_remove(i);
                    self.drop_group(handle);
                }
            }
        }
    }

    fn look_at_group(&mut self, i: usize, ask: Ask) {
        let handle = &self.groups.handles[i];
        let group = handle.index;
        match ask {
            Ask::Len | Ask::Running => {
                let (span, tasks) = Span::of(|| match ask {
                    Ask::Len => handle.group.len(),
                    _ => handle.group.running().len(),
                });
                self.note_task(span, TaskEvent::Counted { group, tasks });
            }
            Ask::IsEmpty => {
                let (span, is_empty) = Span::of(|| handle.group.is_empty());
                if is_empty {
                    let since = span.begin;
                    self.note_task(span, TaskEvent::FoundIdle { group, since });
                }
            }
            Ask::Why => {
                let (span, cause) = Span::of(|| handle.group.context().cause());
                let seen = cause.map_or(Seen::Live, |c| Seen::Because(Reason::number_of(&c)));
                self.refused(group, span, seen);
            }
        }
    }

    /// When all threads are through: what they have not ended.
    pub(super) fn end_tasks(&mut self) {
        while let Some(i) = self.groups.tasks.len().checked_sub(1) {
            self.leave(i, How::Succeeds);
        }
    }

    /// After that: whoever waits has been told, and is through. True: somebody has come in by that.
    pub(super) fn end_waits(&mut self) -> bool {
        let mut again = false;
        let mut i = 0;
        while i < self.groups.waits.len() {
            let is_told = self.groups.waits[i].bell.rings.load(Ordering::Acquire) != 0;
            if is_told && self.poll_wait(i, false) {
                again = true;
            } else {
                i += 1;
            }
        }
        again
    }

    pub(super) fn sleeps(&self) -> usize {
        self.groups.waits.len()
    }

    /// Nobody is there, so there is all the room that there should be.
    pub(super) fn check_room(&mut self, handle: &Handle) {
        let Some(limit) = self.history.groups[handle.index].limit else {
            return;
        };
        let room: Vec<Room> = (0..=limit).map(|_| handle.group.enter()).collect();
        let refused = room.iter().filter_map(|room| room.as_ref().err());
        let is_full = |refused: &Refused<()>| refused.cause().downcast_ref::<Full>().is_some();
        let full = refused.clone().filter(|refused| is_full(refused)).count();
        assert!(
            full == 1 || refused.count() == limit + 1 && full == 0,
            "a permit is lost, or one too many: {room:?}"
        );
    }
}
