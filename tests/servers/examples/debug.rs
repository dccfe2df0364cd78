//! A server with the page of what does not stop, and something of each kind to be seen there: `debug [TASKS]`. Used by foreign/page.mjs.
//!
//! `POST /cancel` cancels what is in "ingest", `POST /poll` polls one of its tasks once more.

use axum::routing::post;
use axum::Router;
use cancel_tree::integrations::tower::DebugService;
use cancel_tree::{Context, Group};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let tasks: usize = std::env::args()
        .nth(1)
        .map_or(10, |n| n.parse().expect("a number"));
    let server = Context::background().with_name("server");
    let ingest = Arc::new(Group::new(&server.with_name("ingest")));
    let held: Vec<_> = (0..tasks)
        .map(|i| {
            ingest
                .named(format!("part {i}"))
                .track(pending::<()>())
                .expect("open")
        })
        .collect();
    let again = Arc::new(Notify::new());
    let wakes = again.clone();
    let deaf = async move {
        while Arc::strong_count(&wakes) > 0 {
            wakes.notified().await;
        }
    };
    let deaf = ingest.named("<b>deaf</b>").track(deaf);
    tokio::spawn(deaf.expect("open"));
    let thread = |ctx: Context| {
        // It keeps its context, and never asks it.
        while ctx.deadline().is_none() {
            std::thread::park();
        }
    };
    ingest.named("reader").spawn_thread(thread).expect("open");
    let (lost, guard) = Context::background().with_cancel();
    guard.detach();
    let lost = {
        let named = lost.with_name("lost");
        drop(lost);
        named
    };
    tokio::spawn(async move { lost.done().await });

    let (cancels, polls) = (ingest.clone(), again.clone());
    let router = Router::new()
        .route_service("/debug/cancel", DebugService::new())
        .route(
            "/cancel",
            post(move || async move { cancels.cancel_with("a <i>cause</i>").to_string() }),
        )
        .route("/poll", post(move || async move { polls.notify_one() }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Whoever has started it ends it.
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        () = tokio::time::sleep(Duration::from_secs(600)) => {}
    }
    drop(held);
    Ok(())
}
