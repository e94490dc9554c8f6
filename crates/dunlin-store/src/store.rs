//! What a session needs to survive, and what keeps it: [`Store`].

use core::fmt;
use core::future::Future;
use core::pin::pin;

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Topic};

use crate::block::block_on;

/// Keeps the state of one session where a power cut does not reach.
///
/// Each method returns when what it was given is on stable storage: after a power cut inside of it, all of it or none
/// of it is there (of several marks, a part from the front). So it is after [`Medium`](StoreError::Medium) and
/// [`Unreliable`](StoreError::Unreliable); after any other error it is not there. [`FlashStore`] and [`FileStore`] are such stores; [`Durable`] puts one under a session.
///
/// A message is known by its `order`, a number that rises with each message that is put, and comes round after 2^32.
///
/// [`FlashStore`]: crate::FlashStore
/// [`FileStore`]: crate::FileStore
/// [`Durable`]: crate::Durable
#[expect(async_fn_in_trait, reason = "stores for devices are not Send, and those for hosts are named")]
pub trait Store {
    /// What the medium says when it fails.
    type Error: fmt::Debug;

    /// Keeps an outgoing message at QoS 1 or 2.
    ///
    /// # Errors
    /// [`Full`](StoreError::Full): no room now. [`TooLarge`](StoreError::TooLarge): there will never be.
    async fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), StoreError<Self::Error>>;

    /// Keeps what became of messages, in this order. Room for it is set aside when a message is put.
    ///
    /// # Errors
    /// The medium failed; the marks are to be asked for again.
    async fn mark(&mut self, marks: &[Mark]) -> Result<(), StoreError<Self::Error>>;

    /// Fills `out` with the payload of a message from `offset` on.
    ///
    /// # Errors
    /// [`Unreliable`](StoreError::Unreliable): there are not so many bytes, or the message is not there.
    async fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> Result<(), StoreError<Self::Error>>;

    /// Keeps a filter that was subscribed to at run time. One that is there already is replaced.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    async fn subscribe(&mut self, filter: &Filter<'_>) -> Result<(), StoreError<Self::Error>>;

    /// Forgets a filter.
    ///
    /// # Errors
    /// The medium failed.
    async fn unsubscribe(&mut self, filter: &str) -> Result<(), StoreError<Self::Error>>;

    /// Looks for what is kept, one entry at a time, counted from 0: identifiers received, released messages in the order
    /// of their marks, messages in their order, filters.
    ///
    /// # Errors
    /// The medium failed.
    async fn seek(&mut self, index: usize) -> Result<(), StoreError<Self::Error>>;

    /// The entry that was looked for last, until something else is asked; `None` behind the last one.
    fn found(&self) -> Option<Entry<'_>>;

    /// [`seek`](Self::seek) and [`found`](Self::found) in one.
    ///
    /// # Errors
    /// The medium failed.
    async fn entry(&mut self, index: usize) -> Result<Option<Entry<'_>>, StoreError<Self::Error>> {
        self.seek(index).await?;
        Ok(self.found())
    }

    /// Does one of the above, and waits until it is done. Stores that are never pending, or for which a future costs more
    /// than the call, have a way of their own.
    ///
    /// # Errors
    /// Those of what is to be done.
    fn run(&mut self, job: Job<'_>) -> Result<(), StoreError<Self::Error>> {
        match job {
            Job::Put { id, order, publish } => block_on(pin!(self.put(id, order, publish))),
            Job::Mark(marks) => block_on(pin!(self.mark(marks))),
            Job::Read { order, offset, out } => block_on(pin!(self.read(order, offset, out))),
            Job::Subscribe(filter) => block_on(pin!(self.subscribe(filter))),
            Job::Unsubscribe(filter) => block_on(pin!(self.unsubscribe(filter))),
            Job::Seek(index) => block_on(pin!(self.seek(index))),
        }
    }

    /// The identifier of the message that was put last, and an order that no message is beyond.
    fn last(&self) -> Option<(PacketId, u32)>;

    /// What was found that could not be read, when the store was opened.
    fn damage(&self) -> Damage;
}

/// A store that lies elsewhere, in a static for example.
impl<S: Store> Store for &mut S {
    type Error = S::Error;

    fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> impl Future<Output = Outcome<S>> {
        S::put(self, id, order, publish)
    }

    fn mark(&mut self, marks: &[Mark]) -> impl Future<Output = Outcome<S>> {
        S::mark(self, marks)
    }

    fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> impl Future<Output = Outcome<S>> {
        S::read(self, order, offset, out)
    }

    fn subscribe(&mut self, filter: &Filter<'_>) -> impl Future<Output = Outcome<S>> {
        S::subscribe(self, filter)
    }

    fn unsubscribe(&mut self, filter: &str) -> impl Future<Output = Outcome<S>> {
        S::unsubscribe(self, filter)
    }

    fn seek(&mut self, index: usize) -> impl Future<Output = Outcome<S>> {
        S::seek(self, index)
    }

    fn run(&mut self, job: Job<'_>) -> Outcome<S> {
        S::run(self, job)
    }

    fn found(&self) -> Option<Entry<'_>> {
        S::found(self)
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        S::last(self)
    }

    fn damage(&self) -> Damage {
        S::damage(self)
    }
}

type Outcome<S> = Result<(), StoreError<<S as Store>::Error>>;

/// What a store is asked to do: the arguments of the method of [`Store`] with this name.
#[derive(Debug)]
pub enum Job<'a> {
    /// See [`Store::put`].
    Put {
        /// The packet identifier of the message.
        id: PacketId,
        /// Its place in the order of messages.
        order: u32,
        /// The message.
        publish: &'a Publish<'a>,
    },
    /// See [`Store::mark`].
    Mark(&'a [Mark]),
    /// See [`Store::read`].
    Read {
        /// The message.
        order: u32,
        /// The first byte of its payload that is wanted.
        offset: usize,
        /// Where the bytes go.
        out: &'a mut [u8],
    },
    /// See [`Store::subscribe`].
    Subscribe(&'a Filter<'a>),
    /// See [`Store::unsubscribe`].
    Unsubscribe(&'a str),
    /// See [`Store::seek`].
    Seek(usize),
}

/// One thing that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// An outgoing QoS 2 message past PUBREC.
    Released(PacketId),
    /// An outgoing message that was not acknowledged.
    Message {
        /// Its packet identifier.
        id: PacketId,
        /// Its place in the order of messages, and the name of its payload.
        order: u32,
        /// Its topic name.
        topic: Topic<'a>,
        /// Its quality of service.
        qos: QoS,
        /// Whether the server is to keep it.
        retain: bool,
        /// Bytes of its payload.
        len: u32,
    },
    /// An incoming QoS 2 message that was handled.
    Received(PacketId),
    /// A filter that was subscribed to at run time.
    Subscription {
        /// The filter.
        filter: Topic<'a>,
        /// The quality of service that was asked for.
        qos: QoS,
    },
}

/// What a store could not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Records that were written whole and cannot be read any more. What they held is lost: a message, or what became
    /// of one.
    pub records: u32,
    /// Nothing could be read: flash was erased, a file was put aside.
    pub is_reset: bool,
}

/// Why a store did not keep something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError<E> {
    /// No room now; some appears when messages are acknowledged.
    Full,
    /// It can never fit: see the limits of the store.
    TooLarge,
    /// It was written and reads back as something else, again and again: the medium is worn out.
    Unreliable,
    /// The store is of a newer format than this program knows. It was not touched.
    Newer {
        /// The format's number.
        format: u8,
    },
    /// The store is of an older format than this program reads. It was not touched. Let the program that wrote it deliver
    /// what is in it, then erase it.
    Older {
        /// The format's number.
        format: u8,
    },
    /// The store holds more than this program has room for in its tables; it was not touched. Enlarge them.
    TooSmall,
    /// The region is no place for a store: its bounds are not those of pages, or it has fewer than two.
    Region,
    /// The medium failed.
    Medium(E),
}

impl<E: fmt::Display> fmt::Display for StoreError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the store is full"),
            Self::TooLarge => f.write_str("larger than the store can keep"),
            Self::Unreliable => f.write_str("what was written reads back as something else"),
            Self::Newer { format } => write!(f, "the store has format {format}, which is newer than this program"),
            Self::Older { format } => write!(f, "the store has format {format}, which this program does not read"),
            Self::TooSmall => f.write_str("the store holds more than this program has tables for"),
            Self::Region => f.write_str("the region is no place for a store"),
            Self::Medium(error) => write!(f, "the medium failed: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for StoreError<E> {}
