//! The metrics of handlers and of a relay, as Prometheus reads them.
//!
//! How to run: `cargo run -p effectively-examples --bin prometheus`
//!
//! What to try: let the sink refuse nothing, and see which metrics are not there: each begins with its first event.
//!
//! | metric | of | says |
//! |---|---|---|
//! | `effectively_calls_total` | `scope`, `result` | how calls ended: `executed`, `replayed`, `released`, an error's code |
//! | `effectively_relay_published_total` | `route` | events that the sink has confirmed |
//! | `effectively_relay_rejected_total` | `route` | refusals, each attempt counted |
//! | `effectively_relay_dead_letters_total` | | events given up. Alert on the first |
//! | `effectively_relay_outages_total` | `route` | tries after which the sink was left alone for a while |
//! | `effectively_relay_leases_lost_total` | | partitions lost to another relay: this one was too slow |
//! | `effectively_relay_unsettled_total` | | events that another relay may publish again |
//! | `effectively_relay_partitions` | | of 64, those that this relay has |
//! | `effectively_relay_publish_seconds` | `route` | how long the sink took for a batch |
//! | `effectively_relay_lag_seconds` | `route` | from an event's commit to its publishing. Alert when it grows |

#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{error::Error, time::Duration};

use axum::{Router, routing::get};
use effectively::sink::{Delivery, Memory};
use effectively::{Emit, Event, Ledger, Relay, idempotent, outbox};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde::Serialize;
use sqlx::SqliteConnection;
use tokio::{net::TcpListener, sync::oneshot, time::sleep};

#[idempotent(key = "{cart}", fingerprint(pieces))]
#[outbox]
async fn place_order(tx: &mut SqliteConnection, cart: u32, pieces: u32) -> sqlx::Result<Emit<()>> {
    let insert = sqlx::query("insert into orders (cart, pieces) values (?, ?)");
    insert.bind(cart).bind(pieces).execute(&mut *tx).await?;
    Ok(Emit::new(()).event(OrderPlaced { cart }))
}

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{cart}")]
struct OrderPlaced {
    cart: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Before the first call: what is counted without a recorder is lost.
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".to_owned()),
            &[0.005, 0.05, 0.5, 5.0, 50.0],
        )?
        .install_recorder()?;
    let app = Router::new().route("/metrics", get(async move || prometheus.render()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let (_folder, pool) = effectively_examples::temporary_sqlite().await?;
    let schema = "create table orders (cart integer, pieces integer check (pieces > 0))";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let ledger = Ledger::new(pool);
    ledger.migrate().await?;

    // A broker that is down at first, and never takes the event of cart 3.
    let down = AtomicBool::new(true);
    let sink = Memory::new().judged_by(move |event| match &event.partition_key {
        _ if down.swap(false, Relaxed) => Some(Delivery::unavailable("down")),
        Some(cart) if cart == "3" => Some(Delivery::refused_for_good("cart 3")),
        _ => None,
    });
    let relay = Relay::builder(ledger.clone())
        .route("orders", sink)
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(relay.run(async { _ = stopped.await }));

    // Ten orders, each sent twice. Then a used key with other content, and a body that fails.
    for call in 0..20 {
        place_order(ledger.clone(), call % 10, 1).await?;
    }
    _ = place_order(ledger.clone(), 1, 2).await;
    _ = place_order(ledger.clone(), 99, 0).await;
    while ledger.outbox().pending().await? > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    drop(stop);
    relay.await??;

    let text = reqwest::get(&url).await?.text().await?;
    println!("GET {url}\n");
    for line in text.lines().filter(|line| line.starts_with("effectively_")) {
        println!("{line}");
    }
    println!(
        "\nprometheus: {} calls, {} events published, {} dead letter",
        total(&text, "effectively_calls_total"),
        total(&text, "effectively_relay_published_total"),
        total(&text, "effectively_relay_dead_letters_total"),
    );
    Ok(())
}

/// The sum of a counter over its labels.
fn total(text: &str, name: &str) -> u64 {
    let of_it = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = of_it.filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}
