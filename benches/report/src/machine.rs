//! The machine that this runs on, its tools, and the date: what the system's own programs say of them.

use std::env;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::measured;

/// Above this, something else was running, and the figures are not to be trusted.
const BUSY: f64 = 0.5;

/// As a table. The measuring script has put the load average at its start into the file `load`.
pub fn describe(measured: &Path) -> io::Result<String> {
    let load = measured::text(&measured.join("load"))?;
    let load = load.as_deref().map(str::trim);
    let is_busy = load
        .and_then(|load| load.parse().ok())
        .is_some_and(|load: f64| load > BUSY);

    let mut rows = vec![("date", first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]))];
    let commit = ["describe", "--always", "--dirty", "--exclude=*"];
    rows.push(("commit", first_line("git", &commit)));
    rows.extend(processor());
    rows.push(("system", system()));
    rows.push(("Rust", first_line("rustc", &["--version"])));
    let go = env::var("GO").unwrap_or("go".to_owned());
    rows.push(("Go", first_line(&go, &["version"])));
    rows.push(("Valgrind", first_line("valgrind", &["--version"])));
    rows.push(("load average at the start", load.map(str::to_owned)));

    let mut table = String::from("| | |\n| --- | --- |\n");
    for (what, it) in rows {
        let it = it.as_deref().unwrap_or("not known here");
        writeln!(table, "| {what} | {it} |").expect("a string takes everything");
    }
    if is_busy {
        table += "\n**The machine was busy with something else when this was measured: above all what takes nanoseconds, \
                  or two threads, is not to be trusted.**\n";
    }
    Ok(table)
}

type Row = (&'static str, Option<String>);

fn processor() -> Vec<Row> {
    let lscpu = output("lscpu", &[]).unwrap_or_default();
    let of = |key: &str| field(&lscpu, key);
    let virtual_by = of("Hypervisor vendor").map(|by| format!(", virtual ({by})"));
    let cores = of("CPU(s)").zip(of("Thread(s) per core"));
    let cores = cores.map(|(cores, threads)| {
        let threads = if threads == "1" {
            String::new()
        } else {
            format!(", {threads} threads on a core")
        };
        cores + &threads
    });
    let caches = ["L1d", "L1i", "L2", "L3"];
    let caches = caches.map(|name| Some(format!("{name} {}", of(&format!("{name} cache"))?)));
    let caches: Vec<String> = caches.into_iter().flatten().collect();
    let memory = measured::text(Path::new("/proc/meminfo"))
        .ok()
        .flatten()
        .and_then(|meminfo| {
            let kib = field(&meminfo, "MemTotal")?;
            let kib: f64 = kib.split_whitespace().next()?.parse().ok()?;
            Some(format!("{:.1} GiB", kib / 1024.0 / 1024.0))
        });
    vec![
        (
            "CPU",
            of("Model name").map(|model| model + &virtual_by.unwrap_or_default()),
        ),
        ("logical cores", cores),
        ("caches", (!caches.is_empty()).then(|| caches.join(", "))),
        ("memory", memory),
    ]
}

fn system() -> Option<String> {
    let kernel = first_line("uname", &["-s", "-r", "-m"])?;
    let libc = first_line("getconf", &["GNU_LIBC_VERSION"]);
    Some(libc.map_or(kernel.clone(), |libc| format!("{kernel}, {libc}")))
}

/// Of lines such as `key:   value`.
fn field(lines: &str, key: &str) -> Option<String> {
    let fields = lines.lines().filter_map(|line| line.trim().split_once(':'));
    let mut of_key = fields.filter(|(of, _)| *of == key);
    of_key.next().map(|(_, value)| value.trim().to_owned())
}

/// What a program says, if it is there and content.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    Some(
        output(program, arguments)?
            .lines()
            .next()?
            .trim()
            .to_owned(),
    )
}
