//! The stories of the README's table, one by one, each with real processes.

mod common;

use common::{events_in, Dir, Port, Server};

/// What takes so long for each file never comes to an end here.
const NEVER: [&str; 2] = ["--slow", "100h"];

fn tea() -> Dir {
    Dir::new(&[
        ("src/leaf.rs", "water\n  tea, one\n"),
        ("b.txt", "tea, two"),
    ])
}

#[test]
fn all_is_found_alone_and_by_three_backends() {
    let dir = tea();
    let alone = Server::alone(&dir, &[]);
    let backends = ["1/3", "2/3", "3/3"].map(|share| Server::backend(&dir, &["--share", share]));
    let front = Server::front(&backends.each_ref().map(|backend| backend.address), &[]);
    for server in [alone, front] {
        let answer = server.get("/search?q=tea&timeout=30s", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        assert_eq!(json["complete"], true);
        assert_eq!(json["ended"], "complete");
        assert_eq!(json["says"], "All has been searched.");
        assert_eq!((&json["count"], &json["query"]), (&2.into(), &"tea".into()));
        let mut hits: Vec<_> = json["hits"].as_array().unwrap().clone();
        hits.sort_by_key(|hit| hit["path"].to_string());
        let hit = |path: &str, line: u32, text: &str| serde_json::json!({ "path": path, "line": line, "text": text });
        assert_eq!(
            hits,
            [
                hit("b.txt", 1, "tea, two"),
                hit("src/leaf.rs", 2, "tea, one")
            ]
        );
    }
}

#[test]
fn a_slow_backend() {
    let (dir, other) = (tea(), Dir::new(&[("c.txt", "tea, three")]));
    let quick = Server::backend(&dir, &[]);
    let mut slow = Server::backend(&other, &NEVER);
    let front = Server::front(&[quick.address, slow.address], &[]);
    // A busy machine may take longer for what is quick.
    let mut limits = ["3s", "12s", "48s"].into_iter().enumerate();
    let (before, limit, json) = limits
        .find_map(|(before, limit)| {
            let answer = front.get(&format!("/search?q=tea&timeout={limit}"), "");
            // No error: what was found until then, and that there may be more.
            assert_eq!(answer.status, 200, "{answer:?}");
            let json = answer.json();
            (json["count"] == 2).then_some((before, limit, json))
        })
        .expect("what the quick one has found");
    assert_eq!(json["complete"], false);
    let says = format!("The limit of {limit} came first: this is what was found until then.");
    assert_eq!(
        (&json["ended"], &json["says"]),
        (&"limit".into(), &says.into())
    );
    assert!(json["took_us"].as_u64().unwrap() >= 3_000_000, "{json}");
    // The limit went along: the backend does not work on for nobody.
    let line = slow.wait_for("asked for \"tea\": ");
    assert!(
        line.contains(": limit, 0 hits") || line.contains(": client_gone, 0 hits"),
        "{line}"
    );
    let all = before as u64 + 1;
    front.wait_until("search_ended_total{by=\"limit\"}", |count| count == all);
}

#[test]
fn the_page_that_closes() {
    let (dir, out) = (tea(), Dir::new(&[]));
    let file = out.file("events");
    let front = Server::alone(
        &dir,
        &[&NEVER[..], &["--events", file.to_str().unwrap()]].concat(),
    );
    let page = front.events("/search?q=tea&timeout=60s");
    front.wait_until("search_working", |count| count > 0);
    drop(page);
    front.wait_until("search_working", |count| count == 0);
    front.wait_until("search_ended_total{by=\"client_gone\"}", |count| count == 1);
    front.wait_until("search_tasks", |count| count == 0);
    front.wait_until("search_events", |count| count == 0);
    let events = events_in(&file);
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["ended"], &events[0]["hits"]),
        (&"client_gone".into(), &0.into())
    );
}

#[test]
fn the_page_that_closes_is_noticed_by_the_backends() {
    let dir = tea();
    let mut backends = [(); 2].map(|()| Server::backend(&dir, &NEVER));
    let front = Server::front(&backends.each_ref().map(|backend| backend.address), &[]);
    let page = front.events("/search?q=tea&timeout=60s");
    front.wait_until("search_tasks", |count| count > 0);
    drop(page);
    front.wait_until("search_ended_total{by=\"client_gone\"}", |count| count == 1);
    // One that had not been asked yet when the page closed says nothing: then there is another search.
    common::eventually("a word of each", || {
        let one = front.get("/search?q=tea&timeout=3s", "");
        assert_eq!(one.json()["ended"], "limit");
        let mut backends = backends.iter_mut();
        let all = backends.all(|backend| backend.has_said("asked for \"tea\": "));
        all.then_some(())
    });
}

#[test]
fn the_generator_that_does_not_leak() {
    let lines = "tea\n".repeat(10_000);
    let dir = Dir::new(&[("a.txt", &lines), ("b.txt", &lines)]);
    let front = Server::alone(&dir, &[]);
    // There is room for 64 hits; who finds more waits until it is over.
    let json = front.get("/search?q=tea&timeout=60s&n=5", "").json();
    assert_eq!(
        (&json["count"], &json["ended"]),
        (&5.into(), &"enough".into())
    );
    assert_eq!(json["says"], "The first 5 are here; there may be more.");
    front.wait_until("search_working", |count| count == 0);
    front.wait_until("search_ended_total{by=\"enough\"}", |count| count == 1);
    // The same when events are read, and the reader stops in the middle.
    let mut page = front.events("/search?q=tea&timeout=60s&n=1000");
    page.wait_for("hit");
    drop(page);
    front.wait_until("search_working", |count| count == 0);
}

#[test]
fn who_may_cancel() {
    // All have a second to stop, which is enough in one of the attempts.
    assert!((0..4).any(|_| the_first_ends_its_own()), "they do not stop");
}

/// Whether those who worked for the first have stopped within that second.
fn the_first_ends_its_own() -> bool {
    let (dir, other) = (tea(), tea());
    let quick = Server::backend(&dir, &[]);
    let slow = Server::backend(&other, &NEVER);
    let front = Server::front(&[quick.address, slow.address], &[]);
    let mut second = front.events("/search?q=tea&timeout=60s&n=3");
    second.wait_for("hit");
    // The first has what it wants, which ends all that works for it, and nothing else.
    let mut first = front.events("/search?q=tea&timeout=60s&n=2");
    assert_eq!(first.wait_for("end")["ended"], "enough");
    let stopped = first.wait_for("stopped");
    if !stopped["stop_us"].is_u64() {
        assert!(stopped["missing"].is_array(), "{stopped}");
        return false;
    }
    second.wait_for("hit");
    front.wait_until("search_ended_total{by=\"enough\"}", |count| count == 1);
    assert_eq!(front.metric("search_ended_total{by=\"client_gone\"}"), 0);
    drop(second);
    front.wait_until("search_ended_total{by=\"client_gone\"}", |count| count == 1);
    true
}

#[test]
fn the_request_id() {
    let dir = tea();
    let mut backend = Server::backend(&dir, &[]);
    let mut front = Server::front(&[backend.address], &[]);
    let answer = front.get("/search?q=tea&timeout=30s", "X-Request-Id: walk-7\r\n");
    assert_eq!(answer.header("x-request-id"), Some("walk-7"));
    assert_eq!(answer.json()["request_id"], "walk-7");
    let said = [front.wait_for("[walk-7]"), backend.wait_for("[walk-7]")];
    assert!(
        said[0].contains("search \"tea\": complete, 2 hits"),
        "{said:?}"
    );
    assert!(
        said[1].contains("asked for \"tea\": complete, 2 hits"),
        "{said:?}"
    );
    front.wait_for("\"id\":\"walk-7\"");
    // Who has none gets one, and it goes along as well; also in the place of one that would break the log.
    let ids = ["", "X-Request-Id: a b\r\n", "X-Request-Id: \r\n"].map(|header| {
        let answer = front.get("/search?q=tea&timeout=30s", header);
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(answer.json()["request_id"], *id);
        backend.wait_for(&format!("[{id}]"));
        id
    });
    assert!(
        ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2],
        "{ids:?}"
    );
    // The pages that are no search have one too.
    assert!(front.get("/healthz", "").header("x-request-id").is_some());
}

#[test]
fn the_first_error_ends_the_rest() {
    let dir = tea();
    let slow = Server::backend(&dir, &NEVER);
    let port = Port::new();
    let nobody = port.address;
    let front = Server::front(&[slow.address, nobody], &[]);
    let answer = front.get("/search?q=tea&timeout=60s", "");
    assert_eq!(answer.status, 502, "{answer:?}");
    let json = answer.json();
    assert_eq!(
        (&json["complete"], &json["ended"]),
        (&false.into(), &"backend".into())
    );
    let says = json["says"].as_str().unwrap();
    assert!(
        says.contains(&format!("backend {nobody}: Unavailable")),
        "{says}"
    );
    // Long before the limit all is gone.
    front.wait_until("search_tasks", |count| count == 0);
}

#[test]
fn a_backend_comes_back() {
    let dir = tea();
    let port = Port::new();
    let address = port.address.to_string();
    let backend = Server::backend(&dir, &["--listen", &address]);
    let front = Server::front(&[port.address], &[]);
    assert_eq!(front.get("/search?q=tea&timeout=30s", "").status, 200);
    drop(backend);
    assert_eq!(front.get("/search?q=tea&timeout=30s", "").status, 502);
    let _backend = Server::backend(&dir, &["--listen", &address]);
    common::eventually("an answer", || {
        (front.get("/search?q=tea&timeout=30s", "").status == 200).then_some(())
    });
}

#[test]
fn a_backend_that_freezes_goes_on() {
    let (dir, other) = (tea(), tea());
    let (quick, frozen) = (Server::backend(&dir, &[]), Server::backend(&other, &[]));
    let front = Server::front(&[quick.address, frozen.address], &[]);
    assert_eq!(
        front.get("/search?q=tea&timeout=30s", "").json()["count"],
        4
    );
    frozen.signal(libc::SIGSTOP);
    // A busy machine may take longer for what is not frozen.
    let found = ["500ms", "2s", "4s"].into_iter().any(|limit| {
        let search = format!("/search?q=tea&timeout={limit}");
        let json = front.get(&search, "").json();
        assert_eq!(json["ended"], "limit");
        json["count"] == 2
    });
    assert!(found, "what the quick one has found");
    // Nobody waits for it.
    front.wait_until("search_tasks", |count| count == 0);
    frozen.signal(libc::SIGCONT);
    common::eventually("all of it", || {
        let json = front.get("/search?q=tea&timeout=30s", "").json();
        (json["count"] == 4).then_some(())
    });
}

#[test]
fn a_foreign_context() {
    let dir = tea();
    let outer = Dir::new(&[]);
    let root = Dir(outer.file("root"));
    std::fs::rename(&dir.0, &root.0).unwrap();
    let front = Server::alone(&root, &["--slow", "200ms"]);
    assert_eq!(front.get("/healthz", "").status, 200);
    std::fs::rename(&root.0, outer.file("away")).unwrap();
    // Whoever notices it cancels a token of tokio-util's, which is above each search beside its request.
    let answer = front.get("/search?q=tea&timeout=60s", "");
    assert_eq!(answer.status, 503, "{answer:?}");
    let json = answer.json();
    assert_eq!(
        (&json["ended"], &json["says"]),
        (&"files_gone".into(), &"The files are gone.".into())
    );
    assert_eq!(front.get("/healthz", "").body, "the files are gone\n");
    // From then on at once.
    assert_eq!(
        front.get("/search?q=tea&timeout=60s", "").json()["ended"],
        "files_gone"
    );
}
