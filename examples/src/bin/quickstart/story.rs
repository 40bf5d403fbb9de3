//! What happens to the shop: one request after the other, and what the order table held before and after.

use std::{collections::BTreeMap, error::Error, net::SocketAddr};

use sqlx::SqlitePool;

use crate::{
    client::{Client, Reply},
    trouble::{PIANO, VASE},
};

pub struct Story {
    pub rows: Vec<Row>,
    /// The orders that a client was told are placed: their keys, and the first answer.
    pub acknowledged: BTreeMap<String, String>,
}

pub struct Row {
    pub request: &'static str,
    pub answers: String,
    pub before: i64,
    pub after: i64,
}

pub async fn tell(address: SocketAddr, pool: &SqlitePool) -> Result<Story, Box<dyn Error>> {
    let client = Client::new(address);
    let mut story = Story {
        rows: Vec::new(),
        acknowledged: BTreeMap::new(),
    };

    story
        .add(
            pool,
            "one order",
            vec![client.order("lamp", "a lamp").await],
        )
        .await?;
    story
        .add(
            pool,
            "the same request again",
            vec![client.order("lamp", "a lamp").await],
        )
        .await?;

    let one_key = (0..100).map(|_| "desk".to_owned());
    story
        .add(
            pool,
            "100 at once with one key",
            client.at_once(one_key, "a desk").await,
        )
        .await?;

    let many_keys = (1..=100).map(|n| format!("chair-{n}"));
    story
        .add(
            pool,
            "100 at once with 100 keys",
            client.at_once(many_keys, "a chair").await,
        )
        .await?;

    story
        .add(
            pool,
            "another body, a used key",
            vec![client.order("lamp", "ten lamps").await],
        )
        .await?;

    story
        .add(
            pool,
            "the body panics",
            vec![client.order("vase", VASE).await],
        )
        .await?;
    story
        .add(
            pool,
            "... the client retries",
            vec![client.order("vase", VASE).await],
        )
        .await?;

    story
        .add(
            pool,
            "the client hangs up midway",
            vec![client.hang_up("piano").await?],
        )
        .await?;
    story
        .add(
            pool,
            "... and retries",
            vec![client.order("piano", PIANO).await],
        )
        .await?;
    Ok(story)
}

impl Story {
    async fn add(
        &mut self,
        pool: &SqlitePool,
        request: &'static str,
        replies: Vec<Reply>,
    ) -> Result<(), sqlx::Error> {
        let before = self.rows.last().map_or(0, |row| row.after);
        let after = sqlx::query_scalar("select count(*) from orders")
            .fetch_one(pool)
            .await?;
        let answers = self.summary(replies);
        self.rows.push(Row {
            request,
            answers,
            before,
            after,
        });
        Ok(())
    }

    /// How often each answer came, and whether each replay had the bytes of the first answer.
    fn summary(&mut self, replies: Vec<Reply>) -> String {
        let mut answers = BTreeMap::<String, usize>::new();
        let (mut replays, mut same) = (0, 0);
        for reply in &replies {
            *answers.entry(reply.to_string()).or_default() += 1;
        }
        for reply in replies.into_iter().filter(Reply::is_placed) {
            let first = self
                .acknowledged
                .entry(reply.key)
                .or_insert(reply.body.clone());
            replays += usize::from(reply.replayed);
            same += usize::from(reply.replayed && *first == reply.body);
        }
        let mut summary: Vec<_> = answers
            .into_iter()
            .map(|(answer, n)| {
                if n == 1 {
                    answer
                } else {
                    format!("{n} x {answer}")
                }
            })
            .collect();
        match replays {
            0 => {}
            _ if same == replays => summary.push("same bytes".to_owned()),
            _ => summary.push(format!("{} with OTHER BYTES", replays - same)),
        }
        summary.join(", ")
    }
}
