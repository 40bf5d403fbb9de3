//! `effectively purge`

use std::time::Duration;

use effectively::{Error, Failure, Key, Ledger};
use effectively_tests::{TestDb, eventually, on_every_database};
use serde_json::json;

use crate::kit::{OperatorDb, SOON, ledger, on};

on_every_database!(what_has_expired_is_purged_and_counted);

async fn what_has_expired_is_purged_and_counted<DB: OperatorDb>(db: TestDb<DB>) {
    ledger(&db).await;
    for retention in [Duration::from_millis(1), Duration::from_secs(3600)] {
        let ledger = Ledger::builder(db.pool().clone())
            .retention(retention)
            .build();
        let ledger = ledger.expect("a ledger");
        for call in 0..3 {
            let key = Key::new("kept", &[&call, &(retention.as_millis() as u64)]).expect("a key");
            let answer: Result<_, Failure<Error>> =
                ledger.run(key, async |_: &mut DB::Connection| Ok(())).await;
            answer.expect("an answer");
        }
    }
    eventually(SOON, async || {
        let leftovers = Ledger::new(db.pool().clone()).leftovers().await;
        leftovers.expect("an answer").expired_claims == 3
    })
    .await;
    let show = ["keys", "show", "--scope", "kept", "0", "1", "--json"];
    let expired = on(&db, &show).ends(0).json();
    assert_eq!(expired["state"], "free", "whether it is purged or not");
    let purged = on(&db, &["purge", "--json"]).ends(0);
    assert_eq!(purged.json(), json!({ "purged": 3, "purged_events": 0 }));
    assert_eq!(purged.err, "", "no bar without a terminal");
    assert_eq!(on(&db, &["purge"]).ends(0).out, "purged 0 outcomes\n");
    assert_eq!(
        db.number("select count(*) from effectively_claims").await,
        3
    );
    let (id, data, long_ago) = match DB::NAME {
        "PostgreSQL" => ("gen_random_uuid()", "'x'::bytea", "'2000-01-01'"),
        "MySQL" => (
            "x'00112233445566778899aabbccddeeff'",
            "x'00'",
            "'2000-01-01'",
        ),
        _ => ("x'00112233445566778899aabbccddeeff'", "x'00'", "0"),
    };
    let kept = format!(
        "insert into effectively_published (id, event_id, topic, type, partition_no, data, created_at, published_at, expires_at) \
         select 1, {id}, 't', 't', 0, {data}, {long_ago}, {long_ago}, {long_ago}"
    );
    db.execute(&kept).await;
    let purged = on(&db, &["purge"]).ends(0).out;
    assert_eq!(purged, "purged 0 outcomes and 1 published event\n");
}
