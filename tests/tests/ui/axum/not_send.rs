use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}")]
#[axum::debug_handler(state = effectively::Ledger<sqlx::Sqlite>)]
async fn place(tx: &mut SqliteConnection, axum::Json(order): axum::Json<i64>) -> Result<axum::Json<i64>, effectively::Error> {
    let shared = std::rc::Rc::new(order);
    sqlx::query("select 1").execute(&mut *tx).await.ok();
    Ok(axum::Json(*shared))
}

fn main() {}
