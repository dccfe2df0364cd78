//! The search server of the guide's stories; see the README beside.

mod connections;
mod duration;
mod files;
mod front;
mod log;
mod metrics;
mod options;
mod patient;
mod query;
mod remote;
mod search;
mod tracker;
mod work;

use cancel_tree::integrations::serve::{Serve, Server, ServerReport};
use cancel_tree::integrations::signals::{Signal, SignalGuard, Signals};
use cancel_tree::Context;
use files::Files;
use front::Front;
use metrics::Metrics;
use options::Options;
use remote::{Backend, Remote};
use search::Sources;
use std::error::Error;
use std::io::Write;
use std::process::exit;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tracker::Tracker;

/// How long events may take that are not written when the server has ended.
const EVENTS: Duration = Duration::from_secs(5);

fn main() {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = std::io::stdout().write_all(options::USAGE.as_bytes());
            return;
        }
        Err(error) => fail(&format!("{error}; --help says more")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| fail(&error.to_string()));
    match runtime.block_on(run(options)) {
        // Here, on the main thread: whatever hangs on the runtime's, this does not wait for one of them.
        // The signals are still taken: the first one more must not end the process before the events are named.
        Ok((report, end, _signals)) => end.now(&report),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(error: &str) -> ! {
    log::last(&format!("search-server: {error}"));
    log::flush();
    exit(2);
}

/// How the process ends, whoever comes to it first.
struct End {
    once: Mutex<()>,
    tracker: Option<Arc<Tracker>>,
    metrics: Arc<Metrics>,
}

impl End {
    fn now(&self, report: &ServerReport) -> ! {
        // Whoever comes second waits here for the end of the process.
        let _once = self.once.lock();
        let code = report.exit_code();
        log::last(&report.to_string());
        if !self.metrics.searches.is_empty() {
            log::last(&self.metrics.searches.to_string());
        }
        let (limit, _guard) = Context::background().with_timeout(EVENTS);
        let events = self
            .tracker
            .as_ref()
            .map(|tracker| tracker.shutdown(&limit));
        let lost = events.is_some_and(|events| {
            log::last(&format!("events: {events}"));
            !events.is_all()
        });
        log::flush();
        exit(if lost { code.max(1) } else { code })
    }
}

/// Serves until the end, unless it cannot even begin.
async fn run(options: Options) -> Result<(ServerReport, Arc<End>, SignalGuard), Box<dyn Error>> {
    let root = Context::background().with_name("server");
    // The first signal begins the end, the second cancels what is still there, the third ends the process.
    let signals = Signals::new().install(&root)?;
    let metrics = Arc::new(Metrics::default());
    let sources = sources(&options, &signals, &metrics)?;
    let tracker = match options.is_backend {
        true => None,
        false => {
            let file = options.events.as_deref();
            let tracker = Tracker::new(file, tracker::ROOM).map_err(|error| {
                let file = file.map(|file| file.display().to_string());
                format!(
                    "cannot write events to {}: {error}",
                    file.unwrap_or_default()
                )
            })?;
            Some(Arc::new(tracker))
        }
    };
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        format!(
            "cannot listen on {}: {error}; --listen takes another",
            options.listen
        )
    })?;
    let end = Arc::new(End {
        once: Mutex::new(()),
        tracker: tracker.clone(),
        metrics: metrics.clone(),
    });
    let server = Serve::new(&root)
        .signals(&signals)
        .lame_duck(options.lame_duck)
        .graceful(options.graceful)
        .when_stuck({
            let end = end.clone();
            move |report| end.now(&report)
        })
        .start()?;
    say(&format!("listening on http://{}", listener.local_addr()?));
    let report = match tracker {
        None => back(server, sources, &root, metrics, listener).await,
        Some(tracker) => {
            let front = Front {
                sources,
                server: server.handle(),
                metrics,
                tracker,
                patience: options.clients.patience,
            };
            let app = front::router(front, &root);
            let serve = connections::serve(listener, app, server.handle(), options.clients);
            server.run(serve).await
        }
    };
    Ok((report, end, signals))
}

/// What is searched, or who is asked.
fn sources(
    options: &Options,
    signals: &SignalGuard,
    metrics: &Arc<Metrics>,
) -> Result<Sources, Box<dyn Error>> {
    if !options.backends.is_empty() {
        let backends = options.backends.iter().map(|backend| Remote::new(backend));
        let backends = backends.map(|backend| backend.map(Arc::new));
        return Ok(Sources::Remote(backends.collect::<Result<_, _>>()?));
    }
    let ctx = signals.context();
    let metrics = metrics.clone();
    let files = match Files::list(ctx, &options.root, options.share, options.slow, metrics) {
        Ok(files) => files,
        Err(cause) => match cause.find::<Signal>() {
            Some(signal) => {
                log::flush();
                exit(signal.exit_code())
            }
            None => return Err(cause.to_string().into()),
        },
    };
    log::plain(&format!(
        "{} files below {}",
        files.len(),
        options.root.display()
    ));
    Ok(Sources::Here(Arc::new(files)))
}

/// A backend, until it has ended.
async fn back(
    server: Server,
    sources: Sources,
    root: &Context,
    metrics: Arc<Metrics>,
    listener: TcpListener,
) -> ServerReport {
    let backend = Backend::new(sources, server.handle(), metrics);
    let layer = backend.layer(root);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let builder = tonic::transport::Server::builder().layer(layer);
    let serve = { builder }.serve_with_incoming_shutdown(backend, incoming, server.graceful());
    server.run(serve).await
}

/// A line of the output, at once, and whole.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}
