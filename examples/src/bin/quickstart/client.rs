//! A client of the shop: sends orders with a key, and keeps what came back.

use std::{fmt, net::SocketAddr};

use effectively_examples::shop::PlaceOrder;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::trouble;

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

/// What a request was answered with.
pub struct Reply {
    pub key: String,
    /// `None`: the connection was closed without an answer.
    pub status: Option<u16>,
    pub replayed: bool,
    pub body: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            http: reqwest::Client::new(),
            address,
        }
    }

    /// One order. The key stays the same for all attempts at it.
    pub async fn order(&self, key: &str, item: &str) -> Reply {
        let request = self
            .http
            .post(format!("http://{}/orders", self.address))
            .header(AUTHORIZATION, "Bearer alice")
            .header("Idempotency-Key", format!("\"{key}\""))
            .json(&PlaceOrder {
                item: item.to_owned(),
            });
        let mut reply = Reply::none(key);
        if let Ok(response) = request.send().await {
            reply.status = Some(response.status().as_u16());
            reply.replayed = response.headers().contains_key("idempotent-replayed");
            reply.body = response.text().await.unwrap_or_default();
        }
        reply
    }

    /// Many orders at the same time.
    pub async fn at_once(
        &self,
        keys: impl IntoIterator<Item = String>,
        item: &'static str,
    ) -> Vec<Reply> {
        let mut orders = JoinSet::new();
        for key in keys {
            let client = self.clone();
            orders.spawn(async move { client.order(&key, item).await });
        }
        orders.join_all().await
    }

    /// Orders a piano and hangs up while the body is at work.
    pub async fn hang_up(&self, key: &str) -> std::io::Result<Reply> {
        let body = format!(r#"{{"item":"{}"}}"#, trouble::PIANO);
        let request = format!(
            "POST /orders HTTP/1.1\r\nHost: shop\r\n{AUTHORIZATION}: Bearer alice\r\nIdempotency-Key: \"{key}\"\r\n\
             {CONTENT_TYPE}: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len(),
        );
        let mut connection = TcpStream::connect(self.address).await?;
        connection.write_all(request.as_bytes()).await?;
        trouble::LIFTING.notified().await;
        Ok(Reply::none(key)) // dropping the connection closes it
    }
}

impl Reply {
    fn none(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            status: None,
            replayed: false,
            body: String::new(),
        }
    }

    pub fn is_placed(&self) -> bool {
        self.status == Some(201)
    }
}

/// `201`, `201 replayed`, `422 idempotency_key_mismatch`, or that there is none.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(status) = self.status else {
            return f.write_str("no answer");
        };
        write!(f, "{status}")?;
        if self.replayed {
            f.write_str(" replayed")?;
        }
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        match problem["code"].as_str() {
            Some(code) => write!(f, " {code}"),
            None => Ok(()),
        }
    }
}
