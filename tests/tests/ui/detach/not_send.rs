use effectively::idempotent;
use sqlx::SqliteConnection;

#[idempotent(key = "{order}", detach)]
async fn place(_tx: &mut SqliteConnection, order: i64, note: std::rc::Rc<str>) -> Result<i64, sqlx::Error> {
    drop(note);
    Ok(order)
}

fn main() {}
