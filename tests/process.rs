//! Child processes under a context.
#![cfg(unix)]

mod first_callback;
mod forked;

use cancel_tree::integrations::process::{Ended, Running, Supervised};
use cancel_tree::{CancelGuard, Context};
use first_callback::between_callbacks;
use forked::status_of;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(60);

fn sh(script: &str) -> Supervised {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Supervised::new(command)
}

/// Runs a script, and cancels when that has come to where it makes the file `$READY`. How it ended, and how long that took
/// from the cancel on.
fn stopped(
    script: &str,
    run: impl FnOnce(Supervised, &Context) -> std::io::Result<Ended>,
) -> (Ended, Duration) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let me = (std::process::id(), NUMBER.fetch_add(1, Relaxed));
    let file = std::env::temp_dir().join(format!("cancel-tree-ready-{}-{}", me.0, me.1));
    // One that was left behind by a process that had this one's number is none of this one's.
    let _ = std::fs::remove_file(&file);
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("READY", &file);
    let (ctx, guard) = Context::background().with_cancel();
    let canceller = thread::spawn(move || {
        let begin = Instant::now();
        while !file.exists() {
            assert!(begin.elapsed() < LATE, "it is never ready");
            thread::sleep(Duration::from_millis(2));
        }
        std::fs::remove_file(file).unwrap();
        let begin = Instant::now();
        guard.cancel_with("not wanted any more");
        begin
    });
    let ended = run(Supervised::new(command), &ctx).unwrap();
    let took = canceller.join().unwrap().elapsed();
    (ended, took)
}

fn is_there(pid: u32) -> bool {
    // SAFETY: no memory is passed, and no signal is sent.
    unsafe { libc::kill(pid as libc::pid_t, 0) == 0 }
}

/// In the time that a process needs to go that has been killed, and whose new parent has to reap it.
fn is_gone(pid: u32) -> bool {
    let zombie = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    };
    let begin = Instant::now();
    while is_there(pid) && !zombie() {
        if begin.elapsed() > Duration::from_secs(20) {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

fn number(bytes: &[u8]) -> u32 {
    let text = std::str::from_utf8(bytes).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn timed(run: impl FnOnce() -> std::io::Result<Ended>) -> (Ended, Duration) {
    let begin = Instant::now();
    (run().unwrap(), begin.elapsed())
}

#[test]
fn one_that_ends_by_itself() {
    let (ctx, guard) = Context::background().with_timeout(LATE);
    let ended = sh("echo out; echo err >&2; exit 3")
        .blocking_output(&ctx)
        .unwrap();
    assert_eq!(
        (&*ended.stdout, &*ended.stderr),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(ended.status.code(), Some(3));
    assert!(ended.stopped.is_none() && !ended.killed && !ended.pipes_held && !ended.success());
    assert!(sh("exit 0").blocking_run(&ctx).unwrap().success());
    drop::<CancelGuard>(guard);
    let error = sh("exit 0").blocking_run(&ctx).unwrap_err();
    assert!(error.get_ref().unwrap().is::<cancel_tree::Cause>());
    let nowhere = Supervised::new(Command::new("/no/such/program"));
    let error = nowhere.blocking_run(&Context::background()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_signal_ends_it() {
    let script = ": >\"$READY\"; exec sleep 3600";
    let (ended, took) = stopped(script, |sh, ctx| sh.grace(LATE).blocking_output(ctx));
    assert!(took < LATE / 2);
    assert_eq!(ended.stopped.unwrap().to_string(), "not wanted any more");
    assert!(!ended.status.success());
}

#[test]
fn a_deadline_ends_it() {
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    let running = sh("exec sleep 3600").spawn(&ctx).unwrap();
    let (ended, took) = timed(|| {
        assert!(guard.set_timeout(SOON));
        running.blocking_wait()
    });
    assert!(took >= SOON && took < LATE / 2 && ended.stopped.is_some());
}

#[test]
fn one_that_exits_with_0_when_told_to_stop_has_been_stopped() {
    let script = "trap 'echo bye; exit 0' TERM; : >\"$READY\"; while :; do sleep 0.01; done";
    let (ended, took) = stopped(script, |sh, ctx| sh.grace(LATE).blocking_output(ctx));
    assert!(took < LATE / 2);
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stdout, b"bye\n");
    assert!(ended.stopped.is_some() && !ended.success());
}

#[test]
fn one_that_ignores_the_signal_is_killed_with_its_group() {
    let script = "trap '' TERM; sleep 3600 & echo $!; : >\"$READY\"; while :; do sleep 0.01; done";
    let (ended, took) = stopped(script, |sh, ctx| sh.grace(SOON).blocking_output(ctx));
    assert!(took >= SOON && took < LATE / 2);
    assert!(ended.killed && ended.stopped.is_some() && !ended.pipes_held);
    assert!(is_gone(number(&ended.stdout)));
}

#[test]
fn another_signal_and_no_grace() {
    let script = "trap 'exit 7' USR1; : >\"$READY\"; while :; do sleep 0.01; done";
    let (ended, _) = stopped(script, |sh, ctx| {
        sh.signal(libc::SIGUSR1).grace(LATE).blocking_run(ctx)
    });
    assert_eq!(ended.status.code(), Some(7));
    let script = "trap '' TERM; : >\"$READY\"; while :; do sleep 0.01; done";
    let (ended, _) = stopped(script, |sh, ctx| sh.grace(Duration::ZERO).blocking_run(ctx));
    assert!(ended.killed);
}

/// It is in the group, but outlives the child that the signal ends.
#[test]
fn a_grandchild_that_ignores_the_signal_goes_with_the_child() {
    let script =
        "sh -c 'trap \"\" TERM; echo $$; : >\"$READY\"; while :; do sleep 0.01; done' & wait";
    let (ended, took) = stopped(script, |sh, ctx| sh.grace(LATE).blocking_output(ctx));
    // Not the child, which has obeyed.
    assert!(took < LATE / 2 && !ended.killed && !ended.pipes_held);
    assert!(is_gone(number(&ended.stdout)));
}

/// A signal waits until a process that is stopped goes on.
#[cfg(target_os = "linux")]
#[test]
fn one_that_is_stopped_ends_by_the_signal_too() {
    let script = "while ! grep -q '^State:.T' /proc/$$/status; do sleep 0.01; done; : >\"$READY\"";
    let script = format!("({script}) & kill -STOP $$; sleep 3600");
    let (ended, took) = stopped(&script, |sh, ctx| sh.grace(LATE).blocking_run(ctx));
    assert!(took < LATE / 2 && !ended.killed && ended.stopped.is_some());
}

/// Runs one of the tests below as a child of this one, as `exec` of a script.
fn myself(name: &str) -> String {
    let me = std::env::current_exe().unwrap();
    format!("THE_CHILD=1 exec '{}' --exact {name}", me.display())
}

fn is_the_child() -> bool {
    std::env::var_os("THE_CHILD").is_some()
}

/// Ends itself in time, should nobody else.
fn is_ready_and_sleeps() -> ! {
    std::fs::write(std::env::var_os("READY").unwrap(), "").unwrap();
    thread::sleep(2 * LATE);
    std::process::exit(0)
}

/// The group has nobody left, but the child has its number.
#[test]
fn one_that_has_left_its_group_ends_too() {
    const NAME: &str = "one_that_has_left_its_group_ends_too";
    if is_the_child() {
        // SAFETY: no memory is passed.
        let left = unsafe { libc::setpgid(0, libc::getpgid(libc::getppid())) };
        assert_eq!(left, 0);
        is_ready_and_sleeps();
    }
    let script = myself(NAME);
    for grace in [LATE, Duration::ZERO] {
        let (ended, took) = stopped(&script, |sh, ctx| sh.grace(grace).blocking_run(ctx));
        assert!(took < LATE / 2 && ended.stopped.is_some());
        assert_eq!(ended.killed, grace.is_zero());
    }
    let (ended, took) = stopped(&script, |sh, ctx| {
        let running = sh.spawn(&Context::background())?;
        ctx.blocking_wait();
        let child = running.id();
        drop(running);
        assert!(!is_there(child));
        Supervised::new(Command::new("true")).blocking_run(&Context::background())
    });
    assert!(took < LATE / 2 && ended.success());
}

/// It has become another user: an error after the grace, and a drop that does not wait. For root, who can be somebody else.
#[test]
fn one_that_may_not_be_killed_is_left_to_itself() {
    const NAME: &str = "one_that_may_not_be_killed_is_left_to_itself";
    const NOBODY: u32 = 65534;
    // SAFETY: no memory is passed, here and below.
    let user = unsafe { libc::geteuid() };
    if std::env::var_os("BECOMES_ROOT").is_some() {
        // SAFETY: as above.
        if unsafe { libc::setuid(0) } == 0 {
            is_ready_and_sleeps();
        }
        std::fs::write(std::env::var_os("READY").unwrap(), "").unwrap();
        return;
    }
    if is_the_child() {
        // Nobody, with a program that makes itself root.
        let mut command = Command::new(std::env::var_os("ROOTS").unwrap());
        command.args(["--exact", NAME]).env("BECOMES_ROOT", "1");
        command.stdin(Stdio::null());
        let (ctx, guard) = Context::background().with_cancel();
        let running = Supervised::new(command).grace(SOON).spawn(&ctx).unwrap();
        let ready = std::path::PathBuf::from(std::env::var_os("READY").unwrap());
        while !ready.exists() {
            thread::sleep(Duration::from_millis(2));
        }
        guard.cancel();
        println!("child {}", running.id());
        match running.blocking_wait() {
            Ok(ended) if ended.status.success() => {
                println!("SKIPPED: programs do not change their user here")
            }
            Ok(ended) => panic!("{ended:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        return;
    }
    if user != 0 {
        return eprintln!("SKIPPED: not root");
    }
    use std::os::unix::fs::{chown, PermissionsExt};
    let dir = std::env::temp_dir().join(format!("cancel-tree-nobody-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let (nobodys, roots) = (dir.join("nobodys"), dir.join("roots"));
    for (file, mode) in [(&nobodys, 0o755), (&roots, 0o4755)] {
        // By another process: one that is forked here meanwhile would have it open to write, and it could not be run.
        let mut copy = Command::new("cp");
        let copied = copy
            .arg(std::env::current_exe().unwrap())
            .arg(file)
            .status();
        assert!(copied.unwrap().success());
        std::fs::set_permissions(file, PermissionsExt::from_mode(mode)).unwrap();
    }
    chown(&dir, Some(NOBODY), None).unwrap();
    let mut command = Command::new(&nobodys);
    command
        .args(["--exact", NAME, "--nocapture"])
        .env("THE_CHILD", "1")
        .env("ROOTS", &roots)
        .env("READY", dir.join("ready"))
        .uid(NOBODY);
    let (ctx, _guard) = Context::background().with_timeout(LATE);
    let ended = Supervised::new(command).blocking_output(&ctx).unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    if said.contains("SKIPPED") {
        eprintln!("{said}");
    }
    let child = said
        .split("child ")
        .nth(1)
        .map(|said| number(said.as_bytes()));
    if let Some(child) = child {
        // SAFETY: as above.
        unsafe { libc::kill(child as libc::pid_t, libc::SIGKILL) };
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(ended.success() && child.is_some(), "{ended:?}");
}

/// The thread waits for it as others wait by themselves: it is told before the first callback, which may wait for the thread.
#[test]
fn it_is_told_before_the_first_callback() {
    let (told, hear) = mpsc::channel();
    // Ready when all has been registered, and not before: what is registered later is called by this thread.
    let go = std::env::temp_dir().join(format!("cancel-tree-go-{}", std::process::id()));
    let _ = std::fs::remove_file(&go);
    let script = format!(
        "until [ -e '{}' ]; do sleep 0.01; done; : >\"$READY\"; exec sleep 3600",
        go.display()
    );
    let (ended, took) = stopped(&script, |sh, ctx| {
        let running = between_callbacks(ctx, hear, |ctx| sh.spawn(ctx))?;
        std::fs::write(&go, "").unwrap();
        let ended = running.blocking_wait();
        (0..2).for_each(|_| told.send(()).unwrap());
        ended
    });
    std::fs::remove_file(&go).unwrap();
    assert!(took < LATE / 2 && ended.stopped.is_some());
}

/// It has left the group, and holds the pipes: nothing waits for it.
#[test]
fn a_grandchild_that_holds_the_pipes_is_given_up() {
    if !Command::new("setsid")
        .arg("true")
        .status()
        .is_ok_and(|s| s.success())
    {
        return eprintln!("SKIPPED: no setsid here");
    }
    let script = "setsid sh -c 'echo $$; : >\"$READY\"; exec sleep 3600' & sleep 3600";
    let (ended, took) = stopped(script, |sh, ctx| sh.pipe_delay(SOON).blocking_output(ctx));
    assert!(took >= SOON && took < LATE / 2);
    assert!(ended.pipes_held && ended.stopped.is_some());
    let pid = number(&ended.stdout);
    assert!(is_there(pid), "it is none of ours any more");
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}

#[test]
fn what_the_child_itself_has_written_is_read_without_any_delay() {
    let quick = || sh("echo begun").pipe_delay(Duration::ZERO);
    // A child of another test has these pipes too, from its fork to its exec.
    let is_alone = |_| {
        let ended = quick().blocking_output(&Context::background()).unwrap();
        assert_eq!(ended.stdout, b"begun\n");
        !ended.pipes_held
    };
    assert!((0..100).any(is_alone));
}

/// All of it, also if it is as much as a pipe can hold, and the end of it as well.
#[test]
#[cfg(target_os = "linux")]
fn a_pipe_that_the_child_has_made_larger_and_filled() {
    const SIZE: usize = 1 << 20;
    let is_alone = |_| {
        let mut command = Command::new("head");
        command.args(["-c", &SIZE.to_string(), "/dev/zero"]);
        command.stdout(Stdio::piped());
        // SAFETY: a system call, to which no memory is passed.
        unsafe {
            command.pre_exec(|| match libc::fcntl(1, libc::F_SETPIPE_SZ, SIZE) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let supervised = Supervised::new(command).pipe_delay(Duration::ZERO);
        let running = supervised.spawn(&Context::background()).unwrap();
        wait_for_the_end(running.id());
        let ended = running.blocking_wait().unwrap();
        assert_eq!(ended.stdout.len(), SIZE);
        !ended.pipes_held
    };
    // As above.
    assert!((0..100).any(is_alone));
}

/// It stays as it is: nobody reaps it here.
fn wait_for_the_end(child: u32) {
    // SAFETY: zeros are a value of it, and it is there to be written.
    let waited = unsafe {
        let mut info = std::mem::zeroed();
        libc::waitid(libc::P_PID, child, &mut info, libc::WEXITED | libc::WNOWAIT)
    };
    assert_eq!(waited, 0);
}

/// A grandchild of the group, when the child ends by itself: it goes on.
#[test]
fn a_daemon_that_holds_the_pipes_is_not_waited_for() {
    let ctx = Context::background();
    let (ended, took) = timed(|| {
        sh("sleep 3600 & echo $!")
            .pipe_delay(SOON)
            .blocking_output(&ctx)
    });
    assert!(took >= SOON && took < LATE / 2);
    assert!(ended.pipes_held && ended.success());
    let pid = number(&ended.stdout);
    assert!(is_there(pid));
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
    // And a cancel meanwhile ends it.
    let (ctx, guard) = Context::background().with_cancel();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 3600 & echo $!"]);
    command.stdout(Stdio::piped());
    let supervised = Supervised::new(command).pipe_delay(LATE);
    let running = supervised.spawn(&ctx).unwrap();
    let child = running.id();
    let canceller = thread::spawn(move || {
        wait_for_the_end(child);
        guard.cancel();
    });
    let (ended, took) = timed(|| running.blocking_wait());
    assert!(took < LATE / 2 && ended.stopped.is_some() && ended.status.success());
    assert!(is_gone(number(&ended.stdout)));
    canceller.join().unwrap();
}

#[test]
fn huge_output_on_both_pipes() {
    let script = "head -c 8000000 /dev/zero; head -c 8000000 /dev/zero >&2; echo over";
    let ended = sh(script).blocking_output(&Context::background()).unwrap();
    assert!(ended.success() && ended.stdout.ends_with(b"over\n"));
    assert_eq!(
        (ended.stdout.len(), ended.stderr.len()),
        (8_000_005, 8_000_000)
    );
}

#[test]
fn one_that_never_stops_writing_is_stopped() {
    let script = "echo more; : >\"$READY\"; while :; do echo more and more; done";
    let (ended, took) = stopped(script, |sh, ctx| sh.blocking_output(ctx));
    assert!(took < LATE / 2 && ended.stopped.is_some() && !ended.stdout.is_empty());
}

#[test]
fn what_it_is_told() {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Supervised::new(command)
        .spawn(&Context::background())
        .unwrap();
    let mut stdin = running.stdin().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&[b'x'; 1_000_000]).unwrap());
    assert_eq!(running.blocking_wait().unwrap().stdout.len(), 1_000_000);
    writer.join().unwrap();
}

/// A thousand times: whoever is first, it is one or the other, nobody waits, and no stranger is told.
#[test]
fn one_that_ends_by_itself_at_that_moment() {
    let (mut stopped, mut by_itself) = (0, 0);
    for n in 0..1000u64 {
        let (ctx, _guard) = Context::background().with_timeout(Duration::from_micros(200 + n * 2));
        let mut command = Command::new("true");
        command.stdin(Stdio::null());
        match Supervised::new(command).blocking_run(&ctx) {
            Ok(ended) if ended.stopped.is_some() => stopped += 1,
            Ok(ended) => {
                assert!(ended.success());
                by_itself += 1;
            }
            Err(error) => {
                assert!(error
                    .get_ref()
                    .is_some_and(|e| e.is::<cancel_tree::Cause>()));
                stopped += 1;
            }
        }
    }
    eprintln!("{stopped} stopped, {by_itself} by itself");
}

/// Somebody else has reaped it: an error, and nobody is told anything.
#[test]
fn a_number_that_is_gone_gets_no_signal() {
    let (ctx, guard) = Context::background().with_cancel();
    let running = sh("exit 0").spawn(&ctx).unwrap();
    let pid = running.id() as libc::pid_t;
    // SAFETY: no status is asked for.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    guard.cancel();
    let error = running.blocking_wait().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    // Nor when it is dropped.
    let running = sh("exit 0").spawn(&Context::background()).unwrap();
    let pid = running.id() as libc::pid_t;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    drop(running);
}

#[test]
fn dropped_it_is_killed_with_its_group() {
    let (mut read, write) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 3600 & echo $!; wait"]);
    command.stdout(Stdio::from(std::os::fd::OwnedFd::from(write)));
    let running = Supervised::new(command)
        .spawn(&Context::background())
        .unwrap();
    let mut bytes = [0; 16];
    let n = std::io::Read::read(&mut read, &mut bytes).unwrap();
    let (child, grandchild) = (running.id(), number(&bytes[..n]));
    drop(running);
    assert!(!is_there(child) && is_gone(grandchild));
}

/// How long this thread has run.
fn thread_time() -> Duration {
    // SAFETY: zeros are a value of it, and it is there to be written.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        assert_eq!(libc::clock_gettime(clock, &mut time), 0);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// While this waits for about a second it is to run for some milliseconds, and not in circles.
fn sleeps(running: Running) -> Ended {
    let before = thread_time();
    let (ended, took) = timed(|| running.blocking_wait());
    let ran = thread_time() - before;
    assert!(ran < Duration::from_millis(100), "{ran:?} of {took:?}");
    ended
}

/// A child made by `fork` has the same descriptor, which it makes readable when it cancels its copy of the tree.
#[test]
fn a_cancel_in_a_forked_child_keeps_no_thread_awake() {
    let (ctx, guard) = Context::background().with_cancel();
    let running = sh("exec sleep 3600").grace(LATE).spawn(&ctx).unwrap();
    let canceller = guard.canceller();
    let theirs = status_of(|| {
        canceller.cancel();
        0
    });
    assert_eq!(theirs, 0);
    assert!(!ctx.is_done());
    let canceller = thread::spawn(move || {
        thread::sleep(Duration::from_secs(1));
        guard.cancel();
    });
    // And what its own process does is seen.
    let ended = sleeps(running);
    assert!(ended.stopped.is_some() && !ended.killed);
    canceller.join().unwrap();
}

/// It has ended, and its descriptor says so, but it is not to be had before the one who traces it lets it go.
#[cfg(target_os = "linux")]
#[test]
fn one_that_is_held_by_a_tracer_keeps_no_thread_awake() {
    const NAME: &str = "one_that_is_held_by_a_tracer_keeps_no_thread_awake";
    if let Some(traced) = std::env::var_os("TRACES") {
        let traced: libc::pid_t = traced.to_str().unwrap().parse().unwrap();
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: this request neither reads nor writes memory of this process.
        let answer = unsafe { libc::ptrace(libc::PTRACE_SEIZE, traced, nothing, nothing) };
        println!("traces: {}", answer == 0);
        thread::sleep(Duration::from_secs(1));
        std::process::exit(0);
    }
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped());
    // It ends when its stdin is closed: by the wait.
    let running = Supervised::new(command)
        .spawn(&Context::background())
        .unwrap();
    let mut tracer = Command::new(std::env::current_exe().unwrap());
    tracer.args(["--exact", NAME, "--nocapture"]);
    tracer.env("TRACES", running.id().to_string());
    let mut tracer = tracer.stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(tracer.stdout.take().unwrap());
    let said = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("traces: ")?.1 == "true"));
    match said {
        Some(true) => assert!(sleeps(running).success()),
        _ => eprintln!("SKIPPED: nobody may be traced here"),
    }
    assert!(tracer.wait().unwrap().success());
}

/// In a process of its own: this one shares its descriptors with other tests.
#[test]
fn nothing_is_left_open() {
    if std::env::var_os("NOTHING_ELSE_RUNS").is_none() {
        let me = std::env::current_exe().unwrap();
        let child = Command::new(me)
            .args(["--exact", "nothing_is_left_open"])
            .env("NOTHING_ELSE_RUNS", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        return;
    }
    let Ok(before) = std::fs::read_dir("/proc/self/fd").map(Iterator::count) else {
        return;
    };
    for _ in 0..50 {
        sh("exit 0")
            .blocking_output(&Context::background())
            .unwrap();
    }
    let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert_eq!(after, before);
}
