//! Groups: tasks that are polled by hand, errors, panics, limits, groups inside groups; who waits until all are gone.

use super::moving::Under;
use super::{pick, Ctx, World};
use arbitrary::Arbitrary;
use cancel_tree::{
    Cause, Closed, Context, ContextError, Full, Group, Member, Refused, Report, Spawner,
};
use cancel_tree_fuzz::probes::{catching, keeping, Bell, Reason, PANICKED};
use std::future::Future;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Waker};
use std::time::Duration;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    New(u8, bool),
    Child(u8),
    Context(u8),
    Enter(u8, bool),
    Track(u8, bool, bool),
    TrackWith(u8, How),
    EnterWhen(u8, u8),
    Poll(u8, How),
    Drop(u8),
    Run(u8, How),
    MemberContext(u8),
    PollWaiting(u8),
    DropWaiting(u8),
    Limit(u8, u8),
    Close(u8),
    Cancel(u8, Option<bool>),
    Join(u8),
    WaitIdle(u8),
    Shutdown(u8, u8),
    PollEnd(u8),
    DropEnd(u8),
    DropGroup(u8, bool),
}

/// What a task does.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum How {
    Waits,
    Succeeds,
    Fails(bool),
    /// With the kind alone.
    FailsBarely(bool),
    /// With the group's own cause, if it has one.
    HandsBack,
    Panics,
}

struct TaskPanic(#[allow(dead_code)] Arc<()>);

/// A future that does what it is told to; its drop may panic.
struct Work {
    script: Arc<Mutex<Script>>,
    life: Arc<()>,
    panics_on_drop: bool,
}

enum Script {
    Waits,
    Ends(Result<(), Cause>),
    Panics,
}

impl Future for Work {
    type Output = Result<(), Cause>;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut *self.script.lock().unwrap(), Script::Waits) {
            Script::Waits => Poll::Pending,
            Script::Ends(result) => Poll::Ready(result),
            Script::Panics => resume_unwind(Box::new(TaskPanic(self.life.clone()))),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.panics_on_drop {
            resume_unwind(Box::new(TaskPanic(self.life.clone())));
        }
    }
}

enum Body {
    Tracked(Pin<Box<dyn Future<Output = ()>>>, Arc<Mutex<Script>>),
    Member(Member),
}

struct Task {
    group: usize,
    body: Body,
    is_limited: bool,
    is_named: bool,
    panics_on_drop: bool,
}

/// How a task went, for a report.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Done,
    Dropped,
}

type Room = Result<Member, Refused<()>>;

/// Somebody waits for room.
struct Waiting {
    group: usize,
    /// What ends the wait.
    ctx: Ctx,
    state: State,
    bell: Arc<Bell>,
    future: Pin<Box<dyn Future<Output = Room>>>,
    number: usize,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    New,
    Queued,
    Granted,
    Refused,
}

/// Somebody waits until all are gone.
struct Ending {
    group: usize,
    kind: Kind,
    bell: Arc<Bell>,
    is_pending: bool,
    must_ring: bool,
}

enum Kind {
    Join(Pin<Box<dyn Future<Output = Result<(), Cause>>>>),
    Idle(Pin<Box<dyn Future<Output = ()>>>),
    Shutdown {
        future: Pin<Box<dyn Future<Output = Report>>>,
        limit: Ctx,
        done: usize,
        cancelled: usize,
        forced: usize,
    },
}

/// What is known of a group.
struct Known {
    /// None: dropped.
    group: Option<Arc<Group>>,
    spawner: Option<Spawner>,
    ctx: Ctx,
    fact: usize,
    /// What its cancel cancels.
    top: usize,
    outer: Option<usize>,
    is_closed: bool,
    keeps_going: bool,
    limit: Option<usize>,
    permits: usize,
    /// Numbers of those who wait.
    queue: Vec<usize>,
    first: Option<u32>,
    /// What was called at its end has panicked, which is said if there is no error.
    has_noted: bool,
    has_payload: bool,
    was_echoed: bool,
}

impl Known {
    /// What is said of how it went.
    fn failure(&self) -> Option<u32> {
        self.first.or(self.has_noted.then_some(PANICKED))
    }
}

#[derive(Default)]
pub struct All {
    known: Vec<Known>,
    tasks: Vec<Task>,
    waiting: Vec<Waiting>,
    endings: Vec<Ending>,
    numbers: usize,
}

impl All {
    /// Which graces the groups keep, and what is held for their sake.
    pub fn keep(&self) -> impl Iterator<Item = &Vec<usize>> {
        let groups = self.known.iter().filter(|known| known.spawner.is_some());
        let groups = groups.map(|known| &known.ctx.keeps);
        let waiting = self.waiting.iter().map(|waiting| &waiting.ctx.keeps);
        let limits = self.endings.iter().filter_map(|ending| match &ending.kind {
            Kind::Shutdown { limit, .. } => Some(&limit.keeps),
            _ => None,
        });
        groups.chain(waiting).chain(limits)
    }

    /// The group, and those around it.
    fn around(&self, group: usize) -> Vec<usize> {
        let mut all = vec![group];
        while let Some(outer) = self.known[all[all.len() - 1]].outer {
            all.push(outer);
        }
        all
    }

    fn living(&self, group: usize) -> Vec<&Task> {
        let is_here = |task: &&Task| self.around(task.group).contains(&group);
        self.tasks.iter().filter(is_here).collect()
    }

    fn is_closed(&self, group: usize) -> bool {
        let around = self.around(group);
        around.iter().any(|&group| self.known[group].is_closed)
    }
}

/// Why something is not started.
#[derive(PartialEq, Debug)]
enum Why {
    Cause(u32),
    Closed,
    Full,
}

fn why_of(cause: &Cause) -> Why {
    if cause.downcast_ref::<Closed>().is_some() {
        Why::Closed
    } else if cause.downcast_ref::<Full>().is_some() {
        Why::Full
    } else {
        Why::Cause(Reason::number_of(cause))
    }
}

impl World {
    fn group(&self, n: u8) -> Option<usize> {
        let there = |i: &usize| self.groups.known[*i].spawner.is_some();
        let there: Vec<usize> = (0..self.groups.known.len()).filter(there).collect();
        pick(there.len(), n).map(|i| there[i])
    }

    fn spawner(&self, group: usize) -> Spawner {
        self.groups.known[group].spawner.clone().unwrap()
    }

    fn is_over(&self, group: usize) -> bool {
        self.oracle.is_cancelled(self.groups.known[group].fact)
    }

    fn number_of(ctx: &Context) -> Option<u32> {
        ctx.cause().as_ref().map(Reason::number_of)
    }

    // ----- groups -----------------------------------------------------------------------------

    fn new_group(&mut self, from: &Ctx, group: Group, outer: Option<usize>) {
        let above = from.fact.filter(|&fact| !self.oracle.is_cancelled(fact));
        let under = from
            .under
            .filter(|under| !self.oracle.is_cancelled(under.hard));
        let mut known = from.clone();
        known.ctx = group.context().clone();
        let (fact, top) = match (above, under) {
            (Some(above), Some(under)) => {
                // Shields and all.
                let hard = self.fact(vec![under.hard]);
                let soft = self.oracle.add_beside(above, hard);
                self.loses_callbacks.push(true);
                known.under = Some(Under { hard, ..under });
                known.shown = known.shown.anew(Some("with_cancel"));
                (soft, hard)
            }
            _ => {
                let fact = self.fact(Vec::from_iter(from.fact));
                known.shown = known.shown.then("with_cancel");
                known.limit = self.limit_below(from, fact);
                (fact, fact)
            }
        };
        known.fact = Some(fact);
        self.groups.known.push(Known {
            spawner: Some(group.spawner()),
            group: Some(Arc::new(group)),
            ctx: known.clone(),
            fact,
            top,
            outer,
            is_closed: false,
            keeps_going: false,
            limit: None,
            permits: 0,
            queue: Vec::new(),
            first: None,
            has_noted: false,
            has_payload: false,
            was_echoed: false,
        });
        self.contexts.push(known);
        self.show(self.contexts.len() - 1);
    }

    fn cancel_group(&mut self, group: usize, cause: u32) {
        let top = self.groups.known[group].top;
        self.oracle.cancel(top, cause);
    }

    fn close(&mut self, group: usize) {
        self.groups.known[group].is_closed = true;
        self.hand_out(group);
    }

    // ----- the limit --------------------------------------------------------------------------

    /// Room goes to who has waited longest.
    fn hand_out(&mut self, group: usize) {
        let known = &mut self.groups.known[group];
        while !known.queue.is_empty() {
            let state = match known.limit {
                _ if known.is_closed => State::Refused,
                Some(limit) if known.permits >= limit => return,
                _ => State::Granted,
            };
            known.permits += usize::from(state == State::Granted);
            let number = known.queue.remove(0);
            let waiting = &mut self.groups.waiting;
            let waiting = waiting.iter_mut().find(|waiting| waiting.number == number);
            waiting.unwrap().state = state;
        }
    }

    fn give_back(&mut self, group: usize) {
        self.groups.known[group].permits -= 1;
        self.hand_out(group);
    }

    /// The group's own cause, if it has one.
    fn why_not(&self, group: usize, otherwise: Why) -> Why {
        let cause = World::number_of(self.spawner(group).context());
        assert_eq!(cause.is_some(), self.is_over(group));
        cause.map_or(otherwise, Why::Cause)
    }

    /// It, or one around it.
    fn is_closed(&self, group: usize) -> bool {
        let mut all = self.groups.around(group).into_iter();
        all.any(|around| self.groups.known[around].is_closed)
    }

    fn permit(&mut self, group: usize) -> Result<bool, Why> {
        let known = &mut self.groups.known[group];
        let Some(limit) = known.limit else {
            return Ok(false);
        };
        if known.is_closed {
            return Err(self.why_not(group, Why::Closed));
        }
        if !known.queue.is_empty() || known.permits >= limit {
            return Err(self.why_not(group, Why::Full));
        }
        known.permits += 1;
        Ok(true)
    }

    fn claim(&mut self, group: usize, is_limited: bool) -> Result<bool, Why> {
        for around in self.groups.around(group) {
            let known = &self.groups.known[around];
            if self.oracle.is_cancelled(known.fact) || known.is_closed {
                // Of the one around, which may be there by its tasks only, the context is known.
                let cause = World::number_of(&known.ctx.ctx);
                if is_limited {
                    self.give_back(group);
                }
                return Err(cause.map_or(Why::Closed, Why::Cause));
            }
        }
        Ok(is_limited)
    }

    fn enter(&mut self, group: usize) -> Result<bool, Why> {
        let is_limited = self.permit(group)?;
        self.claim(group, is_limited)
    }

    fn started(&mut self, group: usize, known: Result<bool, Why>, started: Result<Body, Cause>) {
        self.started_as(group, known, started, false, false);
    }

    fn started_as(
        &mut self,
        group: usize,
        known: Result<bool, Why>,
        started: Result<Body, Cause>,
        is_named: bool,
        panics_on_drop: bool,
    ) {
        match (known, started) {
            (Ok(is_limited), Ok(body)) => self.groups.tasks.push(Task {
                group,
                body,
                is_limited,
                is_named,
                panics_on_drop,
            }),
            (Err(why), Err(cause)) => assert_eq!(why_of(&cause), why),
            (known, started) => panic!("started: {:?}, and not {known:?}", started.map(drop)),
        }
    }

    // ----- tasks ------------------------------------------------------------------------------

    /// A task has failed.
    fn fail(&mut self, group: usize, number: u32, is_echo: bool) {
        if is_echo && self.is_over(group) {
            self.groups.known[group].was_echoed = true;
            return;
        }
        let ends = !self.groups.known[group].keeps_going;
        self.end_with(group, number, ends);
    }

    fn end_with(&mut self, group: usize, number: u32, ends: bool) {
        let first = *self.groups.known[group].first.get_or_insert(number);
        if ends {
            self.cancel_group(group, first);
        }
    }

    /// A task leaves.
    fn leave(&mut self, task: &Task, end: End) {
        let group = task.group;
        if task.is_limited {
            self.give_back(group);
        }
        for group in self.groups.around(group) {
            let is_over = self.is_over(group);
            let nobody = self.groups.living(group).is_empty();
            for ending in &mut self.groups.endings {
                if ending.group != group {
                    continue;
                }
                ending.must_ring |= nobody;
                if let Kind::Shutdown {
                    done,
                    cancelled,
                    forced,
                    ..
                } = &mut ending.kind
                {
                    match end {
                        End::Dropped => *forced += 1,
                        End::Done if is_over => *cancelled += 1,
                        End::Done => *done += 1,
                    }
                }
            }
        }
    }

    /// What the task is to do, and what is known of it: the error, and whether it is the group's own.
    fn script(&mut self, group: usize, how: How) -> (Script, Option<(u32, bool)>) {
        let bare = |is_deadline| match is_deadline {
            true => (ContextError::DeadlineExceeded, 1),
            false => (ContextError::Cancelled, 0),
        };
        match how {
            How::Waits => (Script::Waits, None),
            How::Succeeds => (Script::Ends(Ok(())), None),
            How::Fails(is_deadline) => {
                let (number, cause) = self.cause(bare(is_deadline).0);
                (Script::Ends(Err(cause)), Some((number, false)))
            }
            How::FailsBarely(is_deadline) => {
                let (kind, number) = bare(is_deadline);
                (Script::Ends(Err(kind.into())), Some((number, true)))
            }
            How::HandsBack => {
                let cause = self.groups.known[group].ctx.ctx.cause();
                let cause = cause.unwrap_or_else(|| ContextError::Cancelled.into());
                let number = Reason::number_of(&cause);
                (Script::Ends(Err(cause)), Some((number, true)))
            }
            How::Panics => (Script::Panics, None),
        }
    }

    /// The task is through, as far as the oracle knows.
    fn settled(&mut self, task: &Task, how: How, error: Option<(u32, bool)>, panics: bool) {
        if panics || matches!(how, How::Panics) {
            self.panicked(task);
        } else if let Some((number, is_echo)) = error {
            self.fail(task.group, number, is_echo);
        }
        self.leave(task, End::Done);
    }

    fn panicked(&mut self, task: &Task) {
        self.groups.known[task.group].has_payload = true;
        self.end_with(task.group, PANICKED, true);
    }

    fn poll_task(&mut self, i: usize, how: How) {
        let group = self.groups.tasks[i].group;
        if !matches!(self.groups.tasks[i].body, Body::Tracked(..)) {
            return;
        }
        let (script, error) = self.script(group, how);
        let mut task = self.groups.tasks.swap_remove(i);
        let Body::Tracked(future, place) = &mut task.body else {
            return;
        };
        *place.lock().unwrap() = script;
        let cx = &mut task::Context::from_waker(Waker::noop());
        let is_over = !matches!(how, How::Waits);
        let polled = catching(|| future.as_mut().poll(cx));
        if let Some(polled) = polled {
            assert_eq!(polled.is_ready(), is_over);
        }
        if is_over {
            // It stays ready.
            assert!(future.as_mut().poll(cx).is_ready());
            self.settled(&task, how, error, task.panics_on_drop);
        } else {
            self.groups.tasks.push(task);
        }
    }

    fn drop_task(&mut self, i: usize) {
        let task = self.groups.tasks.swap_remove(i);
        let known = Task {
            body: Body::Tracked(Box::pin(async {}), Arc::new(Mutex::new(Script::Waits))),
            ..task
        };
        match task.body {
            Body::Tracked(future, _) => {
                catching(|| drop(future));
                if known.panics_on_drop {
                    self.panicked(&known);
                }
                self.leave(&known, End::Dropped);
            }
            Body::Member(member) => {
                catching(|| drop(member));
                self.leave(&known, End::Done);
            }
        }
    }

    fn run(&mut self, i: usize, how: How) {
        if matches!(self.groups.tasks[i].body, Body::Tracked(..)) || matches!(how, How::Waits) {
            return;
        }
        let group = self.groups.tasks[i].group;
        let (script, error) = self.script(group, how);
        let task = self.groups.tasks.swap_remove(i);
        let known = Task {
            body: Body::Tracked(Box::pin(async {}), Arc::new(Mutex::new(Script::Waits))),
            ..task
        };
        let Body::Member(member) = task.body else {
            return;
        };
        let life = self.life.clone();
        let is_over = self.is_over(group);
        catching(|| {
            member.run(|ctx| {
                assert_eq!(ctx.is_done(), is_over);
                match script {
                    Script::Ends(result) => result,
                    _ => resume_unwind(Box::new(TaskPanic(life))),
                }
            })
        });
        self.settled(&known, how, error, false);
    }

    // ----- waiting for room -------------------------------------------------------------------

    fn poll_waiting(&mut self, i: usize) {
        let waiting = &mut self.groups.waiting[i];
        let (group, state, ctx) = (waiting.group, waiting.state, waiting.ctx.clone());
        let number = waiting.number;
        let was_told = matches!(state, State::Granted | State::Refused);
        assert!(!was_told || waiting.bell.rings() > 0, "room, and not told");
        let waker = Waker::from(waiting.bell.clone());
        let cx = &mut task::Context::from_waker(&waker);
        let polled = waiting.future.as_mut().poll(cx);
        let ends = World::number_of(&self.groups.known[group].ctx.ctx)
            .or_else(|| World::number_of(&ctx.ctx));
        let known = if let Some(number) = ends {
            self.give_up(i);
            Some(Err(Why::Cause(number)))
        } else {
            match state {
                State::New if self.groups.known[group].limit.is_none() => {
                    Some(self.claim(group, false))
                }
                // Full or not: also where it is a group around that is closed.
                State::New if self.is_closed(group) => Some(Err(self.why_not(group, Why::Closed))),
                State::New => match self.permit(group) {
                    Ok(_) => Some(self.claim(group, true)),
                    Err(Why::Full) => {
                        self.groups.waiting[i].state = State::Queued;
                        self.groups.known[group].queue.push(number);
                        self.hand_out(group);
                        None
                    }
                    Err(why) => Some(Err(why)),
                },
                State::Queued => None,
                State::Granted => Some(self.claim(group, true)),
                State::Refused => Some(Err(self.why_not(group, Why::Closed))),
            }
        };
        match (polled, known) {
            (Poll::Pending, None) => {}
            (Poll::Ready(room), Some(known)) => {
                let waiting = self.groups.waiting.swap_remove(i);
                drop(waiting.future);
                assert_eq!(Arc::strong_count(&waiting.bell), 2, "a waker is kept");
                let room = room.map(Body::Member);
                self.started(
                    group,
                    known,
                    room.map_err(|refused| refused.cause().clone()),
                );
            }
            (polled, known) => {
                panic!("room is ready: {}, and not {known:?}", polled.is_ready());
            }
        }
    }

    /// Who waits does not any more.
    fn give_up(&mut self, i: usize) {
        let (group, number) = (self.groups.waiting[i].group, self.groups.waiting[i].number);
        match self.groups.waiting[i].state {
            State::Queued => {
                self.groups.known[group]
                    .queue
                    .retain(|other| *other != number);
                self.hand_out(group);
            }
            State::Granted => self.give_back(group),
            _ => {}
        }
    }

    fn drop_waiting(&mut self, i: usize) {
        self.give_up(i);
        let waiting = self.groups.waiting.swap_remove(i);
        drop(waiting.future);
        assert_eq!(
            Arc::strong_count(&waiting.bell),
            1,
            "a dropped waker is kept"
        );
    }

    // ----- the end ----------------------------------------------------------------------------

    fn poll_end(&mut self, i: usize) {
        let ending = &mut self.groups.endings[i];
        let group = ending.group;
        if ending.is_pending && ending.must_ring {
            assert!(ending.bell.rings() > 0, "all are gone, and nobody was told");
        }
        ending.bell = Bell::new(false);
        ending.must_ring = false;
        let waker = Waker::from(ending.bell.clone());
        let cx = &mut task::Context::from_waker(&waker);
        let nobody = self.groups.living(group).is_empty();
        let mut ending = self.groups.endings.swap_remove(i);
        let is_ready = match &mut ending.kind {
            Kind::Idle(future) => {
                let ready = future.as_mut().poll(cx).is_ready();
                assert_eq!(ready, nobody);
                ready
            }
            Kind::Join(future) => {
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
                let known = &self.groups.known[group];
                let ready = match polled {
                    Ok(Poll::Pending) => false,
                    Ok(Poll::Ready(result)) => {
                        assert!(!known.has_payload, "a panic that nobody raised");
                        let seen = result.as_ref().err().map(Reason::number_of);
                        let own = World::number_of(&known.ctx.ctx);
                        let echo = own.filter(|_| known.was_echoed);
                        assert_eq!(seen, known.failure().or(echo));
                        true
                    }
                    Err(payload) => {
                        assert!(payload.is::<TaskPanic>() && known.has_payload);
                        self.groups.known[group].has_payload = false;
                        true
                    }
                };
                assert_eq!(ready, nobody);
                if ready {
                    self.close(group);
                }
                ready
            }
            Kind::Shutdown {
                future,
                limit,
                done,
                cancelled,
                forced,
            } => {
                let limit_ends = limit.ctx.is_done();
                let why = World::number_of(&limit.ctx);
                self.close(group);
                let (polled, panicked) = keeping(|| future.as_mut().poll(cx));
                if !nobody && limit_ends {
                    self.cancel_group(group, why.unwrap());
                }
                let known = &mut self.groups.known[group];
                known.has_noted |= panicked;
                let failure = known.failure();
                match polled {
                    Poll::Pending => {
                        assert!(!nobody && !limit_ends);
                        false
                    }
                    Poll::Ready(report) => {
                        assert!(nobody || limit_ends);
                        let seen = (report.done, report.cancelled, report.forced);
                        assert_eq!(seen, (*done, *cancelled, *forced), "{report}");
                        assert_eq!(report.stuck.len(), self.groups.living(group).len());
                        assert_eq!(report.cause.as_ref().map(Reason::number_of), failure);
                        true
                    }
                }
            }
        };
        if !is_ready {
            ending.is_pending = true;
            self.groups.endings.push(ending);
        }
    }

    fn start_end(&mut self, group: usize, kind: impl FnOnce(Arc<Group>) -> Kind) {
        let Some(handle) = self.groups.known[group].group.clone() else {
            return;
        };
        self.groups.endings.push(Ending {
            group,
            kind: kind(handle),
            bell: Bell::new(false),
            is_pending: false,
            must_ring: false,
        });
        self.poll_end(self.groups.endings.len() - 1);
    }

    /// With the spawner if nobody needs that.
    fn drop_group(&mut self, group: usize, all: bool) {
        // They have the group, and who waits for room the spawner.
        while let Some(i) = self.groups.endings.iter().position(|e| e.group == group) {
            self.groups.endings.swap_remove(i);
        }
        if let Some(handle) = self.groups.known[group].group.take() {
            self.cancel_group(group, 0);
            catching(|| drop(handle));
        }
        let has_more = self
            .groups
            .known
            .iter()
            .any(|known| known.outer == Some(group))
            || self
                .groups
                .waiting
                .iter()
                .any(|waiting| waiting.group == group)
            || !self.groups.living(group).is_empty();
        if all && !has_more {
            // The context that we have for ourselves too.
            let known = &mut self.groups.known[group];
            known.spawner = None;
            known.ctx.ctx = Context::background();
        }
    }

    pub(super) fn group_step(&mut self, step: Step) {
        match step {
            Step::New(n, keeps_going) => {
                let Some(i) = self.ctx(n) else { return };
                let from = self.contexts[i].clone();
                let mut group = Group::new(&from.ctx);
                if keeps_going {
                    group = group.keep_going();
                }
                self.new_group(&from, group, None);
                self.groups.known.last_mut().unwrap().keeps_going = keeps_going;
            }
            Step::Child(n) => {
                let Some(outer) = self.group(n) else { return };
                let Some(around) = self.groups.known[outer].group.clone() else {
                    return;
                };
                let from = self.groups.known[outer].ctx.clone();
                self.new_group(&from, around.child("inside"), Some(outer));
            }
            Step::Context(n) => {
                if let Some(group) = self.group(n) {
                    self.contexts.push(self.groups.known[group].ctx.clone());
                }
            }
            Step::Enter(n, is_named) => {
                let Some(group) = self.group(n) else { return };
                let spawner = self.spawner(group);
                let entered = match is_named {
                    true => spawner.named("task").enter(),
                    false => spawner.enter(),
                };
                let known = self.enter(group);
                let entered = entered.map(Body::Member);
                let entered = entered.map_err(|refused| refused.cause().clone());
                self.started_as(group, known, entered, is_named, false);
            }
            Step::Track(n, is_named, panics_on_drop) => {
                let Some(group) = self.group(n) else { return };
                let spawner = self.spawner(group);
                let script = Arc::new(Mutex::new(Script::Waits));
                let work = Work {
                    script: script.clone(),
                    life: self.life.clone(),
                    panics_on_drop,
                };
                let tracked = match is_named {
                    true => spawner.named("task").track(work),
                    false => spawner.track(work),
                };
                let known = self.enter(group);
                let tracked = match tracked {
                    Ok(tracked) => Ok(Body::Tracked(Box::pin(tracked), script)),
                    Err(refused) => {
                        let cause = refused.cause().clone();
                        let mut work = refused.into_inner();
                        work.panics_on_drop = false;
                        Err(cause)
                    }
                };
                self.started_as(group, known, tracked, is_named, panics_on_drop);
            }
            Step::TrackWith(n, how) => {
                let Some(group) = self.group(n) else { return };
                let spawner = self.spawner(group);
                let script = Arc::new(Mutex::new(Script::Waits));
                let (inner, life) = (script.clone(), self.life.clone());
                let tracked = catch_unwind(AssertUnwindSafe(|| {
                    spawner.track_with(|_ctx| {
                        if matches!(how, How::Panics) {
                            resume_unwind(Box::new(TaskPanic(life.clone())));
                        }
                        Work {
                            script: inner,
                            life,
                            panics_on_drop: false,
                        }
                    })
                }));
                let known = self.enter(group);
                let Ok(tracked) = tracked else {
                    // What makes the future is the caller's; the place has been given back.
                    let task = Task {
                        group,
                        body: Body::Tracked(Box::pin(async {}), script),
                        is_limited: known.unwrap(),
                        is_named: false,
                        panics_on_drop: false,
                    };
                    return self.leave(&task, End::Done);
                };
                let tracked = match tracked {
                    Ok(tracked) => Ok(Body::Tracked(Box::pin(tracked), script)),
                    Err(refused) => Err(refused.cause().clone()),
                };
                self.started(group, known, tracked);
            }
            Step::EnterWhen(n, ctx) => {
                let Some(group) = self.group(n) else { return };
                let Some(i) = self.ctx(ctx) else { return };
                let ctx = self.contexts[i].clone();
                let (spawner, limit) = (self.spawner(group), ctx.ctx.clone());
                self.groups.numbers += 1;
                self.groups.waiting.push(Waiting {
                    group,
                    ctx,
                    state: State::New,
                    bell: Bell::new(false),
                    future: Box::pin(async move { spawner.enter_when(&limit).await }),
                    number: self.groups.numbers,
                });
                self.poll_waiting(self.groups.waiting.len() - 1);
            }
            Step::Poll(n, how) => {
                if let Some(i) = pick(self.groups.tasks.len(), n) {
                    self.poll_task(i, how);
                }
            }
            Step::Drop(n) => {
                if let Some(i) = pick(self.groups.tasks.len(), n) {
                    self.drop_task(i);
                }
            }
            Step::Run(n, how) => {
                if let Some(i) = pick(self.groups.tasks.len(), n) {
                    self.run(i, how);
                }
            }
            Step::MemberContext(n) => {
                let Some(i) = pick(self.groups.tasks.len(), n) else {
                    return;
                };
                let Body::Member(member) = &self.groups.tasks[i].body else {
                    return;
                };
                let ctx = member.context();
                let from = self.groups.known[self.groups.tasks[i].group].ctx.clone();
                let fact = self.fact(Vec::from_iter(from.fact));
                let limit = self.limit_below(&from, fact);
                let shown = from.shown.then("with_cancel");
                self.push(Some(&from), Some(fact), limit, shown, ctx);
            }
            Step::PollWaiting(n) => {
                if let Some(i) = pick(self.groups.waiting.len(), n) {
                    self.poll_waiting(i);
                }
            }
            Step::DropWaiting(n) => {
                if let Some(i) = pick(self.groups.waiting.len(), n) {
                    self.drop_waiting(i);
                }
            }
            Step::Limit(n, tasks) => {
                let Some(group) = self.group(n) else { return };
                let Some(handle) = self.groups.known[group].group.clone() else {
                    return;
                };
                let limit = Some(usize::from(tasks % 5)).filter(|limit| *limit != 4);
                handle.set_limit(limit.unwrap_or(usize::MAX));
                self.groups.known[group].limit = limit;
                self.hand_out(group);
            }
            Step::Close(n) => {
                let Some(group) = self.group(n) else { return };
                if let Some(handle) = self.groups.known[group].group.clone() {
                    handle.close();
                    self.close(group);
                }
            }
            Step::Cancel(n, with_cause) => {
                let Some(group) = self.group(n) else { return };
                let Some(handle) = self.groups.known[group].group.clone() else {
                    return;
                };
                let first = !self.oracle.is_cancelled(self.groups.known[group].top);
                let (number, cause) = self.some_cause(with_cause);
                self.cancel_group(group, number);
                let was_first = catching(|| match cause {
                    None => handle.cancel(),
                    Some(cause) => handle.cancel_with(cause),
                });
                assert_eq!(was_first.unwrap_or(first), first);
            }
            Step::Join(n) => {
                if let Some(group) = self.group(n) {
                    self.start_end(group, |group| {
                        Kind::Join(Box::pin(async move { group.join().await }))
                    });
                }
            }
            Step::WaitIdle(n) => {
                if let Some(group) = self.group(n) {
                    self.start_end(group, |group| {
                        Kind::Idle(Box::pin(async move { group.wait_idle().await }))
                    });
                }
            }
            Step::Shutdown(n, ctx) => {
                let Some(group) = self.group(n) else { return };
                let Some(i) = self.ctx(ctx) else { return };
                let limit = self.contexts[i].clone();
                let bound = limit.ctx.clone();
                self.start_end(group, |group| Kind::Shutdown {
                    future: Box::pin(async move {
                        // Whoever does not stop at once is named.
                        group.shutdown_with(&bound, Duration::ZERO).await
                    }),
                    limit,
                    done: 0,
                    cancelled: 0,
                    forced: 0,
                });
            }
            Step::PollEnd(n) => {
                if let Some(i) = pick(self.groups.endings.len(), n) {
                    self.poll_end(i);
                }
            }
            Step::DropEnd(n) => {
                let Some(i) = pick(self.groups.endings.len(), n) else {
                    return;
                };
                let ending = self.groups.endings.swap_remove(i);
                let (bell, kind) = (ending.bell, ending.kind);
                drop(kind);
                assert_eq!(Arc::strong_count(&bell), 1, "a dropped waker is kept");
            }
            Step::DropGroup(n, all) => {
                if let Some(group) = self.group(n) {
                    self.drop_group(group, all);
                }
            }
        }
    }

    pub(super) fn check_groups(&self) {
        for (group, known) in self.groups.known.iter().enumerate() {
            let Some(spawner) = &known.spawner else {
                continue;
            };
            let living = self.groups.living(group);
            assert_eq!(spawner.len(), living.len());
            assert_eq!(spawner.is_empty(), living.is_empty());
            assert_eq!(spawner.is_closed(), self.groups.is_closed(group));
            let Some(handle) = &known.group else { continue };
            let running = handle.running();
            assert_eq!(running.len(), living.len());
            let named = living.iter().filter(|task| task.is_named).count();
            let seen = running.iter().filter_map(|task| task.name.as_ref());
            let seen = seen.filter(|name| name.ends_with("task"));
            assert_eq!(seen.count(), named);
        }
        for waiting in &self.groups.waiting {
            if matches!(waiting.state, State::Granted | State::Refused) {
                assert!(waiting.bell.rings() > 0, "room, and not told");
            }
        }
        for ending in &self.groups.endings {
            if ending.must_ring && ending.is_pending {
                assert!(ending.bell.rings() > 0, "all are gone, and nobody was told");
            }
        }
    }

    /// All goes: the tasks first, or the groups.
    pub(super) fn end_groups(&mut self, tasks_first: bool) {
        self.note_held();
        while !self.groups.waiting.is_empty() {
            self.drop_waiting(0);
        }
        for _ in 0..2 {
            if tasks_first {
                while !self.groups.tasks.is_empty() {
                    self.drop_task(0);
                }
            }
            for group in (0..self.groups.known.len()).rev() {
                self.drop_group(group, false);
            }
            while !self.groups.tasks.is_empty() {
                self.drop_task(0);
            }
        }
        // From the inside out.
        for group in (0..self.groups.known.len()).rev() {
            self.groups.known[group].outer = None;
            self.drop_group(group, true);
        }
        self.groups.known.clear();
        self.check();
    }
}
