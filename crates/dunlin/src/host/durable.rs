//! What a client keeps over restarts.
//!
//! A thread stores. It takes all that waits, messages and marks, while it holds the lock of the state; brings it to the
//! disk with one synchronisation, without the lock; and tells the session, which lets nothing leave that depends on more
//! than that. So what is published meanwhile goes to the disk together, and neither the driver nor a publisher at QoS 0
//! ever waits for the disk. Without a store there is no thread, and nothing to ask but an `Option`.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::thread;

use dunlin_core::memory::tx_len;
use dunlin_core::{Mark, PacketId, Publish, PublishError, QoS, Replace, Restored, Stage, Topic};
use dunlin_store::{FileStore, Snapshot, StoreError};
use rustc_hash::{FxHashMap, FxHashSet};

use super::deliveries::Load;
use super::error::{Error, Reason};
use super::{Delivery, EXTERNAL, External, Host, State, wake};

/// The state's share: what is not on the disk yet.
pub(super) struct Durable {
    store: FileStore,
    /// Its order: of the next message.
    order: u32,
    waiting: Vec<Put>,
    /// What messages that wait, or are being stored, will take.
    bytes: u64,
    unstored: FxHashMap<PacketId, Unstored>,
    /// Messages that were taken back before they were stored: what goes to the disk of them is to be marked as over.
    withdrawn: Vec<PacketId>,
    /// Filters added, with their quality of service, and removed: kept here until they are stored.
    filters: Vec<(String, Option<QoS>)>,
    /// The disk has failed: what is not stored will never be.
    has_failed: bool,
    /// Tells the thread that there is something to store.
    bell: SyncSender<()>,
    listener: Option<Receiver<()>>,
}

/// A message that is to be stored.
struct Put {
    id: PacketId,
    order: u32,
    number: u64,
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

struct Unstored {
    number: u64,
    waker: Option<Waker>,
}

/// What one synchronisation brings to the disk.
struct Batch {
    messages: Vec<Put>,
    marks: Vec<Mark>,
    filters: Vec<(String, Option<QoS>)>,
}

impl Durable {
    /// What the store holds, and the state's share.
    pub fn open(store: &FileStore) -> Result<(Self, Snapshot), Error> {
        let snapshot = store.snapshot().map_err(|error| Error::Ended(Reason::store(error)))?;
        let order = snapshot.last.map_or(0, |(_, order)| order.wrapping_add(1));
        // One ring is enough, however often it is rung.
        let (bell, listener) = sync_channel(1);
        let durable = Self {
            store: store.clone(),
            order,
            waiting: Vec::new(),
            bytes: 0,
            unstored: FxHashMap::default(),
            withdrawn: Vec::new(),
            filters: Vec::new(),
            has_failed: false,
            bell,
            listener: Some(listener),
        };
        Ok((durable, snapshot))
    }

    /// Whether the disk may take such a message, now or ever.
    pub fn check(&self, publish: &Publish<'_>) -> Result<(), PublishError> {
        let size = FileStore::size(publish.topic().len(), publish.payload().len());
        match self.store.room().saturating_sub(self.bytes) {
            room if size <= room => Ok(()),
            _ if size > self.store.limit() => Err(PublishError::TooLarge),
            _ => Err(PublishError::Full),
        }
    }

    /// The session has accepted a message; it leaves when it is stored. Gives who waited for one that it has replaced.
    pub fn accept(&mut self, id: PacketId, number: u64, publish: &Publish<'_>) -> Option<Waker> {
        self.bytes += FileStore::size(publish.topic().len(), publish.payload().len());
        self.waiting.push(Put {
            id,
            order: self.order,
            number,
            topic: publish.topic().to_owned(),
            payload: publish.payload().to_owned(),
            qos: publish.qos(),
            retain: publish.is_retain(),
        });
        self.order = self.order.wrapping_add(1);
        self.ring();
        self.unstored.insert(id, Unstored { number, waker: None }).and_then(|replaced| replaced.waker)
    }

    /// The session has taken a message back, and marks that if it was stored.
    pub fn withdraw(&mut self, id: PacketId) {
        if self.unstored.contains_key(&id) {
            self.withdrawn.push(id);
            self.ring();
        }
    }

    pub fn subscribe(&mut self, filters: &[(&str, QoS)]) {
        self.filters.extend(filters.iter().map(|(text, qos)| ((*text).to_owned(), Some(*qos))));
        self.ring();
    }

    pub fn unsubscribe(&mut self, filters: &[&str]) {
        self.filters.extend(filters.iter().map(|text| ((*text).to_owned(), None)));
        self.ring();
    }

    /// There is something to store.
    pub fn ring(&self) {
        let _ = self.bell.try_send(());
    }

    pub fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.unstored.values_mut().filter_map(|unstored| unstored.waker.take())
    }
}

/// The last handle and the driver are gone before the thread has heard of a message: what was accepted is kept.
impl Drop for Durable {
    fn drop(&mut self) {
        if !self.waiting.is_empty() && !self.has_failed {
            let messages: Vec<_> = self.waiting.iter().map(Put::named).collect();
            let _ = self.store.store(&messages, &[]);
        }
    }
}

/// What was stored takes so much of the session's memory.
pub(super) fn load(snapshot: &Snapshot) -> Load {
    let arena = snapshot.messages.iter().map(|message| tx_len(message.topic.len(), 0) + EXTERNAL).sum();
    Load { count: snapshot.messages.len() + snapshot.released.len(), arena, bytes: 0 }
}

impl State {
    /// Gives a new session what its predecessor left, before anything else takes an identifier. Filters that are `known`
    /// are subscribed to anyway.
    pub(super) fn restore(&mut self, snapshot: Snapshot, known: &FxHashSet<&str>) -> Result<(), Error> {
        if let Some((last, _)) = snapshot.last {
            let next = PacketId::new(last.get().checked_add(1).unwrap_or(1));
            next.into_iter().for_each(|next| _ = self.give(Restored::NextId(next)));
        }
        for id in snapshot.released {
            if self.give(Restored::Released(id)) {
                self.note(Some(id), Load { count: 1, arena: 0, bytes: 0 }, None, Replace::Nothing);
            }
        }
        for message in snapshot.messages {
            let (topic, qos, retain) = (Topic::from_store(message.topic.as_bytes()), message.qos, message.retain);
            let key = self.next_key();
            let len = u32::try_from(message.payload.len()).unwrap_or(u32::MAX);
            let payload = dunlin_core::External { key, len };
            if !self.give(Restored::External { id: message.id, topic, qos, retain, payload }) {
                continue;
            }
            let bytes = tx_len(message.topic.len(), message.payload.len());
            let load = Load { count: 1, arena: tx_len(message.topic.len(), 0) + EXTERNAL, bytes };
            self.payloads.insert(key, External { payload: message.payload.into(), passes_by: false });
            self.note(Some(message.id), load, Some(key), Replace::Nothing);
        }
        for id in snapshot.received {
            self.give(Restored::Received(id));
        }
        let filters = snapshot.filters.iter().filter(|(text, _)| !known.contains(text.as_str()));
        for (text, qos) in filters {
            self.subscribe_anyway(&[(text, *qos)])?;
        }
        Ok(())
    }

    /// The session was made with room for all of it. An identifier received for which it has none is one of so many
    /// that the server has long been told. What makes no sense, which only a damaged store can hold, is not taken.
    fn give(&mut self, restored: Restored<'_>) -> bool {
        self.session.on(|session| session.restore(restored)).is_ok()
    }

    /// Whether something is not on the disk yet that should be before the client ends.
    pub(super) fn is_storing(&self) -> bool {
        let Some(durable) = &self.durable else { return false };
        !durable.filters.is_empty()
            || !durable.withdrawn.is_empty()
            || self.session.ask(|session| session.marks().next().is_some())
    }

    /// Whether a message that was accepted is not on the disk yet.
    pub(super) fn is_saving(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| !durable.has_failed && !durable.unstored.is_empty())
    }

    /// The driver may have made marks.
    pub(super) fn call_store(&mut self) {
        if let Some(durable) = &self.durable
            && self.session.on(|session| session.next_mark().is_some())
        {
            durable.ring();
        }
    }

    /// All that waits.
    fn next_batch(&mut self) -> Option<Batch> {
        let durable = self.durable.as_mut()?;
        let messages = std::mem::take(&mut durable.waiting);
        let filters = durable.filters.clone();
        let is_mark = |mark: &Mark| mark.stage != Stage::Accepted;
        let mut marks: Vec<_> = self.session.ask(|session| session.marks().filter(is_mark).collect());
        // A newer message under the same identifier takes the place of the older one, also where they are stored.
        let is_over = |id: &PacketId| !self.deliveries.is_open(*id);
        let withdrawn = durable.withdrawn.drain(..).filter(is_over);
        marks.extend(withdrawn.map(|id| Mark { id, stage: Stage::Done }));
        let is_nothing = messages.is_empty() && marks.is_empty() && filters.is_empty();
        if is_nothing { None } else { Some(Batch { messages, marks, filters }) }
    }

    /// All of it is on the disk. Gives who waited for that.
    fn stored(&mut self, batch: &Batch) -> Vec<Waker> {
        let mut wakes = Vec::new();
        let Some(durable) = &mut self.durable else { return wakes };
        durable.filters.drain(..batch.filters.len());
        for message in &batch.messages {
            durable.bytes -= FileStore::size(message.topic.len(), message.payload.len());
            let id = message.id;
            // Its identifier may name a newer message by now, which is not stored.
            if durable.unstored.get(&id).is_some_and(|unstored| unstored.number == message.number) {
                wakes.extend(durable.unstored.remove(&id).and_then(|unstored| unstored.waker));
                self.session.on(|session| session.mark_stored(Mark { id, stage: Stage::Accepted }));
            }
        }
        for mark in &batch.marks {
            self.session.on(|session| session.mark_stored(*mark));
        }
        wakes
    }
}

impl Host {
    /// Starts the thread that stores, if there is a store.
    pub(super) fn start_store(self: &Arc<Self>) -> Result<(), Error> {
        let listener = self.state().durable.as_mut().and_then(|durable| {
            durable.ring(); // what was restored may have left marks
            Some((durable.store.clone(), durable.listener.take()?))
        });
        let Some((store, listener)) = listener else { return Ok(()) };
        let host = Arc::downgrade(self);
        let thread = thread::Builder::new().name("dunlin-store".to_owned());
        let started = thread.spawn(move || run(&host, &store, &listener));
        started.map(drop).map_err(|error| Error::System(Arc::new(error)))
    }

    /// Brings all that waits to the disk. Whether there was anything.
    pub(super) fn store(&self, store: &FileStore) -> Result<bool, StoreError<io::Error>> {
        let batch = self.state().next_batch();
        let Some(batch) = batch else { return Ok(false) };
        let messages: Vec<_> = batch.messages.iter().map(Put::named).collect();
        if !batch.filters.is_empty() {
            store.set_filters(&batch.filters)?;
        }
        store.store(&messages, &batch.marks)?;
        let mut state = self.state();
        let mut wakes = state.stored(&batch);
        if state.ended.is_some() {
            wakes.extend(state.phase.take(usize::MAX));
        }
        let driver = state.call_driver().or_else(|| state.paused.take());
        drop(state);
        wake(wakes);
        wake(driver);
        Ok(true)
    }

    /// The disk has failed: nothing more may leave. What has not, goes out after a restart, as far as it is stored.
    fn store_failed(&self, reason: Reason) {
        self.end(reason.clone());
        let mut state = self.state();
        // Also who waits for what a close has left to be stored is to hear of it.
        state.ended = Some(reason);
        state.durable.iter_mut().for_each(|durable| durable.has_failed = true);
        let wakes: Vec<_> = state.phase.take(usize::MAX).collect();
        drop(state);
        wake(wakes);
        self.close(std::time::Duration::ZERO);
    }

    /// Ready when the message is on the disk, or the client has ended before. At once without a store.
    pub fn poll_stored(&self, delivery: &Delivery, waker: Option<&Waker>) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        let State { durable, ended, .. } = &mut *state;
        let unstored =
            durable.as_mut().zip(delivery.open.as_ref()).and_then(|(durable, (_, id))| durable.unstored.get_mut(id));
        match (unstored.filter(|unstored| unstored.number == delivery.number), ended) {
            (None, _) => Poll::Ready(Ok(())),
            (Some(_), Some(reason)) => Poll::Ready(Err(Error::Ended(reason.clone()))),
            (Some(unstored), None) => {
                unstored.waker = waker.cloned();
                Poll::Pending
            }
        }
    }
}

/// Stores until the host is gone, or the disk has failed. The host is held until all that waits is stored.
fn run(host: &Weak<Host>, store: &FileStore, bell: &Receiver<()>) {
    for () in bell {
        let Some(host) = host.upgrade() else { return };
        loop {
            match host.store(store) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return host.store_failed(Reason::store(error)),
            }
        }
    }
}

impl Put {
    fn named(&self) -> (PacketId, u32, Publish<'_>) {
        let publish = Publish::new(&self.topic, &self.payload).with_qos(self.qos);
        (self.id, self.order, if self.retain { publish.retain() } else { publish })
    }
}
