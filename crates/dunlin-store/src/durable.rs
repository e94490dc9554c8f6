//! A session and its store, in the order that makes both survive a power cut: store first, then send.

use core::fmt;

use dunlin_core::{
    Event, External, Fault, Filter, Inbox, Instant, Mark, PacketId, Publish, QoS, Ready, RestoreError, Restored,
    Session, Stage, SubscribeError, Topic, Transmit,
};

use crate::store::{Damage, Entry, Job, Store, StoreError};

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
// The session comes first, so that where it lies need not be computed for each call: a hundred bytes of flash.
#[repr(C)]
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

/// Why a message was not accepted. But for an error of the medium, nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError<E> {
    /// The session refused.
    Session(dunlin_core::PublishError),
    /// The store refused. After [`Medium`](StoreError::Medium) and [`Unreliable`](StoreError::Unreliable) the message is
    /// not sent on this power; whether it was stored, and so goes out after a restart, is open.
    Store(StoreError<E>),
}

/// Why a filter was not subscribed to, or is still. But for an error of the medium, nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterError<E> {
    /// The session refused.
    Session(SubscribeError),
    /// The store refused. After [`Medium`](StoreError::Medium) and [`Unreliable`](StoreError::Unreliable) it is open what
    /// is stored: ask for it once more.
    Store(StoreError<E>),
}

impl<'s, S: Store> Durable<'s, S> {
    /// Gives a new session what the store kept. [`recovery`](Self::recovery) tells what that was.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn recover(session: Session<'s>, store: S) -> Result<Self, StoreError<S::Error>> {
        let mut durable = Self::new(session, store);
        durable.restore()?;
        Ok(durable)
    }

    /// As [`recover`](Self::recover), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn recover_async(session: Session<'s>, store: S) -> Result<Self, StoreError<S::Error>> {
        let mut durable = Self::new(session, store);
        durable.restore_async().await?;
        Ok(durable)
    }

    fn new(session: Session<'s>, store: S) -> Self {
        Self { session, store, order: 0, recovery: Recovery::default() }
    }

    /// What came back after the restart, and what did not.
    pub fn recovery(&self) -> Recovery {
        Recovery { damage: self.store.damage(), ..self.recovery }
    }

    // Requests

    /// Accepts a message: when this returns, it is stored, and will arrive whatever happens to the power.
    ///
    /// At QoS 0 nothing is stored. Returns the packet identifier for QoS 1 and 2.
    ///
    /// # Errors
    /// Any [`PublishError`] leaves the session as it was, and the store unless the medium failed.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError<S::Error>> {
        let Some((unfinished, store, order)) = self.begin(publish)? else { return Ok(None) };
        let outcome = store.run(Job::Put { id: unfinished.id, order, publish });
        unfinished.end(outcome)
    }

    /// As [`publish`](Self::publish), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn publish_async(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError<S::Error>> {
        let Some((unfinished, store, order)) = self.begin(publish)? else { return Ok(None) };
        let outcome = store.put(unfinished.id, order, publish).await;
        unfinished.end(outcome)
    }

    /// Accepts a message that is yet to be stored. `None`: there is nothing to store.
    #[expect(clippy::type_complexity, reason = "used twice, here")]
    fn begin(
        &mut self,
        publish: &Publish<'_>,
    ) -> Result<Option<(Unfinished<'_, 's>, &mut S, u32)>, PublishError<S::Error>> {
        let is_full = self.recovery.waiting > 0;
        let id = begin(&mut self.session, publish, &mut self.order, is_full).map_err(PublishError::Session)?;
        let order = self.order.wrapping_sub(1);
        Ok(id.map(|id| (Unfinished { session: &mut self.session, id, stage: Stage::Refused }, &mut self.store, order)))
    }

    /// Subscribes to a filter, now and after every restart.
    ///
    /// # Errors
    /// Any [`FilterError`] leaves the session as it was, and the store unless the medium failed.
    pub fn subscribe(&mut self, filter: &Filter<'_>) -> Result<PacketId, FilterError<S::Error>> {
        let filters = core::slice::from_ref(filter);
        self.session.check_subscribe(filters).map_err(FilterError::Session)?;
        self.store.run(Job::Subscribe(filter)).map_err(FilterError::Store)?;
        let text = Topic::from_store(filter.text().as_bytes());
        self.session.subscribe_stored(text, filter.qos()).map_err(FilterError::Session)
    }

    /// As [`subscribe`](Self::subscribe), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn subscribe_async(&mut self, filter: &Filter<'_>) -> Result<PacketId, FilterError<S::Error>> {
        let filters = core::slice::from_ref(filter);
        self.session.check_subscribe(filters).map_err(FilterError::Session)?;
        self.store.subscribe(filter).await.map_err(FilterError::Store)?;
        let text = Topic::from_store(filter.text().as_bytes());
        self.session.subscribe_stored(text, filter.qos()).map_err(FilterError::Session)
    }

    /// Unsubscribes from a filter.
    ///
    /// # Errors
    /// Any [`FilterError`] leaves the session as it was, and the store unless the medium failed.
    pub fn unsubscribe(&mut self, filter: &str) -> Result<PacketId, FilterError<S::Error>> {
        self.session.check_unsubscribe(&[filter]).map_err(FilterError::Session)?;
        self.store.run(Job::Unsubscribe(filter)).map_err(FilterError::Store)?;
        self.session.unsubscribe(&[filter]).map_err(FilterError::Session)
    }

    /// As [`unsubscribe`](Self::unsubscribe), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn unsubscribe_async(&mut self, filter: &str) -> Result<PacketId, FilterError<S::Error>> {
        self.session.check_unsubscribe(&[filter]).map_err(FilterError::Session)?;
        self.store.unsubscribe(filter).await.map_err(FilterError::Store)?;
        self.session.unsubscribe(&[filter]).map_err(FilterError::Session)
    }

    // The connection

    /// As [`Session::open`], once what waited for room in the session has been given to it.
    ///
    /// # Errors
    /// The store could not be read; the session is as after [`lost`](Self::lost).
    pub fn open(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Result<(), StoreError<S::Error>> {
        if self.recovery.waiting > 0 {
            self.session.lost();
            self.restore()?;
        }
        self.session.open(now, inbox);
        Ok(())
    }

    /// As [`open`](Self::open), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn open_async(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Result<(), StoreError<S::Error>> {
        if self.recovery.waiting > 0 {
            self.session.lost();
            self.restore_async().await?;
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
    /// The store failed; or a payload cannot be read any more ([`Unreliable`](StoreError::Unreliable)), and its message is
    /// given up: [`Event::Forgotten`] names it. Nothing has left that must not; call [`lost`](Self::lost), and try again
    /// with a new stream.
    pub fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Result<Transmit, StoreError<S::Error>> {
        self.settle()?;
        let mut written = 0;
        loop {
            match fill(&mut self.session, now, out, &mut written) {
                Filled::Done(transmit) => return Ok(transmit),
                Filled::Wants { key, offset, bytes } => {
                    let read = self.store.run(Job::Read { order: key, offset, out: &mut *bytes });
                    supply(&mut self.session, key, bytes.len(), read)?;
                }
            }
        }
    }

    /// As [`transmit`](Self::transmit), for executors.
    ///
    /// # Errors
    /// The same.
    pub async fn transmit_async(&mut self, now: Instant, out: &mut [u8]) -> Result<Transmit, StoreError<S::Error>> {
        self.settle_async().await?;
        let mut written = 0;
        loop {
            match fill(&mut self.session, now, out, &mut written) {
                Filled::Done(transmit) => return Ok(transmit),
                Filled::Wants { key, offset, bytes } => {
                    let read = self.store.read(key, offset, bytes).await;
                    supply(&mut self.session, key, bytes.len(), read)?;
                }
            }
        }
    }

    /// Stores what became of messages. [`transmit`](Self::transmit) does it, too; before a planned power-down, call
    /// it once more.
    ///
    /// # Errors
    /// The store failed; nothing is lost, and it is stored the next time.
    pub fn settle(&mut self) -> Result<(), StoreError<S::Error>> {
        loop {
            let marks = Marks::of(&self.session);
            let all = marks.all();
            if all.is_empty() {
                return Ok(());
            }
            self.store.run(Job::Mark(all))?;
            all.iter().for_each(|mark| self.session.mark_stored(*mark));
        }
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
            marks.stored(&mut self.session);
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

    // Helpers

    /// Gives the session everything that the store keeps, as far as it has room. What it has already is not given again.
    fn restore(&mut self) -> Result<(), StoreError<S::Error>> {
        let mut index = if self.recovery.waiting > 0 { 0 } else { BEFORE };
        let mut waiting = 0;
        loop {
            self.store.run(Job::Seek(index))?;
            if !self.take(index, &mut waiting) {
                self.recovery.waiting = waiting;
                return Ok(());
            }
            index = index.wrapping_add(1);
        }
    }

    async fn restore_async(&mut self) -> Result<(), StoreError<S::Error>> {
        let mut index = if self.recovery.waiting > 0 { 0 } else { BEFORE };
        let mut waiting = 0;
        loop {
            self.store.seek(index).await?;
            if !self.take(index, &mut waiting) {
                self.recovery.waiting = waiting;
                return Ok(());
            }
            index = index.wrapping_add(1);
        }
    }

    /// Gives the session the entry that the store has found, unless it must wait; what does not wait, but the first time
    /// only. `false`: there is none (any more).
    fn take(&mut self, index: usize, waiting: &mut u32) -> bool {
        let Self { session, store, order: next_order, recovery } = self;
        let entry = store.found();
        let is_outgoing = matches!(entry, Some(Entry::Released(_) | Entry::Message { .. }));
        if !is_outgoing && recovery.waiting > 0 {
            return entry.is_some();
        }
        let (restored, count) = match entry {
            Some(Entry::Released(id)) => (Restored::Released(id), &mut recovery.released),
            Some(Entry::Message { id, order, topic, qos, retain, len }) => {
                let payload = External { key: order, len };
                (Restored::External { id, topic, qos, retain, payload }, &mut recovery.messages)
            }
            Some(Entry::Received(id)) => (Restored::Received(id), &mut recovery.received),
            Some(Entry::Subscription { filter, qos }) => {
                (Restored::Subscription { filter, qos }, &mut recovery.subscriptions)
            }
            None if index != BEFORE => return false,
            None => {
                // The next message comes after the one that was stored last. So does its identifier, and that of whatever
                // else needs one: those of messages that wait are not known to the session.
                let Some((id, order)) = store.last() else { return true };
                *next_order = order.wrapping_add(1);
                let next = PacketId::new(id.get().wrapping_add(1)).unwrap_or(FIRST);
                (Restored::NextId(next), &mut 0)
            }
        };
        // Messages keep their order: behind one that waits, all wait.
        let must_wait = is_outgoing && *waiting > 0;
        let refused = if is_outgoing { waiting } else { &mut recovery.given_up };
        let outcome = if must_wait { Err(RestoreError::Full) } else { session.restore(restored) };
        let count = match outcome {
            Ok(()) => count,
            Err(RestoreError::PacketIdInUse) => return true, // it is there already
            Err(_) => refused,
        };
        *count = count.wrapping_add(1);
        true
    }
}

/// Before the first entry of a store: nothing is found there.
const BEFORE: usize = usize::MAX;

/// Accepts a message. Its payload is named by its order; the caller stores it and says so, or withdraws it. `None`: at
/// QoS 0 there is nothing to store.
pub(crate) fn begin(
    session: &mut Session<'_>,
    publish: &Publish<'_>,
    order: &mut u32,
    is_full: bool,
) -> Result<Option<PacketId>, dunlin_core::PublishError> {
    let is_stored = publish.qos() != QoS::AtMostOnce;
    if is_stored && is_full {
        return Err(dunlin_core::PublishError::Full);
    }
    let len = u32::try_from(publish.payload().len()).map_err(|_| dunlin_core::PublishError::TooLarge)?;
    let id = session.publish_stored(publish, is_stored.then_some(External { key: *order, len }))?;
    *order = order.wrapping_add(u32::from(is_stored));
    Ok(id)
}

/// A message that is being stored. Dropped, it is taken back, unless it was stored: an error, or nobody waits any more.
struct Unfinished<'a, 's> {
    session: &'a mut Session<'s>,
    id: PacketId,
    /// What became of it.
    stage: Stage,
}

impl Unfinished<'_, '_> {
    fn end<E>(mut self, outcome: Result<(), StoreError<E>>) -> Result<Option<PacketId>, PublishError<E>> {
        outcome.map_err(PublishError::Store)?;
        self.stage = Stage::Accepted;
        Ok(Some(self.id))
    }
}

impl Drop for Unfinished<'_, '_> {
    fn drop(&mut self) {
        self.session.mark_stored(Mark { id: self.id, stage: self.stage });
    }
}

/// What filling a buffer came to.
pub(crate) enum Filled<'o> {
    Done(Transmit),
    /// These bytes of a payload are to be read; then the session is told how many.
    Wants {
        key: u32,
        offset: usize,
        bytes: &'o mut [u8],
    },
}

/// So many bytes of a payload have been read, or will never be.
pub(crate) fn supply<E>(
    session: &mut Session<'_>,
    key: u32,
    len: usize,
    read: Result<(), StoreError<E>>,
) -> Result<(), StoreError<E>> {
    match &read {
        Ok(()) => session.supplied(len),
        // On each connection it would be the same again.
        Err(StoreError::Unreliable) => _ = session.give_up(key),
        Err(_) => {}
    }
    read
}

/// Fills `out`, of which so many bytes are written, with what the session has to send.
pub(crate) fn fill<'o>(session: &mut Session<'_>, now: Instant, out: &'o mut [u8], written: &mut usize) -> Filled<'o> {
    loop {
        let room = out.get_mut(*written..).unwrap_or_default();
        if room.is_empty() && *written > 0 {
            return Filled::Done(Transmit::Bytes(*written));
        }
        let n = match session.transmit(now, room) {
            Transmit::Bytes(n) => n,
            Transmit::Payload { key, offset, len } => {
                let begin = *written;
                *written = begin.saturating_add(len.min(room.len()));
                return Filled::Wants { key, offset, bytes: out.get_mut(begin..*written).unwrap_or_default() };
            }
            // A batch has ended: it leaves before anything else is asked.
            _ if *written > 0 => return Filled::Done(Transmit::Bytes(*written)),
            other => return Filled::Done(other),
        };
        *written = written.saturating_add(n);
    }
}

/// Some of the marks that wait, one at least.
pub(crate) struct Marks {
    marks: [Mark; BATCH],
    len: usize,
}

impl Marks {
    /// The first ones, in order. A message that is being stored is the business of its publisher.
    pub fn of(session: &Session<'_>) -> Self {
        let mut waiting = session.marks().filter(|mark| mark.stage != Stage::Accepted);
        let mut len = 0_usize;
        let marks = [(); BATCH].map(|()| match waiting.next() {
            Some(mark) => {
                len = len.wrapping_add(1);
                mark
            }
            None => NONE,
        });
        Self { marks, len }
    }

    pub fn all(&self) -> &[Mark] {
        self.marks.get(..self.len).unwrap_or_default()
    }

    pub fn stored(&self, session: &mut Session<'_>) {
        for mark in self.all() {
            session.mark_stored(*mark);
        }
    }
}

const FIRST: PacketId = PacketId::new(1).expect("one is not zero");

/// Fills unused places.
const NONE: Mark = Mark { id: FIRST, stage: Stage::Done };

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
