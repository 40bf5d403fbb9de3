use axum::Json;
use effectively::{Ledger, idempotent};
use sqlx::{Sqlite, SqliteConnection};

#[idempotent(key = "{order}")]
#[axum::debug_handler(state = Ledger<Sqlite>)]
async fn place(_tx: &mut SqliteConnection, Json(order): Json<i64>) -> Result<Json<i64>, sqlx::Error> {
    Ok(Json(order))
}

fn main() {}
