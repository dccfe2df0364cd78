//! Who works for which search: for the page, and for `GET /debug/searches`.

use crate::files::Files;
use cancel_tree::inspect::Situation;
use cancel_tree::{Context, ContextError, Group};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What one who works says of itself: a thread, or who asks a backend. The rest is known by the group, under the same name.
pub struct Worker {
    pub name: String,
    begun: AtomicBool,
    hits: AtomicUsize,
    /// Files that could not be read.
    unreadable: AtomicUsize,
    /// The file's number, and one more; 0: none.
    file: AtomicUsize,
}

impl Worker {
    pub fn new(name: String) -> Worker {
        Worker {
            name,
            begun: AtomicBool::new(false),
            hits: AtomicUsize::new(0),
            unreadable: AtomicUsize::new(0),
            file: AtomicUsize::new(0),
        }
    }

    /// It is at work, as a task of the group.
    pub fn begin(&self) {
        // Release: read with Acquire by `Work::rows`, which finds the task in the group, or gone, but not to come.
        self.begun.store(true, Ordering::Release);
    }

    // Numbers for people to see, so Relaxed.

    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// The group tells, by the task's end.
    pub fn unreadable(&self, files: usize) {
        self.unreadable.fetch_add(files, Ordering::Relaxed);
    }

    pub fn at_file(&self, number: usize) {
        self.file.store(number + 1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// For a place, or it has not come so far.
    Waits,
    Works,
    Gone,
}

/// One who works, as it was a moment ago.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub state: State,
    /// For so long it has been at work.
    pub lasts: Option<Duration>,
    pub hits: usize,
    /// It was told to stop, and has not: what it does instead.
    pub situation: Option<Situation>,
    /// The file that it reads.
    pub at: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hits) = (&self.name, self.hits);
        match self.state {
            State::Waits => write!(f, "{name}: waits")?,
            State::Works => write!(f, "{name}: works, {hits} hits")?,
            State::Gone => write!(f, "{name}: gone, {hits} hits")?,
        }
        if let Some(lasts) = self.lasts {
            write!(f, ", for {lasts:.1?}")?;
        }
        if let Some(situation) = self.situation {
            write!(f, ", {situation}")?;
        }
        match &self.at {
            Some(at) => write!(f, ", reads {at}"),
            None => Ok(()),
        }
    }
}

/// A search that is there.
pub struct Work {
    pub id: String,
    pub text: Arc<str>,
    pub began: Instant,
    /// Its tasks are those that work.
    pub group: Group,
    pub workers: Arc<[Worker]>,
    /// Where they search, if they are threads here.
    pub files: Option<Arc<Files>>,
    told: Arc<OnceLock<Instant>>,
}

impl Work {
    pub fn new(
        id: String,
        text: Arc<str>,
        ctx: &Context,
        workers: Arc<[Worker]>,
        files: Option<Arc<Files>>,
    ) -> Work {
        let group = Group::new(&ctx.with_name(format!("search {id} {text:?}")));
        let told = Arc::new(OnceLock::new());
        drop(group.context().on_cancel({
            let told = told.clone();
            move || _ = told.set(Instant::now())
        }));
        Work {
            id,
            text,
            began: Instant::now(),
            group,
            workers,
            files,
            told,
        }
    }

    /// The group's: done when the search is over, unless all was searched.
    pub fn context(&self) -> &Context {
        self.group.context()
    }

    /// When all were told to stop, if they were.
    pub fn said(&self) -> Option<Instant> {
        let ctx = self.context();
        match ctx.deadline() {
            _ if !ctx.is_done() => None,
            // Those that looked at the clock knew it then.
            Some(deadline) if ctx.err() == Some(ContextError::DeadlineExceeded) => Some(deadline),
            // The callback may be about to run.
            _ => Some(*self.told.get().unwrap_or(&Instant::now())),
        }
    }

    /// What could not be read, as far as it is known by now.
    pub fn unreadable(&self) -> usize {
        let unlisted = self.files.as_ref().map_or(0, |files| files.unlisted());
        let counts = self.workers.iter().map(|worker| &worker.unreadable);
        unlisted
            + counts
                .map(|count| count.load(Ordering::Relaxed))
                .sum::<usize>()
    }

    /// All that work for it, or did.
    pub fn rows(&self) -> Vec<Row> {
        let begun = |worker: &Worker| worker.begun.load(Ordering::Acquire);
        let begun: Vec<bool> = self.workers.iter().map(begun).collect();
        // After that: who has begun and is not there has gone.
        let running = self.group.running();
        let rows = self.workers.iter().zip(begun).map(|(worker, begun)| {
            let name = Some(&worker.name);
            let task = running.iter().find(|task| task.name.as_ref() == name);
            let state = match (task, begun) {
                (Some(_), _) => State::Works,
                (None, true) => State::Gone,
                (None, false) => State::Waits,
            };
            let file = worker.file.load(Ordering::Relaxed).checked_sub(1);
            let at = file.and_then(|file| self.files.as_ref()?.name(file));
            Row {
                name: worker.name.clone(),
                state,
                lasts: task
                    .and_then(|task| task.since)
                    .map(|since| since.elapsed()),
                situation: task.and_then(|task| task.situation()),
                hits: worker.hits.load(Ordering::Relaxed),
                at: at.filter(|_| state == State::Works),
            }
        });
        rows.collect()
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasts = self.began.elapsed();
        write!(f, "[{}] search {:?}: for {lasts:.1?}", self.id, self.text)?;
        if let Some(said) = self.said() {
            let cause = self.context().cause();
            let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
            write!(f, ", told to stop {:.1?} ago: {cause}", said.elapsed())?;
        }
        for row in self.rows() {
            write!(f, "\n    {row}")?;
        }
        Ok(())
    }
}

/// The searches that are there.
#[derive(Default)]
pub struct Searches {
    /// By number, in order of their beginning. Held for a step in the map, and nothing else.
    all: Mutex<BTreeMap<usize, Arc<Work>>>,
    last: AtomicUsize,
}

impl Searches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Work>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// It is there until what this returns is given to [`leave`](Self::leave).
    pub fn enter(&self, work: Arc<Work>) -> usize {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, work);
        number
    }

    pub fn leave(&self, number: usize) {
        // Dropped when the lock is not held any more.
        let _work = self.lock().remove(&number);
    }
}

/// For people.
impl fmt::Display for Searches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.lock().values().cloned().collect();
        let mut text = String::new();
        for work in &all {
            writeln!(text, "{work}")?;
        }
        write!(f, "searches: {}\n{text}", all.len())
    }
}
