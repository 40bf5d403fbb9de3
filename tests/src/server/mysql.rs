//! MySQL and MariaDB.

use std::net::SocketAddr;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, MySql, MySqlConnection};

use super::{Disposal, TestServer, plain_statements, server_url, unique_name};

const VARIABLE: &str = "EFFECTIVELY_TEST_MYSQL";

impl TestServer for MySql {
    const VARIABLE: Option<&'static str> = Some(VARIABLE);
    // A session that only sits in an open transaction is `Sleep` in the process list: the engine's own table knows it.
    const BUSY_SESSIONS: &'static str = "select count(*) from information_schema.processlist \
        where db = database() and id <> connection_id() \
        and (command <> 'Sleep' or id in (select trx_mysql_thread_id from information_schema.innodb_trx))";

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

    plain_statements!();
}
