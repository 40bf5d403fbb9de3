//! MySQL and MariaDB.

use std::net::SocketAddr;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, MySql, MySqlConnection, Row};

use super::{Disposal, TestServer, plain_statements, server_url, unique_name};

const VARIABLE: &str = "EFFECTIVELY_TEST_MYSQL";

impl TestServer for MySql {
    const VARIABLE: Option<&'static str> = Some(VARIABLE);

    async fn create() -> (String, Disposal) {
        let (server, name) = (server_url(VARIABLE), unique_name());
        let mut connection = MySqlConnection::connect(&server)
            .await
            .expect("a connection to the MySQL server");
        Self::execute(
            &mut connection,
            &format!("create database {name} character set utf8mb4"),
        )
        .await
        .expect("a new database");
        let _ = connection.close().await;
        let url = Self::options(&server)
            .database(&name)
            .to_url_lossy()
            .to_string();
        // A session that a test left in a transaction holds a lock on its tables; the default would wait for it for a day.
        let sql = format!("set session lock_wait_timeout = 2; drop database if exists {name}");
        (url, Disposal::Statements { url: server, sql })
    }

    fn options(url: &str) -> MySqlConnectOptions {
        url.parse().expect("a URL of MySQL")
    }

    fn address(options: &MySqlConnectOptions) -> Option<(String, u16)> {
        Some((options.get_host().to_owned(), options.get_port()))
    }

    fn through(options: MySqlConnectOptions, address: SocketAddr) -> MySqlConnectOptions {
        options
            .host(&address.ip().to_string())
            .port(address.port())
            .ssl_mode(MySqlSslMode::Disabled)
    }

    /// A session that only sits in its transaction is `Sleep` in the list of processes. The engine knows better, but its table
    /// `innodb_trx` is a copy that is not renewed while others keep reading it; its report is fresh.
    async fn busy_sessions(on: &mut MySqlConnection) -> sqlx::Result<i64> {
        let version = Self::texts(on, "select version()").await?.concat();
        let sessions = format!(
            "select concat(id, ' ', command) from {} where db = database() and id <> connection_id()",
            process_list(&version)
        );
        let sessions = Self::texts(on, &sessions).await?;
        let report: String = sqlx::raw_sql("show engine innodb status")
            .fetch_one(on)
            .await?
            .try_get("Status")?;
        let in_transaction = threads_in_a_transaction(&report);
        let busy = |session: &&String| {
            let (id, command) = session.split_once(' ').unwrap_or((session, ""));
            command != "Sleep" || in_transaction.contains(&id)
        };
        Ok(sessions.iter().filter(busy).count() as i64)
    }

    plain_statements!();
}

/// The table of the sessions. MySQL's in `information_schema` cannot be read while any session's statement holds bytes that are no
/// UTF-8, such as the parameters of a finish; MariaDB's `performance_schema` is off.
pub fn process_list(version: &str) -> &'static str {
    if is_mariadb(version) {
        "information_schema.processlist"
    } else {
        "performance_schema.processlist"
    }
}

/// By what `select version()` answers.
pub fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

/// `---TRANSACTION 42, ACTIVE 3 sec` and, some lines below, `MariaDB thread id 7, OS thread handle …`, or `MySQL thread id 7, …`.
fn threads_in_a_transaction(report: &str) -> Vec<&str> {
    let blocks = report.split("---TRANSACTION ").skip(1);
    let active = blocks.filter(|block| {
        !block
            .lines()
            .next()
            .is_some_and(|head| head.contains("not started"))
    });
    active
        .filter_map(|block| block.split_once(" thread id ")?.1.split(',').next())
        .collect()
}
