//! Ends the program, and says of what, when a sample takes so long that it will never come.

use std::process;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Even where the machine has other things to do; all that is measured takes seconds at most.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<Option<Sampling>>>);

struct Sampling {
    what: String,
    since: Instant,
}

impl Watchdog {
    pub fn start() -> Self {
        let watchdog = Self(Arc::default());
        let watched = watchdog.clone();
        thread::spawn(move || loop {
            thread::sleep(Duration::from_secs(1));
            let sampling = watched.0.lock().expect("nobody panics with it");
            if let Some(Sampling { what, since }) = &*sampling {
                if since.elapsed() > LONG_ENOUGH {
                    eprintln!("\nerror: {what}: no sample for {LONG_ENOUGH:?}, somebody was not woken or sees nothing");
                    process::exit(1);
                }
            }
        });
        watchdog
    }

    /// Says what is sampled from now on.
    pub fn watch(&self, what: String) {
        let since = Instant::now();
        *self.0.lock().expect("nobody panics with it") = Some(Sampling { what, since });
    }
}
