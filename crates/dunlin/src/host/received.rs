//! What waits for the application: messages, and what else has happened.

use std::collections::VecDeque;
use std::fmt;
use std::task::{Poll, Waker};
use std::time::Duration;

use dunlin_core::topic::Levels;
use dunlin_core::{QoS, Receipt};
use smallvec::SmallVec;

use super::error::{Error, Reason};
use super::waiters::{Ticket, Waiters};

/// A message that arrived, with its own copy of topic and payload. Short ones need no heap.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name, then payload.
    bytes: SmallVec<[u8; SHORT]>,
    topic_len: usize,
    qos: QoS,
    retain: bool,
    dup: bool,
    receipt: Option<Receipt>,
}

/// Most bytes of topic and payload together that a message keeps in itself.
const SHORT: usize = 64;

impl Message {
    #[inline]
    pub(crate) fn copy(message: &dunlin_core::Message<'_>) -> Self {
        let topic = message.topic.as_bytes();
        let mut bytes = SmallVec::with_capacity(topic.len() + message.payload.len());
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(message.payload);
        Self {
            bytes,
            topic_len: topic.len(),
            qos: message.qos,
            retain: message.retain,
            dup: message.dup,
            receipt: message.receipt(),
        }
    }

    /// The topic name it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.topic_len]).unwrap_or_default()
    }

    /// Its payload, possibly empty.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.topic_len..]
    }

    /// The payload as text, if it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.payload()).ok()
    }

    /// The levels of the topic name, for a slice pattern.
    #[must_use]
    pub fn levels(&self) -> Levels<'_> {
        Levels::of(self.topic())
    }

    /// The quality of service it came with, at most what was subscribed.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Whether the server had kept it before this client subscribed.
    #[must_use]
    pub const fn is_retain(&self) -> bool {
        self.retain
    }

    /// Whether the server may have sent it before. At QoS 1 it may have been handled already.
    #[must_use]
    pub const fn is_dup(&self) -> bool {
        self.dup
    }

    /// What stands for it in the session; `None` at QoS 0.
    #[must_use]
    pub const fn receipt(&self) -> Option<Receipt> {
        self.receipt
    }

    /// Bytes of memory that it takes, roughly.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

/// Shows how long the payload is, not what is in it.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_len", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .finish()
    }
}

/// What happened besides messages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server accepted a connection.
    Connected {
        /// It went on with the session of an earlier connection. If not, everything is being subscribed to again.
        resumed: bool,
    },
    /// A connection ended, or could not be made.
    Disconnected {
        /// Why.
        reason: Reason,
        /// When the next attempt is made; `None`: never, the client has ended.
        retry_in: Option<Duration>,
    },
    /// The server refused a subscription, on the request or when the session subscribed again.
    SubscriptionRefused {
        /// The filter.
        filter: String,
    },
    /// A message was longer than [`max_packet`](super::Builder::max_packet) and passed by.
    Skipped {
        /// Its quality of service.
        qos: QoS,
        /// Bytes of the whole packet.
        len: usize,
    },
    /// The server lost the session after it had taken this QoS 2 message and before it said so: whether it reached its
    /// subscribers is unknown. The number is that of its [`Delivery`](super::Delivery).
    Forgotten(u64),
    /// The message with this number was pushed out by a newer one before it was ever sent.
    Replaced(u64),
    /// So many events were dropped here, the oldest ones, since nobody took them.
    Missed(u64),
}

/// The queues between driver and application.
#[derive(Default)]
pub(crate) struct Inward {
    messages: VecDeque<Message>,
    bytes: usize,
    readers: Waiters,
    events: VecDeque<Event>,
    missed: u64,
    watchers: Waiters,
    /// The driver sleeps and has stopped reading since the queue was full.
    is_starving: bool,
    /// Nobody will take messages any more.
    discards: bool,
    ended: Option<Reason>,
}

/// Events that wait for the application; then the oldest go.
const EVENTS: usize = 1024;

impl Inward {
    /// Takes what the driver brings; the wakers are to be woken outside of all locks.
    pub fn bring(&mut self, messages: &mut VecDeque<Message>, events: &mut Vec<Event>, wake: &mut Vec<Waker>) {
        if self.discards {
            messages.clear();
        }
        if !messages.is_empty() {
            self.bytes += messages.iter().map(Message::len).sum::<usize>();
            wake.extend(self.readers.take(messages.len()));
            if self.messages.is_empty() {
                std::mem::swap(&mut self.messages, messages);
            } else {
                self.messages.append(messages);
            }
        }
        for event in events.drain(..) {
            if self.events.len() >= EVENTS {
                self.events.pop_front();
                self.missed += 1;
            }
            self.events.push_back(event);
            wake.extend(self.watchers.take(1));
        }
    }

    /// How many more messages, and bytes of them, fit.
    pub fn room(&self, (messages, bytes): (usize, usize)) -> (usize, usize) {
        (messages.saturating_sub(self.messages.len()), bytes.saturating_sub(self.bytes))
    }

    /// The driver, which has stopped reading since there was no room, is about to sleep: it is to be woken when half of
    /// the queue is empty. `false`: it is already.
    pub fn starve(&mut self, (messages, bytes): (usize, usize)) -> bool {
        self.is_starving = self.messages.len() > messages / 2 || self.bytes > bytes / 2;
        self.is_starving
    }

    /// No more will come.
    pub fn end(&mut self, reason: Reason, wake: &mut Vec<Waker>) {
        self.ended = Some(reason);
        wake.extend(self.readers.take(usize::MAX));
        wake.extend(self.watchers.take(usize::MAX));
    }

    /// The next message. Without a waker nobody waits, and an empty queue is `Pending`.
    pub fn next(&mut self, ticket: &mut Ticket, waker: Option<&Waker>) -> Poll<Result<Message, Error>> {
        if let Some(message) = self.messages.pop_front() {
            self.readers.leave(ticket);
            self.bytes -= message.len();
            return Poll::Ready(Ok(message));
        }
        wait(&mut self.readers, &self.ended, ticket, waker)
    }

    /// The next event, likewise.
    pub fn next_event(&mut self, ticket: &mut Ticket, waker: Option<&Waker>) -> Poll<Result<Event, Error>> {
        if self.missed > 0 {
            return Poll::Ready(Ok(Event::Missed(std::mem::take(&mut self.missed))));
        }
        if let Some(event) = self.events.pop_front() {
            self.watchers.leave(ticket);
            return Poll::Ready(Ok(event));
        }
        wait(&mut self.watchers, &self.ended, ticket, waker)
    }

    /// A wait for messages is given up. If it had just been woken, someone else is to have what is there.
    pub fn leave(&mut self, ticket: &mut Ticket) -> Option<Waker> {
        let was_woken = *ticket != 0 && !self.readers.leave(ticket);
        if was_woken && !self.messages.is_empty() { self.readers.take(1).next() } else { None }
    }

    /// As [`leave`](Self::leave), for events.
    pub fn leave_events(&mut self, ticket: &mut Ticket) -> Option<Waker> {
        let was_woken = *ticket != 0 && !self.watchers.leave(ticket);
        if was_woken && !self.events.is_empty() { self.watchers.take(1).next() } else { None }
    }

    /// Whether a driver that starves is to be woken.
    pub fn feeds(&mut self, limit: (usize, usize)) -> bool {
        self.is_starving && !self.starve(limit)
    }

    pub fn is_starving(&self) -> bool {
        self.is_starving
    }

    /// Nobody will take messages any more.
    #[cfg(feature = "tokio")]
    pub fn discard(&mut self) {
        self.discards = true;
        self.messages.clear();
        self.bytes = 0;
    }

    pub fn waiting_count(&self) -> usize {
        self.messages.len()
    }
}

fn wait<T>(
    waiters: &mut Waiters,
    ended: &Option<Reason>,
    ticket: &mut Ticket,
    waker: Option<&Waker>,
) -> Poll<Result<T, Error>> {
    if let Some(reason) = ended {
        return Poll::Ready(Err(Error::Ended(reason.clone())));
    }
    if let Some(waker) = waker {
        waiters.wait(ticket, waker);
    }
    Poll::Pending
}
