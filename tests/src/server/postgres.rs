//! PostgreSQL.

use std::net::SocketAddr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres};

use super::{Disposal, TestServer, plain_statements, server_url, unique_name};

const VARIABLE: &str = "EFFECTIVELY_TEST_POSTGRES";

impl TestServer for Postgres {
    const VARIABLE: Option<&'static str> = Some(VARIABLE);

    async fn create() -> (String, Disposal) {
        let (server, name) = (server_url(VARIABLE), unique_name());
        let mut connection = PgConnection::connect(&server)
            .await
            .expect("a connection to the PostgreSQL server");
        // `template0`: nobody can be connected to it, which would make this fail.
        Self::execute(
            &mut connection,
            &format!("create database {name} template template0"),
        )
        .await
        .expect("a new database");
        let _ = connection.close().await;
        let url = Self::options(&server)
            .database(&name)
            .to_url_lossy()
            .to_string();
        let sql = format!("drop database if exists {name} with (force)");
        (url, Disposal::Statements { url: server, sql })
    }

    fn options(url: &str) -> PgConnectOptions {
        url.parse().expect("a URL of PostgreSQL")
    }

    fn address(options: &PgConnectOptions) -> Option<(String, u16)> {
        Some((options.get_host().to_owned(), options.get_port()))
    }

    fn through(options: PgConnectOptions, address: SocketAddr) -> PgConnectOptions {
        options
            .host(&address.ip().to_string())
            .port(address.port())
            .ssl_mode(PgSslMode::Disable)
    }

    async fn busy_sessions(on: &mut PgConnection) -> sqlx::Result<i64> {
        Self::number(
            on,
            "select count(*) from pg_stat_activity where datname = current_database() \
             and backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()",
        )
        .await
    }

    plain_statements!();
}
