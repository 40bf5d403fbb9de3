//! In axum the annotated function is the handler, and its outcome the response.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRef, Path, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use effectively::{Emit, IdempotencyKey, Ledger, idempotent, outbox};
use serde_json::Value;
use sqlx::{Sqlite, SqliteConnection};
use tower::ServiceExt;

use crate::shop::{AppError, Place, Placed, Receipt, Shop, insert};

#[derive(Clone)]
struct App {
    ledger: Ledger<Sqlite>,
    name: &'static str,
}

impl FromRef<App> for Ledger<Sqlite> {
    fn from_ref(app: &App) -> Self {
        app.ledger.clone()
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        (StatusCode::IM_A_TEAPOT, self.to_string()).into_response()
    }
}

#[idempotent(
    key = "{app.name}/{idempotency_key}",
    fingerprint(cmd),
    on_error = "record"
)]
#[outbox]
#[axum::debug_handler(state = App)]
async fn place(
    tx: &mut SqliteConnection,
    State(app): State<App>,
    idempotency_key: IdempotencyKey,
    Json(cmd): Json<Place>,
) -> Result<Emit<(StatusCode, Json<Receipt>)>, AppError> {
    insert(tx, cmd.id).await?;
    match cmd.id {
        1..100 => Ok(
            Emit::new((StatusCode::CREATED, Json(Receipt { id: cmd.id })))
                .event(Placed { id: cmd.id }),
        ),
        100 => Err(AppError::SoldOut),
        _ => Err(AppError::WarehouseDown),
    }
}

#[outbox]
async fn touch(
    tx: &mut SqliteConnection,
    Path(id): Path<i64>,
) -> Result<Emit<axum::response::Html<&'static str>>, AppError> {
    insert(tx, id).await?;
    Ok(Emit::new(axum::response::Html("<p>")).event(Placed { id }))
}

#[idempotent(key = "{id}")]
async fn accept(tx: &mut SqliteConnection, Path(id): Path<i64>) -> Result<StatusCode, AppError> {
    insert(tx, id).await?;
    Ok(StatusCode::ACCEPTED)
}

#[idempotent(key = "{id}")]
async fn plain(tx: &mut SqliteConnection, Path(id): Path<i64>) -> Result<Vec<i64>, AppError> {
    insert(tx, id).await?;
    Ok(vec![id])
}

fn app(shop: &Shop) -> Router {
    let state = App {
        ledger: shop.ledger.clone(),
        name: "shop",
    };
    Router::new()
        .route("/orders", post(place))
        .route("/touch/{id}", post(touch))
        .route("/accept/{id}", post(accept))
        .route("/plain/{id}", post(plain))
        .with_state(state)
}

async fn answer(
    shop: &Shop,
    path: &str,
    key: Option<&str>,
    id: i64,
) -> (StatusCode, HeaderMap, String) {
    let body = serde_json::to_vec(&Place::of(id)).expect("JSON");
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let request = key.into_iter().fold(request, |request, key| {
        request.header("Idempotency-Key", key)
    });
    let response = app(shop)
        .oneshot(request.body(Body::from(body)).expect("a request"))
        .await
        .expect("a response");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.expect("a body");
    (
        parts.status,
        parts.headers,
        String::from_utf8(bytes.to_vec()).expect("text"),
    )
}

#[tokio::test]
async fn a_replay_is_the_first_response_and_says_so() {
    let shop = Shop::open().await;
    let (status, headers, body) = answer(&shop, "/orders", Some("\"k\""), 7).await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::CREATED, r#"{"id":7}"#)
    );
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert!(!headers.contains_key("idempotent-replayed"));

    let (status, headers, body) = answer(&shop, "/orders", Some("\"k\""), 7).await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::CREATED, r#"{"id":7}"#)
    );
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers["idempotent-replayed"], "true");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!((shop.orders().await, shop.events().await), (1, 1));
}

#[tokio::test]
async fn the_toolkits_errors_answer_by_themselves() {
    let shop = Shop::open().await;
    answer(&shop, "/orders", Some("\"k\""), 7).await;
    let cases = [
        (None, 7, 400, "idempotency_key_missing"),
        (Some("k"), 7, 400, "idempotency_key_invalid"),
        (Some("\"\""), 7, 400, "idempotency_key_invalid"),
        (Some("\"k\""), 8, 422, "idempotency_key_mismatch"),
    ];
    for (key, id, status, code) in cases {
        let (found, headers, body) = answer(&shop, "/orders", key, id).await;
        let problem: Value = serde_json::from_str(&body).expect("problem+json");
        assert_eq!(
            (found.as_u16(), &problem["code"], &problem["status"]),
            (status, &Value::from(code), &Value::from(status))
        );
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert!(
            headers[header::LINK]
                .to_str()
                .expect("text")
                .contains("rel=\"describedby\"")
        );
    }
    assert_eq!(shop.orders().await, 1);
}

#[tokio::test]
async fn a_recorded_refusal_replays_and_another_error_answers_as_the_application_says() {
    let shop = Shop::open().await;
    for replayed in [false, true] {
        let (status, headers, body) = answer(&shop, "/orders", Some("\"a\""), 100).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::CONFLICT, "\"sold out\"")
        );
        assert_eq!(headers.contains_key("idempotent-replayed"), replayed);
    }
    for _ in 0..2 {
        let (status, headers, _) = answer(&shop, "/orders", Some("\"b\""), 200).await;
        assert_eq!(status, StatusCode::IM_A_TEAPOT);
        assert!(!headers.contains_key("idempotent-replayed"));
    }
    assert_eq!((shop.orders().await, shop.events().await), (0, 0));
}

#[tokio::test]
async fn responses_of_every_kind_are_answered() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        let (status, _, body) = answer(&shop, "/accept/1", None, 1).await;
        assert_eq!((status, body.as_str()), (StatusCode::ACCEPTED, ""));
        let (status, headers, body) = answer(&shop, "/plain/1", None, 1).await;
        assert_eq!(
            (status, body.as_str(), &headers[header::CONTENT_TYPE]),
            (
                StatusCode::OK,
                "[1]",
                &"application/json".parse().expect("a value")
            )
        );
        let (status, headers, body) = answer(&shop, "/touch/1", None, 1).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "<p>"));
        assert!(
            headers[header::CONTENT_TYPE]
                .to_str()
                .expect("text")
                .starts_with("text/html")
        );
    }
    assert_eq!((shop.orders().await, shop.events().await), (4, 2));
}
