//! A user of the database needs the rights that the guide lists, and a right that is missing is named.

use std::time::Duration;

use effectively::{ErrorKind, Ledger, Relay, sink::Memory};
use effectively_tests::{TestDb, eventually, on_every_database};
use sqlx::Pool;
use sqlx::pool::PoolOptions;

use crate::shop::{SOON, Shop, ShopDb, kind, order_on, refused};

on_every_database!([postgres, mysql]
    the_rights_of_the_guide_are_enough_for_a_handler,
    the_rights_of_the_guide_are_enough_for_a_relay,
    the_rights_of_the_guide_are_enough_to_migrate,
    a_missing_right_of_a_handler_is_named_and_frees_the_key,
    a_relay_without_its_rights_says_so_and_ends,
    a_migration_without_its_rights_says_so,
);

const ALL: &str = "select, insert, update, delete";
/// A user without any right. Users belong to the whole server: it goes at the end of its test.
struct User<'a, DB: ShopDb> {
    db: &'a TestDb<DB>,
    name: String,
}

impl<'a, DB: ShopDb> User<'a, DB> {
    async fn new(db: &'a TestDb<DB>) -> Self {
        let (database, create) = match DB::NAME {
            "PostgreSQL" => ("select current_database()::text", "create role {name}"),
            _ => (
                "select database()",
                "create user {name} identified by 'secret'",
            ),
        };
        let database = db.texts(database).await.concat();
        // 32 characters, the longest name on MySQL.
        let name = format!("u_{}", &database[database.len() - 24..]);
        db.execute(&create.replace("{name}", &name)).await;
        Self { db, name }
    }

    async fn grant(&self, rights: &str, table: &str) {
        let grant = format!("grant {rights} on {table} to {}", self.name);
        self.db.execute(&grant).await;
    }

    /// With rights on the application's own table.
    async fn of_handlers(db: &'a TestDb<DB>, tables: &[(&str, &str)]) -> Self {
        let user = Self::new(db).await;
        user.grant("insert", "orders").await;
        for (table, rights) in tables {
            user.grant(rights, &format!("effectively_{table}")).await;
        }
        user
    }

    fn pool(&self) -> Pool<DB> {
        let options = PoolOptions::new().max_connections(2);
        if DB::NAME == "PostgreSQL" {
            let becomes = format!("set role {}", self.name);
            let options = options.after_connect(move |conn, _| {
                let becomes = becomes.clone();
                Box::pin(async move { DB::execute(conn, &becomes).await.map(drop) })
            });
            return self.db.pool_from(options, None);
        }
        let (_, place) = self.db.url().split_once('@').expect("a user in the URL");
        let url = format!("mysql://{}:secret@{place}", self.name);
        options.connect_lazy_with(DB::options(&url))
    }

    async fn drop(self) {
        let drop = match DB::NAME {
            "PostgreSQL" => "drop owned by {name} cascade; drop role {name}",
            _ => "drop user {name}",
        };
        self.db.execute(&drop.replace("{name}", &self.name)).await;
    }
}

const OF_HANDLERS: [(&str, &str); 3] = [
    ("claims", ALL),
    ("outbox", "select, insert"),
    ("migrations", "select"),
];

async fn the_rights_of_the_guide_are_enough_for_a_handler<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let user = User::of_handlers(&shop.db, &OF_HANDLERS).await;
    let ledger = Ledger::new(user.pool());
    for expected in [false, true] {
        let answer = order_on(&ledger, &shop.runs, "a", Duration::ZERO).await;
        assert_eq!(answer.expect("an answer").is_replay(), expected);
    }
    shop.expire().await;
    let again = order_on(&ledger, &shop.runs, "a", Duration::ZERO).await;
    assert!(!again.expect("an answer").is_replay());
    assert_eq!(ledger.purge().await.expect("a purge"), 0);
    ledger.migrate().await.expect("nothing left to do");
    user.drop().await;
}

async fn the_rights_of_the_guide_are_enough_for_a_relay<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    shop.order("a").await.expect("an answer");
    let user = User::new(&shop.db).await;
    let every_table = match DB::NAME {
        "PostgreSQL" => "all tables in schema public".to_owned(),
        _ => format!("{}.*", shop.db.texts("select database()").await.concat()),
    };
    user.grant(ALL, &every_table).await;
    let sink = Memory::new();
    let relay = Relay::builder(Ledger::new(user.pool()))
        .route("orders", sink.clone())
        .keep_published(Duration::from_secs(60));
    let relay = relay.build().expect("a relay");
    let published = eventually(SOON, async || shop.events().await == 0);
    relay.run(published).await.expect("a relay that ends");
    assert_eq!(sink.published().len(), 1);
    user.drop().await;
}

async fn the_rights_of_the_guide_are_enough_to_migrate<DB: ShopDb>(db: TestDb<DB>) {
    let user = User::new(&db).await;
    match DB::NAME {
        "PostgreSQL" => user.grant("create", "schema public").await,
        _ => {
            let rights = "create, alter, drop, index, select, insert, update, delete";
            let database = db.texts("select database()").await.concat();
            user.grant(rights, &format!("{database}.*")).await;
        }
    }
    let ledger = Ledger::new(user.pool());
    ledger.migrate().await.expect("the toolkit's tables");
    ledger.pool().close().await;
    user.drop().await;
}

async fn a_missing_right_of_a_handler_is_named_and_frees_the_key<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    for (missing, right) in [
        ("migrations", "select"),
        ("claims", "insert"),
        ("outbox", "insert"),
    ] {
        let rights = OF_HANDLERS.map(|(table, rights)| match table == missing {
            false => (table, rights.to_owned()),
            true => {
                let others = rights.split(", ").filter(|other| *other != right);
                (table, others.collect::<Vec<_>>().join(", "))
            }
        });
        let rights: Vec<_> = rights
            .iter()
            .map(|(table, rights)| (*table, rights.as_str()))
            .collect();
        let rights: Vec<_> = rights
            .into_iter()
            .filter(|(_, rights)| !rights.is_empty())
            .collect();
        let user = User::of_handlers(&shop.db, &rights).await;
        let ledger = Ledger::new(user.pool());
        let answer = order_on(&ledger, &shop.runs, missing, Duration::ZERO).await;
        assert_eq!(
            kind(&answer),
            Some(ErrorKind::RightsMissing { on: missing })
        );
        assert!(!format!("{answer:?}").contains(&user.name));
        user.drop().await;
        shop.assert_free(missing).await;
    }
}

async fn a_relay_without_its_rights_says_so_and_ends<DB: ShopDb>(db: TestDb<DB>) {
    let shop = Shop::open(db).await;
    let user = User::new(&shop.db).await;
    user.grant("insert", "orders").await;
    let relay = Relay::builder(Ledger::new(user.pool())).route("orders", Memory::new());
    let relay = relay.build().expect("a relay");
    let ended = tokio::time::timeout(SOON, relay.run(std::future::pending())).await;
    let ended = refused(ended.expect("it ends by itself"));
    assert_eq!(ended, ErrorKind::RightsMissing { on: "migrations" });
    user.drop().await;
}

async fn a_migration_without_its_rights_says_so<DB: ShopDb>(db: TestDb<DB>) {
    db.execute("create table orders (item varchar(100) not null)")
        .await;
    let user = User::new(&db).await;
    user.grant("select", "orders").await;
    let ledger = Ledger::new(user.pool());
    let migrated = refused(ledger.migrate().await);
    assert!(
        matches!(migrated, ErrorKind::RightsMissing { .. }),
        "{migrated:?}"
    );
    user.drop().await;
}
