//! A store in a directory: a log that is appended to, and written anew when most of it is over.
//!
//! A record is length, checksum and contents. What a crash leaves torn at the end is cut off; a record that is damaged
//! in the middle is counted and passed over. Whoever is given an answer has had it synchronised with the disk; those
//! who wait at the same time share one synchronisation, led by the first of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage};

use crate::store::{Damage, Entry, Store, StoreError};

/// The format of what is written. Programs refuse a greater one.
const FORMAT: u8 = 1;
const MAGIC: &[u8] = b"dunlin";
const LOG: &str = "log";
const NEW: &str = "log.new";
const LOCK: &str = "lock";

/// Bytes of a record before its contents.
const HEAD: usize = 8;
/// A log shorter than this is not worth writing anew.
const SMALL: u64 = 64 << 10;
const DEFAULT_LIMIT: u64 = 64 << 20;
const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

type Error = StoreError<io::Error>;

/// A store in a directory, for one process at a time. Clones share it: each may be used by another thread, and what
/// they store at the same time is synchronised with the disk together.
///
/// Methods block for as long as the disk takes.
#[derive(Clone, Debug)]
pub struct FileStore {
    shared: Arc<Shared>,
    /// Holds what `entry` lends.
    topic: String,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The synchronisation that was under way has ended.
    ended: Condvar,
    /// Taken away from other processes for as long as this lives; `None` for a store that is only looked at.
    lock: Option<File>,
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
    kept: Kept,
    damage: Damage,
}

/// What the log amounts to.
#[derive(Debug, Default)]
struct Kept {
    /// By their place in the order, which is widened since it comes round.
    messages: BTreeMap<u64, Message>,
    names: HashMap<PacketId, u64>,
    released: Vec<PacketId>,
    received: Vec<PacketId>,
    filters: Vec<(String, QoS)>,
    last: Option<(PacketId, u64)>,
    /// Bytes of the records that are still needed.
    live: u64,
}

#[derive(Debug)]
struct Message {
    id: PacketId,
    topic: String,
    qos: QoS,
    retain: bool,
    /// Where its payload lies in the log.
    at: u64,
    len: u32,
}

impl FileStore {
    /// Opens the store in this directory, or makes one, for 64 MiB of messages.
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
        // What a crash left torn at the end goes.
        state.log.set_len(state.len).map_err(Error::Medium)?;
        if state.len == 0 {
            state.append(&header())?;
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
        let shared = Shared { state: Mutex::new(state), ended: Condvar::new(), lock };
        Self { shared: Arc::new(shared), topic: String::new() }
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
        if state.len > SMALL && state.len / 2 > state.kept.live && !state.is_syncing {
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
        let len = u32::try_from(publish.payload().len()).map_err(|_| StoreError::TooLarge)?;
        let record = record(|body| {
            body.push(kind::PUT);
            body.extend(id.get().to_be_bytes());
            body.extend(order.to_be_bytes());
            body.push(publish.qos().bits() | if publish.is_retain() { 4 } else { 0 });
            body.extend((publish.topic().len() as u16).to_be_bytes());
            body.extend(publish.topic().as_bytes());
            body.extend(publish.payload());
        });
        {
            let state = self.state();
            let size = record.len() as u64;
            if size > state.limit {
                return Err(StoreError::TooLarge);
            }
            if state.kept.live + size > state.limit {
                return Err(StoreError::Full);
            }
        }
        self.commit(&record, |kept, at| {
            let at = at + (record.len() - publish.payload().len()) as u64;
            let message = Message {
                id,
                topic: publish.topic().to_owned(),
                qos: publish.qos(),
                retain: publish.is_retain(),
                at,
                len,
            };
            kept.put(order, message);
        })
    }

    async fn mark(&mut self, marks: &[Mark]) -> Result<(), Error> {
        let records: Vec<u8> = marks.iter().filter_map(mark_record).flatten().collect();
        self.commit(&records, |kept, _| marks.iter().for_each(|mark| kept.mark(mark)))
    }

    async fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> Result<usize, Error> {
        let mut state = self.state();
        let key = state.kept.widen(order);
        let Some(message) = state.kept.messages.get(&key) else { return Ok(0) };
        let left = (message.len as usize).saturating_sub(offset);
        let len = left.min(out.len());
        let at = message.at + offset as u64;
        state.log.seek(SeekFrom::Start(at)).map_err(Error::Medium)?;
        state.log.read_exact(&mut out[..len]).map_err(Error::Medium)?;
        Ok(len)
    }

    async fn subscribe(&mut self, filter: &Filter<'_>) -> Result<(), Error> {
        let (text, qos) = (filter.text(), filter.qos());
        self.commit(&filter_record(text, qos), |kept, _| kept.subscribe(text, qos))
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), Error> {
        let record = record(|body| {
            body.push(kind::UNSUBSCRIBE);
            body.extend(filter.as_bytes());
        });
        self.commit(&record, |kept, _| kept.unsubscribe(filter))
    }

    async fn entry(&mut self, index: usize) -> Result<Option<Entry<'_>>, Error> {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &state.kept;
        if let Some(id) = kept.released.get(index) {
            return Ok(Some(Entry::Released(*id)));
        }
        let index = index - kept.released.len();
        if let Some((order, message)) = kept.messages.iter().nth(index) {
            let (id, order, len) = (message.id, *order as u32, message.len);
            let (qos, retain) = (message.qos, message.retain);
            self.topic.clone_from(&message.topic);
            let head = Publish::new(&self.topic, &[]).with_qos(qos);
            let head = if retain { head.retain() } else { head };
            return Ok(Some(Entry::Message { id, order, head, len }));
        }
        let index = index - kept.messages.len();
        if let Some(id) = kept.received.get(index) {
            return Ok(Some(Entry::Received(*id)));
        }
        let Some((text, qos)) = kept.filters.get(index - kept.received.len()) else { return Ok(None) };
        let qos = *qos;
        self.topic.clone_from(text);
        Ok(Filter::new(&self.topic, qos).ok().map(Entry::Subscription))
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
            kept: Kept::default(),
            damage: Damage::default(),
        };
        let mut at = 0;
        while at < bytes.len() {
            let Some(body) = whole(&bytes[at..]) else {
                // Torn at the end, or damaged with more behind it?
                match (at + 1..bytes.len()).find(|next| whole(&bytes[*next..]).is_some()) {
                    Some(next) => {
                        state.damage.records += 1;
                        at = next;
                        continue;
                    }
                    None => break,
                }
            };
            if at == 0 {
                check_header(body)?;
            } else if !state.kept.replay(body, at as u64 + HEAD as u64) {
                state.damage.records += 1;
            }
            at += HEAD + body.len();
            state.len = at as u64;
        }
        if state.len == 0 && !bytes.is_empty() && bytes.len() > HEAD + MAGIC.len() + 1 {
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
        let mut bytes = header();
        if let Some((id, order)) = self.kept.last {
            bytes.extend(last_record(id, order as u32));
        }
        for (text, qos) in &self.kept.filters {
            bytes.extend(filter_record(text, *qos));
        }
        for (ids, stage) in [(&self.kept.released, Stage::Released), (&self.kept.received, Stage::Received)] {
            bytes.extend(ids.iter().filter_map(|id| mark_record(&Mark { id: *id, stage })).flatten());
        }
        let mut places = Vec::new();
        for (order, message) in &self.kept.messages {
            let mut payload = vec![0; message.len as usize];
            self.log.seek(SeekFrom::Start(message.at))?;
            self.log.read_exact(&mut payload)?;
            bytes.extend(record(|body| {
                body.push(kind::PUT);
                body.extend(message.id.get().to_be_bytes());
                body.extend((*order as u32).to_be_bytes());
                body.push(message.qos.bits() | if message.retain { 4 } else { 0 });
                body.extend((message.topic.len() as u16).to_be_bytes());
                body.extend(message.topic.as_bytes());
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

impl Kept {
    /// The order as a number that does not come round: the one closest to the last.
    fn widen(&self, order: u32) -> u64 {
        let last = self.last.map_or(u64::from(order) + (1 << 32), |(_, last)| last);
        let distance = order.wrapping_sub(last as u32).cast_signed();
        last.wrapping_add_signed(i64::from(distance))
    }

    fn put(&mut self, order: u32, message: Message) {
        let order = self.widen(order);
        if self.last.is_none_or(|(_, last)| order > last) {
            self.last = Some((message.id, order));
        }
        self.live += size(&message);
        if let Some(older) = self.names.insert(message.id, order) {
            self.forget(older);
        }
        self.messages.insert(order, message);
    }

    fn forget(&mut self, order: u64) {
        if let Some(message) = self.messages.remove(&order) {
            self.live -= size(&message);
        }
    }

    fn mark(&mut self, mark: &Mark) {
        match mark.stage {
            Stage::Released => {
                if let Some(order) = self.names.remove(&mark.id) {
                    self.forget(order);
                }
                if !self.released.contains(&mark.id) {
                    self.released.push(mark.id);
                }
            }
            Stage::Done => {
                if let Some(order) = self.names.remove(&mark.id) {
                    self.forget(order);
                }
                self.released.retain(|id| *id != mark.id);
            }
            Stage::Received if !self.received.contains(&mark.id) => self.received.push(mark.id),
            Stage::Forgotten => self.received.retain(|id| *id != mark.id),
            _ => {}
        }
    }

    fn subscribe(&mut self, text: &str, qos: QoS) {
        self.unsubscribe(text);
        self.filters.push((text.to_owned(), qos));
        self.live += filter_record(text, qos).len() as u64;
    }

    fn unsubscribe(&mut self, text: &str) {
        if let Some(at) = self.filters.iter().position(|(other, _)| other == text) {
            let (text, qos) = self.filters.remove(at);
            self.live -= filter_record(&text, qos).len() as u64;
        }
    }

    /// Takes the contents of a record that lie at this place. `false`: they make no sense.
    fn replay(&mut self, body: &[u8], at: u64) -> bool {
        self.try_replay(body, at).is_some()
    }

    fn try_replay(&mut self, body: &[u8], at: u64) -> Option<()> {
        let (kind, rest) = body.split_first()?;
        match *kind {
            kind::PUT => {
                let ([i1, i2, o1, o2, o3, o4, flags, t1, t2], rest) = rest.split_first_chunk::<9>()?;
                let (topic, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes([*t1, *t2])))?;
                let message = Message {
                    id: PacketId::new(u16::from_be_bytes([*i1, *i2]))?,
                    topic: std::str::from_utf8(topic).ok()?.to_owned(),
                    qos: QoS::from_bits(flags & 3)?,
                    retain: flags & 4 != 0,
                    at: at + (body.len() - payload.len()) as u64,
                    len: payload.len() as u32,
                };
                self.put(u32::from_be_bytes([*o1, *o2, *o3, *o4]), message);
            }
            kind::MARK => {
                let ([stage, i1, i2], _) = rest.split_first_chunk::<3>()?;
                let stage = STAGES.iter().find(|(number, _)| number == stage).map(|(_, stage)| *stage)?;
                self.mark(&Mark { id: PacketId::new(u16::from_be_bytes([*i1, *i2]))?, stage });
            }
            kind::LAST => {
                let ([i1, i2, o1, o2, o3, o4], _) = rest.split_first_chunk::<6>()?;
                let order = self.widen(u32::from_be_bytes([*o1, *o2, *o3, *o4]));
                self.last = Some((PacketId::new(u16::from_be_bytes([*i1, *i2]))?, order));
            }
            kind::SUBSCRIBE => {
                let (qos, text) = rest.split_first()?;
                self.subscribe(std::str::from_utf8(text).ok()?, QoS::from_bits(*qos)?);
            }
            kind::UNSUBSCRIBE => self.unsubscribe(std::str::from_utf8(rest).ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// Kinds of records, their first byte.
mod kind {
    pub const PUT: u8 = 1;
    pub const MARK: u8 = 2;
    pub const SUBSCRIBE: u8 = 3;
    pub const UNSUBSCRIBE: u8 = 4;
    /// The message put last, if it is over.
    pub const LAST: u8 = 5;
}

/// Stages as they are written. A message that is accepted has a record of its own.
const STAGES: [(u8, Stage); 4] = [(1, Stage::Released), (2, Stage::Done), (3, Stage::Received), (4, Stage::Forgotten)];

fn size(message: &Message) -> u64 {
    (HEAD + 10 + message.topic.len()) as u64 + u64::from(message.len)
}

fn record(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    fill(&mut bytes);
    let len = ((bytes.len() - HEAD) as u32).to_be_bytes();
    let sum = checksum(len, &bytes[HEAD..]).to_be_bytes();
    bytes[..4].copy_from_slice(&len);
    bytes[4..HEAD].copy_from_slice(&sum);
    bytes
}

fn mark_record(mark: &Mark) -> Option<Vec<u8>> {
    let (stage, _) = STAGES.iter().find(|(_, stage)| *stage == mark.stage)?;
    Some(record(|body| {
        body.extend([kind::MARK, *stage]);
        body.extend(mark.id.get().to_be_bytes());
    }))
}

fn filter_record(text: &str, qos: QoS) -> Vec<u8> {
    record(|body| {
        body.extend([kind::SUBSCRIBE, qos.bits()]);
        body.extend(text.as_bytes());
    })
}

fn last_record(id: PacketId, order: u32) -> Vec<u8> {
    record(|body| {
        body.push(kind::LAST);
        body.extend(id.get().to_be_bytes());
        body.extend(order.to_be_bytes());
    })
}

fn header() -> Vec<u8> {
    record(|body| {
        body.extend(MAGIC);
        body.push(FORMAT);
    })
}

fn check_header(body: &[u8]) -> Result<(), Error> {
    match body.strip_prefix(MAGIC) {
        Some([format]) if *format > FORMAT => Err(StoreError::Newer { format: *format }),
        Some([_]) => Ok(()),
        _ => Err(StoreError::Region),
    }
}

/// The contents of the record at the front, if it is whole.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let ([l1, l2, l3, l4, sum @ ..], rest) = bytes.split_first_chunk::<HEAD>()?;
    let len = [*l1, *l2, *l3, *l4];
    let body = rest.get(..usize::try_from(u32::from_be_bytes(len)).ok()?)?;
    (!body.is_empty() && checksum(len, body) == u32::from_be_bytes(*sum)).then_some(body)
}

fn checksum(len: [u8; 4], body: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&len);
    digest.update(body);
    digest.finalize()
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
