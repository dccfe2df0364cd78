//! What threads do at once. Each scenario is small programs drawn anew for each schedule.

mod contexts;
mod foreign;
mod groups;
mod growth;
mod hand;
mod moving;
mod rooms;
mod tokens;
mod waiters;

pub struct Scenario {
    pub name: &'static str,
    pub threads: usize,
    /// How many steps a schedule has, about.
    pub steps: u64,
    pub run: fn(),
}

pub const ALL: &[Scenario] = &[
    Scenario {
        name: "tokens",
        threads: 4,
        steps: 3000,
        run: tokens::run,
    },
    Scenario {
        name: "growth",
        threads: 6,
        steps: 4000,
        run: growth::run,
    },
    Scenario {
        name: "waiters",
        threads: 5,
        steps: 3500,
        run: waiters::run,
    },
    Scenario {
        name: "contexts",
        threads: 4,
        steps: 2500,
        run: contexts::run,
    },
    Scenario {
        name: "service",
        threads: 4,
        steps: 8000,
        run: contexts::sleeping_service,
    },
    Scenario {
        name: "foreign",
        threads: 4,
        steps: 5000,
        run: foreign::run,
    },
    Scenario {
        name: "rooms",
        threads: 5,
        steps: 4000,
        run: rooms::run,
    },
    Scenario {
        name: "handed",
        threads: 4,
        steps: 2500,
        run: contexts::handed,
    },
    Scenario {
        name: "groups",
        threads: 5,
        steps: 4000,
        run: groups::run,
    },
    Scenario {
        name: "moving",
        threads: 4,
        steps: 3000,
        run: moving::run,
    },
    Scenario {
        name: "phases",
        threads: 5,
        steps: 6000,
        run: moving::phases,
    },
];
