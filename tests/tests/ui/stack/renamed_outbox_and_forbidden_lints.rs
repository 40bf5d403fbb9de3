#![forbid(unused_variables)]

use effectively::{Emit, idempotent, outbox as send_events};
use sqlx::PgConnection;

#[idempotent(key = "{id}")]
#[send_events]
async fn place(tx: &mut PgConnection, id: i64) -> Result<Emit<()>, sqlx::Error> {
    let _ = (tx, id);
    Ok(Emit::new(()))
}

fn main() {}
