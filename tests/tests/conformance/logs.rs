//! No key, payload or token in any log line at any level, nor in any error.

use std::error::Error as StdError;
use std::time::Duration;

use effectively::{Emit, Error, ErrorKind, Failure, Ledger};
use effectively_tests::{LogCapture, TestDb, Worker, on_every_database};

use crate::held::Held;
use crate::shop::{OrderPlaced, Shop, ShopDb, ShopError, insert, place, shop_key};

const KEY: &str = "secret-of-the-key";
const ANSWER: &str = "secret-of-the-answer";
const EVENT: &str = "secret-of-the-event";
const HEADER: &str = "secret-of-the-header";
const CONTENT: &str = "secret-of-the-fingerprint";

on_every_database!(
    a_slow_call_logs_nothing_of_its_key_answer_or_events,
    an_error_shows_nothing_of_the_call,
);
on_every_database!([postgres] a_constraint_that_fails_at_commit_shows_no_value);

/// Runs a test's content in a process whose every log line is captured. `None` in the parent, once that is done.
async fn alone<DB: ShopDb>(db: &TestDb<DB>) -> Option<LogCapture> {
    if Worker::input::<()>().is_some() {
        return Some(LogCapture::global());
    }
    db.worker(&()).finish().await;
    None
}

fn assert_hidden(text: &str) {
    for secret in [KEY, ANSWER, EVENT, HEADER, CONTENT] {
        // As it is, and as the hex that a statement may hold.
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret, &hex] {
            let shown = text.lines().find(|line| line.to_lowercase().contains(form));
            assert_eq!(shown, None, "{secret} is shown");
        }
    }
}

/// Every error as it may be logged: `{}` and `{:?}`, with all that caused it.
fn assert_hidden_in(error: &Error) {
    let mut next: Option<&dyn StdError> = Some(error);
    while let Some(error) = next {
        assert_hidden(&format!("{error} {error:?} {error:#?}"));
        next = error.source();
    }
}

async fn a_slow_call_logs_nothing_of_its_key_answer_or_events<DB: ShopDb>(db: TestDb<DB>) {
    let Some(logs) = alone(&db).await else { return };
    let shop = Shop::open(db).await;
    // sqlx logs a statement that takes over a second with its text: every INSERT into the outbox does.
    let slow = match DB::NAME {
        "PostgreSQL" => {
            "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(1.1); return new; end';
             create trigger slow before insert on effectively_outbox for each row execute function slow()"
        }
        "MySQL" => "create trigger slow before insert on effectively_outbox for each row set @slept = sleep(1.1)",
        _ => {
            "create trigger slow before insert on effectively_outbox begin select count(*) from (with recursive n(i) as \
             (select 1 union all select i + 1 from n limit 20000000) select i from n); end"
        }
    };
    shop.db.execute(slow).await;
    for again in [false, true] {
        let call = shop
            .ledger
            .call(shop_key(KEY))
            .fingerprint(CONTENT)
            .expect("a call");
        let answer = call
            .run_with_events(async |tx: &mut DB::Connection| {
                insert::<DB>(tx, "order").await?;
                let emission = Emit::new(ANSWER.to_owned()).event(OrderPlaced::of(EVENT));
                Ok::<_, ShopError>(emission.header(HEADER, HEADER))
            })
            .await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.is_replay(), again);
        assert_hidden(&format!("{answer:?} {:?} {:?}", shop_key(KEY), shop.ledger));
    }
    let events = shop.drain().await;
    assert_eq!(events[0].partition_key.as_deref(), Some(EVENT));
    let text = logs.text();
    let slow = logs.lines_with("slow statement");
    assert!(
        slow.iter().any(|line| line.contains("effectively_outbox")),
        "no slow finish:\n{text}"
    );
    assert_hidden(&text);
}

async fn an_error_shows_nothing_of_the_call<DB: ShopDb>(db: TestDb<DB>) {
    let Some(logs) = alone(&db).await else { return };
    let shop = Shop::open(db).await;
    let order = async |ledger: &Ledger<DB>, content: &str, end: Option<&str>| {
        let call = ledger
            .call(shop_key(KEY))
            .wait(Duration::ZERO)
            .fingerprint(content)?;
        call.run_with_events(async |tx: &mut DB::Connection| {
            if let Some(end) = end {
                let _ = DB::execute(tx, end).await;
            }
            let emission = Emit::new(ANSWER.to_owned()).event(OrderPlaced::of(EVENT));
            Ok::<_, ShopError>(emission)
        })
        .await
        .map(drop)
    };
    let mut kinds = Vec::new();
    let mut hidden = |answer: Result<(), Failure<ShopError>>| match answer {
        Err(Failure::Toolkit(error)) => {
            assert_hidden_in(&error);
            kinds.push(error.kind().clone());
        }
        other => panic!("{other:?}"),
    };
    let limited = Ledger::builder(shop.db.pool().clone())
        .max_outcome_bytes(9)
        .build();
    hidden(order(&limited.expect("a ledger"), CONTENT, None).await);
    let end = if DB::NAME == "MySQL" {
        "commit"
    } else {
        "rollback"
    };
    hidden(order(&shop.ledger, CONTENT, Some(end)).await);
    hidden(order(&shop.ledger, CONTENT, None).await);
    assert!(
        shop.ledger
            .release(&shop_key(KEY))
            .await
            .expect("a release")
    );
    let held = Held::by(&shop.ledger, &shop.runs, KEY, CONTENT).await;
    hidden(order(&shop.ledger, CONTENT, None).await);
    hidden(order(&shop.ledger, "other", None).await);
    held.finish().await.expect("an answer");
    let as_number = shop
        .ledger
        .run(shop_key(KEY), async |_: &mut DB::Connection| {
            Ok::<_, ShopError>(1)
        });
    hidden(
        as_number
            .await
            .expect("a replay")
            .into_result()
            .map(drop)
            .map_err(|failure| match failure {
                Failure::Toolkit(error) => Failure::Toolkit(error),
                Failure::Handler(refused) => panic!("{refused}"),
            }),
    );
    shop.expire().await;
    // The outbox refuses the event and quotes the row, or at least the statement.
    shop.db.execute("drop table effectively_outbox").await;
    hidden(order(&shop.ledger, CONTENT, None).await);
    shop.db.execute("drop table effectively_claims").await;
    hidden(order(&shop.ledger, CONTENT, None).await);
    let expected: &[fn(&ErrorKind) -> bool] = &[
        |kind| matches!(kind, ErrorKind::OutcomeTooLarge { .. }),
        |kind| *kind == ErrorKind::TransactionLost,
        |kind| *kind == ErrorKind::Interrupted,
        |kind| *kind == ErrorKind::InFlight,
        |kind| *kind == ErrorKind::Mismatch,
        |kind| *kind == ErrorKind::Decode,
        |kind| *kind == ErrorKind::TablesMissing,
        |kind| *kind == ErrorKind::TablesMissing,
    ];
    assert_eq!(kinds.len(), expected.len());
    for (kind, expected) in kinds.iter().zip(expected) {
        assert!(expected(kind), "{kinds:?}");
    }
    assert_hidden(&logs.text());
}

/// The server's detail quotes the value: `Key (item)=(…) already exists.`
async fn a_constraint_that_fails_at_commit_shows_no_value<DB: ShopDb>(db: TestDb<DB>) {
    let Some(logs) = alone(&db).await else { return };
    let shop = Shop::open(db).await;
    let unique =
        "alter table orders add constraint one_each unique (item) deferrable initially deferred";
    shop.db.execute(unique).await;
    // Written by a parameter, as an application does it: sqlx logs a statement, never what is bound to it.
    shop.db
        .execute(&format!("insert into orders values ('{EVENT}')"))
        .await;
    logs.clear();
    let copy = async |tx: &mut DB::Connection| {
        DB::execute(tx, "insert into orders select item from orders").await?;
        Ok::<_, ShopError>(ANSWER.to_owned())
    };
    let answer = shop.ledger.run(shop_key(KEY), copy).await;
    let Err(Failure::Toolkit(error)) = answer.map(drop) else {
        panic!("the constraint holds");
    };
    assert_eq!(*error.kind(), ErrorKind::Database);
    assert!(format!("{error:?}").contains("23505"), "{error:?}");
    assert_hidden_in(&error);
    assert_hidden(&logs.text());
    assert_eq!(shop.stored().await, (1, 0, 0));
    let call = shop.ledger.call(shop_key(KEY));
    place(call, &shop.runs, "other", async { Ok(()) })
        .await
        .expect("the key is free");
}
