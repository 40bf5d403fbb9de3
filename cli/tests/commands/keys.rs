//! `effectively keys`: what became of a key, and freeing one that is interrupted.

use effectively::{Error, Failure, Key, Ledger, idempotent};
use effectively_tests::{TestDb, on_every_database};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::kit::{OperatorDb, ledger, on};

on_every_database!(
    an_interrupted_key_is_found_shown_and_released,
    a_complete_key_says_how_long
);
on_every_database!([sqlite] the_template_of_a_handler_names_its_key);

async fn interrupt<DB: OperatorDb>(ledger: &Ledger<DB>, key: Key) {
    let end = if DB::NAME == "MySQL" {
        "commit"
    } else {
        "rollback"
    };
    let answer: Result<_, Failure<Error>> = ledger
        .run(key, async |tx: &mut DB::Connection| {
            DB::execute(tx, end).await.expect("an end");
            Ok(())
        })
        .await;
    assert!(answer.is_err(), "its transaction was lost");
}

async fn an_interrupted_key_is_found_shown_and_released<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    let free = [
        "keys",
        "show",
        "--scope",
        "orders.place",
        "42",
        "8e03",
        "--json",
    ];
    assert_eq!(on(&db, &free).ends(0).json(), json!({ "state": "free" }));
    let list = on(&db, &["keys", "interrupted", "--json"]).ends(0).json();
    assert_eq!(list, json!({ "interrupted": [] }));
    for order in ["42", "43"] {
        let key = Key::new("orders.place", &[&order, &"8e03"]).expect("a key");
        interrupt(&ledger, key).await;
    }
    let shown = on(&db, &free).ends(0).json();
    assert_eq!(
        (&shown["state"], &shown["scope"]),
        (&json!("interrupted"), &json!("orders.place"))
    );
    assert!(
        shown["began_at"]
            .as_str()
            .expect("a time")
            .starts_with("20"),
        "{shown}"
    );
    let list = on(&db, &["keys", "interrupted", "--json"]).ends(0).json();
    assert_eq!(list["interrupted"].as_array().expect("a list").len(), 2);
    let text = on(&db, &["keys", "interrupted"]).ends(0).out;
    assert_eq!(text.lines().count(), 3, "{text}");

    let released = [
        "keys",
        "release",
        "--scope",
        "orders.place",
        "42",
        "8e03",
        "--json",
    ];
    assert_eq!(
        on(&db, &released).ends(0).json(),
        json!({ "released": true })
    );
    assert_eq!(
        on(&db, &released).ends(1).json(),
        json!({ "released": false })
    );
    assert_eq!(on(&db, &free).ends(0).json(), json!({ "state": "free" }));
    let left = on(&db, &["keys", "interrupted", "--json"]).ends(0).json();
    let id = left["interrupted"][0]["id"].as_str().expect("an id");
    let shown = on(&db, &["keys", "show", "--id", id, "--json"])
        .ends(0)
        .json();
    assert_eq!(shown["state"], "interrupted");
    let text = on(&db, &["keys", "release", "--id", id]).ends(0).out;
    assert!(text.starts_with("released"), "{text}");
    assert_eq!(ledger.interrupted().await.expect("a list"), []);
    for id in ["00", &"g".repeat(64), &"é".repeat(32)] {
        let wrong = on(&db, &["keys", "show", "--id", id]).ends(2);
        assert!(wrong.err.contains("64 hex digits"), "{wrong:?}");
    }
}

async fn a_complete_key_says_how_long<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    let key = Key::new("orders.place", &[&"42"]).expect("a key");
    let answer: Result<_, Failure<Error>> = ledger
        .run(key, async |_: &mut DB::Connection| {
            Ok("a secret answer".to_owned())
        })
        .await;
    answer.expect("an answer");
    let show = ["keys", "show", "--scope", "orders.place", "42"];
    let shown = on(&db, &[&show[..], &["--json"]].concat()).ends(0).json();
    assert_eq!(shown["state"], "complete");
    let (day, left) = (
        24 * 60 * 60 * 1000,
        shown["expires_in_ms"].as_u64().expect("a time"),
    );
    assert!(left > day - 600_000 && left <= day, "{shown}");
    assert!(
        shown["outcome_bytes"].as_u64().expect("a size") > 15,
        "{shown}"
    );
    let text = on(&db, &show).ends(0).out;
    assert!(
        text.starts_with("complete in the scope orders.place"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    assert!(
        on(&db, &["keys", "release", "--scope", "orders.place", "42"])
            .ends(1)
            .out
            .contains("not interrupted")
    );
}

#[idempotent(key = "{{order}}:{order.id}/{tries}", scope = "orders.pay")]
async fn pay(_tx: &mut SqliteConnection, order: Order, tries: u32) -> Result<u32, sqlx::Error> {
    Ok(order.id + tries)
}

#[derive(Clone)]
struct Order {
    id: u32,
}

async fn the_template_of_a_handler_names_its_key<DB: OperatorDb>(db: TestDb<DB>) {
    let pool = sqlx::SqlitePool::connect(db.url()).await;
    ledger(&db).await;
    let pool = match pool {
        Ok(pool) => pool,
        Err(_) => sqlx::SqlitePool::connect(db.url()).await.expect("a pool"),
    };
    pay(Ledger::new(pool), Order { id: 42 }, 7)
        .await
        .expect("an answer");
    let state = |key: &str| {
        let shown = on(
            &db,
            &[
                "keys",
                "show",
                "--scope",
                "orders.pay",
                "--key",
                key,
                "--json",
            ],
        );
        shown.ends(0).json()["state"].clone()
    };
    assert_eq!(state("{{order}}:{42}/{7}"), "complete");
    assert_eq!(state("{{order}}:{42}/{8}"), "free");
    assert_eq!(state("{42}/{7}"), "free");
    let wrong = on(
        &db,
        &[
            "keys",
            "show",
            "--scope",
            "orders.pay",
            "--key",
            "order:{42",
        ],
    );
    wrong.ends(2);
}
