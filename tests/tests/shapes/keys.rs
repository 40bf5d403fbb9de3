//! What a key can be made of.

use effectively::{Event, IdempotencyKey, KeyPart, idempotent};
use sqlx::SqliteConnection;

use crate::shop::{AppError, Place, Shop, insert, send, twice};

#[derive(KeyPart)]
struct Tenant(i64);

#[derive(KeyPart)]
struct Named<T> {
    name: T,
}

struct User {
    tenant: Tenant,
}

fn header(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).expect("a key")
}

#[idempotent(key = "{{place}}/{user.tenant}/{idempotency_key}")]
async fn with_an_owner(
    tx: &mut SqliteConnection,
    user: User,
    idempotency_key: IdempotencyKey,
) -> Result<i64, AppError> {
    insert(tx, user.tenant.0).await?;
    Ok(user.tenant.0)
}

#[idempotent(key = "{key}", shared_by_all)]
async fn shared(tx: &mut SqliteConnection, key: &IdempotencyKey) -> Result<(), AppError> {
    insert(tx, 1).await?;
    assert!(!IdempotencyKey::expose(key).is_empty());
    Ok(())
}

#[idempotent(key = "{cmd.number()}{cmd.lines.1}{name.as_str()}{named}{flag}{letter}{id}")]
async fn of_many_parts(
    tx: &mut SqliteConnection,
    cmd: Place,
    name: &String,
    named: Named<&str>,
    flag: bool,
    letter: char,
    id: sqlx::types::Uuid,
) -> Result<i64, AppError> {
    insert(tx, cmd.id).await?;
    let _ = (name, named.name, flag, letter, id);
    Ok(cmd.id)
}

#[idempotent(key = "{part}/{idempotency_key}", scope = "keys.generic_part")]
async fn generic_part<P: KeyPart + Send + Sync>(
    tx: &mut SqliteConnection,
    part: P,
    idempotency_key: &IdempotencyKey,
) -> Result<(), AppError> {
    insert(tx, 1).await?;
    let _ = (part, idempotency_key);
    Ok(())
}

#[derive(KeyPart)]
struct Raw {
    r#in: i64,
}

struct Typed {
    r#type: Raw,
    r#fn: (i64, i64),
}

impl Typed {
    fn r#match(&self) -> i64 {
        self.r#fn.1
    }
}

/// As in `format!("{type}")`, where a raw identifier is written without `r#`.
#[idempotent(
    key = "{type}/{r#type}/{cmd.type}/{cmd.r#fn.0}{cmd.match()}/{await}/{r#plain}",
    fingerprint(r#type, cmd.r#type.r#in),
    retries = 1
)]
async fn of_raw_names(
    tx: &mut SqliteConnection,
    r#type: i64,
    cmd: std::sync::Arc<Typed>,
    r#await: i64,
    plain: i64,
) -> Result<i64, AppError> {
    insert(tx, r#type).await?;
    Ok(r#type + r#await + plain + cmd.r#type.r#in)
}

#[derive(serde::Serialize, Event)]
#[event(
    topic = "t",
    name = "n",
    key = "{type}/{r#fn}/{r#plain}/{await.as_str()}"
)]
struct RawNames {
    r#type: i64,
    r#fn: i64,
    plain: i64,
    r#await: String,
}

#[tokio::test]
async fn a_raw_name_is_written_as_in_format() {
    let shop = Shop::open().await;
    let typed = |r#in, r#fn| {
        let r#type = Raw { r#in };
        std::sync::Arc::new(Typed { r#type, r#fn })
    };
    let call = |r#type, cmd| send(of_raw_names(shop.ledger.clone(), r#type, cmd, 10, 100));
    assert_eq!(twice(|| call(1, typed(2, (3, 4)))).await, (113, 113));
    for (r#type, cmd) in [
        (2, typed(2, (3, 4))),
        (1, typed(3, (3, 4))),
        (1, typed(2, (3, 5))),
    ] {
        let other = call(r#type, cmd).await.expect("an answer");
        assert!(!other.is_replay(), "every part counts");
    }
    let event = RawNames {
        r#type: 1,
        r#fn: 2,
        plain: 3,
        r#await: "4".to_owned(),
    };
    assert_eq!(event.partition_key().as_deref(), Some("1/2/3/4"));
}

#[tokio::test]
async fn another_owner_with_the_same_header_is_another_call() {
    let shop = Shop::open().await;
    let call = |tenant| {
        send(with_an_owner(
            shop.ledger.clone(),
            User {
                tenant: Tenant(tenant),
            },
            header("k"),
        ))
    };
    assert_eq!(twice(|| call(1)).await, (1, 1));
    assert_eq!(twice(|| call(2)).await, (2, 2));
    assert_eq!(shop.orders().await, 2);
}

#[tokio::test]
async fn parts_are_of_many_types() {
    let shop = Shop::open().await;
    let (ledger, name) = (|| shop.ledger.clone(), String::from("n"));
    let key = header("k");
    let id = sqlx::types::Uuid::from_u128(7);
    twice(|| {
        send(of_many_parts(
            ledger(),
            Place::of(3),
            &name,
            Named { name: "x" },
            true,
            'c',
            id,
        ))
    })
    .await;
    twice(|| send(shared(ledger(), &key))).await;
    twice(|| send(generic_part(ledger(), "a", &key))).await;
    twice(|| send(generic_part(ledger(), 7_u64, &key))).await;
    assert_eq!(shop.orders().await, 4);
}

#[tokio::test]
async fn a_part_that_breaks_a_rule_is_refused_before_anything_happens() {
    let shop = Shop::open().await;
    for text in ["", "a\0b", "line\nbreak"] {
        let error = send(generic_part(shop.ledger.clone(), text, &header("k")))
            .await
            .expect_err("a refusal");
        assert!(
            matches!(error, effectively::Failure::Toolkit(error) if error.status() == 400),
            "{text:?}"
        );
    }
    assert_eq!(shop.orders().await, 0);
}
