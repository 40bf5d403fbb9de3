//! I6: a replay equals the first answer byte for byte, wherever and whenever it is asked for.

use std::collections::BTreeMap;

use effectively::{ErrorKind, Failure, Ledger, Outcome, Replay};
use effectively_tests::{TestDb, on_every_database};

use crate::shop::{Shop, ShopDb, ShopError, kind, shop_key};

on_every_database!(
    a_ledger_that_is_opened_again_replays_the_same_bytes,
    no_response_is_replayed_as_no_response,
    an_answer_of_every_shape_comes_back_as_it_was,
    an_answer_that_the_type_of_today_cannot_read_is_an_error_and_stays,
    an_answer_that_json_does_not_bring_back_is_an_error_and_leaves_nothing,
    a_number_comes_back_with_every_digit,
    an_answer_at_the_limit_is_stored,
    an_answer_over_the_limit_is_an_error_and_leaves_nothing,
    an_answer_of_a_megabyte_comes_back_as_it_was,
);

async fn answer<DB: ShopDb, T: Replay<M>, M>(
    ledger: &Ledger<DB>,
    key: &str,
    value: T,
) -> Result<Outcome<T>, Failure<ShopError>> {
    ledger
        .run(shop_key(key), async |tx: &mut DB::Connection| {
            DB::execute(tx, &format!("insert into orders values ('{key}')")).await?;
            Ok(value)
        })
        .await
}

async fn a_ledger_that_is_opened_again_replays_the_same_bytes<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let first = shop.order("a").await.expect("the first answer");
    shop.ledger.pool().close().await;
    let again = shop.elsewhere();
    // Twice: the second time the key is one that this process saw complete.
    for _ in 0..2 {
        let replay = answer(&again, "a", String::new()).await.expect("a replay");
        assert!(replay.is_replay());
        assert_eq!(replay.recorded(), first.recorded());
        assert_eq!(replay.into_result().expect("a response"), "run 0");
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn no_response_is_replayed_as_no_response<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for ledger in [shop.ledger.clone(), shop.elsewhere()] {
        let unit = answer(&ledger, "unit", ()).await.expect("an answer");
        assert!(unit.recorded().body().is_empty());
        unit.into_result().expect("a response");
        let none = answer(&ledger, "none", None::<i64>).await;
        let none = none.expect("an answer").into_result();
        assert_eq!(none.expect("a response"), None);
    }
    assert_eq!(shop.orders().await, 2);
}

async fn an_answer_of_every_shape_comes_back_as_it_was<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let texts = [
        "",
        "null",
        "'; drop table orders; --",
        "\\x00\u{0}\"ä🦀",
        "?$1%",
    ];
    let value: BTreeMap<String, (i64, Option<Vec<u8>>)> = texts
        .iter()
        .map(|text| {
            (
                (*text).to_owned(),
                (i64::MIN, Some(text.as_bytes().to_vec())),
            )
        })
        .collect();
    for literals in [false, true] {
        let key = format!("literals {literals}");
        let ledger = Ledger::builder(shop.db.pool().clone())
            .payload_literals(literals)
            .build()
            .expect("a ledger");
        let first = answer(&ledger, &key, value.clone())
            .await
            .expect("an answer");
        let elsewhere = shop.elsewhere();
        let replay = answer(&elsewhere, &key, BTreeMap::new()).await;
        let replay = replay.expect("a replay");
        assert_eq!(replay.recorded(), first.recorded());
        assert_eq!(replay.into_result().expect("a response"), value);
    }
}

async fn an_answer_that_the_type_of_today_cannot_read_is_an_error_and_stays<DB: ShopDb>(
    db: TestDb<DB>,
) {
    let shop = Shop::open(db).await;
    answer(&shop.ledger, "a", 7_i64).await.expect("an answer");
    let other = answer(&shop.ledger, "a", String::new()).await;
    let error = other.expect("a replay").into_result();
    assert_eq!(kind(&error), Some(ErrorKind::Decode));
    let wider = answer(&shop.ledger, "a", Some(0_i128)).await;
    let wider = wider.expect("a replay").into_result();
    assert_eq!(wider.expect("a response"), Some(7));
    assert_eq!(shop.orders().await, 1);
}

async fn an_answer_that_json_does_not_bring_back_is_an_error_and_leaves_nothing<DB: ShopDb>(
    db: TestDb<DB>,
) {
    /// It is written without what it needs when it is read.
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Account {
        id: i64,
        #[serde(skip_serializing)]
        secret: String,
    }
    let account = Account {
        id: 7,
        secret: "s".to_owned(),
    };
    assert_eq!((account.id, account.secret.len()), (7, 1));
    let shop = Shop::open(db).await;
    refuse(&shop, f64::NAN).await;
    refuse(&shop, vec![1.0, f64::INFINITY]).await;
    refuse(&shop, BTreeMap::from([(1, Some(f32::NEG_INFINITY))])).await;
    refuse(&shop, Some(None::<i64>)).await;
    refuse(&shop, BTreeMap::from([((1, 2), 3)])).await;
    refuse(&shop, account).await;
    shop.assert_free("a").await;
    shop.assert_healthy().await;
}

async fn refuse<DB: ShopDb, T: Replay<M> + std::fmt::Debug, M>(shop: &Shop<DB>, value: T) {
    let refused = answer(&shop.ledger, "a", value).await;
    assert_eq!(kind(&refused), Some(ErrorKind::Encode("the response")));
    assert_eq!(shop.stored().await, (0, 0, 0));
}

async fn a_number_comes_back_with_every_digit<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    // Doubles that a quick reader takes for their neighbour, and the ends of what there is.
    let mut bits = 1_u64;
    let doubles: Vec<f64> = std::iter::repeat_with(|| {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        f64::from_bits(bits)
    })
    .filter(|number| number.is_finite())
    .take(2_000)
    .collect();
    let value = (doubles, [u128::MAX, 1 << 64], i128::MIN, f32::MAX);
    for ledger in [shop.ledger.clone(), shop.elsewhere()] {
        let answer = answer(&ledger, "a", value.clone()).await;
        let answer = answer.expect("an answer").into_result();
        assert_eq!(answer.expect("a response"), value);
    }
}

/// Tag, version, kind, status and the number of headers.
const STORED_BEFORE_THE_BODY: usize = 7;

fn limited<DB: ShopDb>(shop: &Shop<DB>, limit: usize) -> Ledger<DB> {
    Ledger::builder(shop.db.pool().clone())
        .max_outcome_bytes(limit)
        .build()
        .expect("a ledger")
}

async fn an_answer_at_the_limit_is_stored<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    // Two quotes around it.
    let text = "x".repeat(64 - STORED_BEFORE_THE_BODY - 2);
    let first = answer(&limited(&shop, 64), "a", text.clone()).await;
    assert!(!first.expect("an answer").is_replay());
    let replay = answer(&shop.elsewhere(), "a", String::new()).await;
    let replay = replay.expect("a replay").into_result();
    assert_eq!(replay.expect("a response"), text);
}

async fn an_answer_over_the_limit_is_an_error_and_leaves_nothing<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (limit, size) in [(64, 64 - STORED_BEFORE_THE_BODY - 1), (262_144, 300_000)] {
        let text = "x".repeat(size);
        let over = answer(&limited(&shop, limit), "a", text).await;
        let bytes = STORED_BEFORE_THE_BODY + 2 + size;
        let expected = ErrorKind::OutcomeTooLarge { bytes, limit };
        assert_eq!(kind(&over), Some(expected));
        assert_eq!(shop.stored().await, (0, 0, 0));
    }
    shop.assert_free("a").await;
    shop.assert_healthy().await;
}

async fn an_answer_of_a_megabyte_comes_back_as_it_was<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let text = "🦀".repeat(1 << 18);
    let first = answer(&limited(&shop, 2 << 20), "a", text.clone()).await;
    let first = first.expect("an answer");
    let replay = answer(&shop.elsewhere(), "a", String::new()).await;
    assert_eq!(replay.expect("a replay").recorded(), first.recorded());
}
