//! The server: one router for all three databases, behind a real listener.

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::extract::{FromRef, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use effectively::{
    Dialect, Emit, Error, Event, IdempotencyKey, Ledger, Recorded, Refusal, TxParam, idempotent,
    outbox,
    web::{Exclude, Fingerprinted},
};
use effectively_tests::{TestDb, TestServer};
use serde::{Deserialize, Serialize};
use sqlx::{Database, MySql, MySqlConnection, PgConnection, Postgres, Sqlite, SqliteConnection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::{self, Answer};
use crate::hand::Hand;

/// What the application asks its databases for.
pub trait Orders: TxParam<Db: Dialect> + Send + 'static {
    fn run(&mut self, sql: &str) -> impl Future<Output = sqlx::Result<u64>> + Send;
}

macro_rules! orders {
    ($($connection:ident of $database:ident)*) => {$(
        impl Orders for $connection {
            async fn run(&mut self, sql: &str) -> sqlx::Result<u64> {
                $database::execute(self, sql).await
            }
        }
    )*};
}
orders! {
    PgConnection of Postgres
    MySqlConnection of MySql
    SqliteConnection of Sqlite
}

/// A database that the server can run on.
pub trait ShopDb: TestServer + Dialect + Database<Connection: Orders<Db = Self>> {}
impl<DB: TestServer + Dialect + Database<Connection: Orders<Db = DB>>> ShopDb for DB {}

/// What is ordered says what becomes of it.
#[derive(Serialize, Deserialize)]
pub struct Place {
    pub item: String,
}

#[derive(Serialize, Deserialize)]
pub struct Receipt {
    pub item: String,
    pub run: usize,
}

#[derive(Serialize, Event)]
#[event(topic = "orders", name = "order.placed.v1", key = "{item}")]
struct Placed {
    item: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("no tea")]
    NoTea,
    #[error("sold out")]
    SoldOut,
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    // Only for `transparent`. Elsewhere the toolkit's errors answer for themselves.
    #[error(transparent)]
    Toolkit(#[from] Error),
}

impl Refusal for AppError {
    fn refusal(&self) -> Option<Recorded> {
        let json = Recorded::json_refusal(402, "sold out")?;
        matches!(self, Self::SoldOut).then(|| json.with_header("x-reason", b"stock"))
    }
}

/// Hides whatever it holds: what the toolkit has to say must not depend on it.
impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        (StatusCode::IM_A_TEAPOT, "short and stout").into_response()
    }
}

struct App<DB: ShopDb> {
    ledger: Ledger<DB>,
    hand: Hand,
}

impl<DB: ShopDb> Clone for App<DB> {
    fn clone(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            hand: self.hand.clone(),
        }
    }
}

impl<DB: ShopDb> FromRef<App<DB>> for Ledger<DB> {
    fn from_ref(app: &App<DB>) -> Self {
        app.ledger.clone()
    }
}

impl<DB: ShopDb> FromRef<App<DB>> for Hand {
    fn from_ref(app: &App<DB>) -> Self {
        app.hand.clone()
    }
}

type Created = Result<Emit<(StatusCode, Json<Receipt>)>, AppError>;

#[idempotent(
    key = "{user}/{idempotency_key}",
    fingerprint(cmd),
    wait = "300ms",
    on_error = "record"
)]
#[outbox]
async fn place<C: Orders>(
    tx: &mut C,
    State(hand): State<Hand>,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
    Json(cmd): Json<Place>,
) -> Created {
    order(tx, &hand, cmd).await
}

#[idempotent(
    key = "{user}/{idempotency_key}",
    fingerprint(cmd),
    wait = "20s",
    detach
)]
#[outbox]
async fn place_detached<C: Orders>(
    tx: &mut C,
    State(hand): State<Hand>,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
    Json(cmd): Json<Place>,
) -> Created {
    order(tx, &hand, cmd).await
}

#[idempotent(key = "{user}/{idempotency_key}", wait = "20s")]
async fn touch<C: Orders>(
    tx: &mut C,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<StatusCode, AppError> {
    tx.run("insert into orders values ('touched')").await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers with whatever the path asks for.
#[idempotent(key = "{at.0}/{at.1}/{idempotency_key}")]
async fn whole<C: Orders>(
    tx: &mut C,
    State(hand): State<Hand>,
    Path(at): Path<(String, String)>,
    idempotency_key: IdempotencyKey,
) -> Result<Response, AppError> {
    hand.run();
    tx.run("insert into orders values ('whole')").await?;
    Ok(match at.1.as_str() {
        "headers" => {
            let mut response = Response::new(Body::from(&b"\x00\xFFbody"[..]));
            *response.status_mut() = StatusCode::NON_AUTHORITATIVE_INFORMATION;
            for (name, value) in [
                ("x-many", &b"1"[..]),
                ("x-many", b"2, 3"),
                ("x-many", b"\xFF"),
                ("content-type", b"image/png"),
                ("set-cookie", b"a=1"),
                ("set-cookie", b"b=2"),
                ("date", b"yesterday"),
                ("connection", b"x-hop"),
                ("x-hop", b"1"),
            ] {
                let value = HeaderValue::from_bytes(value).expect("a value");
                response.headers_mut().append(name, value);
            }
            response
        }
        "empty" => StatusCode::NO_CONTENT.into_response(),
        "stream" => {
            let pieces = futures_util::stream::iter([Ok::<_, sqlx::Error>("a"), Ok("b")]);
            Response::new(Body::from_stream(pieces))
        }
        "large" => "x".repeat(300 * 1024).into_response(),
        status => {
            let status = status.parse().map(StatusCode::from_u16);
            status.expect("a number").expect("a status").into_response()
        }
    })
}

#[idempotent(key = "{user}/{idempotency_key}")]
async fn head<C: Orders>(
    _tx: &mut C,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(StatusCode, HeaderMap, Json<(u8, Option<u8>)>), AppError> {
    let headers = [
        ("location", "/orders/7"),
        ("content-type", "application/x+json"),
    ];
    let headers = headers.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    Ok((
        StatusCode::ACCEPTED,
        headers.into_iter().collect(),
        Json((1, None)),
    ))
}

#[idempotent(key = "{user}/{idempotency_key}")]
async fn unit<C: Orders>(
    tx: &mut C,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
) -> Result<(), AppError> {
    tx.run("insert into orders values ('unit')")
        .await
        .map(drop)
        .map_err(AppError::from)
}

#[idempotent(key = "{user}/{idempotency_key}")]
async fn ratio<C: Orders>(
    tx: &mut C,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
    Json(by): Json<f64>,
) -> Result<(StatusCode, Json<f64>), AppError> {
    tx.run("insert into orders values ('ratio')").await?;
    Ok((StatusCode::CREATED, Json(1.0 / by)))
}

enum SentAt {}
impl Exclude for SentAt {
    const FIELDS: &'static [&'static str] = &["/sent_at"];
}

#[idempotent(key = "{user}/{idempotency_key}", fingerprint(request))]
async fn same<C: Orders>(
    tx: &mut C,
    Path(user): Path<String>,
    idempotency_key: IdempotencyKey,
    Fingerprinted(Json(cmd), request): Fingerprinted<Json<Place>, SentAt>,
) -> Result<Json<String>, AppError> {
    tx.run("insert into orders values ('same')").await?;
    Ok(Json(cmd.item))
}

async fn order<C: Orders>(tx: &mut C, hand: &Hand, cmd: Place) -> Created {
    let run = hand.run();
    let insert = format!("insert into orders values ('{}')", cmd.item);
    tx.run(&insert).await?;
    match cmd.item.as_str() {
        "slow" => hand.hold().await,
        "no tea" => return Err(AppError::NoTea),
        "sold out" => return Err(AppError::SoldOut),
        "rollback" => drop(tx.run("rollback").await?),
        // Once: the retry finds the item fixed.
        "panic" if run == 0 => panic!("the body's own secret"),
        _ => {}
    }
    let placed = Placed {
        item: cmd.item.clone(),
    };
    let receipt = Receipt {
        item: cmd.item,
        run,
    };
    Ok(Emit::new((StatusCode::CREATED, Json(receipt))).event(placed))
}

fn router<DB: ShopDb>(ledger: Ledger<DB>, hand: Hand) -> Router {
    Router::new()
        .route("/{user}/orders", post(place::<DB::Connection>))
        .route("/{user}/detached", post(place_detached::<DB::Connection>))
        .route("/{user}/touch", post(touch::<DB::Connection>))
        .route("/{user}/whole/{kind}", post(whole::<DB::Connection>))
        .route("/{user}/head", post(head::<DB::Connection>))
        .route("/{user}/unit", post(unit::<DB::Connection>))
        .route("/{user}/ratio", post(ratio::<DB::Connection>))
        .route("/{user}/same", post(same::<DB::Connection>))
        .with_state(App { ledger, hand })
}

/// A running server, ended with this value.
pub struct Server<DB: ShopDb> {
    pub db: TestDb<DB>,
    pub ledger: Ledger<DB>,
    pub hand: Hand,
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl<DB: ShopDb> Server<DB> {
    pub async fn start(db: TestDb<DB>) -> Self {
        let ledger = Ledger::new(db.pool().clone());
        ledger.migrate().await.expect("the toolkit's tables");
        let orders = "create table orders (item varchar(100) not null)";
        db.execute(orders).await;
        Self::on(db, ledger).await
    }

    /// A server whose ledger may be of another pool.
    pub async fn on(db: TestDb<DB>, ledger: Ledger<DB>) -> Self {
        let hand = Hand::default();
        let router = router(ledger.clone(), hand.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("a server");
        });
        Self {
            db,
            ledger,
            hand,
            address,
            serving,
        }
    }

    /// Posts an order with this key, as a string of RFC 8941.
    pub async fn post(&self, path: &str, key: &str, item: &str) -> Option<Answer> {
        let key = format!("\"{key}\"");
        let body = format!(r#"{{"item":"{item}"}}"#);
        client::exchange(self.address, &client::post(path, &[key.as_bytes()], &body)).await
    }

    pub async fn order(&self, key: &str, item: &str) -> Answer {
        let answer = self.post("/ann/orders", key, item).await;
        answer.expect("an answer")
    }

    /// Orders, events, claims.
    pub async fn stored(&self) -> (i64, i64, i64) {
        let count = async |table| {
            self.db
                .number(&format!("select count(*) from {table}"))
                .await
        };
        (
            count("orders").await,
            count("effectively_outbox").await,
            count("effectively_claims").await,
        )
    }
}

impl<DB: ShopDb> Drop for Server<DB> {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
