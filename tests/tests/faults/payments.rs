//! C7: each order moves one coin from one account to another, so that a call of which a part stayed shows in the sums.

use effectively_tests::TestDb;

use crate::marks::key_of;
use crate::shop::ShopDb;

/// Accounts that pay and accounts that are paid. Nobody waits for another in a circle, as each call has one of either kind.
const PAYING: u64 = 4;
const PAID: u64 = 3;

pub async fn open<DB: ShopDb>(db: &TestDb<DB>) {
    db.execute("create table accounts (id int primary key, balance int not null)")
        .await;
    for id in 0..PAYING + PAID {
        db.execute(&format!("insert into accounts values ({id}, 0)"))
            .await;
    }
}

/// Pays for the order with this mark.
pub async fn pay<DB: ShopDb>(tx: &mut DB::Connection, mark: &str) -> sqlx::Result<()> {
    let number: u64 = key_of(mark)
        .trim_start_matches('k')
        .parse()
        .unwrap_or_default();
    let (from, to) = (number % PAYING, PAYING + number % PAID);
    for (change, id) in [("- 1", from), ("+ 1", to)] {
        let update = format!("update accounts set balance = balance {change} where id = {id}");
        DB::execute(tx, &update).await?;
    }
    Ok(())
}

/// Whether so many orders are paid for, and each by a coin that an account lacks.
pub async fn are_of<DB: ShopDb>(db: &TestDb<DB>, orders: usize) -> bool {
    let sums = format!(
        "select count(*) from (select sum(case when id < {PAYING} then balance else 0 end) as paid, \
         sum(balance) as total from accounts) as sums where paid = -{orders} and total = 0"
    );
    db.number(&sums).await == 1
}
