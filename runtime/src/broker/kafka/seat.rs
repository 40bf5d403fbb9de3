//! One virtual partition's transactional producer. Everything here blocks.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{ClientConfig, error::KafkaError, producer::Producer};
use tokio::runtime::Handle;

use super::{
    client::{Client, Topics},
    progress::Progress,
    reason, refusal,
    round::Round,
    transaction::{Failure, all, insist, is_fenced},
};
use crate::model::{
    Envelope, EventRef,
    delivery::{Delivery, Unavailable},
};

pub(crate) struct Seat {
    /// With the transactional id.
    pub(crate) config: ClientConfig,
    pub(crate) progress: Progress,
    pub(crate) topics: Arc<Topics>,
    /// `transaction.timeout.ms`.
    pub(crate) timeout: Duration,
    /// None after anything unclear: what the broker makes of a late request must not hit the next transaction.
    pub(crate) client: Option<Client>,
    /// What the progress record holds: published, and perhaps still in the outbox.
    pub(crate) published: HashSet<EventRef>,
    /// Why nothing is published until the partition is assigned again.
    pub(crate) closed: Option<&'static str>,
}

impl Seat {
    /// Makes the producer anew. That shuts out a former holder and ends its transaction; only then the record is final.
    pub(crate) fn open(&mut self) -> Result<(), Unavailable> {
        self.client = None;
        let unavailable = |error: KafkaError| Unavailable::new(reason(&error));
        let client = Client::new(&self.config).map_err(unavailable)?;
        let end = Instant::now() + self.timeout;
        insist(end, || client.init_transactions(self.timeout)).map_err(unavailable)?;
        if self
            .topics
            .look_up(&client, &self.progress.topic, self.timeout)
            .is_err()
        {
            return Err(Unavailable::new(
                "the topic of the progress records is not there",
            ));
        }
        self.published = self.progress.read().map_err(unavailable)?;
        self.client = Some(client);
        Ok(())
    }

    fn ensure_open(&mut self) -> Result<(), Unavailable> {
        if self.client.is_none() {
            self.open()
        } else {
            Ok(())
        }
    }

    pub(crate) fn close(&mut self, why: &'static str) {
        self.client = None;
        self.closed = Some(why);
    }

    pub(crate) fn publish(&mut self, batch: &[Envelope]) -> Vec<Delivery> {
        let mut round = Round::new(batch);
        if let Err(unavailable) = self.publish_in(&mut round) {
            for (answer, event) in round.answers.iter_mut().zip(batch) {
                let there = self.published.contains(&event.into());
                answer.get_or_insert_with(|| match there {
                    true => Delivery::Published,
                    false => Delivery::Unavailable(unavailable.clone()),
                });
            }
        }
        round.finish()
    }

    fn publish_in(&mut self, round: &mut Round<'_>) -> Result<(), Unavailable> {
        if let Some(why) = self.closed {
            return Err(Unavailable::new(why));
        }
        self.ensure_open()?;
        self.answer_without_sending(round);
        let mut parts = VecDeque::from([round.open()]);
        while let Some(mut part) = parts.pop_front() {
            part.retain(|place| round.is_open(*place));
            if part.is_empty() {
                continue;
            }
            self.ensure_open()?;
            match self.transact(round, &mut part) {
                Ok(()) => part
                    .iter()
                    .for_each(|place| round.answer(*place, Delivery::Published)),
                Err(Failure::Refused(why)) if part.len() == 1 => {
                    self.topics.forget(&round.batch[part[0]].topic);
                    round.answer(part[0], why);
                }
                // Which of them is to blame is not known: they shared a request. Halving finds it.
                Err(Failure::Refused(_)) => {
                    parts.push_front(part.split_off(part.len() / 2));
                    parts.push_front(part);
                }
                // To make the producer anew would shut out the rightful holder.
                Err(Failure::Fenced) => {
                    self.close("another relay has taken over the partition");
                    return Err(Unavailable::new(
                        "another relay has taken over the partition",
                    ));
                }
                Err(Failure::Unclear(unavailable)) => {
                    // The record tells which of the two it was. If it cannot be read now, the next call reads it.
                    _ = self.open();
                    return Err(unavailable);
                }
            }
        }
        Ok(())
    }

    /// What the record holds is published; what has no topic is refused.
    fn answer_without_sending(&self, round: &mut Round<'_>) {
        for (place, event) in round.batch.iter().enumerate() {
            if self.published.contains(&event.into()) {
                round.answer(place, Delivery::Published);
            } else if let (true, Some(client)) = (round.is_open(place), &self.client)
                && let Err(answer) = self.topics.look_up(client, &event.topic, self.timeout)
            {
                round.answer(place, answer);
            }
        }
    }

    /// One transaction with the events at these places, and the record. Takes out those that are too large to be queued.
    fn transact(&mut self, round: &mut Round<'_>, part: &mut Vec<usize>) -> Result<(), Failure> {
        let Some(client) = self.client.take() else {
            return Err(Failure::Unclear(Unavailable::new("there is no producer")));
        };
        let result = self.transact_with(&client, round, part);
        // The client's own verdict is the last word: the error of one record may be only what follows from it.
        let fenced = client.fatal().is_some_and(is_fenced);
        match result {
            Err(Failure::Unclear(_)) if fenced => Err(Failure::Fenced),
            // Nothing but a commit leaves a producer that may begin again. After an abort librdkafka may still throw away what
            // belongs to the next transaction, and a broker may end it by a late request. So the next one begins by fencing this.
            Ok(()) => {
                self.client = Some(client);
                result
            }
            other => other,
        }
    }

    fn transact_with(
        &mut self,
        client: &Client,
        round: &mut Round<'_>,
        part: &mut Vec<usize>,
    ) -> Result<(), Failure> {
        let end = Instant::now() + self.timeout;
        client.begin_transaction()?;
        let mut deliveries = Vec::with_capacity(part.len());
        let mut failure = None;
        part.retain(|place| {
            // What is left out after a failure stays in the part, which is sent again in halves.
            if failure.is_some() {
                return true;
            }
            if !round.is_open(*place) {
                return false;
            }
            match client.enqueue(&round.batch[*place]) {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => match refusal(&error) {
                    Some(answer) => {
                        round.answer(*place, answer);
                        return false;
                    }
                    None => failure = Some(error),
                },
            }
            true
        });
        if part.is_empty() {
            insist(end, || client.commit_transaction(self.timeout))?;
            return Ok(());
        }
        // If an event could not be queued, an earlier one may have been refused already, and that is the reason.
        let sent = Handle::current().block_on(all(deliveries));
        if let Err(error) = sent.and(failure.map_or(Ok(()), Err)) {
            let Some(answer) = refusal(&error) else {
                return Err(error.into());
            };
            // Consumers need not wait for it, and it tells whether another has the transactional id by now.
            insist(end, || client.abort_transaction(self.timeout))?;
            return Err(Failure::Refused(answer));
        }
        // All of the batch that is published, so that the record never forgets an event which the relay has not settled.
        let of_part = part.iter().map(|place| &round.batch[*place]);
        let of_before = round
            .batch
            .iter()
            .filter(|event| self.published.contains(&EventRef::from(*event)));
        let events: Vec<EventRef> = of_before.chain(of_part).map(EventRef::from).collect();
        for (offsets, group) in self.progress.write(&events)? {
            insist(end, || {
                client.send_offsets_to_transaction(&offsets, group, self.timeout)
            })?;
        }
        insist(end, || client.commit_transaction(self.timeout))?;
        self.published = events.into_iter().collect();
        Ok(())
    }
}
