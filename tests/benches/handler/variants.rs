//! What is compared, and one call of it.

use std::sync::atomic::{AtomicU64, Ordering};

use effectively::{Ledger, Outcome};
use effectively_tests::{Proxy, TestDb};
use sqlx::Pool;
use sqlx::pool::PoolOptions;

use super::shop::{Receipt, Shop, note_order, place_order};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// (a)
    Bare,
    /// (b)
    ByHand,
    /// (b) with fewer statements.
    Folded,
    /// (c)
    Attribute,
    /// (c) on a ledger that reuses connections.
    Reused,
    /// (d)
    Literals,
    /// The attribute on a handler without a response and without events.
    PayloadFree,
    /// An earlier key in a process that has not met it.
    Replay,
    /// An earlier key in the process that answered it.
    KnownReplay,
}

impl Variant {
    pub const ALL: [Self; 9] = [
        Self::Bare,
        Self::ByHand,
        Self::Folded,
        Self::Attribute,
        Self::Reused,
        Self::Literals,
        Self::PayloadFree,
        Self::Replay,
        Self::KnownReplay,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare transaction",
            Self::ByHand => "by hand",
            Self::Folded => "by hand, folded",
            Self::Attribute => "attribute",
            Self::Reused => "attribute, reused conn.",
            Self::Literals => "attribute, literals",
            Self::PayloadFree => "attribute, no payload",
            Self::Replay => "replay",
            Self::KnownReplay => "replay, known key",
        }
    }
}

/// How many earlier keys the replays go round.
const EARLIER: u64 = 2000;

/// All variants on one database, over one line.
#[derive(Debug)]
pub struct Variants<DB: Shop> {
    /// For what is written by hand.
    plain: Pool<DB>,
    ledger: Ledger<DB>,
    reusing: Ledger<DB>,
    literals: Ledger<DB>,
    /// Answered the keys that the replays ask for again, and nothing since that could make it forget them.
    known: Ledger<DB>,
    /// Remembers no key: each of its replays is the first that its process sees.
    forgetful: Ledger<DB>,
    requests: AtomicU64,
    replays: AtomicU64,
}

/// A pool as all variants use it: without the ping before each use, which would be one more trip for each of them.
fn pool<DB: Shop>(db: &TestDb<DB>, max: u32, through: Option<&Proxy>) -> Pool<DB> {
    let options = PoolOptions::new()
        .max_connections(max)
        .min_connections(max)
        .test_before_acquire(false);
    db.pool_from(options, through)
}

/// Creates the tables of the application, of what is written by hand and of the toolkit.
pub async fn create_tables<DB: Shop>(db: &TestDb<DB>) {
    let ledger = Ledger::new(db.pool().clone());
    ledger.migrate().await.expect("the toolkit's tables");
    db.execute(DB::TABLES).await;
}

impl<DB: Shop> Variants<DB> {
    /// Every variant has `connections` to the database; but see [`ByHand::WRITERS`](super::by_hand::ByHand::WRITERS).
    pub fn new(db: &TestDb<DB>, connections: u32, through: Option<&Proxy>) -> Self {
        let shared = pool(db, connections, through);
        let plain = match DB::WRITERS {
            Some(writers) => pool(db, writers, through),
            None => shared.clone(),
        };
        let reusing = Ledger::builder(shared.clone()).reuse_connections(true);
        let literals = Ledger::builder(shared.clone()).payload_literals(true);
        let forgetful = Ledger::builder(shared.clone()).remembered_keys(0);
        Self {
            plain,
            reusing: reusing.build().expect("a ledger"),
            literals: literals.build().expect("a ledger"),
            forgetful: forgetful.build().expect("a ledger"),
            known: Ledger::new(shared.clone()),
            ledger: Ledger::new(shared),
            requests: AtomicU64::new(0),
            replays: AtomicU64::new(0),
        }
    }

    pub fn pool(&self) -> &Pool<DB> {
        self.ledger.pool()
    }

    /// Answers the keys that the replays ask for again.
    pub async fn answer_earlier_keys(&self, user: i64) {
        for request in 0..EARLIER {
            place(&self.known, user, request).await;
        }
    }

    /// One call. `user` keeps apart the keys of runs on one database.
    pub async fn call(&self, variant: Variant, user: i64) {
        match variant {
            Variant::Replay => {
                assert!(
                    place(&self.forgetful, user, self.earlier())
                        .await
                        .is_replay()
                );
            }
            Variant::KnownReplay => {
                assert!(place(&self.known, user, self.earlier()).await.is_replay());
            }
            _ => self.first_call(variant, user, self.fresh()).await,
        }
    }

    async fn first_call(&self, variant: Variant, user: i64, request: u64) {
        match variant {
            Variant::Bare => DB::bare(&self.plain, ITEM).await.expect("a transaction"),
            Variant::ByHand => {
                let answer = DB::by_hand(&self.plain, &key(user, request), ITEM).await;
                assert!(!answer.expect("an answer").is_empty());
            }
            Variant::Folded => {
                let answer = DB::folded(&self.plain, &key(user, request), ITEM).await;
                assert!(!answer.expect("an answer").is_empty());
            }
            Variant::PayloadFree => {
                let request = request.to_string();
                let answer =
                    note_order::<DB::Connection>(self.ledger.clone(), user, &request, ITEM).await;
                assert!(!answer.expect("an answer").is_replay());
            }
            Variant::Reused => {
                assert!(!place(&self.reusing, user, request).await.is_replay());
            }
            Variant::Literals => {
                assert!(!place(&self.literals, user, request).await.is_replay());
            }
            _ => assert!(!place(&self.ledger, user, request).await.is_replay()),
        }
    }

    fn fresh(&self) -> u64 {
        EARLIER + self.requests.fetch_add(1, Ordering::Relaxed)
    }

    fn earlier(&self) -> u64 {
        self.replays.fetch_add(1, Ordering::Relaxed) % EARLIER
    }
}

const ITEM: &str = "two pounds of apples";

fn key(user: i64, request: u64) -> String {
    format!("place_order/{user}/{request}")
}

async fn place<DB: Shop>(ledger: &Ledger<DB>, user: i64, request: u64) -> Outcome<Receipt> {
    place_order::<DB::Connection>(ledger.clone(), user, &request.to_string(), ITEM)
        .await
        .expect("an answer")
}
