//! A session and its store, in the order that makes both survive a power cut: store first, then send.

use core::fmt;

use dunlin_core::{
    Event, External, Fault, Filter, Inbox, Instant, Mark, PacketId, Publish, QoS, Ready, RestoreError, Restored,
    Session, Stage, SubscribeError, Transmit,
};

use crate::block::block_on;
use crate::store::{Damage, Entry, Store, StoreError};

/// Marks that are stored at a time.
const BATCH: usize = 8;

/// A session whose messages survive a power cut at any instruction.
///
/// Used as the session is; the difference is in what returns when: [`publish`](Self::publish) returns when the message
/// is stored, and [`transmit`](Self::transmit) stores what became of messages before the packets that depend on it
/// leave. Payloads lie in the store only; the session's memory holds their topics.
///
/// Each method that touches the store comes in two forms, one that waits and one for executors (`…_async`). A future
/// that is dropped is a power cut for the store and for what was being stored, and for nothing else.
///
/// Make the session with [`Options::durable`](dunlin_core::Options::durable).
pub struct Durable<'s, S> {
    session: Session<'s>,
    store: S,
    /// The order of the next message.
    order: u32,
    recovery: Recovery,
}

/// What came back after a restart, and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Messages that go out again.
    pub messages: u32,
    /// Messages past PUBREC, whose exchange is brought to its end.
    pub released: u32,
    /// Identifiers of incoming messages that will not be shown again.
    pub received: u32,
    /// Filters that are subscribed to again.
    pub subscriptions: u32,
    /// Messages that are stored and for which the session has no room: its memory is smaller than it was. They follow
    /// at later connections, and until then nothing new is accepted.
    pub waiting: u32,
    /// Identifiers of incoming messages and filters for which the session has no room: a message may be shown again,
    /// a filter is not subscribed to.
    pub given_up: u32,
    /// What the store could not read.
    pub damage: Damage,
}

/// Why a message was not accepted. Nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError<E> {
    /// The session refused.
    Session(dunlin_core::PublishError),
    /// The store refused.
    Store(StoreError<E>),
}

/// Why a filter was not subscribed to. Nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterError<E> {
    /// The session refused.
    Session(SubscribeError),
    /// The store refused.
    Store(StoreError<E>),
}

impl<'s, S: Store> Durable<'s, S> {
    /// Gives a new session what the store kept. [`recovery`](Self::recovery) tells what that was.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn recover(session: Session<'s>, store: S) -> Result<Self, StoreError<S::Error>> {
        block_on(Self::recover_async(session, store))
    }

    /// As [`recover`](Self::recover), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn recover_async(session: Session<'s>, store: S) -> Result<Self, StoreError<S::Error>> {
        let last = store.last();
        let recovery = Recovery { damage: store.damage(), ..Recovery::default() };
        let order = last.map_or(0, |(_, order)| order.wrapping_add(1));
        let mut durable = Self { session, store, order, recovery };
        if let Some(next) = last.and_then(|(id, _)| PacketId::new(id.get().checked_add(1).unwrap_or(1))) {
            // There is always room for it.
            let _ = durable.session.restore(Restored::NextId(next));
        }
        durable.restore().await?;
        // Reading all of it may have shown more.
        durable.recovery.damage = durable.store.damage();
        Ok(durable)
    }

    /// What came back after the restart, and what did not.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Everything the store keeps, as far as the session has room. What it has already is not given again.
    async fn restore(&mut self) -> Result<(), StoreError<S::Error>> {
        let Recovery { messages, released, .. } = self.recovery;
        let mut waiting = 0_u32;
        let (mut has_messages, mut index) = (messages, 0);
        let mut has_released = released;
        while let Some(entry) = self.store.entry(index).await? {
            index = index.saturating_add(1);
            let restored = match entry {
                Entry::Released(id) => Restored::Released(id),
                Entry::Message { id, order, head, len } => {
                    Restored::External { id, publish: head, payload: External { key: order, len } }
                }
                Entry::Received(id) => Restored::Received(id),
                Entry::Subscription(filter) => Restored::Subscription(filter),
            };
            let is_outgoing = matches!(restored, Restored::Released(_) | Restored::External { .. });
            // Messages keep their order: behind one that waits, all wait.
            let outcome =
                if is_outgoing && waiting > 0 { Err(RestoreError::Full) } else { self.session.restore(restored) };
            match (outcome, restored) {
                (Ok(()), Restored::Released(_)) => has_released = has_released.saturating_add(1),
                (Ok(()), Restored::Received(_)) => self.recovery.received = self.recovery.received.saturating_add(1),
                (Ok(()), Restored::Subscription(_)) => {
                    self.recovery.subscriptions = self.recovery.subscriptions.saturating_add(1);
                }
                (Ok(()), _) => has_messages = has_messages.saturating_add(1),
                (Err(RestoreError::PacketIdInUse), _) => {} // it is there already
                (Err(_), _) if is_outgoing => waiting = waiting.saturating_add(1),
                (Err(_), _) => self.recovery.given_up = self.recovery.given_up.saturating_add(1),
            }
        }
        self.recovery.messages = has_messages;
        self.recovery.released = has_released;
        self.recovery.waiting = waiting;
        Ok(())
    }

    // Requests

    /// Accepts a message: when this returns, it is stored, and will arrive whatever happens to the power.
    ///
    /// At QoS 0 nothing is stored. Returns the packet identifier for QoS 1 and 2.
    ///
    /// # Errors
    /// Any [`PublishError`] leaves session and store as they were.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError<S::Error>> {
        block_on(self.publish_async(publish))
    }

    /// As [`publish`](Self::publish), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn publish_async(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError<S::Error>> {
        if publish.qos() == QoS::AtMostOnce {
            return self.session.publish(publish).map_err(PublishError::Session);
        }
        if self.recovery.waiting > 0 {
            return Err(PublishError::Session(dunlin_core::PublishError::Full));
        }
        let order = self.order;
        let id = begin(&mut self.session, publish, order).map_err(PublishError::Session)?;
        let Some(id) = id else { return Ok(None) };
        self.order = order.wrapping_add(1);
        let unfinished = Unfinished { session: &mut self.session, id };
        match self.store.put(id, order, publish).await {
            Ok(()) => {
                unfinished.stored();
                Ok(Some(id))
            }
            Err(error) => Err(PublishError::Store(error)), // and the drop takes the message back
        }
    }

    /// Subscribes to a filter, now and after every restart.
    ///
    /// # Errors
    /// Any [`FilterError`] leaves session and store as they were.
    pub fn subscribe(&mut self, filter: &Filter<'_>) -> Result<PacketId, FilterError<S::Error>> {
        block_on(self.subscribe_async(filter))
    }

    /// As [`subscribe`](Self::subscribe), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn subscribe_async(&mut self, filter: &Filter<'_>) -> Result<PacketId, FilterError<S::Error>> {
        self.store.subscribe(filter).await.map_err(FilterError::Store)?;
        match self.session.subscribe(core::slice::from_ref(filter)) {
            Ok(id) => Ok(id),
            Err(error) => {
                self.store.unsubscribe(filter.text()).await.map_err(FilterError::Store)?;
                Err(FilterError::Session(error))
            }
        }
    }

    /// Unsubscribes from a filter.
    ///
    /// # Errors
    /// Any [`FilterError`] leaves the session as it was.
    pub fn unsubscribe(&mut self, filter: &str) -> Result<PacketId, FilterError<S::Error>> {
        block_on(self.unsubscribe_async(filter))
    }

    /// As [`unsubscribe`](Self::unsubscribe), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn unsubscribe_async(&mut self, filter: &str) -> Result<PacketId, FilterError<S::Error>> {
        let id = self.session.unsubscribe(&[filter]).map_err(FilterError::Session)?;
        self.store.unsubscribe(filter).await.map_err(FilterError::Store)?;
        Ok(id)
    }

    // The connection

    /// As [`Session::open`], once what waited for room in the session has been given to it.
    ///
    /// # Errors
    /// The store could not be read; the session is as after [`lost`](Self::lost).
    pub fn open(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Result<(), StoreError<S::Error>> {
        block_on(self.open_async(now, inbox))
    }

    /// As [`open`](Self::open), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn open_async(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Result<(), StoreError<S::Error>> {
        if self.recovery.waiting > 0 {
            self.session.lost();
            self.restore().await?;
        }
        self.session.open(now, inbox);
        Ok(())
    }

    /// As [`Session::lost`].
    pub fn lost(&mut self) {
        self.session.lost();
    }

    /// As [`Session::close`].
    pub fn close(&mut self) {
        self.session.close();
    }

    /// As [`Session::poll`]. Nothing is stored here: what became of messages is stored by the next
    /// [`transmit`](Self::transmit).
    ///
    /// # Errors
    /// As [`Session::poll`].
    pub fn poll<'b>(&mut self, now: Instant, inbox: &'b mut Inbox<'_>) -> Result<Option<Event<'b>>, Fault> {
        self.session.poll(now, inbox)
    }

    /// As [`Session::poll_ready`].
    ///
    /// # Errors
    /// As [`Session::poll`].
    pub fn poll_ready(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Result<Option<Ready>, Fault> {
        self.session.poll_ready(now, inbox)
    }

    /// As [`Session::acknowledge`].
    #[cfg(feature = "manual")]
    pub fn acknowledge(&mut self, receipt: dunlin_core::Receipt) -> bool {
        self.session.acknowledge(receipt)
    }

    /// As [`Session::hold`].
    pub fn hold(&mut self, now: Instant) {
        self.session.hold(now);
    }

    /// As [`Session::transmit`], after everything has been stored on which what leaves depends. Payloads are read from
    /// the store, so [`Transmit::Payload`] never comes.
    ///
    /// # Errors
    /// The store failed, or does not have a payload any more. Nothing has left that must not; call
    /// [`lost`](Self::lost), and try again with a new stream.
    pub fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Result<Transmit, StoreError<S::Error>> {
        block_on(self.transmit_async(now, out))
    }

    /// As [`transmit`](Self::transmit), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn transmit_async(&mut self, now: Instant, out: &mut [u8]) -> Result<Transmit, StoreError<S::Error>> {
        self.settle_async().await?;
        let mut written = 0_usize;
        loop {
            let room = out.get_mut(written..).unwrap_or_default();
            if room.is_empty() && written > 0 {
                return Ok(Transmit::Bytes(written));
            }
            match self.session.transmit(now, room) {
                Transmit::Bytes(n) => written = written.saturating_add(n),
                Transmit::Payload { key, offset, len } => {
                    let fits = len.min(room.len());
                    let n = self.store.read(key, offset, room.get_mut(..fits).unwrap_or_default()).await?;
                    if n == 0 {
                        return Err(StoreError::Unreliable);
                    }
                    self.session.supplied(n);
                    written = written.saturating_add(n);
                }
                // A batch has ended: it leaves before anything else is asked.
                _ if written > 0 => return Ok(Transmit::Bytes(written)),
                other => return Ok(other),
            }
        }
    }

    /// Stores what became of messages. [`transmit`](Self::transmit) does it, too; before a planned power-down, call
    /// it once more.
    ///
    /// # Errors
    /// The store failed; nothing is lost, and it is stored the next time.
    pub fn settle(&mut self) -> Result<(), StoreError<S::Error>> {
        block_on(self.settle_async())
    }

    /// As [`settle`](Self::settle), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn settle_async(&mut self) -> Result<(), StoreError<S::Error>> {
        loop {
            let marks = Marks::of(&self.session);
            if marks.all().is_empty() {
                return Ok(());
            }
            self.store.mark(marks.all()).await?;
            for mark in marks.all() {
                self.session.mark_stored(*mark);
            }
        }
    }

    // Questions

    /// The session, to be asked.
    pub fn session(&self) -> &Session<'s> {
        &self.session
    }

    /// As [`Session::deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    /// The store, to be looked at. What is changed there, the session does not know of.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    pub(crate) fn into_parts(self) -> (Session<'s>, S, u32) {
        (self.session, self.store, self.order)
    }

    /// Gives the store back; the session is gone.
    pub fn into_store(self) -> S {
        self.store
    }
}

/// Accepts a message whose payload is named by its order; the caller stores it and says so, or withdraws it.
pub(crate) fn begin(
    session: &mut Session<'_>,
    publish: &Publish<'_>,
    order: u32,
) -> Result<Option<PacketId>, dunlin_core::PublishError> {
    let len = u32::try_from(publish.payload().len()).map_err(|_| dunlin_core::PublishError::TooLarge)?;
    session.publish_external(publish, External { key: order, len })
}

/// A message that is being stored. Dropped, it is taken back: an error, or nobody waits any more.
struct Unfinished<'a, 's> {
    session: &'a mut Session<'s>,
    id: PacketId,
}

impl Unfinished<'_, '_> {
    fn stored(self) {
        self.session.mark_stored(Mark { id: self.id, stage: Stage::Accepted });
        core::mem::forget(self);
    }
}

impl Drop for Unfinished<'_, '_> {
    fn drop(&mut self) {
        self.session.withdraw(self.id);
    }
}

/// Some of the marks that wait.
pub(crate) struct Marks {
    marks: [Mark; BATCH],
    len: usize,
}

impl Marks {
    /// The first ones, in order. A message that is being stored is the business of its publisher.
    pub fn of(session: &Session<'_>) -> Self {
        let mut all = Self { marks: [NONE; BATCH], len: 0 };
        let waiting = session.marks().filter(|mark| mark.stage != Stage::Accepted);
        for (place, mark) in all.marks.iter_mut().zip(waiting) {
            *place = mark;
            all.len = all.len.saturating_add(1);
        }
        all
    }

    pub fn all(&self) -> &[Mark] {
        self.marks.get(..self.len).unwrap_or_default()
    }
}

/// Fills unused places.
const NONE: Mark = Mark { id: PacketId::new(1).expect("one is not zero"), stage: Stage::Done };

impl<E: fmt::Display> fmt::Display for PublishError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for PublishError<E> {}

impl<E: fmt::Display> fmt::Display for FilterError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for FilterError<E> {}
