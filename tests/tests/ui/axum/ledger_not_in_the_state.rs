use axum::{Json, Router, routing::post};
use effectively::idempotent;
use sqlx::SqliteConnection;

#[derive(Clone)]
struct App;

#[idempotent(key = "{order}")]
async fn place(_tx: &mut SqliteConnection, Json(order): Json<i64>) -> Result<Json<i64>, effectively::Error> {
    Ok(Json(order))
}

fn app() -> Router<App> {
    Router::new().route("/orders", post(place))
}

fn main() {}
