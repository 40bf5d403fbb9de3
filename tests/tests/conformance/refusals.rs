//! Bad input and a database that is not ready are refused with a typed error before any effect.

use effectively::{ErrorKind, Key, KeyPart, KeyProblem, Ledger, Scope};
use effectively_tests::{TestDb, on_every_database};
use sqlx::pool::PoolOptions;

use crate::shop::{Shop, ShopDb, kind, order_on, refused};

#[test]
fn a_key_with_a_part_that_breaks_a_rule_is_refused() {
    let problem = |parts: &[&str]| {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| part as &(dyn KeyPart + Sync))
            .collect();
        match refused(Key::new("orders", &parts)) {
            ErrorKind::KeyInvalid(problem) => problem,
            other => panic!("{other:?}"),
        }
    };
    let (long, two_bytes) = ("x".repeat(256), "ä".repeat(128));
    assert_eq!(problem(&[]), KeyProblem::NoParts);
    assert_eq!(problem(&[""]), KeyProblem::Empty { part: 1 });
    assert_eq!(problem(&["a", ""]), KeyProblem::Empty { part: 2 });
    assert_eq!(problem(&[&long]), KeyProblem::TooLong { part: 1 });
    assert_eq!(problem(&["a", &two_bytes]), KeyProblem::TooLong { part: 2 });
    for control in ["nul \0", "\n", "tab\t", "\u{7f}", "\u{85}"] {
        assert_eq!(
            problem(&["a", control]),
            KeyProblem::ControlCharacter { part: 2 }
        );
    }
    let (longest, emoji) = ("x".repeat(255), "🦀 é e\u{301}");
    for fine in [longest.as_str(), emoji, " ", "'; drop table orders; --"] {
        Key::new("orders", &[&fine]).expect("a key");
    }
}

#[test]
fn a_scope_that_breaks_a_rule_is_refused() {
    for scope in ["", "a b", "a/b", "ä", "a\0", &"x".repeat(65)] {
        let scope = scope.to_owned();
        assert_eq!(refused(Scope::new(scope.clone())), ErrorKind::ScopeInvalid);
        assert_eq!(refused(Key::new(scope, &[&"a"])), ErrorKind::ScopeInvalid);
    }
    Scope::new("Orders.place_v-2").expect("a scope");
    Scope::new("x".repeat(64)).expect("a scope");
}

on_every_database!(
    keys_that_some_collations_take_for_equal_are_different,
    the_longest_key_and_the_longest_scope_work,
    a_database_without_our_tables_is_refused_until_they_are_there,
    tables_that_vanish_later_are_an_error_of_the_same_kind,
    tables_of_an_older_version_are_refused,
    a_database_that_cannot_be_had_is_unavailable,
);
on_every_database!([sqlite] a_connection_without_foreign_keys_is_refused);

async fn keys_that_some_collations_take_for_equal_are_different<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let keys = ["a", "A", "á", "a\u{301}", "a ", " a"];
    for key in keys {
        assert!(
            !shop.order(key).await.expect("an answer").is_replay(),
            "{key:?}"
        );
    }
    let claims = keys.len() as i64;
    assert_eq!(shop.stored().await, (claims, claims, claims));
}

async fn the_longest_key_and_the_longest_scope_work<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let (scope, part) = ("s".repeat(64), "x".repeat(255));
    let key = || Key::new(scope.clone(), &[&part, &part, &part]).expect("a key");
    for expected in [false, true] {
        let call = shop.ledger.call(key());
        let answer = crate::shop::place(call, &shop.runs, "a", async { Ok(()) }).await;
        assert_eq!(answer.expect("an answer").is_replay(), expected);
    }
}

async fn a_database_without_our_tables_is_refused_until_they_are_there<DB: ShopDb>(db: TestDb<DB>) {
    db.execute("create table orders (item varchar(100) not null)")
        .await;
    let ledger = Ledger::new(db.pool().clone());
    let shop = Shop::on(db, ledger);
    assert_eq!(kind(&shop.order("a").await), Some(ErrorKind::TablesMissing));
    let outbox = shop.ledger.outbox();
    assert_eq!(refused(outbox.pending().await), ErrorKind::TablesMissing);
    assert_eq!(refused(shop.ledger.purge().await), ErrorKind::TablesMissing);
    assert_eq!((shop.runs(), shop.orders().await), (0, 0));
    shop.assert_healthy().await;
    shop.ledger.migrate().await.expect("the toolkit's tables");
    assert!(!shop.order("a").await.expect("an answer").is_replay());
}

async fn tables_that_vanish_later_are_an_error_of_the_same_kind<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("an answer");
    shop.db.execute("drop table effectively_claims").await;
    for key in ["a", "b"] {
        assert_eq!(kind(&shop.order(key).await), Some(ErrorKind::TablesMissing));
    }
    assert_eq!((shop.runs(), shop.orders().await), (1, 1));
    shop.assert_healthy().await;
}

async fn tables_of_an_older_version_are_refused<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.db
        .execute("delete from effectively_migrations where version > 1")
        .await;
    let older = order_on(&shop.elsewhere(), &shop.runs, "a", Default::default()).await;
    let expected = ErrorKind::SchemaVersion {
        found: 1,
        needed: Ledger::<DB>::SCHEMA_VERSION,
    };
    assert_eq!(kind(&older), Some(expected));
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_eq!(shop.runs(), 0);
}

async fn a_database_that_cannot_be_had_is_unavailable<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.ledger.pool().close().await;
    let answer = shop.order("a").await;
    assert_eq!(kind(&answer), Some(ErrorKind::Unavailable));
    assert!(answer.is_err_and(|failure| failure.is_retryable()));
    assert_eq!(shop.runs(), 0);
}

/// The gate would not hold, so no body runs.
async fn a_connection_without_foreign_keys_is_refused<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let off = PoolOptions::new().after_connect(|connection, _| {
        Box::pin(async {
            DB::execute(connection, "pragma foreign_keys = off").await?;
            Ok(())
        })
    });
    let ledger = Ledger::new(shop.db.pool_from(off, None));
    let answer = order_on(&ledger, &shop.runs, "a", Default::default()).await;
    assert_eq!(kind(&answer), Some(ErrorKind::ForeignKeysOff));
    assert_eq!(shop.runs(), 0);
    assert_eq!(shop.stored().await, (0, 0, 0));
    shop.assert_free("a").await;
}
