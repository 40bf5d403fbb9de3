//! What is recorded comes back as it was, whoever asks: through a call and its replay by another ledger.

use std::sync::atomic::{AtomicI64, Ordering};

use effectively::{
    Error, ErrorKind, Failure, Ledger, Outcome, Recorded, Refusal, Replay, idempotent,
};
use effectively_tests::TestDb;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use sqlx::{Sqlite, SqliteConnection};
use tokio::runtime::Runtime;

use crate::bounded;

/// A response, or an error, that is its own recorded form.
#[derive(Debug, Clone, PartialEq)]
struct Raw(Recorded);

enum AsItIs {}

impl Replay<AsItIs> for Raw {
    fn record(&mut self) -> Result<Recorded, Error> {
        Ok(self.0.clone())
    }

    fn restore(recorded: &Recorded) -> Result<Self, Error> {
        Ok(Self(recorded.clone()))
    }
}

impl Refusal for Raw {
    fn refusal(&self) -> Option<Recorded> {
        Some(self.0.clone())
    }
}

#[idempotent(key = "{id}", on_error = "record")]
async fn answer(tx: &mut SqliteConnection, id: i64, with: Recorded) -> Result<Raw, Raw> {
    let _ = (tx, id);
    if with.is_refusal() {
        Err(Raw(with))
    } else {
        Ok(Raw(with))
    }
}

fn recorded() -> impl Strategy<Value = Recorded> {
    let bytes = || {
        prop_oneof![
            vec(any::<u8>(), 0..40),
            Just(b"null".to_vec()),
            Just(vec![b'x'; 70_000])
        ]
    };
    let name = prop_oneof!["[a-zA-Z-]{0,12}", any::<String>(), Just("n".repeat(65_535))];
    let status = prop_oneof![Just(0), 100_u16..600, any::<u16>()];
    let headers = vec((name, bytes()), 0..4);
    (any::<bool>(), status, headers, bytes()).prop_map(|(refuses, status, headers, body)| {
        let empty = if refuses {
            Recorded::refusal(body)
        } else {
            Recorded::success(body)
        };
        let with_header = |recorded: Recorded, (name, value): (String, Vec<u8>)| {
            recorded.with_header(&name, &value)
        };
        headers
            .into_iter()
            .fold(empty.with_status(status), with_header)
    })
}

/// A status that asks for a retry is not recorded as a refusal.
fn is_final(recorded: &Recorded) -> bool {
    !matches!(recorded.status(), Some(408 | 425 | 429 | 500..))
}

struct Ledgers {
    runtime: Runtime,
    db: TestDb<Sqlite>,
    here: Ledger<Sqlite>,
}

impl Ledgers {
    fn open() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (db, here) = runtime.block_on(async {
            let db = TestDb::<Sqlite>::new().await;
            let here = large(&db);
            here.migrate().await.expect("the toolkit's tables");
            (db, here)
        });
        Self { runtime, db, here }
    }

    /// The first answer and what another ledger replays, from a pool that knows nothing yet.
    fn both(&self, id: i64, with: &Recorded) -> [Result<Outcome<Raw>, Failure<Raw>>; 2] {
        self.runtime.block_on(async {
            let elsewhere = large(&self.db);
            let first = answer(self.here.clone(), id, with.clone()).await;
            let again = answer(elsewhere, id, Recorded::success(Vec::new())).await;
            [first, again]
        })
    }
}

fn large(db: &TestDb<Sqlite>) -> Ledger<Sqlite> {
    let ledger = Ledger::builder(db.pool_with(1, None)).max_outcome_bytes(1 << 20);
    ledger.build().expect("a ledger")
}

#[test]
fn whatever_is_recorded_is_replayed_as_it_was() {
    let (ledgers, mut runner) = (Ledgers::open(), TestRunner::new(bounded(128)));
    let ids = AtomicI64::new(0);
    let held = runner.run(&recorded(), |recorded| {
        let id = ids.fetch_add(1, Ordering::SeqCst);
        let [first, again] = ledgers.both(id, &recorded);
        let again = again.map_err(|_| TestCaseError::fail("no answer of the second call"))?;
        if !is_final(&recorded) {
            // It asks for a retry: its caller gets it, and nobody after that.
            match first {
                Ok(first) => {
                    prop_assert!(!recorded.is_refusal() && *first.recorded() == recorded);
                }
                Err(Failure::Handler(error)) => {
                    prop_assert!(recorded.is_refusal() && error.0 == recorded);
                }
                Err(Failure::Toolkit(error)) => prop_assert!(false, "{error}"),
            }
            prop_assert!(!again.is_replay());
            return Ok(());
        }
        let first = first.map_err(|_| TestCaseError::fail("no answer of the first call"))?;
        prop_assert!(!first.is_replay() && again.is_replay());
        for outcome in [first, again] {
            prop_assert!(*outcome.recorded() == recorded);
            match outcome.into_result() {
                Ok(raw) => prop_assert!(!recorded.is_refusal() && raw.0 == recorded),
                Err(Failure::Handler(refused)) => {
                    prop_assert!(recorded.is_refusal() && *refused.recorded() == recorded);
                }
                Err(Failure::Toolkit(error)) => prop_assert!(false, "{error}"),
            }
        }
        Ok(())
    });
    held.unwrap_or_else(|broken| panic!("{broken}"));
}

/// What cannot be read back must not be written: the call is rolled back and the key is free.
#[test]
fn a_name_of_a_header_that_is_too_long_to_be_stored_is_an_error_at_once() {
    let ledgers = Ledgers::open();
    for (id, length) in [(1, 65_536), (2, 65_540), (3, 100_000)] {
        let recorded = Recorded::success(b"body".to_vec()).with_header(&"n".repeat(length), b"v");
        let [first, again] = ledgers.both(id, &recorded);
        let Err(Failure::Toolkit(error)) = first else {
            panic!("{length} bytes are stored: {again:?}");
        };
        assert!(matches!(error.kind(), ErrorKind::Encode(_)), "{error}");
        assert!(
            again.is_ok_and(|again| !again.is_replay()),
            "the key is free"
        );
    }
}
