//! The command line.

use crate::duration;
use crate::files::Share;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

pub const USAGE: &str = "\
A search server: the lines of sources that have a text, within a limit.

search-server [OPTIONS]                the front, which searches by itself, or asks backends
search-server serve-backend [OPTIONS]  a backend, which is asked by gRPC

  --listen ADDR:PORT  by default 127.0.0.1:8080 (a backend: port 0); port 0 is a free one
  --root DIR          what is searched; by default the sources that Cargo keeps
  --backends A,B,C    HOST:PORT of the backends that are asked instead (front)
  --share I/N         search the I-th of N parts of the files (backend)
  --events FILE       append an event for each search to it (front); by default to the output
  --slow DURATION     as if the disk took so long for each file
  --patience DURATION for how long a client may do nothing where something is expected of it: no whole question
                      comes, or nothing of an answer is taken; by default 30s (front)
  --connections N     how many may be there at once; more of them wait. By default 512 (front)
  --lame-duck DURATION, --graceful DURATION
                      bounds of the end: for how long /healthz says no before no connection is taken any more, by
                      default 5s; and then for what is there, by default 15s
  --help              this

Durations are written as Go does: 50ms, 1.5s.
";

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// For how long one may do nothing where something is expected of it.
    pub patience: Duration,
    /// How many connections there may be.
    pub most: usize,
}

pub struct Options {
    pub is_backend: bool,
    pub listen: SocketAddr,
    pub root: PathBuf,
    /// Empty: the files here are searched.
    pub backends: Vec<String>,
    pub share: Share,
    pub events: Option<PathBuf>,
    pub slow: Duration,
    pub clients: Clients,
    pub lame_duck: Duration,
    pub graceful: Duration,
}

impl Options {
    /// None: help is wanted.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong.
    pub fn parse() -> Result<Option<Options>, String> {
        Self::read(lexopt::Parser::from_env()).map_err(|error| error.to_string())
    }

    fn read(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
        use lexopt::prelude::*;

        let time = |value: OsString| value.parse_with(duration::parse);
        let (mut listen, mut root, mut backends, mut share) = (None, None, None, None);
        let (mut is_backend, mut events, mut slow) = (false, None, Duration::ZERO);
        let (mut patience, mut most) = (None, None);
        let (mut lame_duck, mut graceful) = (Duration::from_secs(5), Duration::from_secs(15));
        while let Some(arg) = args.next()? {
            match arg {
                Long("help") | Short('h') => return Ok(None),
                Value(word) if word == "serve-backend" && !is_backend => is_backend = true,
                Long("listen") => listen = Some(args.value()?.parse()?),
                Long("root") => root = Some(PathBuf::from(args.value()?)),
                Long("backends") => {
                    let all = args.value()?.string()?;
                    let all = all.split(',').map(|one| one.trim().to_owned());
                    backends = Some(all.filter(|one| !one.is_empty()).collect::<Vec<_>>());
                }
                Long("share") => share = Some(args.value()?.parse_with(parse_share)?),
                Long("events") => events = Some(PathBuf::from(args.value()?)),
                Long("slow") => slow = time(args.value()?)?,
                Long("patience") => patience = Some(time(args.value()?)?),
                Long("connections") => most = Some(args.value()?.parse()?),
                Long("lame-duck") => lame_duck = time(args.value()?)?,
                Long("graceful") => graceful = time(args.value()?)?,
                arg => return Err(arg.unexpected()),
            }
        }
        if backends.as_ref().is_some_and(Vec::is_empty) {
            return Err("--backends names none".into());
        }
        if is_backend && (backends.is_some() || events.is_some()) {
            return Err("a backend has no backends, and its front keeps the events".into());
        }
        if is_backend && (patience.is_some() || most.is_some()) {
            return Err("--patience and --connections are the front's".into());
        }
        let clients = Clients {
            patience: patience.unwrap_or(Duration::from_secs(30)),
            most: most.unwrap_or(512),
        };
        if clients.patience.is_zero() || clients.most == 0 {
            return Err("with --patience 0 or --connections 0 nobody could ask anything".into());
        }
        if !is_backend && share.is_some() {
            return Err("a --share is a backend's".into());
        }
        if backends.is_some() && (root.is_some() || !slow.is_zero()) {
            return Err("with --backends it is they that have a --root and are --slow".into());
        }
        let port = if is_backend { 0 } else { 8080 };
        let root = match root {
            Some(root) => root,
            None if backends.is_some() => PathBuf::new(),
            None => registry_sources()?,
        };
        Ok(Some(Options {
            is_backend,
            listen: listen.unwrap_or_else(|| ([127, 0, 0, 1], port).into()),
            root,
            backends: backends.unwrap_or_default(),
            share: share.unwrap_or(Share::ALL),
            events,
            slow,
            clients,
            lame_duck,
            graceful,
        }))
    }
}

fn parse_share(text: &str) -> Result<Share, &'static str> {
    let share = text.split_once('/').and_then(|(this, of)| {
        let (this, of): (u64, u64) = (this.parse().ok()?, of.parse().ok()?);
        (1..=of)
            .contains(&this)
            .then(|| Share { this: this - 1, of })
    });
    share.ok_or("no I/N, as 1/3 is")
}

/// Where Cargo keeps the sources of everything that it has built.
fn registry_sources() -> Result<PathBuf, String> {
    let home = || env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"));
    let cargo = env::var_os("CARGO_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(home()?).join(".cargo")))
        .ok_or("cannot tell where Cargo's home is: name a --root")?;
    let sources = cargo.join("registry").join("src");
    match fs::read_dir(&sources).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Ok(sources),
        _ => Err(format!(
            "Cargo has no sources in {} (`cargo fetch` gets some): name a --root",
            sources.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{Clients, Options};
    use std::time::Duration;

    fn read(args: &str) -> Result<Option<Options>, lexopt::Error> {
        Options::read(lexopt::Parser::from_iter(
            ["search-server"].into_iter().chain(args.split_whitespace()),
        ))
    }

    #[test]
    fn what_is_said() {
        let backend = read("serve-backend --root . --share 2/3 --slow 1.5s")
            .unwrap()
            .unwrap();
        assert!(backend.is_backend);
        assert_eq!(backend.listen.to_string(), "127.0.0.1:0");
        assert_eq!((backend.share.this, backend.share.of), (1, 3));
        assert_eq!(backend.slow.as_millis(), 1500);
        let front = read("--backends a:1,b:2 --listen [::1]:0")
            .unwrap()
            .unwrap();
        assert_eq!(front.backends, ["a:1", "b:2"]);
        assert!(front.listen.is_ipv6());
        assert_eq!(front.clients.patience.as_secs(), 30);
        let front = read("--root . --patience 2s --connections 7").unwrap();
        let (patience, most) = (Duration::from_secs(2), 7);
        assert_eq!(front.unwrap().clients, Clients { patience, most });
        assert!(read("--root . --help").unwrap().is_none());
    }

    #[test]
    fn mistakes() {
        for args in [
            "--root",
            "--listen x",
            "--listen 127.0.0.1",
            "--root . --slow 1",
            "--root . --share 1/3",
            "serve-backend --root . --share 0/3",
            "serve-backend --root . --share 4/3",
            "serve-backend --root . --share x",
            "serve-backend --backends a:1",
            "serve-backend --root . --events f",
            "serve-backend --root . --patience 1s",
            "serve-backend --root . --connections 9",
            "--root . --patience 0",
            "--root . --connections 0",
            "--backends ,",
            "--backends a:1 --root .",
            "serve-backend serve-backend",
            "--root . word",
            "--root . --quick",
        ] {
            assert!(read(args).is_err(), "{args}");
        }
    }
}
