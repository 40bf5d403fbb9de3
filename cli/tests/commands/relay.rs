//! `effectively relay`: publishes until it is told to stop, and leaves nothing behind.

use std::collections::BTreeSet;
use std::process::Stdio;

use effectively_tests::{TestDb, eventually, on_every_database};
use serde_json::Value;

use crate::kit::{File, OperatorDb, Running, SOON, effectively, ledger, on, orders, program};

on_every_database!(everything_is_published_and_a_signal_ends_it_in_order);
on_every_database!([sqlite] the_file_goes_before_the_command_line, it_does_not_begin_without_tables);

const STDOUT: &str = r#"
[relay]
poll = "20ms"
keep_published = "1h"
source = "/shop"

[[route]]
topics = "orders"
sink = { type = "stdout" }
"#;

async fn everything_is_published_and_a_signal_ends_it_in_order<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    orders(&ledger, 0..50).await;
    let ids: BTreeSet<_> = ledger
        .outbox()
        .peek(100)
        .await
        .expect("the outbox")
        .iter()
        .map(|event| event.id.to_string())
        .collect();
    let file = File::holding(STDOUT);
    for signal in ["TERM", "INT"] {
        orders(&ledger, 50..60).await;
        let relay = Running::with(&["--database-url", db.url(), "relay", "--config", file.path()]);
        eventually(SOON, async || {
            ledger.outbox().pending().await.expect("a count") == 0
        })
        .await;
        let status = on(&db, &["status", "--json"]).ends(0).json();
        assert_eq!(status["relays"], 1, "{status}");
        let (code, out, err) = relay.stop(signal).await;
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains("ending in order"), "{err}");
        let events: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).expect("an event"))
            .collect();
        if signal == "TERM" {
            assert_eq!(events.len(), 60);
            assert!(
                events
                    .iter()
                    .all(|event| event["source"] == "/shop" && event["subject"] == "orders")
            );
            let published: BTreeSet<_> = events
                .iter()
                .map(|event| event["id"].as_str().expect("an id").to_owned())
                .collect();
            assert!(ids.is_subset(&published), "{ids:?}");
        }
        let status = on(&db, &["status", "--json"]).ends(0).json();
        assert_eq!(
            (&status["relays"], &status["leases"]["free"]),
            (&0.into(), &64.into()),
            "{status}"
        );
    }
    let kept = "select count(*) from effectively_published";
    assert_eq!(db.number(kept).await, 70, "as the file says");
}

async fn the_file_goes_before_the_command_line<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    orders(&ledger, 0..5).await;
    let file = File::holding(&format!(
        "[database]\nurl = \"${{RELAY_DATABASE}}\"\n{STDOUT}"
    ));
    let mut command = program(&[
        "--database-url",
        "postgres://nowhere/",
        "relay",
        "--config",
        file.path(),
    ]);
    command
        .env("RELAY_DATABASE", db.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let relay = Running(command.spawn().expect("the program"));
    eventually(SOON, async || {
        ledger.outbox().pending().await.expect("a count") == 0
    })
    .await;
    let (code, out, _) = relay.stop("TERM").await;
    assert_eq!((code, out.lines().count()), (Some(0), 5));
}

async fn it_does_not_begin_without_tables<DB: OperatorDb>(db: TestDb<DB>) {
    db.execute("select 1").await;
    let file = File::holding(STDOUT);
    let relay = on(&db, &["relay", "--config", file.path()]).ends(4);
    assert!(relay.err.contains("effectively migrate"), "{relay:?}");
    let none = File::holding(STDOUT);
    effectively(&["relay", "--config", none.path()]).ends(2);
}

#[cfg(feature = "prometheus")]
mod metrics {
    use std::net::{SocketAddr, TcpListener};

    use effectively_tests::{TestDb, eventually, on_every_database};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::STDOUT;
    use crate::kit::{File, OperatorDb, Running, SOON, ledger, on, orders};

    on_every_database!([sqlite] its_metrics_are_served);

    async fn its_metrics_are_served<DB: OperatorDb>(db: TestDb<DB>) {
        let ledger = ledger(&db).await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let file = File::holding(&format!("metrics = \"{address}\"\n{STDOUT}"));
        let taken = on(&db, &["relay", "--config", file.path()]).ends(2);
        assert!(
            taken
                .err
                .contains("relay.toml:1:11: the metrics cannot be served there"),
            "{taken:?}"
        );
        drop(listener);
        orders(&ledger, 0..5).await;
        let relay = Running::with(&["--database-url", db.url(), "relay", "--config", file.path()]);
        eventually(SOON, async || {
            ledger.outbox().pending().await.expect("a count") == 0
        })
        .await;
        let page = eventually(SOON, async || page(address).await).await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert_eq!(relay.stop("TERM").await.0, Some(0));
    }

    /// What is served, when somebody serves.
    async fn page(address: SocketAddr) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        Ok(page)
    }
}
