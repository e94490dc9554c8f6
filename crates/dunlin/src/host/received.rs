//! What waits for the application: messages, and what else has happened.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use dunlin_core::topic::Levels;
use dunlin_core::{QoS, Receipt};

use super::error::{Error, Reason};
use super::pool::Pooled;
use super::queue::Queue;
use super::waiters::{Ticket, Waiters};

/// A message that arrived. Short ones need no heap; those above 16 KiB lie where they were received.
#[derive(Clone)]
pub struct Message {
    body: Body,
    about: About,
}

/// What is known of a message besides its bytes.
#[derive(Clone, Copy)]
struct About {
    /// Where in its bytes the topic name is, and the payload, which is the last.
    topic_at: u32,
    payload_at: u32,
    end: u32,
    topic_len: u16,
    qos: QoS,
    retain: bool,
    dup: bool,
    receipt: Option<Receipt>,
}

/// Topic name and payload, and perhaps more of the packet.
#[derive(Clone)]
enum Body {
    Short(Short),
    Long(Box<[u8]>),
    Packet(Pooled),
}

/// Aligned as what stands around it, so that it is copied in large pieces.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Short([u8; SHORT]);

/// Most bytes of topic and payload together that a message keeps in itself.
const SHORT: usize = 64;

impl Message {
    /// No message yet.
    pub(crate) const EMPTY: Self = Self {
        body: Body::Short(Short([0; SHORT])),
        about: About {
            topic_at: 0,
            payload_at: 0,
            end: 0,
            topic_len: 0,
            qos: QoS::AtMostOnce,
            retain: false,
            dup: false,
            receipt: None,
        },
    };

    /// With its own copy of topic and payload.
    pub(crate) fn copy(message: &dunlin_core::Message<'_>) -> Self {
        let mut owned = Self::EMPTY;
        owned.set(message);
        owned
    }

    /// Makes this one a copy of another.
    #[inline]
    pub(crate) fn set(&mut self, message: &dunlin_core::Message<'_>) {
        self.put(message.topic.as_bytes(), message.payload);
        self.describe(message);
    }

    /// Copies topic and payload.
    #[inline]
    pub(crate) fn put(&mut self, topic: &[u8], payload: &[u8]) {
        let end = topic.len() + payload.len();
        match &mut self.body {
            Body::Short(Short(bytes)) if end <= SHORT => {
                let (name, rest) = bytes.split_at_mut(topic.len());
                name.copy_from_slice(topic);
                rest[..payload.len()].copy_from_slice(payload);
            }
            body => *body = Body::Long([topic, payload].concat().into_boxed_slice()),
        }
        self.place(0, topic.len(), topic.len(), end);
    }

    /// For the buffer that holds its packet of so many bytes, and nothing else: [`lie_in`](Self::lie_in) that.
    pub(crate) fn whole(message: &dunlin_core::Message<'_>, packet: usize) -> Self {
        let id_len = if message.qos == QoS::AtMostOnce { 0 } else { 2 };
        let topic_len = message.topic.as_bytes().len();
        let payload_at = packet - message.payload.len();
        let mut owned = Self::EMPTY;
        owned.describe(message);
        owned.place(payload_at - id_len - topic_len, topic_len, payload_at, packet);
        owned
    }

    pub(crate) fn lie_in(&mut self, packet: Vec<u8>) {
        self.body = Body::Packet(Pooled::new(packet));
    }

    /// Moves it out. What stays has no heap.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        match &mut self.body {
            Body::Short(bytes) => Self { body: Body::Short(*bytes), about: self.about },
            Body::Long(_) | Body::Packet(_) => std::mem::replace(self, Self::EMPTY),
        }
    }

    #[inline]
    fn describe(&mut self, message: &dunlin_core::Message<'_>) {
        self.about.qos = message.qos;
        self.about.retain = message.retain;
        self.about.dup = message.dup;
        self.about.receipt = message.receipt();
    }

    /// Says where in its bytes the topic name begins, how long that is, where the payload begins, and where it ends.
    #[inline]
    fn place(&mut self, topic_at: usize, topic_len: usize, payload_at: usize, end: usize) {
        // A packet has less than 2^28 bytes.
        let short = |n: usize| u32::try_from(n).unwrap_or_default();
        self.about.topic_at = short(topic_at);
        self.about.topic_len = u16::try_from(topic_len).unwrap_or_default();
        self.about.payload_at = short(payload_at);
        self.about.end = short(end);
    }

    fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Short(Short(bytes)) => bytes,
            Body::Long(bytes) => bytes,
            Body::Packet(bytes) => bytes,
        }
    }

    /// The topic name it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        let name =
            self.bytes().get(self.about.topic_at as usize..).and_then(|rest| rest.get(..self.about.topic_len.into()));
        std::str::from_utf8(name.unwrap_or_default()).unwrap_or_default()
    }

    /// Its payload, possibly empty.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes().get(self.about.payload_at as usize..self.about.end as usize).unwrap_or_default()
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
        self.about.qos
    }

    /// Whether the server had kept it before this client subscribed.
    #[must_use]
    pub const fn is_retain(&self) -> bool {
        self.about.retain
    }

    /// Whether the server may have sent it before. At QoS 1 it may have been handled already.
    #[must_use]
    pub const fn is_dup(&self) -> bool {
        self.about.dup
    }

    /// What stands for it in the session; `None` at QoS 0.
    #[must_use]
    pub const fn receipt(&self) -> Option<Receipt> {
        self.about.receipt
    }

    /// Bytes of memory that it takes, roughly.
    pub(crate) fn len(&self) -> usize {
        self.about.end as usize + size_of::<Self>()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        let facts = |message: &Self| (message.qos(), message.is_retain(), message.is_dup(), message.receipt());
        facts(self) == facts(other) && self.topic() == other.topic() && self.payload() == other.payload()
    }
}

impl Eq for Message {}

/// Shows how long the payload is, not what is in it.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_len", &self.payload().len())
            .field("qos", &self.about.qos)
            .field("retain", &self.about.retain)
            .field("dup", &self.about.dup)
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
    messages: Queue,
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

/// Messages that the application's side has taken at once, to give them out one by one without a lock of the driver's.
#[derive(Default)]
pub(crate) struct Batch {
    messages: Queue,
    bytes: usize,
    /// With so many left, or none, there may be room for the driver again.
    feed_at: usize,
}

/// Count and bytes of the messages in a batch, for the driver to see: a little late, but not when it is told to look.
#[derive(Default)]
pub(crate) struct InBatch {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl InBatch {
    pub fn get(&self) -> (usize, usize) {
        (self.count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub fn set(&self, batch: &Batch) {
        self.count.store(batch.messages.len(), Ordering::Relaxed);
        self.bytes.store(batch.bytes, Ordering::Relaxed);
    }
}

impl Batch {
    /// The message that is next, which `pop` then gives; `None`: there is none. Otherwise it is told whether there may
    /// be room for the driver again.
    #[inline]
    pub fn take_next(&mut self, count: &InBatch) -> Option<bool> {
        self.bytes -= self.messages.front()?.len();
        let left = self.messages.len() - 1;
        count.count.store(left, Ordering::Relaxed);
        count.bytes.store(self.bytes, Ordering::Relaxed);
        Some(left == 0 || left == self.feed_at)
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Message> {
        self.messages.pop()
    }

    #[cfg(feature = "tokio")]
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Events that wait for the application; then the oldest go.
const EVENTS: usize = 1024;

impl Inward {
    /// Takes what the driver brings, so many bytes of messages; the wakers are to be woken outside of all locks.
    pub fn bring(&mut self, messages: &mut Queue, bytes: usize, events: &mut Vec<Event>, wake: &mut Vec<Waker>) {
        if self.discards {
            *messages = Queue::default();
        }
        if !messages.is_empty() {
            self.bytes += bytes;
            wake.extend(self.readers.take(messages.len()));
            self.messages.append(messages);
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

    /// How many more messages, and bytes of them, fit beside those in a batch.
    pub fn room(&self, (messages, bytes): (usize, usize), in_batch: (usize, usize)) -> (usize, usize) {
        (messages.saturating_sub(self.messages.len() + in_batch.0), bytes.saturating_sub(self.bytes + in_batch.1))
    }

    /// The driver, which has stopped reading since there was no room, is about to sleep: it is to be woken when half of
    /// the queue is empty. `false`: it is already.
    pub fn starve(&mut self, (messages, bytes): (usize, usize), in_batch: (usize, usize)) -> bool {
        let (count, sum) = (self.messages.len() + in_batch.0, self.bytes + in_batch.1);
        self.is_starving = count > messages / 2 || sum > bytes / 2;
        self.is_starving
    }

    /// No more will come.
    pub fn end(&mut self, reason: Reason, wake: &mut Vec<Waker>) {
        self.ended = Some(reason);
        wake.extend(self.readers.take(usize::MAX));
        wake.extend(self.watchers.take(usize::MAX));
    }

    /// The next message, when `batch` is empty: that takes all behind it. Without a waker nobody waits, and an empty
    /// queue is `Pending`.
    pub fn next(
        &mut self,
        batch: &mut Batch,
        limit: (usize, usize),
        ticket: &mut Ticket,
        waker: Option<&Waker>,
    ) -> Poll<Result<Message, Error>> {
        let Some(first) = self.messages.pop() else {
            return wait(&mut self.readers, &self.ended, ticket, waker);
        };
        self.readers.leave(ticket);
        batch.bytes = std::mem::take(&mut self.bytes) - first.len();
        batch.feed_at = limit.0 / 2;
        std::mem::swap(&mut self.messages, &mut batch.messages);
        Poll::Ready(Ok(first))
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
    pub fn leave(&mut self, batch: &Batch, ticket: &mut Ticket) -> Option<Waker> {
        let was_woken = *ticket != 0 && !self.readers.leave(ticket);
        let is_empty = self.messages.is_empty() && batch.messages.is_empty();
        if was_woken && !is_empty { self.readers.take(1).next() } else { None }
    }

    /// As [`leave`](Self::leave), for events.
    pub fn leave_events(&mut self, ticket: &mut Ticket) -> Option<Waker> {
        let was_woken = *ticket != 0 && !self.watchers.leave(ticket);
        if was_woken && !self.events.is_empty() { self.watchers.take(1).next() } else { None }
    }

    /// Whether a driver that starves is to be woken.
    pub fn feeds(&mut self, limit: (usize, usize), in_batch: (usize, usize)) -> bool {
        self.is_starving && !self.starve(limit, in_batch)
    }

    pub fn is_starving(&self) -> bool {
        self.is_starving
    }

    /// Nobody will take messages any more.
    #[cfg(feature = "tokio")]
    pub fn discard(&mut self) {
        self.discards = true;
        self.messages = Queue::default();
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
