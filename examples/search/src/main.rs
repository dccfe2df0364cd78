//! Finds a text in a directory tree: a few threads, and one token per directory.
//!
//! ```text
//! cargo run --release -p search -- "fn main"
//! ```
//!
//! The token tree mirrors the directory tree, so one `cancel` ends the whole search, or only what
//! is below one directory. Everything that ends the search is a cancel of the root with a cause of
//! its own: enough matches, the time limit, Ctrl-C, a closed output, or that all has been searched.

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cancel_tree::{CancellationToken, Cause};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

const HELP: &str = "\
Finds a text in every file below a directory.

Usage: search [OPTIONS] TEXT [DIRECTORY]

DIRECTORY is the sources of the Cargo registry if left out.

Options:
  -n, --matches N    stop at the first N matches                    [default: 100]
  -d, --per-dir N    leave a directory, and all below it, after N matches in it
  -t, --time SECS    stop after so many seconds, 0.5 for example    [default: 10]
  -j, --threads N    search with N threads, 1 to 256  [default: one per processor]
  -h, --help         show this help

Exit status: 0 found, 1 not found, 2 bad input, 130 Ctrl-C (twice: at once).";

/// Between two looks at the clock and the progress.
const TICK: Duration = Duration::from_millis(100);
/// Longer lines are searched in pieces, so that memory stays bounded.
const LONGEST_LINE: u64 = 1 << 20;

fn main() -> ExitCode {
    let run = || match Options::parse()? {
        Some(options) => search(options),
        None => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
    };
    run().unwrap_or_else(|error| {
        eprintln!("search: {error}\n(--help shows the usage)");
        ExitCode::from(2)
    })
}

fn search(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let started = Instant::now();
    let (ended, end) = mpsc::channel();
    let search = Arc::new(Search::new(options, ended));

    // A condition variable knows nothing of tokens. So the root's callback closes the queue, and
    // that wakes the workers which wait there. (Dropping the registration leaves it registered.)
    let queue = Arc::clone(&search.queue);
    drop(search.root.on_cancel(move || queue.close()));

    // The first Ctrl-C asks politely. When the search has ended anyway, one more ends the program.
    let interrupted = Arc::clone(&search);
    ctrlc::set_handler(move || {
        if !interrupted.stop(Interrupted) {
            process::exit(130);
        }
    })?;

    search.add(search.options.directory.clone(), None);
    let workers: Vec<_> = (0..search.options.threads)
        .map(|_| {
            let search = Arc::clone(&search);
            thread::spawn(move || search.work())
        })
        .collect();

    // This thread sleeps until the cancel, but looks up now and then.
    let limit = search.options.time;
    let mut shown = 0;
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if search.root.blocking_wait_timeout(TICK.min(left)) {
            break;
        }
        if left.is_zero() {
            search.stop(format!("the time limit of {limit:?} has passed"));
        }
        search.show_progress(started, &mut shown);
    }

    let mut last = started;
    for worker in workers {
        last = last.max(worker.join().map_err(|_| "a worker panicked")?);
    }
    search.progress.finish_and_clear();
    let end = end.recv()?;
    search.summarize(&end, started, last);

    let cause = search.root.cause();
    Ok(match search.found() {
        _ if cause.is_some_and(|cause| cause.downcast_ref::<Interrupted>().is_some()) => {
            ExitCode::from(130)
        }
        0 => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

/// A directory: a piece of work, and its place in the token tree.
struct Directory {
    path: PathBuf,
    token: CancellationToken,
    /// Keeps the parent's token until everything below the parent has been searched.
    _parent: Option<Arc<Directory>>,
    depth: usize,
    matches: AtomicUsize,
    tally: Arc<Tally>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.tally.living.fetch_sub(1, Relaxed);
    }
}

/// What the token tree looked like.
#[derive(Default)]
struct Tally {
    made: AtomicUsize,
    living: AtomicUsize,
    depth: AtomicUsize,
    width: AtomicUsize,
}

/// The cancel that ended the search.
struct End {
    began: Instant,
    took: Duration,
    living: usize,
}

/// Shared by all threads.
struct Search {
    options: Options,
    root: CancellationToken,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
    ended: mpsc::Sender<End>,
    matches: AtomicUsize,
    unreadable: AtomicUsize,
    progress: ProgressBar,
}

impl Search {
    fn new(options: Options, ended: mpsc::Sender<End>) -> Self {
        let style = "{elapsed:>4} {bar:40} {human_pos} of {human_len} directories, {msg} matches";
        let style = ProgressStyle::with_template(style).expect("the template is valid");
        Self {
            options,
            root: CancellationToken::new(),
            queue: Arc::default(),
            tally: Arc::default(),
            ended,
            matches: AtomicUsize::new(0),
            unreadable: AtomicUsize::new(0),
            progress: ProgressBar::new(0).with_style(style).with_message("0"),
        }
    }

    /// Ends the search, unless it has ended: the first cause is the one that stays.
    fn stop(&self, cause: impl Into<Cause>) -> bool {
        let living = self.tally.living.load(Relaxed);
        let began = Instant::now();
        let first = self.root.cancel_with(cause);
        let took = began.elapsed();
        if first {
            // Fails only if nobody wants to know any more.
            let _ = self.ended.send(End {
                began,
                took,
                living,
            });
        }
        first
    }

    /// Queues a directory, with a token below its parent's.
    fn add(&self, path: PathBuf, parent: Option<&Arc<Directory>>) {
        let depth = parent.map_or(1, |parent| parent.depth + 1);
        self.tally.made.fetch_add(1, Relaxed);
        self.tally.living.fetch_add(1, Relaxed);
        self.tally.depth.fetch_max(depth, Relaxed);
        self.progress.inc_length(1);
        self.queue.push(Directory {
            path,
            token: parent
                .map_or(&self.root, |parent| &parent.token)
                .child_token(),
            _parent: parent.cloned(),
            depth,
            matches: AtomicUsize::new(0),
            tally: Arc::clone(&self.tally),
        });
    }

    /// One worker, from the first directory to the end of the search. Returns when it stopped.
    fn work(&self) -> Instant {
        while let Some(directory) = self.queue.pop() {
            self.try_or_count(self.search_directory(&directory));
            self.progress.inc(1);
            if self.queue.finish() {
                self.stop("everything has been searched");
            }
        }
        Instant::now()
    }

    fn search_directory(&self, directory: &Arc<Directory>) -> io::Result<()> {
        let mut files = Vec::new();
        let mut width = 0;
        for entry in fs::read_dir(&directory.path)? {
            if directory.token.is_cancelled() {
                return Ok(());
            }
            let entry = entry?;
            let kind = entry.file_type()?;
            // Links are not followed: they could lead round in a circle.
            if kind.is_dir() {
                self.add(entry.path(), Some(directory));
                width += 1;
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
        self.tally.width.fetch_max(width, Relaxed);
        for file in files {
            self.try_or_count(self.search_file(&file, directory));
        }
        Ok(())
    }

    fn search_file(&self, path: &Path, directory: &Directory) -> io::Result<()> {
        let file = File::open(path)?;
        // A file such as /proc/kmsg claims to be empty, and reading it blocks: no token ends that.
        if file.metadata()?.len() == 0 {
            return Ok(());
        }
        let mut file = BufReader::with_capacity(1 << 16, file);
        // As grep does it: a zero byte near the start means that this is no text.
        if file.fill_buf()?.contains(&0) {
            return Ok(());
        }
        let mut line = Vec::new();
        for number in 1.. {
            // A plain load, so cheap that it can be asked before every line.
            if directory.token.is_cancelled() {
                break;
            }
            line.clear();
            let mut piece = file.by_ref().take(LONGEST_LINE);
            if piece.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let line = String::from_utf8_lossy(&line);
            if line.contains(&self.options.text) {
                self.found_one(path, number, &line, directory);
            }
        }
        Ok(())
    }

    fn found_one(&self, path: &Path, number: usize, line: &str, directory: &Directory) {
        if directory.matches.fetch_add(1, Relaxed) + 1 == self.options.per_directory {
            // Only this directory and what is below it; the rest of the search goes on.
            directory.token.cancel_with("enough matches here");
        }
        let count = self.matches.fetch_add(1, Relaxed) + 1;
        if count > self.options.matches {
            return;
        }
        let line: String = line.trim().chars().take(120).collect();
        let path = path.display();
        // `suspend` takes the progress bar off the screen meanwhile.
        let print = || writeln!(io::stdout(), "{path}:{number}: {line}");
        if let Err(error) = self.progress.suspend(print) {
            self.stop(Cause::new(error));
        }
        if count == self.options.matches {
            self.stop(format!("found {count} matches"));
        }
    }

    /// A file or directory that cannot be read does not end the search, but is not hidden either.
    fn try_or_count(&self, result: io::Result<()>) {
        if result.is_err() {
            self.unreadable.fetch_add(1, Relaxed);
        }
    }

    fn found(&self) -> usize {
        self.matches.load(Relaxed).min(self.options.matches)
    }

    fn show_progress(&self, started: Instant, shown: &mut u64) {
        let progress = &self.progress;
        progress.set_message(HumanCount(self.found() as u64).to_string());
        // No bar is drawn where the error output is no terminal: a line every second instead.
        let seconds = started.elapsed().as_secs();
        if progress.is_hidden() && seconds > *shown {
            *shown = seconds;
            let (done, known) = (progress.position(), progress.length().unwrap_or(0));
            eprintln!(
                "{seconds}s: {done} of {known} directories, {} matches",
                self.found()
            );
        }
    }

    fn summarize(&self, end: &End, started: Instant, last: Instant) {
        let count = |number: usize| HumanCount(number as u64);
        let get = |number: &AtomicUsize| count(number.load(Relaxed));
        let cause = self.root.cause().map(|cause| cause.to_string());
        eprintln!(
            "\n{} matches in {} directories, {:.1?}",
            count(self.found()),
            HumanCount(self.progress.position()),
            last - started,
        );
        match self.unreadable.load(Relaxed) {
            0 => {}
            number => eprintln!("could not read {} files or directories", count(number)),
        }
        eprintln!("stopped by    {}", cause.unwrap_or_default());
        eprintln!(
            "tokens        {} made, {} alive at the cancel; {} levels, at most {} below one",
            count(self.tally.made.load(Relaxed) + 1), // and the root
            count(end.living + 1),
            get(&self.tally.depth),
            get(&self.tally.width),
        );
        eprintln!("cancel        took {:.1?}", end.took);
        eprintln!(
            "last worker   had stopped {:.1?} after the cancel began",
            last.saturating_duration_since(end.began),
        );
    }
}

/// Directories that wait for a worker, first come, first served.
#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    directories: VecDeque<Arc<Directory>>,
    /// Waiting or being searched.
    unfinished: usize,
    closed: bool,
}

impl Queue {
    fn push(&self, directory: Directory) {
        let mut state = self.state.lock().unwrap();
        state.unfinished += 1;
        state.directories.push_back(Arc::new(directory));
        self.changed.notify_one();
    }

    /// Blocks while there is nothing to do. None: the search has ended.
    fn pop(&self) -> Option<Arc<Directory>> {
        let empty = |state: &mut Waiting| !state.closed && state.directories.is_empty();
        let state = self.state.lock().unwrap();
        let mut state = self.changed.wait_while(state, empty).unwrap();
        match state.closed {
            true => None,
            false => state.directories.pop_front(),
        }
    }

    /// One directory is done. True: it was the last one.
    fn finish(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.unfinished -= 1;
        state.unfinished == 0
    }

    /// Runs on the thread that cancels. `closed` is set under the lock, so that no worker can go to
    /// sleep between its look at it and this wake-up.
    fn close(&self) {
        self.state.lock().unwrap().closed = true;
        self.changed.notify_all();
    }
}

/// The user pressed Ctrl-C.
#[derive(Debug)]
struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ctrl-C")
    }
}

impl Error for Interrupted {}

impl From<Interrupted> for Cause {
    fn from(interrupted: Interrupted) -> Self {
        Cause::new(interrupted)
    }
}

struct Options {
    text: String,
    directory: PathBuf,
    matches: usize,
    per_directory: usize,
    time: Duration,
    threads: usize,
}

impl Options {
    /// None: the user asked for help.
    fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        use lexopt::prelude::*;

        let mut words: Vec<OsString> = Vec::new();
        let (mut matches, mut per_directory, mut time) = (100, usize::MAX, Duration::from_secs(10));
        let mut threads = thread::available_parallelism()
            .map_or(2, usize::from)
            .min(256);
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Short('n') | Long("matches") => matches = number(args.value()?, usize::MAX)?,
                Short('d') | Long("per-dir") => per_directory = number(args.value()?, usize::MAX)?,
                Short('j') | Long("threads") => threads = number(args.value()?, 256)?,
                Short('t') | Long("time") => {
                    let value = args.value()?;
                    let seconds = value.parse_with(|value| {
                        let seconds = value.parse().map_err(|_| "not a number")?;
                        Duration::try_from_secs_f64(seconds).map_err(|_| "not a length of time")
                    });
                    time = seconds?;
                }
                Value(word) if words.len() < 2 => words.push(word),
                unexpected => return Err(unexpected.unexpected().into()),
            }
        }

        let mut words = words.into_iter();
        let text = words.next().ok_or("which TEXT?")?.string()?;
        if text.is_empty() {
            return Err("an empty TEXT is everywhere".into());
        }
        let directory = match words.next() {
            Some(word) => PathBuf::from(word),
            None => registry_sources()?,
        };
        fs::read_dir(&directory)
            .map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
        Ok(Some(Self {
            text,
            directory,
            matches,
            per_directory,
            time,
            threads,
        }))
    }
}

fn number(value: OsString, max: usize) -> Result<usize, lexopt::Error> {
    use lexopt::ValueExt;

    value.parse_with(|value| match value.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ if max < usize::MAX => Err(format!("not a number from 1 to {max}")),
        _ => Err("not a number above 0".into()),
    })
}

/// Where Cargo keeps the sources of everything that it has built.
fn registry_sources() -> Result<PathBuf, String> {
    let home = || env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"));
    let cargo = env::var_os("CARGO_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(home()?).join(".cargo")))
        .ok_or("cannot tell where Cargo's home is, name a DIRECTORY")?;
    let sources = cargo.join("registry").join("src");
    match fs::read_dir(&sources).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Ok(sources),
        _ => Err(format!(
            "Cargo has no sources in {} (`cargo fetch` gets some), name a DIRECTORY",
            sources.display()
        )),
    }
}
