//! A store in a directory: a log that is appended to, and written anew when most of it is over.
//!
//! A record is length, checksum and contents. What a crash leaves torn at the end is cut off; a record that is damaged
//! in the middle is counted and passed over. Whoever is given an answer has had it synchronised with the disk; those
//! who wait at the same time share one synchronisation, led by the first of them.

mod kept;
mod log;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage, Topic};

use crate::store::{Damage, Entry, Store, StoreError};

use kept::{Kept, Message};
use log::{HEAD, HEADER, Seal, header, put_head, read_header};

const LOG: &str = "log";
const NEW: &str = "log.new";
const UNREADABLE: &str = "log.unreadable";
const LOCK: &str = "lock";

/// A log shorter than this is not worth writing anew.
const SMALL: u64 = 64 << 10;
const DEFAULT_LIMIT: u64 = 64 << 20;

type Error = StoreError<io::Error>;

/// A store in a directory, for one process at a time. Clones share it: each may be used by another thread, and what
/// they store at the same time is synchronised with the disk together.
///
/// Methods block for as long as the disk takes.
#[derive(Clone, Debug)]
pub struct FileStore {
    shared: Arc<Shared>,
    /// The entry that was looked for.
    found: Option<Found>,
}

/// An entry that can be lent.
#[derive(Clone, Debug)]
enum Found {
    Received(PacketId),
    Released(PacketId),
    Message { id: PacketId, order: u32, topic: String, qos: QoS, retain: bool, len: u32 },
    Filter(String, QoS),
}

/// Everything that a store in files keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Outgoing QoS 2 messages past PUBREC, in the order of their PUBRECs.
    pub released: Vec<PacketId>,
    /// Outgoing messages that were not acknowledged, in the order in which they were put.
    pub messages: Vec<KeptMessage>,
    /// Incoming QoS 2 messages that were handled.
    pub received: Vec<PacketId>,
    /// Filters that were subscribed to at run time.
    pub filters: Vec<(String, QoS)>,
    /// The message that was put last, over or not: its identifier and order.
    pub last: Option<(PacketId, u32)>,
    /// What could not be read.
    pub damage: Damage,
}

/// An outgoing message that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptMessage {
    /// Its packet identifier.
    pub id: PacketId,
    /// Its place in the order of messages.
    pub order: u32,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether the server is to keep it.
    pub retain: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The synchronisation that was under way has ended.
    ended: Condvar,
    /// Taken away from other processes for as long as this lives; `None` for a store that is only looked at.
    lock: Option<File>,
    limit: u64,
    seal: Seal,
    /// Bytes of messages that are kept.
    live: AtomicU64,
}

impl Drop for Shared {
    /// A process that is being started holds what this one has open until it becomes another program: without this, the
    /// lock as well.
    fn drop(&mut self) {
        let _ = self.lock.as_ref().map(File::unlock);
    }
}

#[derive(Debug)]
struct State {
    directory: PathBuf,
    log: File,
    /// Bytes of the log, and how many of them are on the disk for sure.
    len: u64,
    synced: u64,
    is_syncing: bool,
    /// Which log it is: counts how often it was written anew.
    generation: u64,
    /// The disk failed in a way that leaves open what is on it.
    is_failed: bool,
    limit: u64,
    seal: Seal,
    kept: Kept,
    damage: Damage,
}

impl FileStore {
    /// Opens the store in this directory, or makes one, for 64 MiB of messages. A file `log` there of which nothing can be
    /// read ([`Damage::is_reset`]) is put aside as `log.unreadable.1`, or the next number that is free.
    ///
    /// # Errors
    /// [`Medium`](StoreError::Medium): the directory cannot be used, or another process is using it
    /// ([`WouldBlock`](ErrorKind::WouldBlock)). [`Newer`](StoreError::Newer): a newer program wrote it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        Self::with_limit(directory, DEFAULT_LIMIT)
    }

    /// As [`open`](Self::open), for so many bytes of messages. The log takes up to twice as many, and 64 KiB.
    ///
    /// # Errors
    /// The same.
    pub fn with_limit(directory: impl AsRef<Path>, limit: u64) -> Result<Self, Error> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory).map_err(Error::Medium)?;
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(directory.join(LOCK));
        let lock = lock.map_err(Error::Medium)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Medium(io::Error::new(ErrorKind::WouldBlock, "another process uses the store")));
            }
            Err(TryLockError::Error(error)) => return Err(Error::Medium(error)),
        }
        let log = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(directory.join(LOG));
        let mut state = State::read(directory, log.map_err(Error::Medium)?, limit)?;
        if state.damage.is_reset {
            state.log = put_aside(directory).map_err(Error::Medium)?;
        }
        // What a crash left torn at the end goes.
        state.log.set_len(state.len).map_err(Error::Medium)?;
        if state.len == 0 {
            state.append(&header(state.seal))?;
        } else if state.seal == Seal::NONE {
            // Of the first format: from now on it has the one of this program.
            state.seal = Seal::draw();
            state.try_write_anew().map_err(Error::Medium)?;
        }
        state.log.sync_all().map_err(Error::Medium)?;
        sync_directory(directory).map_err(Error::Medium)?;
        state.synced = state.len;
        Ok(Self::of(state, Some(lock)))
    }

    /// Opens a store to look at it, also while another process uses it. Nothing can be stored.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`NotFound`](ErrorKind::NotFound) when there is none.
    pub fn read_only(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref();
        let log = File::open(directory.join(LOG)).map_err(Error::Medium)?;
        let mut state = State::read(directory, log, 0)?;
        state.is_failed = true;
        Ok(Self::of(state, None))
    }

    fn of(state: State, lock: Option<File>) -> Self {
        let (limit, seal, live) = (state.limit, state.seal, AtomicU64::new(state.kept.live));
        let shared = Shared { state: Mutex::new(state), ended: Condvar::new(), lock, limit, seal, live };
        Self { shared: Arc::new(shared), found: None }
    }

    /// Keeps several messages and then marks, all with one synchronisation. Messages go by identifier and order.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::mark`]; then nothing of it is kept for sure. Whether there is room,
    /// [`room`](Self::room) tells before.
    pub fn store(&self, messages: &[(PacketId, u32, Publish<'_>)], marks: &[Mark]) -> Result<(), Error> {
        let seal = self.shared.seal;
        let mut records = Vec::new();
        let mut places = Vec::with_capacity(messages.len());
        for (id, order, publish) in messages {
            let len = u32::try_from(publish.payload().len()).map_err(|_| StoreError::TooLarge)?;
            records.extend(seal.record(|body| {
                put_head(body, *id, *order, publish);
                body.extend(publish.payload());
            }));
            places.push(((records.len() - publish.payload().len()) as u64, len));
        }
        records.extend(marks.iter().filter_map(|mark| seal.mark(mark)).flatten());
        self.commit(&records, |kept, begin| {
            for ((id, order, publish), (at, len)) in messages.iter().zip(places) {
                let (topic, qos, retain) = (publish.topic().to_owned(), publish.qos(), publish.is_retain());
                kept.put(*order, Message { id: *id, topic, qos, retain, at: begin + at, len });
            }
            marks.iter().for_each(|mark| kept.mark(mark));
        })
    }

    /// Keeps filters with their quality of service, and forgets those without.
    ///
    /// # Errors
    /// As [`Store::subscribe`].
    pub fn set_filters(&self, filters: &[(String, Option<QoS>)]) -> Result<(), Error> {
        let seal = self.shared.seal;
        let record = |(text, qos): &(String, Option<QoS>)| match qos {
            Some(qos) => seal.filter(text, *qos),
            None => seal.no_filter(text),
        };
        let records: Vec<u8> = filters.iter().flat_map(record).collect();
        self.commit(&records, |kept, _| {
            for (text, qos) in filters {
                match qos {
                    Some(qos) => kept.subscribe(text, *qos),
                    None => kept.unsubscribe(text),
                }
            }
        })
    }

    /// Bytes that a message with a topic and a payload of these lengths takes.
    #[must_use]
    pub const fn size(topic: usize, payload: usize) -> u64 {
        (HEAD + 10 + topic + payload) as u64
    }

    /// Bytes for messages, free or not.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes for messages that are free now. Does not wait for anyone.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.shared.limit.saturating_sub(self.shared.live.load(Ordering::Relaxed))
    }

    /// Everything that is kept, read at once.
    ///
    /// # Errors
    /// [`Medium`](StoreError::Medium): the log cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut state = self.state();
        let state = &mut *state;
        let mut messages = Vec::with_capacity(state.kept.messages.len());
        for (order, message) in &state.kept.messages {
            let mut payload = vec![0; message.len as usize];
            state.log.seek(SeekFrom::Start(message.at)).map_err(Error::Medium)?;
            state.log.read_exact(&mut payload).map_err(Error::Medium)?;
            messages.push(KeptMessage {
                id: message.id,
                order: *order as u32,
                topic: message.topic.clone(),
                payload,
                qos: message.qos,
                retain: message.retain,
            });
        }
        let Kept { released, received, filters, last, .. } = &state.kept;
        Ok(Snapshot {
            released: released.clone(),
            messages,
            received: received.clone(),
            filters: filters.clone(),
            last: last.map(|(id, order)| (id, order as u32)),
            damage: state.damage,
        })
    }

    /// Bytes of the log.
    pub fn log_len(&self) -> u64 {
        self.state().len
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records and waits until they are on the disk; `note` is told where the first of them lies.
    fn commit(&self, records: &[u8], note: impl FnOnce(&mut Kept, u64)) -> Result<(), Error> {
        let mut state = self.state();
        if state.is_failed || self.shared.lock.is_none() {
            return Err(StoreError::Unreliable);
        }
        let at = state.len;
        state.append(records)?;
        note(&mut state.kept, at);
        self.shared.live.store(state.kept.live, Ordering::Relaxed);
        let (generation, target) = (state.generation, state.len);
        loop {
            if state.is_failed {
                return Err(StoreError::Unreliable);
            }
            // A log that was written anew since is on the disk, with what was noted.
            if state.generation != generation || state.synced >= target {
                break;
            }
            if state.is_syncing {
                state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = self.synchronise(state);
        }
        if state.len > SMALL && state.len / 2 > state.kept.needed() && !state.is_syncing {
            state.write_anew()?;
        }
        Ok(())
    }

    /// Brings all that was appended so far to the disk, without holding the lock: others append meanwhile.
    fn synchronise<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.is_syncing = true;
        let target = state.len;
        let log = state.log.try_clone();
        drop(state);
        let outcome = log.and_then(|log| log.sync_data());
        let mut state = self.state();
        state.is_syncing = false;
        match outcome {
            Ok(()) => state.synced = state.synced.max(target),
            Err(_) => state.is_failed = true,
        }
        self.shared.ended.notify_all();
        state
    }
}

impl Store for FileStore {
    type Error = io::Error;

    async fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), Error> {
        let size = Self::size(publish.topic().len(), publish.payload().len());
        if size > self.shared.limit {
            return Err(StoreError::TooLarge);
        }
        if size > self.room() {
            return Err(StoreError::Full);
        }
        self.store(&[(id, order, *publish)], &[])
    }

    async fn mark(&mut self, marks: &[Mark]) -> Result<(), Error> {
        self.store(&[], marks)
    }

    async fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> Result<(), Error> {
        let mut state = self.state();
        let key = state.kept.widen(order);
        let message = state.kept.messages.get(&key).ok_or(StoreError::Unreliable)?;
        if offset.saturating_add(out.len()) > message.len as usize {
            return Err(StoreError::Unreliable);
        }
        let at = message.at + offset as u64;
        state.log.seek(SeekFrom::Start(at)).map_err(Error::Medium)?;
        state.log.read_exact(out).map_err(Error::Medium)
    }

    async fn subscribe(&mut self, filter: &Filter<'_>) -> Result<(), Error> {
        self.set_filters(&[(filter.text().to_owned(), Some(filter.qos()))])
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), Error> {
        self.set_filters(&[(filter.to_owned(), None)])
    }

    async fn seek(&mut self, index: usize) -> Result<(), Error> {
        let found = self.state().kept.nth(index);
        self.found = found;
        Ok(())
    }

    fn found(&self) -> Option<Entry<'_>> {
        match self.found.as_ref()? {
            Found::Received(id) => Some(Entry::Received(*id)),
            Found::Released(id) => Some(Entry::Released(*id)),
            Found::Message { id, order, topic, qos, retain, len } => {
                let topic = Topic::from_store(topic.as_bytes());
                Some(Entry::Message { id: *id, order: *order, topic, qos: *qos, retain: *retain, len: *len })
            }
            Found::Filter(text, qos) => {
                Some(Entry::Subscription { filter: Topic::from_store(text.as_bytes()), qos: *qos })
            }
        }
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        self.state().kept.last.map(|(id, order)| (id, order as u32))
    }

    fn damage(&self) -> Damage {
        self.state().damage
    }
}

impl State {
    fn read(directory: &Path, mut log: File, limit: u64) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).map_err(Error::Medium)?;
        let mut state = Self {
            directory: directory.to_owned(),
            log,
            len: 0,
            synced: 0,
            is_syncing: false,
            generation: 0,
            is_failed: false,
            limit,
            seal: Seal::draw(),
            kept: Kept::default(),
            damage: Damage::default(),
        };
        let mut at = 0;
        while at < bytes.len() {
            let seal = if at == 0 { Seal::NONE } else { state.seal };
            let Some(body) = seal.whole(&bytes[at..]) else {
                // Torn at the end, or damaged with more behind it?
                match (at + 1..bytes.len()).find(|next| state.seal.whole(&bytes[*next..]).is_some()) {
                    Some(next) => {
                        state.damage.records += 1;
                        at = next;
                        continue;
                    }
                    None => break,
                }
            };
            if at == 0 {
                state.seal = read_header(body)?;
            } else if !state.kept.replay(body, at as u64 + HEAD as u64) {
                state.damage.records += 1;
            }
            at += HEAD + body.len();
            state.len = at as u64;
        }
        if state.len == 0 && !bytes.is_empty() && bytes.len() >= HEADER {
            // Not even a header: this is no log, or nothing is left of it.
            state.damage.is_reset = true;
        }
        Ok(state)
    }

    /// Writes at the end. When that fails, the end is where it was.
    fn append(&mut self, records: &[u8]) -> Result<(), Error> {
        let outcome = self.log.seek(SeekFrom::Start(self.len)).and_then(|_| self.log.write_all(records));
        if let Err(error) = outcome {
            // What was torn off is not counted, and would be overwritten anyway.
            let _ = self.log.set_len(self.len);
            return Err(if error.kind() == ErrorKind::StorageFull { StoreError::Full } else { Error::Medium(error) });
        }
        self.len += records.len() as u64;
        Ok(())
    }

    /// Writes what is still needed into a new log, and puts it in the place of the old one.
    fn write_anew(&mut self) -> Result<(), Error> {
        let outcome = self.try_write_anew();
        match outcome {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()), // the old one goes on
            other => other.map_err(Error::Medium),
        }
    }

    fn try_write_anew(&mut self) -> io::Result<()> {
        let path = self.directory.join(NEW);
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(true).open(&path)?;
        let seal = self.seal;
        let mut bytes = header(seal);
        if let Some((id, order)) = self.kept.last {
            bytes.extend(seal.last(id, order as u32));
        }
        for (text, qos) in &self.kept.filters {
            bytes.extend(seal.filter(text, *qos));
        }
        for (ids, stage) in [(&self.kept.released, Stage::Released), (&self.kept.received, Stage::Received)] {
            bytes.extend(ids.iter().filter_map(|id| seal.mark(&Mark { id: *id, stage })).flatten());
        }
        let mut places = Vec::new();
        for (order, message) in &self.kept.messages {
            let mut payload = vec![0; message.len as usize];
            self.log.seek(SeekFrom::Start(message.at))?;
            self.log.read_exact(&mut payload)?;
            let head = Publish::new(&message.topic, &[]).with_qos(message.qos);
            let head = if message.retain { head.retain() } else { head };
            bytes.extend(seal.record(|body| {
                put_head(body, message.id, *order as u32, &head);
                body.extend(&payload);
            }));
            places.push((*order, (bytes.len() - payload.len()) as u64));
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&path, self.directory.join(LOG))?;
        self.log = file;
        self.len = bytes.len() as u64;
        self.generation += 1;
        for (order, at) in places {
            if let Some(message) = self.kept.messages.get_mut(&order) {
                message.at = at;
            }
        }
        let outcome = sync_directory(&self.directory);
        // Until the directory is on the disk, a crash may bring the old log back.
        self.is_failed |= outcome.is_err();
        self.synced = self.len;
        outcome
    }
}

/// Leaves a file that is no log to whoever can make something of it, perhaps its owner, and makes an empty one.
fn put_aside(directory: &Path) -> io::Result<File> {
    let name = |number: u32| directory.join(format!("{UNREADABLE}.{number}"));
    let free = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    fs::rename(directory.join(LOG), free)?;
    OpenOptions::new().create_new(true).read(true).write(true).open(directory.join(LOG))
}

/// A file that was made or renamed is there after a crash only when its directory is on the disk.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Other systems have no such call, and need none.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_the_store_though_a_copy_of_the_open_file_is_left() {
        let directory = std::env::temp_dir().join(format!("dunlin-store-lock-{}", std::process::id()));
        let store = FileStore::open(&directory).unwrap();
        // What a process that is being started has, until it becomes another program.
        let copy = store.shared.lock.as_ref().unwrap().try_clone().unwrap();
        assert!(FileStore::open(&directory).is_err());
        drop(store);
        FileStore::open(&directory).unwrap();
        drop(copy);
        fs::remove_dir_all(&directory).unwrap();
    }
}
