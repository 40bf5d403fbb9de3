//! `effectively dead-letters`: nothing is dropped without somebody having said so.

use effectively::Emit;
use effectively_tests::{TestDb, on_every_database};
use serde_json::{Value, json};

use crate::kit::{Mail, OperatorDb, emit, ledger, on, orders, refuse_all};

on_every_database!(
    dead_letters_are_listed_shown_put_back_and_discarded,
    a_topic_is_chosen_and_pages_follow_each_other,
);

fn ids(list: &Value) -> Vec<String> {
    let letters = list["dead_letters"].as_array().expect("a list");
    letters
        .iter()
        .map(|letter| letter["id"].to_string())
        .collect()
}

async fn dead_letters_are_listed_shown_put_back_and_discarded<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    assert!(
        on(&db, &["dead-letters", "list"])
            .ends(0)
            .out
            .contains("no dead letters")
    );
    orders(&ledger, 40..43).await;
    let before = ledger.outbox().peek(3).await.expect("the outbox");
    refuse_all(&ledger).await;
    let list = on(&db, &["dead-letters", "list", "--json"]).ends(0);
    // Its partition key is data, too.
    assert!(
        !list.out.contains("\"data\"") && !list.out.contains("partition_key"),
        "{list:?}"
    );
    let list = list.json();
    let first = &list["dead_letters"][0];
    assert_eq!(first["event_id"], json!(before[0].id.to_string()));
    assert_eq!(
        (&first["topic"], &first["type"]),
        (&json!("orders"), &json!("order.placed.v1"))
    );
    assert_eq!(first["reason"], "closed on Sundays");
    assert!(list["next_after"].is_null());
    let ids = ids(&list);
    let text = on(&db, &["dead-letters", "list"]).ends(0).out;
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.contains("closed on Sundays"), "{text}");

    let shown = on(&db, &["dead-letters", "show", &ids[0], "--json"])
        .ends(0)
        .json();
    assert_eq!(shown["data"], json!({ "order": 40 }));
    assert_eq!(shown["partition_key"], "40");
    assert_eq!(shown["headers"], json!({}));
    let pretty = on(&db, &["dead-letters", "show", &ids[0]]).ends(0).out;
    assert!(
        pretty.contains("\n  \"data\": {\n    \"order\": 40\n"),
        "{pretty}"
    );
    let none = on(&db, &["dead-letters", "show", "987654"]).ends(1);
    assert!(none.err.contains("no dead letter 987654"), "{none:?}");

    let retried = on(&db, &["dead-letters", "retry", &ids[0], "987654", "--json"])
        .ends(1)
        .json();
    assert_eq!(retried, json!({ "retried": 1, "missing": [987654] }));
    let back = ledger.outbox().peek(3).await.expect("the outbox");
    assert_eq!(back[0].id, before[0].id, "its id never changes");

    let refused = on(&db, &["dead-letters", "discard", &ids[1]]).ends(2);
    assert!(refused.err.contains("--yes"), "{refused:?}");
    let left = on(&db, &["dead-letters", "list", "--json"]).ends(0).json();
    assert_eq!(self::ids(&left), ids[1..], "nothing without --yes");
    let discarded = on(&db, &["dead-letters", "discard", &ids[1], "--yes"])
        .ends(0)
        .out;
    assert_eq!(discarded, "discarded 1 dead letter\n");
    let discarded = on(
        &db,
        &["dead-letters", "discard", "--all", "--yes", "--json"],
    )
    .ends(0);
    assert_eq!(discarded.json(), json!({ "discarded": 1, "missing": [] }));
    let backlog = ledger.outbox().backlog().await.expect("a backlog");
    assert_eq!((backlog.due, backlog.dead_letters), (1, 0));
}

async fn a_topic_is_chosen_and_pages_follow_each_other<DB: OperatorDb>(db: TestDb<DB>) {
    let ledger = ledger(&db).await;
    orders(&ledger, 0..150).await;
    emit(&ledger, Emit::new(()).events([Mail("one"), Mail("two")])).await;
    refuse_all(&ledger).await;
    let mut seen = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = [
            "dead-letters",
            "list",
            "--limit",
            "60",
            "--after",
            &after,
            "--json",
        ];
        let page = on(&db, &page).ends(0).json();
        seen.extend(ids(&page));
        if page["next_after"].is_null() {
            break;
        }
        after = page["next_after"].to_string();
    }
    assert_eq!(seen.len(), 152);
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once, seen);
    let mails = ["dead-letters", "list", "--topic", "mail.welcome", "--json"];
    assert_eq!(ids(&on(&db, &mails).ends(0).json()).len(), 2);
    let retried = on(&db, &["dead-letters", "retry", "--topic", "mail.welcome"]).ends(0);
    assert_eq!(
        (retried.out.as_str(), retried.err.as_str()),
        ("put back 2 dead letters\n", "")
    );
    let retried = on(&db, &["dead-letters", "retry", "--all", "--json"])
        .ends(0)
        .json();
    assert_eq!(retried["retried"], 150);
    assert_eq!(ledger.outbox().pending().await.expect("a count"), 152);
}
