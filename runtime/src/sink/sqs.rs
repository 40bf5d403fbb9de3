//! Amazon SQS, by the crate [`aws_sdk_sqs`]. Feature `sqs`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::SendMessageBatchRequestEntry as Entry,
};
use tokio::time::timeout;

use super::{Delivery, Sink};
use crate::{
    broker::sqs::message,
    model::{Envelope, limits::LONGEST_TIMEOUT},
};

/// Sends each event to the queue of its topic, up to ten in one request.
///
/// ```no_run
/// use effectively::sink::sqs::Sqs;
///
/// # fn sink(client: aws_sdk_sqs::Client) {
/// // The topic `orders.placed` goes to the queue `orders-placed.fifo`, all others too go to FIFO queues.
/// let sink = Sqs::new(client).fifo();
/// # }
/// ```
///
/// # What a consumer gets
/// The body is the event in the JSON format of CloudEvents, `data` last. The own headers are message
/// attributes of type `String`. SQS takes at most ten of them, with letters, digits, `_`, `-` and `.` in their names and with a
/// value: an event with others is refused for good.
///
/// # What SQS promises
/// A queue whose name ends in `.fifo` gets the event's id as deduplication id, so repeats within five
/// minutes are dropped there, and the partition key as message group (its SHA-256 if it is none that SQS takes; the event's id
/// if there is no key). Any other queue keeps no order and delivers at least once. Look for repeats by `id` in both.
#[derive(Debug)]
pub struct Sqs {
    client: Client,
    /// Queue URLs by topic.
    queues: Mutex<HashMap<String, String>>,
    suffix: &'static str,
    max_bytes: usize,
    timeout: Duration,
}

impl Sqs {
    /// A sink by this client, with its region, credentials, retries and HTTP stack. A topic's queue is called like it, with `-`
    /// for each `.`; its URL is asked for once.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            queues: Mutex::default(),
            suffix: "",
            max_bytes: 262_144,
            timeout: Duration::from_secs(10),
        }
    }

    /// Puts `.fifo` behind each queue's name. Default: no.
    pub fn fifo(mut self) -> Self {
        self.suffix = ".fifo";
        self
    }

    /// Sends the events of this topic to the queue with this URL, without asking SQS for it.
    pub fn queue(self, topic: impl Into<String>, url: impl Into<String>) -> Self {
        self.remember(topic.into(), url.into());
        self
    }

    /// The most bytes of one message and of one request's messages together, attributes included; larger events are refused for
    /// good. Default: 262,144. SQS takes 1,048,576 since 2025, if the queue's `MaximumMessageSize` says so.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How long a batch may take, at most a day; what is not confirmed by then counts as unavailable. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST_TIMEOUT);
        self
    }

    fn remember(&self, topic: String, url: String) {
        let queues = self.queues.lock();
        let mut queues = queues.unwrap_or_else(PoisonError::into_inner);
        queues.insert(topic, url);
    }

    async fn url(&self, topic: &str) -> Result<String, Delivery> {
        let known = {
            let queues = self.queues.lock();
            let queues = queues.unwrap_or_else(PoisonError::into_inner);
            queues.get(topic).cloned()
        };
        if let Some(url) = known {
            return Ok(url);
        }
        let name = format!("{}{}", topic.replace('.', "-"), self.suffix);
        let answer = self.client.get_queue_url().queue_name(name).send().await;
        let url = answer.map_err(|error| failure(&error))?.queue_url;
        let url = url.ok_or_else(|| Delivery::unavailable("SQS gave no URL of the queue"))?;
        self.remember(topic.to_owned(), url.clone());
        Ok(url)
    }

    async fn send_all(&self, batch: &[Envelope], answers: &mut [Delivery]) {
        let mut topics: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, event) in batch.iter().enumerate() {
            topics.entry(&event.topic).or_default().push(place);
        }
        for (topic, places) in topics {
            match self.url(topic).await {
                Ok(url) => self.send_to(&url, batch, places, answers).await,
                Err(answer) => fill(answers, places, &answer),
            }
        }
    }

    async fn send_to(
        &self,
        url: &str,
        batch: &[Envelope],
        places: Vec<usize>,
        answers: &mut [Delivery],
    ) {
        let (mut entries, mut total) = (Vec::new(), 0);
        for place in places {
            let message = message(&batch[place], url.ends_with(".fifo"), self.max_bytes);
            let (entry, bytes) = match message {
                // The place is the message's id in the request: the answer names it.
                Ok((entry, bytes)) => (entry.id(place.to_string()).build(), bytes),
                Err(answer) => {
                    answers[place] = answer;
                    continue;
                }
            };
            if entries.len() == 10 || total + bytes > self.max_bytes {
                self.send(url, std::mem::take(&mut entries), answers).await;
                total = 0;
            }
            entries.extend(entry);
            total += bytes;
        }
        if !entries.is_empty() {
            self.send(url, entries, answers).await;
        }
    }

    /// One request. If SQS refuses it as a whole, one for each message: one bad message must not refuse the others.
    async fn send(&self, url: &str, entries: Vec<Entry>, answers: &mut [Delivery]) {
        match self.request(url, entries.clone(), answers).await {
            Err(Delivery::Rejected(_)) if entries.len() > 1 => {
                for entry in entries {
                    let place = place(&entry.id);
                    if let Err(answer) = self.request(url, vec![entry], answers).await {
                        fill(answers, place, &answer);
                    }
                }
            }
            Err(answer) => fill(
                answers,
                entries.iter().filter_map(|entry| place(&entry.id)),
                &answer,
            ),
            Ok(()) => {}
        }
    }

    async fn request(
        &self,
        url: &str,
        entries: Vec<Entry>,
        answers: &mut [Delivery],
    ) -> Result<(), Delivery> {
        let request = self.client.send_message_batch().queue_url(url);
        let output = request.set_entries(Some(entries)).send().await;
        let output = output.map_err(|error| failure(&error))?;
        // What is in neither list stays unavailable.
        for sent in &output.successful {
            fill(answers, place(&sent.id), &Delivery::Published);
        }
        for failed in &output.failed {
            let reason = format!("SQS answered {}", failed.code);
            let answer = match failed.sender_fault && !failed.code.starts_with("Kms") {
                true => Delivery::rejected(reason),
                false => Delivery::unavailable(reason),
            };
            fill(answers, place(&failed.id), &answer);
        }
        Ok(())
    }
}

fn place(id: &str) -> Option<usize> {
    id.parse().ok()
}

fn fill(answers: &mut [Delivery], places: impl IntoIterator<Item = usize>, answer: &Delivery) {
    for place in places {
        if let Some(there) = answers.get_mut(place) {
            *there = answer.clone();
        }
    }
}

/// Of an error no more than its code: the text may quote what was sent.
fn failure<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Delivery {
    let code = match error {
        SdkError::ServiceError(error) => error.err().code().unwrap_or("an error"),
        SdkError::ConstructionFailure(_) => {
            return Delivery::unavailable("no request could be made");
        }
        SdkError::TimeoutError(_) => return Delivery::unavailable(TOO_LATE),
        _ => return Delivery::unavailable("SQS cannot be reached"),
    };
    let reason = format!("SQS answered {code}");
    match code.trim_start_matches("AWS.SimpleQueueService.") {
        "BatchRequestTooLong" => Delivery::refused_for_good(reason),
        "QueueDoesNotExist"
        | "NonExistentQueue"
        | "InvalidAddress"
        | "InvalidAttributeValue"
        | "InvalidMessageContents"
        | "InvalidParameterCombination"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "UnsupportedOperation" => Delivery::rejected(reason),
        // Throttling, credentials, keys of KMS, its own faults: not about these events.
        _ => Delivery::unavailable(reason),
    }
}

const TOO_LATE: &str = "SQS did not confirm it in time";

impl Sink for Sqs {
    async fn publish(&self, batch: &[Envelope]) -> Vec<Delivery> {
        // What is confirmed in time stays so, whatever happens to the rest.
        let mut answers = vec![Delivery::unavailable(TOO_LATE); batch.len()];
        _ = timeout(self.timeout, self.send_all(batch, &mut answers)).await;
        answers
    }
}
