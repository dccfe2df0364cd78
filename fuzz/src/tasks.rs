//! Groups of tasks in a history: who was there when, what those that wait were told, and what must hold of it whatever the
//! order was.

use crate::span::Span;

/// For ever.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub enum TaskEvent {
    /// A task that was there, from the call that let it in until the one by which it went.
    Was {
        group: usize,
        entered: Span,
        left: Span,
    },
    /// Nobody is let in any more from here on.
    Closed { group: usize },
    /// Refused because the group is closed.
    FoundClosed { group: usize },
    /// Refused because there is no room.
    FoundFull { group: usize },
    /// Refused for another reason than that: in between it may have had room.
    Tried { group: usize },
    /// Somebody has waited for room.
    Queued { group: usize },
    /// So many are there, as the group says.
    Counted { group: usize, tasks: usize },
    /// That nobody is there, as the group says, at some moment since.
    FoundIdle { group: usize, since: u64 },
    /// All are gone for good, says `join`.
    Joined { group: usize },
    /// With that cause.
    JoinedWith { group: usize, number: u32 },
    /// Somebody joins, so it may be closed from here on.
    Joins { group: usize },
}

/// What is known of a group.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub fact: usize,
    pub outer: Option<usize>,
    pub limit: Option<usize>,
}

pub struct Tasks<'a> {
    pub groups: &'a [Known],
    pub events: Vec<(Span, &'a TaskEvent)>,
}

impl Tasks<'_> {
    fn is_in(&self, mut group: usize, outer: usize) -> bool {
        loop {
            if group == outer {
                return true;
            }
            match self.groups[group].outer {
                Some(around) => group = around,
                None => return false,
            }
        }
    }

    /// Those of the group and of those inside.
    fn tasks(&self, group: usize) -> impl Iterator<Item = (Span, Span)> + '_ {
        self.events
            .iter()
            .filter_map(move |(_, event)| match event {
                TaskEvent::Was {
                    group: own,
                    entered,
                    left,
                } if self.is_in(*own, group) => Some((*entered, *left)),
                _ => None,
            })
    }

    /// Who was there all the time from `begin` to `end`.
    fn throughout(&self, group: usize, begin: u64, end: u64) -> usize {
        let tasks = self.tasks(group);
        let there = tasks.filter(|(entered, left)| entered.end < begin && end < left.begin);
        there.count()
    }

    fn closings(&self, group: usize) -> impl Iterator<Item = Span> + '_ {
        self.events
            .iter()
            .filter_map(move |(span, event)| match event {
                TaskEvent::Closed { group: closed } | TaskEvent::Joined { group: closed }
                    if self.is_in(group, *closed) =>
                {
                    Some(*span)
                }
                TaskEvent::Joins { group: closed } if self.is_in(group, *closed) => Some(Span {
                    begin: span.begin,
                    end: NEVER,
                }),
                _ => None,
            })
    }

    pub fn check(&self) {
        for (span, event) in &self.events {
            self.check_event(*span, event);
        }
        for (group, known) in self.groups.iter().enumerate() {
            if let Some(limit) = known.limit {
                self.check_limit(group, limit);
            }
        }
    }

    fn check_event(&self, span: Span, event: &TaskEvent) {
        match *event {
            TaskEvent::Was { group, entered, .. } => {
                let closed = self
                    .closings(group)
                    .find(|closed| closed.end < entered.begin);
                assert!(closed.is_none(), "{event:?} was let in after {closed:?}");
            }
            TaskEvent::FoundClosed { group } => {
                let closed = self.closings(group).any(|closed| closed.begin < span.end);
                assert!(closed, "closed by nobody: {event:?} at {span:?}");
            }
            TaskEvent::FoundFull { group } => {
                let limit = self.groups[group].limit.expect("full without a limit");
                let queued = self.events.iter().any(|(_, event)| {
                    matches!(event, TaskEvent::Queued { group: queued } if *queued == group)
                });
                let there = self.events.iter().filter(|(at, event)| match event {
                    TaskEvent::Was {
                        group: own,
                        entered,
                        left,
                    } => *own == group && entered.begin < span.end && span.begin < left.end,
                    TaskEvent::Tried { group: tried } => {
                        *tried == group && at.begin < span.end && span.begin < at.end
                    }
                    _ => false,
                });
                assert!(
                    queued || there.count() >= limit,
                    "full with room left: {event:?} at {span:?}"
                );
            }
            TaskEvent::Counted { group, tasks } => {
                let at_least = self.throughout(group, span.begin, span.end);
                let at_most = self
                    .tasks(group)
                    .filter(|(entered, left)| entered.begin < span.end && span.begin < left.end)
                    .count();
                assert!(
                    (at_least..=at_most).contains(&tasks),
                    "{at_least} to {at_most} are there: {event:?} at {span:?}"
                );
            }
            TaskEvent::FoundIdle { group, since } => {
                let there = self.throughout(group, since, span.end);
                assert_eq!(there, 0, "somebody was there: {event:?} at {span:?}");
            }
            TaskEvent::Joined { group } => {
                let there = self.throughout(group, span.begin, span.end);
                assert_eq!(there, 0, "somebody is there: {event:?} at {span:?}");
            }
            _ => {}
        }
    }

    /// Never more than that at once. Tasks of groups inside do not count.
    fn check_limit(&self, group: usize, limit: usize) {
        let own: Vec<(Span, Span)> = self
            .events
            .iter()
            .filter_map(|(_, event)| match event {
                TaskEvent::Was {
                    group: own,
                    entered,
                    left,
                } if *own == group => Some((*entered, *left)),
                _ => None,
            })
            .collect();
        for (entered, _) in &own {
            let at = entered.end;
            let there = own
                .iter()
                .filter(|(entered, left)| entered.end <= at && at < left.begin);
            let there = there.count();
            assert!(there <= limit, "{there} at once in {group}, of {limit}");
        }
    }
}
