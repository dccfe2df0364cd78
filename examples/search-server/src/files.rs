//! The files, and the threads that search them.

use crate::metrics::{counted, Metrics};
use crate::search::{FilesGone, Hit, NotTaken};
use crate::work::Worker;
use cancel_tree::{Cause, Context, Group, Spawner};
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};
use std::fs::{self, File};
use std::future::{poll_fn, Future};
use std::io::{self, ErrorKind, Read};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longer ones are no sources.
const LONGEST_FILE: u64 = 4 << 20;
/// What is shown of a line, in characters.
const LONGEST_LINE: usize = 160;

/// For so long a thread waits for room for what it has found, if others wait for the thread.
const ROOM: Duration = Duration::from_secs(1);

/// Which files of a directory are searched here: number `this` of `of` shares, from 0.
#[derive(Clone, Copy)]
pub struct Share {
    pub this: u64,
    pub of: u64,
}

impl Share {
    pub const ALL: Share = Share { this: 0, of: 1 };

    /// By the name: it is the same in all processes, in whatever order they meet the files.
    fn has(self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_encoded_bytes();
        // FNV-1a; a name's last letters have to count in the low bits.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash >> 32) % self.of == self.this
    }
}

/// A directory's files, listed once.
///
/// It knows tokio-util's token only, as a crate would that was written without contexts: `closed` is cancelled when the directory is gone. That
/// token is a parent of what searches here, beside the request.
pub struct Files {
    root: PathBuf,
    /// Below the root.
    paths: Vec<Box<Path>>,
    /// Directories, and entries of them, that could not be read then.
    unlisted: usize,
    closed: CancellationToken,
    /// Places for threads; searches that find none wait in order of arrival.
    threads: Group,
    /// Searches that wait for one.
    waiting: AtomicU64,
    /// How many threads one search may have.
    each: usize,
    /// As if the disk took so long for each file.
    slow: Duration,
    metrics: Arc<Metrics>,
}

impl Files {
    /// Lists the files; ends early with the context.
    ///
    /// # Errors
    ///
    /// The root cannot be read, or the context is done.
    pub fn list(
        ctx: &Context,
        root: &Path,
        share: Share,
        slow: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Files, Cause> {
        let wrong =
            |error: io::Error| Cause::from(format!("cannot read {}: {error}", root.display()));
        let (mut paths, mut unlisted) = (Vec::new(), 0);
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            ctx.check_cause()?;
            let entries = match fs::read_dir(root.join(&directory)) {
                Err(error) if directory.as_os_str().is_empty() => return Err(wrong(error)),
                // What cannot be read does not keep the rest from being searched.
                Err(error) => {
                    unlisted += usize::from(error.kind() != ErrorKind::NotFound);
                    continue;
                }
                Ok(entries) => entries,
            };
            for entry in entries {
                let kind = entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)));
                let Ok((name, kind)) = kind else {
                    unlisted += 1;
                    continue;
                };
                let path = directory.join(name);
                // Links are not followed: they could lead round in a circle.
                if kind.is_dir() {
                    directories.push(path);
                } else if kind.is_file() && share.has(&path) {
                    paths.push(path.into());
                }
            }
        }
        let each = std::thread::available_parallelism().map_or(2, NonZero::get);
        Ok(Files {
            root: root.to_owned(),
            paths,
            unlisted,
            closed: CancellationToken::new(),
            threads: Group::new(&Context::background().with_name("places for threads"))
                .limit(2 * each),
            waiting: AtomicU64::new(0),
            each,
            slow,
            metrics,
        })
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// How many threads one search may have.
    pub fn threads(&self) -> usize {
        self.each
    }

    /// What is not among them, since it could not be read.
    pub fn unlisted(&self) -> usize {
        self.unlisted
    }

    /// Of the file with that number.
    pub fn name(&self, number: usize) -> Option<String> {
        Some(self.paths.get(number)?.display().to_string())
    }

    /// Whether they are there no more.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// The same, as far as can be told: another error may pass.
    fn are_gone(&self) -> bool {
        match fs::metadata(&self.root) {
            Ok(root) => !root.is_dir(),
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }

    /// Whether a search waits for a thread, and all are taken.
    fn are_threads_wanted(&self) -> bool {
        self.waiting.load(Relaxed) > 0 && self.threads.len() >= 2 * self.each
    }

    /// Searches with several threads, which are tasks of `group`. Returns when the last one is started.
    pub async fn search(
        self: Arc<Files>,
        group: Spawner,
        ctx: Context,
        text: Arc<str>,
        hits: mpsc::Sender<Hit>,
        workers: Arc<[Worker]>,
    ) -> Result<(), Cause> {
        // Over when the request is, and when the files are gone: a context of another crate is a parent as any other.
        let closed = Context::below(self.closed.clone());
        let ctx = Context::any_of([&ctx, &closed]);
        let next = Arc::new(AtomicUsize::new(0));
        for number in 0..workers.len() {
            let place = {
                let mut place = pin!(self.threads.enter_when(&ctx));
                let mut waits = None;
                let place = poll_fn(|task| {
                    // Not for an instant beside the place: nobody is to give up a thread for who has one.
                    drop(waits.take());
                    let place = place.as_mut().poll(task);
                    waits = place.is_pending().then(|| counted(&self.waiting));
                    place
                });
                let place = place.await;
                place.map_err(|refused| self.over(refused.cause().clone()))?
            };
            if next.load(Relaxed) >= self.paths.len() {
                break;
            }
            let (files, closed, text) = (self.clone(), closed.clone(), text.clone());
            let (next, hits) = (next.clone(), hits.clone());
            let (name, workers) = (workers[number].name.clone(), workers.clone());
            // Its own, so that it is known whether it has looked since it was told to stop.
            let work = move |ctx: Context| {
                let _place = place;
                let ctx = Context::any_of([&ctx, &closed]);
                files.work(&ctx, &text, &next, &hits, &workers[number])
            };
            let started = group.named(name).spawn_blocking(work);
            started.map_err(|refused| refused.cause().clone())?;
        }
        Ok(())
    }

    /// One thread: takes the next file until there is none, or until it is over.
    fn work(
        &self,
        ctx: &Context,
        text: &str,
        next: &AtomicUsize,
        hits: &mpsc::Sender<Hit>,
        worker: &Worker,
    ) -> Result<(), Cause> {
        worker.begin();
        let _working = self.metrics.work();
        let finder = Finder::new(text);
        let mut bytes = Vec::new();
        loop {
            // Relaxed: it hands out numbers, and nothing else.
            let number = next.fetch_add(1, Relaxed);
            let Some(path) = self.paths.get(number) else {
                return Ok(());
            };
            worker.at_file(number);
            if !self.slow.is_zero() {
                let _ = ctx.blocking_sleep(self.slow);
            }
            // A load, asked before each file.
            ctx.check_cause().map_err(|cause| self.over(cause))?;
            match self.read(ctx, path, &mut bytes) {
                Ok(true) => {}
                Ok(false) => continue,
                // Perhaps it was this that ended the reading.
                Err(_) if ctx.is_done() => ctx.check_cause().map_err(|cause| self.over(cause))?,
                Err(_) if self.are_gone() => {
                    self.closed.cancel();
                    return Err(Cause::new(FilesGone));
                }
                // It is gone since, with its lines.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(_) => {
                    self.metrics.unreadable.fetch_add(1, Relaxed);
                    worker.unreadable(1);
                    continue;
                }
            }
            self.metrics.files.fetch_add(1, Relaxed);
            for hit in lines(&bytes, &finder, path) {
                // Nobody takes hits any more.
                if !self.hand_over(ctx, hits, hit)? {
                    return Ok(());
                }
                worker.hit();
            }
        }
    }

    /// The generator that does not leak: it waits for room and for the end, and whichever comes first is what it goes on with. Whether it was taken.
    fn hand_over(&self, ctx: &Context, hits: &mpsc::Sender<Hit>, hit: Hit) -> Result<bool, Cause> {
        let mut sent = pin!(hits.send(hit));
        loop {
            let (limit, _guard) = ctx.with_timeout(ROOM);
            if let Ok(sent) = limit.block_on(sent.as_mut()) {
                return Ok(sent.is_ok());
            }
            ctx.check_cause().map_err(|cause| self.over(cause))?;
            // Answers that nobody reads must not take all threads from the others.
            if self.are_threads_wanted() {
                return Err(Cause::new(NotTaken));
            }
        }
    }

    /// Why it is over: a token of tokio-util's has no cause of its own.
    fn over(&self, cause: Cause) -> Cause {
        match self.is_closed() {
            true => Cause::new(FilesGone),
            false => cause,
        }
    }

    /// Whether it is text. An error also when the context is done in the middle: a slow disk keeps nobody.
    fn read(&self, ctx: &Context, path: &Path, bytes: &mut Vec<u8>) -> io::Result<bool> {
        struct Looking<'a>(&'a Context, File);
        impl Read for Looking<'_> {
            fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
                self.0.check().map_err(io::Error::other)?;
                self.1.read(bytes)
            }
        }
        bytes.clear();
        let file = Looking(ctx, File::open(self.root.join(path))?);
        // The length that is said may be wrong, as in /proc; so the bound is that of what is read.
        file.take(LONGEST_FILE + 1).read_to_end(bytes)?;
        // As grep does it: a zero byte near the start means that this is no text.
        let start = &bytes[..bytes.len().min(1 << 13)];
        Ok(bytes.len() as u64 <= LONGEST_FILE && memchr(0, start).is_none())
    }
}

/// The lines that have it, each once.
fn lines<'a>(
    bytes: &'a [u8],
    finder: &'a Finder<'_>,
    path: &'a Path,
) -> impl Iterator<Item = Hit> + use<'a> {
    let (mut at, mut number) = (0, 1);
    std::iter::from_fn(move || {
        let found = at + finder.find(&bytes[at..])?;
        let begin = memrchr(b'\n', &bytes[at..found]).map_or(at, |newline| at + newline + 1);
        let end = memchr(b'\n', &bytes[found..]).map_or(bytes.len(), |newline| found + newline);
        number += memchr_iter(b'\n', &bytes[at..begin]).count() as u32;
        let text = String::from_utf8_lossy(&bytes[begin..end]);
        let hit = Hit {
            path: path.display().to_string(),
            line: number,
            text: text.trim().chars().take(LONGEST_LINE).collect(),
        };
        at = (end + 1).min(bytes.len());
        number += 1;
        Some(hit)
    })
}

#[cfg(test)]
mod tests {
    use super::{lines, Share};
    use memchr::memmem::Finder;
    use std::path::{Path, PathBuf};

    #[test]
    fn each_line_once_with_its_number() {
        let bytes = b"tea\n\n  tea and tea \nnone\nthe last tea";
        let finder = Finder::new("tea");
        let hits = lines(bytes, &finder, Path::new("a/b"));
        let hits: Vec<_> = hits.map(|hit| (hit.path, hit.line, hit.text)).collect();
        let expected = [(1, "tea"), (3, "tea and tea"), (5, "the last tea")];
        let expected = expected.map(|(line, text)| ("a/b".to_owned(), line, text.to_owned()));
        assert_eq!(hits, expected);
        assert_eq!(lines(b"", &finder, Path::new("a")).count(), 0);
    }

    #[test]
    fn shares_are_disjoint_and_whole() {
        let mut counts = [0; 3];
        for number in 0..3000 {
            let path = PathBuf::from(format!("crate-{number}/src/lib.rs"));
            let mine = (0..3).filter(|this| Share { this: *this, of: 3 }.has(&path));
            let mine: Vec<_> = mine.collect();
            assert_eq!(mine.len(), 1);
            counts[mine[0] as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }
}
