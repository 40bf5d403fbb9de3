//! I1: a process whose clock is wrong executes no key again and keeps none for ever, and publishes, purges and takes nothing before its
//! time. All of that is the database's to decide. With SQLite, the database's clock is that of the process.

use std::time::Duration;

use effectively::fault::{Bug, plant};
use effectively::sink::Memory;
use effectively::{Emit, Ledger, Relay};
use effectively_tests::{TestDb, Worker, eventually, is_set, on_every_database};

use crate::marks::{Answer, Body, answered, open, order};
use crate::shop::{OrderPlaced, SOON, ShopDb, ShopError, in_the_past, shop_key};
use crate::stale_leases_change_nothing::{in_an_hour, other};

on_every_database!([postgres, mysql] processes_with_wrong_clocks_keep_the_databases_time);

async fn processes_with_wrong_clocks_keep_the_databases_time<DB: ShopDb>(db: TestDb<DB>) {
    if let Some(found) = wrong_with_wrong_clocks(db, None).await {
        assert_eq!(found, [""; 0]);
    }
}

/// Longer than anything is kept here.
const CLOCKS: [&str; 2] = ["+2d", "-2d"];

/// What processes with wrong clocks, and perhaps a bug, did wrong. `None`: there are none, or this is such a process.
pub async fn wrong_with_wrong_clocks<DB: ShopDb>(
    db: TestDb<DB>,
    bug: Option<Bug>,
) -> Option<Vec<String>> {
    if let Some(clock) = Worker::input::<String>() {
        if let Some(bug) = bug {
            plant(bug);
        }
        work(&db, &clock).await;
        return None;
    }
    if !is_set("EFFECTIVELY_TEST_FAKETIME") {
        return None;
    }
    let db = open(db).await;
    let mut found = Vec::new();
    for clock in CLOCKS {
        found.extend(found_by(&db, clock).await);
    }
    Some(found)
}

async fn found_by<DB: ShopDb>(db: &TestDb<DB>, clock: &str) -> Vec<String> {
    let ledger = Ledger::new(db.pool().clone());
    for key in ["expired", "kept"] {
        answered(order(&ledger, &format!("{key} {clock}"), Body::Returns).await);
        if key == "expired" {
            let past = in_the_past::<DB>();
            db.execute(&format!(
                "update effectively_claims set expires_at = {past}"
            ))
            .await;
        }
    }
    emit_later(&ledger, clock).await;
    let mut worker = db.worker_off_by(clock, &clock);
    let mut found = Vec::new();
    loop {
        match worker.hear().await.as_str() {
            "done" => break,
            wrong => found.push(format!("{clock}: {wrong}")),
        }
    }
    // Another has all the leases now, and is alive.
    db.execute(&format!(
        "update effectively_leases set holder = {}, epoch = epoch + 1, expires_at = {}",
        other::<DB>(),
        in_an_hour::<DB>()
    ))
    .await;
    worker.tell("take leases");
    worker.finish().await;
    let theirs = format!(
        "select count(*) from effectively_leases where holder = {}",
        other::<DB>()
    );
    if db.number(&theirs).await != 64 {
        found.push(format!("{clock}: leases were taken"));
    }
    // What was recorded by the process is kept for everybody.
    let key = format!("new {clock}");
    found.extend(
        differs(order(&ledger, &key, Body::Returns).await, true)
            .map(|answer| format!("{clock}: its own key: {answer}")),
    );
    let free = "update effectively_leases set holder = null, deaths = 0";
    db.execute(free).await;
    for table in ["outbox", "claims"] {
        db.execute(&format!("delete from effectively_{table}"))
            .await;
    }
    found
}

async fn work<DB: ShopDb>(db: &TestDb<DB>, clock: &str) {
    let ledger = Ledger::new(db.pool().clone());
    for (key, replays) in [("kept", true), ("expired", false), ("new", false)] {
        let answer = order(&ledger, &format!("{key} {clock}"), Body::Returns).await;
        if let Some(answer) = differs(answer, replays) {
            Worker::say(format_args!("the {key} key: {answer}"));
        }
    }
    match ledger.purge().await {
        Ok(0) => {}
        purged => Worker::say(format_args!("purged {purged:?}")),
    }
    let sink = Memory::new();
    // The events of all orders, and not the one that is due in an hour.
    let due = async || ledger.outbox().pending().await.expect("a count") == 1;
    let ended = relay(&ledger, &sink).run(eventually(SOON, due));
    ended.await.expect("an end in order");
    let published = sink.published();
    let early = published
        .iter()
        .filter(|event| is_later(event.partition_key.as_deref()));
    if early.count() > 0 {
        Worker::say("an event was published an hour early");
    }
    Worker::say("done");
    assert_eq!(Worker::listen().await, "take leases");
    let alive = async || {
        db.texts("select distinct cast(expires_at as char(30)) from effectively_relays")
            .await
    };
    // Two turns: the first has ended when the second begins.
    let first = std::cell::OnceCell::new();
    let turns = eventually(SOON, async || match &alive().await[..] {
        [now] => first.get_or_init(|| now.clone()) != now,
        _ => false,
    });
    let ended = relay(&ledger, &sink).run(turns);
    ended.await.expect("an end in order");
}

fn relay<DB: ShopDb>(ledger: &Ledger<DB>, sink: &Memory) -> Relay<DB> {
    Relay::builder(ledger.clone())
        .route("orders", sink.clone())
        .lease(Duration::from_secs(1))
        .poll(Duration::from_millis(20))
        .build()
        .expect("a relay")
}

/// What was answered, if it is not what it should be.
fn differs(answer: Answer, replays: bool) -> Option<String> {
    match answer {
        Ok(outcome) if outcome.is_replay() == replays => None,
        Ok(_) if replays => Some("executed again".into()),
        Ok(_) => Some("replayed after its time".into()),
        Err(error) => Some(format!("{error:?}")),
    }
}

const LATER: &str = "later ";

fn is_later(key: Option<&str>) -> bool {
    key.is_some_and(|key| key.starts_with(LATER))
}

async fn emit_later<DB: ShopDb>(ledger: &Ledger<DB>, clock: &str) {
    let key = format!("{LATER}{clock}");
    let event = OrderPlaced::of(&key);
    let emitted = ledger
        .call(shop_key(&key))
        .run_with_events(async |_: &mut DB::Connection| {
            let hour = Duration::from_secs(3600);
            Ok::<_, ShopError>(Emit::new(()).event_after(hour, event))
        });
    emitted.await.expect("a committed call");
}
