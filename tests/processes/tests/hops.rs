//! Three servers in a row, each a process of its own.

use processes::{since_epoch, Process, BUDGET, RESERVE};
use std::time::Duration;

const HOP: &str = env!("CARGO_BIN_EXE_hop");

/// A asks B, which asks C.
fn row(reserve: Duration) -> [Process; 3] {
    let reserve = format!("reserve={}", reserve.as_millis());
    let c = Process::listening(HOP, &["C", &reserve]);
    let b = Process::listening(HOP, &["B", &reserve, &format!("next={}", c.port)]);
    let a = Process::listening(HOP, &["A", &reserve, &format!("next={}", b.port)]);
    [a, b, c]
}

#[test]
fn the_budget_only_shrinks_and_the_reserve_is_kept() {
    let [a, _b, _c] = row(RESERVE);
    let answer = a.get("/", &format!("{BUDGET}: 60000\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.lines().last().unwrap();
    let left: Vec<(&str, u64)> = body
        .split(", ")
        .map(|hop| {
            let (name, left) = hop.split_once(' ').unwrap();
            (name, left.parse().unwrap())
        })
        .collect();
    println!("left, in µs: {body}");
    let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["A", "B", "C"]);
    assert!(left[0].1 <= 60_000_000 && left[2].1 > 0);
    // The header is in milliseconds, rounded up.
    let reserve = RESERVE.as_micros() as u64 - 1000;
    for pair in left.windows(2) {
        assert!(pair[1].1 + reserve <= pair[0].1, "{body}");
    }
}

#[test]
fn the_first_to_run_out_is_named() {
    // On a machine that is so busy that the reserve is used up on the way back, once more with twice the time.
    (0..6)
        .find(|n| the_last_runs_out(1 << n))
        .expect("the reserve is never enough");
}

/// Whether the reserve was enough.
fn the_last_runs_out(times: u32) -> bool {
    let [mut a, mut b, mut c] = row(RESERVE * times);
    let answer = a.get("/hang", &format!("{BUDGET}: {}\r\n", 1500 * times));
    let body = answer.lines().last().unwrap();
    let is_504 = answer.starts_with("HTTP/1.1 504");
    let said = body.starts_with("A ") && body.contains(", B ");
    if !is_504 || !said || !body.ends_with(", the next ran out of time") {
        println!("{times} times {RESERVE:?} were too short: {answer}");
        return false;
    }
    // C has the least: it is the one that says so, and the others still have their reserve to pass that on.
    let over = c.wait_for("over C ");
    assert!(over.ends_with("context deadline exceeded"), "{over}");
    // Theirs ended well.
    for (hop, over) in [(&mut a, "over A "), (&mut b, "over B ")] {
        let over = hop.wait_for(over);
        assert!(over.ends_with("the response is complete"), "{over}");
    }
    true
}

#[test]
fn a_cancel_at_the_front_ends_the_work_at_the_back() {
    let [a, _b, mut c] = row(RESERVE);
    let mut took = Vec::new();
    for _ in 0..5 {
        let stream = a.request("/hang", &format!("{BUDGET}: 600000\r\n"));
        c.wait_for("started /hang");
        let begin = since_epoch();
        drop(stream);
        let over = c.wait_for("over C ");
        assert!(over.ends_with("the client is gone"), "{over}");
        let at: u128 = over.split(' ').nth(2).unwrap().parse().unwrap();
        took.push(Duration::from_micros(at.saturating_sub(begin) as u64));
    }
    println!("from the client's close to the end of the work three hops away: {took:?}");
}
