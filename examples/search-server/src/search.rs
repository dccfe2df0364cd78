//! A search: its limit, who works for it, and how it ends. Knows nothing of HTTP.

use crate::files::Files;
use crate::log;
use crate::metrics::Metrics;
use crate::query::Query;
use crate::remote::Remote;
use crate::work::{State, Work, Worker};
use cancel_tree::integrations::tower::{ClientGone, Shutdown};
use cancel_tree::{Canceller, Cause, Context, ContextError, Refused, Spawner};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;

/// How many hits wait to be taken, before those who find them wait.
const ROOM: usize = 64;

/// For so long it is waited until those who were told to stop have stopped; then they are named.
pub const STOP: Duration = Duration::from_secs(1);

/// A line that has it. It is also the message of the backends: `search.proto`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hit {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(uint32, tag = "2")]
    pub line: u32,
    #[prost(string, tag = "3")]
    pub text: String,
}

/// Who is asked.
pub enum Sources {
    /// The files here.
    Here(Arc<Files>),
    /// Other processes, all at once.
    Remote(Vec<Arc<Remote>>),
}

/// So many hits were wanted.
#[derive(Debug)]
pub struct Enough;

/// The directory is not there any more.
#[derive(Debug)]
pub struct FilesGone;

/// What was found was not taken, while others waited for the thread that had found it.
#[derive(Debug)]
pub struct NotTaken;

impl fmt::Display for Enough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enough was found")
    }
}

impl fmt::Display for FilesGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the files are gone")
    }
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was found was not taken")
    }
}

impl std::error::Error for Enough {}
impl std::error::Error for FilesGone {}
impl std::error::Error for NotTaken {}

/// Why a search is over.
#[derive(Clone, Debug)]
pub enum Why {
    /// All has been searched.
    Complete,
    /// All but so many files and directories, which could not be read.
    Unreadable(usize),
    Enough,
    Limit,
    NotTaken,
    ClientGone,
    Shutdown,
    FilesGone,
    /// The first error, which has ended the rest.
    Backend(String),
    Other(String),
}

impl Why {
    /// From the cause of the search's context. If that is not done, nothing has ended it.
    fn of(work: &Work) -> Why {
        let Some(cause) = work.context().cause() else {
            return match work.unreadable() {
                0 => Why::Complete,
                count => Why::Unreadable(count),
            };
        };
        if cause.find::<crate::remote::BackendFailed>().is_some() {
            Why::Backend(cause.to_string())
        } else if cause.find::<FilesGone>().is_some() {
            Why::FilesGone
        } else if cause.find::<NotTaken>().is_some() {
            Why::NotTaken
        } else if cause.find::<Enough>().is_some() {
            Why::Enough
        } else if cause.find::<ClientGone>().is_some() {
            Why::ClientGone
        } else if cause.find::<Shutdown>().is_some() {
            Why::Shutdown
        } else if cause.kind() == ContextError::DeadlineExceeded {
            Why::Limit
        } else {
            Why::Other(cause.to_string())
        }
    }

    /// Among [`Metrics::ENDS`].
    pub fn label(&self) -> &'static str {
        match self {
            Why::Complete => "complete",
            Why::Unreadable(_) => "unreadable",
            Why::Enough => "enough",
            Why::Limit => "limit",
            Why::NotTaken => "not_taken",
            Why::ClientGone => "client_gone",
            Why::Backend(_) => "backend",
            Why::FilesGone => "files_gone",
            Why::Shutdown => "shutdown",
            Why::Other(_) => "other",
        }
    }

    /// For who has asked.
    pub fn sentence(&self, query: &Query) -> String {
        match self {
            Why::Complete => "All has been searched.".into(),
            Why::Unreadable(count) => {
                format!("All has been searched, but for what could not be read: {count} of the files and directories.")
            }
            Why::Enough => format!("The first {} are here; there may be more.", query.most),
            Why::Limit => {
                let timeout = query.timeout;
                format!("The limit of {timeout:?} came first: this is what was found until then.")
            }
            Why::NotTaken => {
                "Nothing of the answer was taken for a second while others waited: this is what was found until then.".into()
            }
            Why::ClientGone => "Nobody wanted the answer any more.".into(),
            Why::Backend(error) => format!("A backend failed, which ended the search: {error}."),
            Why::FilesGone => "The files are gone.".into(),
            Why::Shutdown => "The server ends: this is what was found until then.".into(),
            Why::Other(cause) => format!("The search was ended: {cause}."),
        }
    }
}

/// How it was, when nobody works for it any more.
#[derive(Clone, Debug)]
pub struct Ended {
    pub why: Why,
    /// How many were taken.
    pub hits: usize,
    /// Since the beginning.
    pub took: Duration,
    /// From the word to stop until the last one was gone. `None` if there was no such word.
    pub stop: Option<Duration>,
}

/// For the log.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, hits, took) = (self.why.label(), self.hits, self.took);
        write!(f, "{why}, {hits} hits, {took:.1?}")?;
        match self.stop {
            Some(stop) => write!(f, ", all stopped in {stop:.1?}"),
            None => Ok(()),
        }
    }
}

/// A search that was begun.
pub struct Search {
    hits: mpsc::Receiver<Hit>,
    work: Arc<Work>,
    taken: Arc<AtomicUsize>,
    most: usize,
    /// The right to end it. All that work for it have a context, by which they are only told.
    enough: Canceller,
    ended: oneshot::Receiver<Arc<Ended>>,
    /// What has come of that.
    over: Option<Arc<Ended>>,
    /// Goes with the answer.
    _answering: oneshot::Sender<()>,
}

impl Search {
    /// Asks all sources at once, below `ctx`, for as long as the query says.
    ///
    /// The search is over when all has been searched, at the limit, with `ctx`, or at the first error, whichever is first. A task of `keepers` waits until
    /// nobody works for it any more and this is dropped, for the latter until [`STOP`] after the limit, and then calls `on_end`: always, whether anybody waits for the answer or not.
    ///
    /// # Errors
    ///
    /// `keepers` takes nothing any more: the server ends. Nothing was begun.
    pub fn begin(
        ctx: &Context,
        query: &Query,
        sources: &Sources,
        keepers: &Spawner,
        metrics: &Arc<Metrics>,
        on_end: impl FnOnce(&Ended) + Send + 'static,
    ) -> Result<Search, Refused<()>> {
        let id = log::request_id(ctx);
        let keeper = keepers.named(format!("search {id} {:?}", query.text));
        let keeper = keeper.enter()?;
        metrics.begun();
        let (ctx, guard) = ctx.with_timeout(query.timeout);
        let (enough, deadline) = (guard.canceller(), ctx.deadline());
        let text = query.text.clone();
        let (found, hits) = mpsc::channel(ROOM);
        let work = match sources {
            Sources::Here(files) => {
                let workers = (1..=files.threads()).map(|number| format!("thread {number}"));
                let workers: Arc<[Worker]> = workers.map(Worker::new).collect();
                let there = Some(files.clone());
                let work = Work::new(id.into(), text.clone(), &ctx, workers.clone(), there);
                let (files, spawner) = (files.clone(), work.group.spawner());
                let found = found.clone();
                let search = |ctx| files.search(spawner, ctx, text, found, workers);
                // Refused is what comes after the end.
                _ = work.group.named("files").spawn(search);
                work
            }
            Sources::Remote(backends) => {
                let workers = backends.iter().map(|backend| backend.name().to_owned());
                let workers: Arc<[Worker]> = workers.map(Worker::new).collect();
                let work = Work::new(id.into(), text, &ctx, workers.clone(), None);
                for (number, backend) in backends.iter().enumerate() {
                    let (backend, workers) = (backend.clone(), workers.clone());
                    let (query, found) = (query.clone(), found.clone());
                    let name = workers[number].name.clone();
                    let search = move |ctx| async move {
                        let worker = &workers[number];
                        backend.search(&ctx, &query, &found, worker).await
                    };
                    _ = work.group.named(name).spawn(search);
                }
                work
            }
        };
        let work = Arc::new(work);
        let listed = metrics.searches.enter(work.clone());
        let taken = Arc::new(AtomicUsize::new(0));
        let (end, ended) = oneshot::channel();
        let (answering, answered) = oneshot::channel();
        let keep = {
            let (work, taken, metrics) = (work.clone(), taken.clone(), metrics.clone());
            async move {
                // Empty once is empty for good: who starts one is there itself.
                work.group.wait_idle().await;
                let gone = Instant::now();
                let said = work.said();
                let ended = Ended {
                    why: Why::of(&work),
                    hits: 0,
                    took: gone - work.began,
                    stop: said.map(|said| gone.saturating_duration_since(said)),
                };
                let _ = end.send(Arc::new(ended.clone()));
                // The last sender: who sees that no more come finds all ended.
                drop(found);
                // An answer that nobody takes does not keep it for good.
                let limit = deadline.map(|deadline| deadline + STOP);
                let (limit, _guard) = Context::background().with_deadline(limit.unwrap_or(gone));
                let _ = limit.run(answered).await;
                // The right to cancel went no further than this: the cause is what really came first.
                drop(guard);
                let hits = taken.load(Relaxed);
                let ended = Ended { hits, ..ended };
                metrics.searches.leave(listed);
                metrics.ended(&ended);
                on_end(&ended);
            }
        };
        tokio::spawn(keeper.track(keep));
        Ok(Search {
            hits,
            work,
            taken,
            most: query.most,
            enough,
            ended,
            over: None,
            _answering: answering,
        })
    }

    /// The next hit. `None`: it is over, for the reason that [`why`](Self::why) says; what was found until then has come.
    pub async fn next(&mut self) -> Option<Hit> {
        if self.taken.load(Relaxed) == self.most {
            return None;
        }
        let hit = match self.work.context().run(self.hits.recv()).await {
            Ok(Some(hit)) => Ok(hit),
            Ok(None) => Err(TryRecvError::Disconnected),
            Err(_) => self.hits.try_recv(),
        };
        let hit = match hit {
            Ok(hit) => hit,
            Err(error) => {
                // Nobody works for it, and who says how it ended has said so. Which may have been long ago, before the limit.
                if error == TryRecvError::Disconnected {
                    self.over = self.ended.try_recv().ok();
                }
                return None;
            }
        };
        if self.taken.fetch_add(1, Relaxed) + 1 == self.most {
            self.enough.cancel_with(Cause::new(Enough));
        }
        Some(hit)
    }

    /// Why it is over.
    pub fn why(&self) -> Why {
        match &self.over {
            Some(ended) => ended.why.clone(),
            None => Why::of(&self.work),
        }
    }

    /// Who works for it, waits to, or did.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Waits until nobody works for it, or until `limit`.
    ///
    /// # Errors
    ///
    /// Who still does.
    pub async fn stopped(&mut self, limit: &Context) -> Result<Arc<Ended>, Vec<String>> {
        if let Some(ended) = &self.over {
            return Ok(ended.clone());
        }
        match limit.run(&mut self.ended).await {
            Ok(Ok(ended)) => Ok(self.over.insert(ended).clone()),
            _ => {
                let rows = self.work.rows().into_iter();
                let works = rows.filter(|row| row.state == State::Works);
                Err(works.map(|row| row.to_string()).collect())
            }
        }
    }
}
