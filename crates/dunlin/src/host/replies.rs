//! Answers that are waited for: which topics they come on, and who waits.
//!
//! MQTT 3.1.1 knows no request and no answer: the topic alone says that a message is one. Whoever asked first on a
//! topic gets the first answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use dunlin_core::topic::is_name;
use dunlin_core::{PublishError, QoS};
use rustc_hash::FxHashMap;

use super::error::Error;
use super::received::Message;
use super::{Host, Pending, wake};

#[derive(Default)]
pub(crate) struct Replies {
    topics: FxHashMap<String, Topic>,
    waiting: FxHashMap<u64, Waiting>,
    last: u64,
}

#[derive(Default)]
struct Topic {
    /// Those who have no answer yet, in the order in which they asked.
    queue: VecDeque<u64>,
    /// How many there are who have not gone, with or without an answer.
    count: usize,
    /// Subscribed for the sake of the answers alone.
    is_subscribed: bool,
}

#[derive(Default)]
struct Waiting {
    answer: Option<Message>,
    waker: Option<Waker>,
}

/// One who waits for an answer.
pub(crate) struct Reply {
    host: Arc<Host>,
    topic: String,
    number: u64,
}

impl Replies {
    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether somebody waits for a message on this topic.
    pub fn wants(&self, topic: &str) -> bool {
        !self.topics.is_empty() && self.topics.get(topic).is_some_and(|topic| !topic.queue.is_empty())
    }

    /// A message that is wanted; gives who is to be woken.
    pub fn bring(&mut self, message: Message) -> Option<Waker> {
        let number = self.topics.get_mut(message.topic())?.queue.pop_front()?;
        let waiting = self.waiting.get_mut(&number)?;
        waiting.answer = Some(message);
        waiting.waker.take()
    }

    /// The subscription to this topic stays when nobody waits for answers there any more.
    pub fn keep(&mut self, topic: &str) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.is_subscribed = false;
        }
    }

    pub fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.waiting.values_mut().filter_map(|waiting| waiting.waker.take())
    }
}

impl Host {
    /// From now on the next message on this topic, unless it is a retained one, is an answer. Subscribes if no filter
    /// covers the topic.
    pub fn expect_reply(self: &Arc<Self>, topic: &str, qos: QoS) -> Result<(Reply, Option<Pending>), Error> {
        if !is_name(topic) {
            return Err(PublishError::InvalidTopic.into());
        }
        let mut state = self.state();
        state.check_open()?;
        // All with one lock, so that nobody unsubscribes in between.
        let is_covered = state.requests.covers(topic);
        let request = if is_covered { None } else { Some(state.subscribe_for_now(&[(topic, qos)])?) };
        let driver = request.as_ref().and_then(|_| state.call_driver());
        let replies = &mut state.replies;
        replies.last += 1;
        let number = replies.last;
        replies.waiting.insert(number, Waiting::default());
        let entry = replies.topics.entry(topic.to_owned()).or_default();
        entry.queue.push_back(number);
        entry.count += 1;
        entry.is_subscribed |= !is_covered;
        drop(state);
        wake(driver);
        let pending = request.map(|(number, filters)| Pending { host: self.clone(), number, filters });
        Ok((Reply { host: self.clone(), topic: topic.to_owned(), number }, pending))
    }
}

impl Reply {
    pub fn poll(&self, waker: &Waker) -> Poll<Result<Message, Error>> {
        let mut state = self.host.state();
        let Some(waiting) = state.replies.waiting.get_mut(&self.number) else { return Poll::Pending };
        if let Some(answer) = waiting.answer.take() {
            return Poll::Ready(Ok(answer));
        }
        waiting.waker = Some(waker.clone());
        if let Some(reason) = &state.ended {
            return Poll::Ready(Err(Error::Ended(reason.clone())));
        }
        let driver = self.host.if_starving(&mut state);
        drop(state);
        wake(driver);
        Poll::Pending
    }
}

/// With the last one who waits on a topic goes the subscription that was made for it.
impl Drop for Reply {
    fn drop(&mut self) {
        let mut state = self.host.state();
        state.replies.waiting.remove(&self.number);
        let Some(topic) = state.replies.topics.get_mut(&self.topic) else { return };
        topic.queue.retain(|number| *number != self.number);
        topic.count -= 1;
        if topic.count > 0 {
            return;
        }
        let is_subscribed = topic.is_subscribed;
        state.replies.topics.remove(&self.topic);
        if !is_subscribed {
            return;
        }
        // Without room for the request the subscription stays, which does no harm.
        let Ok(number) = state.unsubscribe_for_now(&[&self.topic]) else { return };
        state.requests.drop_token(number);
        let driver = state.call_driver();
        drop(state);
        wake(driver);
    }
}
