//! Message queues: visibility timeouts in real time, at-least-once delivery.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

#[derive(Clone, Debug)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// Market time.
    pub sent_at: DateTime<Utc>,
    pub receives: u32,
    hidden_until: Option<Instant>,
}

impl Message {
    /// Valid for this message whoever received it last.
    pub fn receipt(&self) -> String {
        format!("{}#{}", self.id, self.receives)
    }

    fn is_visible(&self, now: Instant) -> bool {
        self.hidden_until.is_none_or(|until| until <= now)
    }
}

/// The queues by name, each with its messages, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Queues(BTreeMap<String, Vec<Message>>);

impl Queues {
    pub fn create(&mut self, queue: &str) {
        self.0.entry(queue.to_owned()).or_default();
    }

    pub fn exists(&self, queue: &str) -> bool {
        self.0.contains_key(queue)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn send(&mut self, queue: &str, id: &str, body: String, sent_at: DateTime<Utc>) {
        if let Some(messages) = self.0.get_mut(queue) {
            messages.push(Message { id: id.to_owned(), body, sent_at, receives: 0, hidden_until: None });
        }
    }

    /// Up to `most` messages, which nobody else receives for `hidden_for`.
    pub fn receive(&mut self, queue: &str, most: usize, hidden_for: Duration, now: Instant) -> Vec<Message> {
        let visible = self.0.get_mut(queue).into_iter().flatten().filter(|message| message.is_visible(now)).take(most);
        visible
            .map(|message| {
                message.receives += 1;
                message.hidden_until = Some(now + hidden_for);
                message.clone()
            })
            .collect()
    }

    /// The message that a receipt belongs to, while it is in the queue.
    pub fn by_receipt(&self, queue: &str, receipt: &str) -> Option<&str> {
        let id = receipt.split('#').next()?;
        self.0.get(queue)?.iter().find(|message| message.id == id).map(|message| message.id.as_str())
    }

    pub fn hide(&mut self, queue: &str, id: &str, hidden_for: Duration, now: Instant) {
        for message in self.0.get_mut(queue).into_iter().flatten().filter(|message| message.id == id) {
            message.hidden_until = Some(now + hidden_for);
        }
    }

    pub fn forget(&mut self, queue: &str, id: &str) {
        if let Some(messages) = self.0.get_mut(queue) {
            messages.retain(|message| message.id != id);
        }
    }

    /// Messages waiting, and messages that somebody has received and not deleted yet.
    pub fn counts(&self, queue: &str, now: Instant) -> (usize, usize) {
        let messages = self.0.get(queue).map(Vec::as_slice).unwrap_or_default();
        let visible = messages.iter().filter(|message| message.is_visible(now)).count();
        (visible, messages.len() - visible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_deleted_comes_again_after_its_visibility_timeout() {
        let (mut queues, now) = (Queues::default(), Instant::now());
        queues.create("q");
        queues.send("q", "m", "hello".into(), DateTime::UNIX_EPOCH);
        let first = queues.receive("q", 10, Duration::from_secs(30), now);
        assert_eq!(first.len(), 1);
        assert!(queues.receive("q", 10, Duration::from_secs(30), now + Duration::from_secs(29)).is_empty());
        assert_eq!(queues.receive("q", 10, Duration::from_secs(30), now + Duration::from_secs(30))[0].receives, 2);
        let id = queues.by_receipt("q", &first[0].receipt()).unwrap().to_owned();
        queues.forget("q", &id);
        assert_eq!(queues.counts("q", now + Duration::from_secs(90)), (0, 0));
    }
}
