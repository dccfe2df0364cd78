//! Go's context beside ours, where a `go` is installed.

use std::collections::HashMap;
use std::env;
use std::path::Path;
use std::process::Command;

/// Nanoseconds by the name of the benchmark; nothing if there is no Go.
pub struct Go {
    pub version: String,
    pub ns: HashMap<String, f64>,
}

/// Runs `benches/go` with the `go` of the variable `GO`, or of the path. Says so if it is skipped.
pub fn run() -> Option<Go> {
    let go = env::var_os("GO").unwrap_or_else(|| "go".into());
    let command = |args: &[&str]| {
        let output = Command::new(&go)
            .args(args)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/go"))
            .env("GOTOOLCHAIN", "local")
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(version) = command(&["version"]) else {
        println!("SKIPPED: Go's context, for there is no `go` here (the variable GO names one)");
        return None;
    };
    println!("Go's context: {}", version.trim());
    let output = command(&["test", "-bench", ".", "-cpu", "1", "-benchtime", "500ms"])?;
    let mut ns = HashMap::new();
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, _, value, "ns/op", ..] = words[..] {
            if let (Some(name), Ok(value)) = (name.strip_prefix("Benchmark"), value.parse()) {
                ns.insert(name.to_owned(), value);
            }
        }
    }
    Some(Go {
        version: version.trim().to_owned(),
        ns,
    })
}
