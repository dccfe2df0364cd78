//! The walk by the records. docs/INSPECT.md argues P1 to P4.

use super::{DoneInfo, Kind, Node, NodeId, Situation, Snapshot, Work};
use crate::context::name::{self, Named, Note};
use crate::context::registry;
use crate::group::body::Body;
use crate::group::label::Label;
use crate::group::roll;
use crate::sync::Panics;
use crate::token::CancellationToken;
use crate::tree::inspect::{Causes, Reach};
use crate::tree::ContextError;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::panic::Location;
use std::collections::HashMap;
use std::time::Instant;

/// A context or a group, held until the walk is through: so no address is used twice meanwhile.
struct Met {
    node: Node,
    /// What it is done by; none: never.
    token: Option<CancellationToken>,
    /// What it is cancelled by itself, if that is another one.
    hard: Option<CancellationToken>,
    /// What it was made in or of, the nearest first: where no token above leads to something.
    made_of: [Option<NodeId>; 2],
    tasks: Vec<Node>,
}

/// And what panicked in the destructors of others that ended meanwhile.
pub(crate) fn all(panics: Panics) -> (Snapshot, Panics) {
    let mut found = Found::begin(panics);
    found.meet(true);
    let aboves = aboves(&found.met);
    let every = alloc::vec![true; found.met.len()];
    found.end(&aboves, &every, None)
}

/// A group, and all below it: none if it is not there any more. The names and groups of the process are met, and only the
/// tasks that are asked for. No destructor of others runs: what ends meanwhile is left in the answer. (Wakers may run of those who wait for
/// the last task of a group: where the look was what a task's end was counted by.)
pub(super) fn part(top: NodeId) -> (Option<Snapshot>, Panics) {
    let mut found = Found::begin(Panics::leaving());
    found.meet(false);
    let aboves = aboves(&found.met);
    let place = found.met.iter().position(|met| met.node.id == top);
    let mut within = within(place, &aboves);
    found.meet_tasks(&mut within);
    let (snapshot, panics) = found.end(&aboves, &within, place);
    (place.map(|_| snapshot), panics)
}

/// What was found so far, and what panicked.
struct Found {
    begin: Instant,
    met: Vec<Met>,
    panics: Panics,
}

impl Found {
    fn begin(panics: Panics) -> Found {
        Found {
            begin: Instant::now(),
            met: Vec::new(),
            panics,
        }
    }

    /// Names and groups, and the groups' tasks if they are asked for.
    fn meet(&mut self, with_tasks: bool) {
        let met = &mut self.met;
        // It goes before what is met: so each cause that it has is still somebody else's too, and no user code runs.
        let mut causes = Causes::default();
        name::each(&mut self.panics, |number, named| {
            met.push(of_name(number, named, &mut causes));
        });
        roll::each(&mut self.panics, |body, panics| {
            let mut group = of_group(body, &mut causes);
            if with_tasks {
                group.tasks = tasks_of(body, panics);
            }
            met.push(group);
        });
    }

    /// The tasks of those groups; and those that have ended meanwhile are not judged.
    fn meet_tasks(&mut self, within: &mut [bool]) {
        let groups = self.met.iter().enumerate();
        let groups = groups.filter(|(i, met)| within[*i] && met.node.kind == Kind::Group);
        let mut left: HashMap<NodeId, usize> = groups.map(|(i, met)| (met.node.id, i)).collect();
        let met = &mut self.met;
        roll::each(&mut self.panics, |body, panics| {
            if let Some(i) = left.remove(&id_of(body)) {
                met[i].tasks = tasks_of(body, panics);
            }
        });
        left.into_values().for_each(|ended| within[ended] = false);
    }

    /// The tree: what is below `top`, if that is one. What is not within is not judged.
    fn end(
        mut self,
        aboves: &[Option<usize>],
        within: &[bool],
        top: Option<usize>,
    ) -> (Snapshot, Panics) {
        judge(&mut self.met, aboves, within);
        let (nodes, tokens) = in_order(self.met, aboves, top);
        self.panics.leave(|panics| {
            for token in tokens {
                // It may be the last one, and have a cause: user code.
                panics.catch(|| drop(token));
            }
        });
        let snapshot = Snapshot {
            nodes,
            at: self.begin,
            took: self.begin.elapsed(),
        };
        (snapshot, self.panics)
    }
}

fn of_name(number: registry::Number, named: &Named, causes: &mut Causes) -> Met {
    let token = named.token.clone();

    Met {
        node: Node {
            id: NodeId::of_name(number),
            kind: Kind::Context,
            name: Some(named.name.clone()),
            at: named.at,
            since: Some(named.since),
            done: done(token.as_ref(), causes, &named.note, false),
            progress: None,
            situation: None,
            above: None,
            depth: 0,
        },
        token,
        hard: None,
        made_of: [named.above.map(NodeId::of_name), None],
        tasks: Vec::new(),
    }
}

fn id_of(body: &Body) -> NodeId {
    NodeId::of_group(body.record().number())
}

/// But for its tasks.
fn of_group(body: &Body, causes: &mut Causes) -> Met {
    let record = body.record();
    let (name, ctx, canceller) = body.what();
    let token = ctx.token().cloned();
    let is_own = !record.is_born_done && canceller.handle().is_cancelled_itself();
    Met {
        node: Node {
            id: id_of(body),
            kind: Kind::Group,
            name,
            at: record.at,
            since: Some(record.since),
            done: done(token.as_ref(), causes, &record.note, is_own),
            progress: None,
            situation: None,
            above: None,
            depth: 0,
        },
        token,
        hard: Some(canceller.handle().clone().into()),
        made_of: [
            record.outer.map(NodeId::of_group),
            record.name.map(NodeId::of_name),
        ],
        tasks: Vec::new(),
    }
}

fn tasks_of(body: &Body, panics: &mut Panics) -> Vec<Node> {
    let id = id_of(body);
    let mut tasks = Vec::new();
    body.each_task(panics, |number, at, label, is_done| {
        tasks.push(of_task(id.of_task(number), at, label, is_done));
    });
    tasks
}

fn of_task(
    id: NodeId,
    at: &'static Location<'static>,
    label: Option<&Label>,
    is_done: bool,
) -> Node {
    let progress = label.map(|label| label.probe.progress(is_done));
    Node {
        id,
        kind: match progress.map(|progress| progress.work) {
            Some(Work::Thread) => Kind::Thread,
            Some(Work::Held) => Kind::Member,
            _ => Kind::Task,
        },
        name: label.map(|label| label.name().clone()),
        at,
        since: label.map(|label| label.since),
        done: None,
        situation: progress.and_then(|progress| progress.situation()),
        progress,
        above: None,
        depth: 0,
    }
}

/// The token is one that is held until the causes are not needed any more.
fn done(
    token: Option<&CancellationToken>,
    causes: &mut Causes,
    note: &Note,
    is_own: bool,
) -> Option<Box<DoneInfo>> {
    let cause = causes.of(token?.handle())?;
    let kind: ContextError = cause.kind();
    let at = note.at();
    Some(Box::new(DoneInfo {
        kind,
        cause,
        by: at.and_then(|_| note.by()),
        at,
        is_own,
    }))
}

/// Of each, which one is above. All are older than what is below them, so there are no rings.
fn aboves(met: &[Met]) -> Vec<Option<usize>> {
    let by_id: HashMap<NodeId, usize> = (met.iter().enumerate())
        .map(|(i, met)| (met.node.id, i))
        .collect();
    let known = by_address(met);
    // What was climbed through leads to the same for all: so all climbs together cost a step for each token on the ways.
    let mut climbed: HashMap<*const (), Option<usize>> = HashMap::new();
    let mut way = Vec::new();
    let above = |(i, met): (usize, &Met)| {
        let mut found = None;
        way.clear();
        if let Some(token) = &met.token {
            token.handle().each_address_above(|address| {
                // Its own: of a group that is done softly before it is done.
                let one = known.get(&address).filter(|one| **one != i);
                match (one, climbed.get(&address)) {
                    (Some(one), _) => found = Some(*one),
                    (None, Some(before)) => found = *before,
                    (None, None) => {
                        way.push(address);
                        return true;
                    }
                }
                false
            });
        }
        climbed.extend(way.drain(..).map(|address| (address, found)));
        let made_of = met.made_of.iter().flatten();
        found.or_else(|| made_of.filter_map(|id| by_id.get(id)).next().copied())
    };
    met.iter().enumerate().map(above).collect()
}

fn by_address(met: &[Met]) -> HashMap<*const (), usize> {
    let tokens = met.iter().enumerate().flat_map(|(i, met)| {
        let both = met.token.iter().chain(&met.hard);
        both.map(move |token| (token.as_ptr(), i))
    });
    tokens.collect()
}

/// Which are that one or below it: a step for each.
fn within(top: Option<usize>, aboves: &[Option<usize>]) -> Vec<bool> {
    let mut known: Vec<Option<bool>> = alloc::vec![None; aboves.len()];
    let mut way = Vec::new();
    for i in 0..aboves.len() {
        let mut at = Some(i);
        let is_within = loop {
            match at {
                None => break false,
                _ if at == top => break true,
                Some(at) if known[at].is_some() => break known[at] == Some(true),
                Some(i) => {
                    way.push(i);
                    at = aboves[i];
                }
            }
        };
        way.drain(..).for_each(|i| known[i] = Some(is_within));
        known[i] = Some(is_within);
    }
    known
        .into_iter()
        .map(|is_within| is_within == Some(true))
        .collect()
}

/// What contexts and groups within do instead of stopping.
fn judge(met: &mut [Met], aboves: &[Option<usize>], within: &[bool]) {
    let mut is_above = alloc::vec![false; met.len()];
    for above in aboves.iter().flatten() {
        is_above[*above] = true;
    }
    let known = by_address(met);
    let contexts: Vec<bool> = met
        .iter()
        .map(|met| met.node.kind == Kind::Context)
        .collect();
    // Of a context that has a name nobody has the right to cancel.
    let is_harmless = |address| known.get(&address).is_some_and(|i| contexts[*i]);
    let mut reach = Reach::default();
    for (i, met) in met.iter_mut().enumerate() {
        if !within[i] {
            continue;
        }
        let is_above = is_above[i];
        let is_alone = !is_above && met.tasks.is_empty();
        met.node.situation = match (&met.node.done, &met.token) {
            (Some(_), _) if is_alone => Some(Situation::StillHeld),
            (None, Some(token)) if met.node.kind == Kind::Context => {
                let token = token.handle();
                let is_lost = reach.is_out(token, is_harmless) && token.is_waited_for();
                is_lost.then_some(Situation::NeverWoken)
            }
            _ => None,
        };
    }
}

/// The ones above before those below, of `top` if that is one; and what was held.
fn in_order(
    met: Vec<Met>,
    aboves: &[Option<usize>],
    top: Option<usize>,
) -> (Vec<Node>, Vec<CancellationToken>) {
    const NONE: usize = usize::MAX;
    // Lists of those that are below each, strung through `next`; the last list is of those that nothing is above.
    let mut first = alloc::vec![NONE; met.len() + 1];
    let mut next = alloc::vec![NONE; met.len()];
    for (i, above) in aboves.iter().enumerate().rev() {
        let above = above.unwrap_or(met.len());
        next[i] = std::mem::replace(&mut first[above], i);
    }
    let many: usize = met.iter().map(|met| 1 + met.tasks.len()).sum();
    let mut nodes: Vec<Node> = Vec::with_capacity(many);
    let mut tokens = Vec::with_capacity(2 * met.len());
    let mut met: Vec<Option<Met>> = met.into_iter().map(Some).collect();
    if let Some(top) = top {
        // Beside it is nothing.
        next[top] = NONE;
    }
    // Where each level goes on, and what is above it.
    let mut levels: Vec<(usize, Option<u32>)> =
        alloc::vec![(top.unwrap_or(first[met.len()]), None)];
    while let Some((at, above)) = levels.pop() {
        if at == NONE {
            continue;
        }
        let depth = levels.len() as u32;
        levels.push((next[at], above));
        let Some(found) = met[at].take() else {
            continue;
        };
        let place = nodes.len() as u32;
        nodes.push(Node {
            above,
            depth,
            ..found.node
        });
        nodes.extend(found.tasks.into_iter().map(|task| Node {
            above: Some(place),
            depth: depth + 1,
            ..task
        }));
        tokens.extend(found.token.into_iter().chain(found.hard));
        levels.push((first[at], Some(place)));
    }
    for left in met.into_iter().flatten() {
        tokens.extend(left.token.into_iter().chain(left.hard));
    }
    (nodes, tokens)
}
