//! What does not stop, of handlers; and the service that says so.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::inspect::{snapshot, Kind, Node, Situation};
use cancel_tree::integrations::tower::{ContextLayer, DebugBody, DebugService};
use cancel_tree::{Context, Group};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde_json::Value;
use servers::{exchange, patience, serve};
use std::future::pending;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::ServiceExt;

fn named(name: &str) -> Option<Node> {
    let now = snapshot();
    let found = now
        .nodes()
        .iter()
        .find(|node| node.name.as_deref() == Some(name));
    found.cloned()
}

/// Until it is there, and so.
async fn until(name: &str, is_so: impl Fn(&Node) -> bool) -> Node {
    let wait = async {
        loop {
            if let Some(node) = named(name).filter(|node| is_so(node)) {
                return node;
            }
            tokio::task::yield_now().await;
        }
    };
    let late = tokio::time::timeout(patience(), wait).await;
    late.unwrap_or_else(|_| panic!("{name}: {:?}", named(name)))
}

async fn ask(path: &str, accept: &str) -> Response<DebugBody> {
    let request = Request::get(path).header("accept", accept);
    let request = request.body(Body::empty()).unwrap();
    DebugService::new().oneshot(request).await.unwrap()
}

async fn text(response: Response<DebugBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_handler_whose_client_has_gone_was_told_and_goes_on() {
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background()).named();
    let layer = layer.cooperative(&group, patience());
    let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begun, ends) = (go.clone(), gone.clone());
    let handler = move |Extension(ctx): Extension<Context>| async move {
        begun.notify_one();
        ctx.done().await;
        ends.notified().await;
    };
    let to = serve(Router::new().route("/slow", get(handler)).layer(layer)).await;
    let mut client = TcpStream::connect(to).await.unwrap();
    client
        .write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    go.notified().await;
    let node = until("GET /slow", |node| node.kind == Kind::Task).await;
    assert_eq!(node.situation, None);
    drop(client);
    // The group goes on; the request is over.
    let node = until("GET /slow", |node| node.situation.is_some()).await;
    assert!(!group.context().is_done());
    let node = match node.situation {
        Some(Situation::NotPolled) => {
            until("GET /slow", |node| {
                node.situation == Some(Situation::GoesOn)
            })
            .await
        }
        _ => node,
    };
    assert_eq!(node.situation, Some(Situation::GoesOn));
    assert!(node.progress.unwrap().polls >= 2);
    gone.notify_one();
    group.join().await.unwrap();
    assert!(named("GET /slow").is_none());
}

#[tokio::test]
async fn a_handler_that_sleeps_through_the_servers_end_is_not_polled() {
    let group = Group::new(&Context::background());
    let layer = ContextLayer::new(&Context::background())
        .named()
        .in_group(&group);
    let begun = Arc::new(Notify::new());
    let begins = begun.clone();
    let handler = move || async move {
        begins.notify_one();
        pending::<()>().await;
    };
    let app = Router::new().route("/deaf", get(handler)).layer(layer);
    let request = Request::get("/deaf").body(Body::empty()).unwrap();
    // Polled by nobody else than this task: whatever the server's deadline wakes.
    let mut response = Box::pin(app.oneshot(request));
    tokio::select! {
        _ = &mut response => unreachable!(),
        () = begun.notified() => {}
    }
    assert_eq!(named("GET /deaf").unwrap().kind, Kind::Task);
    group.cancel();
    assert_eq!(
        named("GET /deaf").unwrap().situation,
        Some(Situation::NotPolled)
    );
    drop(response);
    assert!(named("GET /deaf").is_none());
}

#[tokio::test]
async fn the_json_is_of_the_schema_that_is_documented() {
    struct Password(#[allow(dead_code)] &'static str);
    let (root, guard) = Context::background()
        .with_value(Password("xyzzy"))
        .with_cancel();
    let ctx = root.with_name("json \"ctx\" \u{2028}\u{7f}</script>");
    let group = Group::new(&ctx);
    let _task = group.named("json task").track(pending::<()>()).unwrap();
    let _unnamed = group.track(pending::<()>()).unwrap();
    guard.cancel_with("a cause\n\"in quotes\"");
    let response = ask("/debug/cancel", "application/json").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let json = text(response).await;
    assert!(!json.contains("xyzzy") && !json.contains("Password"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "cancel-tree/1");
    assert!(json["took_us"].is_u64());
    let nodes = json["nodes"].as_array().unwrap();
    let find = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap();
    let found = find("json \"ctx\" \u{2028}\u{7f}</script>");
    assert_eq!(found["kind"], "context");
    assert_eq!(found["done"]["kind"], "cancelled");
    assert_eq!(found["done"]["cause"], "a cause\n\"in quotes\"");
    assert_eq!(found["done"]["own"], false);
    assert!(found["done"]["for_ms"].is_u64() && found["for_ms"].is_u64());
    let task = find("json task");
    assert_eq!(task["situation"], "not_polled");
    assert_eq!(
        (&task["polls"], &task["is_polling"]),
        (&Value::from(0), &Value::from(false))
    );
    assert_eq!(task["since_cancel"]["polls"], 0);
    let own = nodes
        .iter()
        .find(|node| node["id"] == task["above"])
        .unwrap();
    assert_eq!(own["kind"], "group");
    assert_eq!(own["above"], found["id"]);
    let unnamed = nodes
        .iter()
        .find(|node| node["above"] == own["id"] && node["name"].is_null());
    assert!(unnamed.unwrap()["situation"].is_null());
    // No address is in it.
    let ids = nodes.iter().map(|node| node["id"].as_str().unwrap());
    assert!(ids
        .clone()
        .all(|id| id.len() < 40 && id.starts_with(['c', 'g'])));
}

#[tokio::test]
async fn the_page_brings_all_of_itself_and_nothing_from_outside() {
    let response = ask("/debug/cancel", "text/html,*/*;q=0.8").await;
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.starts_with("default-src 'none'; "));
    let page = text(response).await;
    let nonce = policy
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert_eq!(nonce.len(), 32);
    assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!page.contains("NONCE") && !page.contains("http://") && !page.contains("https://"));
    assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("innerHTML"));
    let next = ask("/", "text/html").await;
    assert!(!text(next).await.contains(nonce), "another one each time");
}

#[tokio::test]
async fn behind_axum_it_answers_as_text_and_refuses_what_changes_something() {
    let router = Router::new().route_service("/debug/cancel", DebugService::new());
    let group = Group::new(&Context::background().with_name("behind axum"));
    let to = serve(router).await;
    let close = "Host: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(to, &format!("GET /debug/cancel HTTP/1.1\r\n{close}")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("behind axum (context, "));
    let answer = exchange(
        to,
        &format!("GET /debug/cancel?format=dot HTTP/1.1\r\n{close}"),
    )
    .await;
    assert!(answer.contains("digraph cancel_tree {"));
    let length = |answer: &str| -> usize {
        let (_, rest) = answer.split_once("content-length: ").unwrap();
        rest.split_once('\r').unwrap().0.parse().unwrap()
    };
    let page = "/debug/cancel?format=html";
    let whole = exchange(to, &format!("GET {page} HTTP/1.1\r\n{close}")).await;
    let answer = exchange(to, &format!("HEAD {page} HTTP/1.1\r\n{close}")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"));
    // It says how long it would be; and no body comes, from whatever server: hyper sends one over HTTP/2 if there is one.
    assert!(
        length(&answer) > 1000 && length(&answer) == length(&whole),
        "{answer}"
    );
    let head = Request::head(page).body(()).unwrap();
    let answer = DebugService::new().oneshot(head).await.unwrap();
    assert!(answer.body().is_end_stream());
    let answer = exchange(to, &format!("POST /debug/cancel HTTP/1.1\r\n{close}")).await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"));
    let refused = DebugService::new().oneshot(Request::delete("/").body(()).unwrap());
    assert_eq!(
        refused.await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    drop(group);
}
