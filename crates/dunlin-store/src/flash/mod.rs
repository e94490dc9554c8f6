//! A store on NOR flash: a few pages, two at least.
//!
//! Built on the map of `sequential-storage`, which levels wear and recovers from power cuts, and never trusting it
//! alone: each record carries its own length and checksum, is read back after it is written, and written again if it
//! is not there. (After two cuts at the same place the map can report success and keep nothing.) Each record also says
//! what all records amount to, so that one that has become unreadable is missed; and erases are made whole: see `whole`.
//!
//! A message has a key. Its record is overwritten by "released", and that by "gone", so that the number of keys has a
//! bound; a payload that does not fit the record lies in parts, written before it, and overwritten by those of later
//! messages. The map holds the latest record of each key, and moves them as pages fill. Of all that is kept, RAM holds a
//! table: see `table`.
//!
//! What is to be written is decided here without waiting, one record at a time; `write` and `fetch` alone wait for the
//! map.

mod record;
mod table;
mod whole;

use core::ops::Range;

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage};
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use crate::store::{Damage, Entry, Store, StoreError};
use record::{BODY, Draft, HEAD, MESSAGE_HEAD, Opened, TOPIC};
use table::{Cell, FILTERS, MESSAGES, PARTS, RECEIVED, Table, kind};
use whole::Whole;

/// A record with its key, rounded up to the largest word.
const BUFFER: usize = 256;

/// How often a record is written before the flash is called unreliable.
const TRIES: usize = 4;

type Map<F> = MapStorage<u32, Whole<F>, Cache<Uncached, Uncached, Uncached, u32>>;

/// A store on NOR flash.
///
/// `M`: outgoing messages at a time. `P`: parts of 220 bytes for payloads that do not fit a record of 240 bytes together
/// with their topic. `R`: incoming QoS 2 messages at a time, at most 110. `F`: filters added at run time. Topics and
/// filters have at most 211 bytes. All four may be changed by an update of the program, as long as what is stored fits.
///
/// For flash with a blocking driver, wrap it: [`Blocking`].
pub struct FlashStore<N: NorFlash, const M: usize = 16, const P: usize = 64, const R: usize = 21, const F: usize = 8> {
    map: Map<N>,
    table: Table<M, P, R, F>,
    damage: Damage,
    capacity: usize,
    /// Something is being written. If that is so when something else begins, its future was dropped in the middle.
    is_writing: bool,
    buffer: [u8; BUFFER],
}

type Outcome<T, N> = Result<T, StoreError<<N as ErrorType>::Error>>;

impl<N: NorFlash, const M: usize, const P: usize, const R: usize, const F: usize> FlashStore<N, M, P, R, F> {
    /// Opens the store in this range of the flash, in bytes; makes an empty one where there is none.
    ///
    /// What a power cut left half done is brought to an end. [`damage`](Store::damage) tells whether anything was
    /// found that had been whole and could not be read.
    ///
    /// # Errors
    /// [`StoreError`]: the store is of a newer format, larger than the tables of this program, or cannot be reached.
    pub async fn mount(flash: N, range: Range<u32>) -> Outcome<Self, N> {
        const { assert!(R <= BODY / 2, "identifiers received must fit a record") };
        let is_inside = usize::try_from(range.end).is_ok_and(|end| end <= flash.capacity());
        let page = u32::try_from(N::ERASE_SIZE).unwrap_or(u32::MAX);
        let is_whole = range.start.is_multiple_of(page) && range.end.is_multiple_of(page);
        let is_enough = range.end.saturating_sub(range.start) >= page.saturating_mul(2);
        if !(is_inside & is_whole & is_enough) {
            return Err(StoreError::Region);
        }
        let flash = Whole::new(flash, range);
        let config = MapConfig::try_new(0..flash.len()).map_err(|_| StoreError::Region)?;
        // One page is always free to move into; the others lose a mark at each end and what the last record leaves.
        let page = Whole::<N>::ERASE_SIZE;
        let pages = flash.capacity().checked_div(page).unwrap_or_default().saturating_sub(1);
        let lost = word::<N>().saturating_mul(2).saturating_add(item::<N>(BODY));
        let mut store = Self {
            capacity: pages.saturating_mul(page.saturating_sub(lost)),
            map: MapStorage::new(flash, config, Cache::new_uncached()),
            table: Table::new(),
            damage: Damage::default(),
            is_writing: true,
            buffer: [0; BUFFER],
        };
        if store.capacity <= store.used() {
            return Err(StoreError::Region);
        }
        store.begin().await?;
        Ok(store)
    }

    /// Bytes of records that can be kept, with all that the map needs to move them.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that what is kept takes of it, with what is set aside for becoming something else.
    pub fn used(&self) -> usize {
        let aside = item::<N>(R.saturating_mul(2)).saturating_add(item::<N>(0).saturating_mul(M));
        let messages = self.table.messages.iter().filter(|cell| cell.is_message());
        let others = self.table.parts.iter().chain(&self.table.filters).filter(|cell| cell.kind != kind::NEVER);
        messages.chain(others).fold(aside, |used, cell| used.saturating_add(item::<N>(usize::from(cell.len))))
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> N {
        self.map.destroy().0.into_inner()
    }

    /// The flash, to be looked at.
    pub fn flash(&mut self) -> &mut N {
        self.map.flash().inner()
    }

    // Reading all of it

    /// Something is about to be written. What was being written when its future was dropped is looked up first: it is
    /// there or not, as after a power cut. A mount begins in the same way.
    async fn begin(&mut self) -> Outcome<(), N> {
        if !self.is_writing {
            return Ok(());
        }
        self.map.flash().finish().await.map_err(StoreError::Medium)?;
        self.table.clear();
        match self.read_all().await {
            Err(StoreError::Unreliable) => {
                self.map.erase_all().await.map_err(medium)?;
                self.table.clear();
                self.damage.is_reset = true;
            }
            other => other?,
        }
        self.is_writing = false;
        Ok(())
    }

    /// Reads all records in the order in which they were written; the latest of each key counts.
    async fn read_all(&mut self) -> Outcome<(), N> {
        let (mut is_first, mut most) = (true, 0);
        let mut items = self.map.fetch_all_items(&mut self.buffer).await.map_err(medium)?;
        while let Some((key, bytes)) = items.next::<&[u8]>(&mut self.buffer).await.map_err(medium)? {
            let Some(opened) = record::open(key, bytes) else {
                self.damage.records = self.damage.records.saturating_add(1);
                continue;
            };
            if opened.format > record::FORMAT {
                return Err(StoreError::Newer { format: opened.format });
            }
            self.table.see(&opened, is_first);
            is_first = false;
            let (which, index) = Table::<M, P, R, F>::of_key(key);
            if which == RECEIVED && !self.table.take_ids(opened.body) {
                return Err(StoreError::TooSmall);
            }
            if !self.table.note(which, &opened) {
                most = index.saturating_add(1).max(most);
            }
        }
        // There may be keys beyond those of this program; most of them hold nothing.
        for which in [MESSAGES, PARTS, FILTERS] {
            let count = u16::try_from(self.table.cells(which).len()).unwrap_or(u16::MAX);
            for index in count..most {
                let at = self.fetch(which, index).await?;
                let key = Table::<M, P, R, F>::key(which, index);
                let opened = at.and_then(|at| record::open(key, self.buffer.get(at)?));
                if let Some(opened) = opened.filter(|opened| opened.cell.is_live())
                    && !self.table.adopt(which, &opened)
                {
                    return Err(StoreError::TooSmall);
                }
            }
        }
        self.table.drop_torn();
        let is_all_there = is_first || self.table.latest_census == self.table.census;
        self.damage.records = self.damage.records.saturating_add(u32::from(!is_all_there));
        Ok(())
    }

    // Records

    /// Writes a record, makes sure that it is there, and notes it.
    async fn write(&mut self, which: u8, cell: Cell, body: [&[u8]; 3]) -> Outcome<(), N> {
        let number = self.table.number;
        self.table.number = number.wrapping_add(1);
        let census = self.table.census_with(which, &cell.noted(number));
        let key = Table::<M, P, R, F>::key(which, cell.index);
        let draft = Draft { key, cell, number, census, body };
        self.is_writing = true;
        for _ in 0..TRIES {
            match self.map.store_item(&mut self.buffer, &key, &draft).await {
                Ok(()) => {}
                Err(Error::FullStorage) => return Err(StoreError::Full),
                Err(Error::Storage { value, .. }) => return Err(StoreError::Medium(value)),
                Err(_) => continue,
            }
            // The map may say that it was stored, and it is not.
            let at = self.fetch(which, cell.index).await?;
            let opened = at.and_then(|at| record::open(key, self.buffer.get(at)?));
            if let Some(opened) = opened.filter(|opened| opened.number == number) {
                self.table.note(which, &opened);
                self.is_writing = false;
                return Ok(());
            }
        }
        Err(StoreError::Unreliable)
    }

    /// The latest record of a key: where it lies in `buffer`.
    async fn fetch(&mut self, which: u8, index: u16) -> Outcome<Option<Range<usize>>, N> {
        let key = Table::<M, P, R, F>::key(which, index);
        match self.map.fetch_item::<&[u8]>(&mut self.buffer, &key).await {
            Ok(Some(bytes)) => Ok(Some(KEY..KEY.saturating_add(bytes.len()))),
            Err(Error::Storage { value, .. }) => Err(StoreError::Medium(value)),
            Ok(None) | Err(_) => Ok(None),
        }
    }
}

impl<N: NorFlash, const M: usize, const P: usize, const R: usize, const F: usize> Store for FlashStore<N, M, P, R, F> {
    type Error = N::Error;

    async fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> Outcome<(), N> {
        self.begin().await?;
        let (topic, payload) = (publish.topic().as_bytes(), publish.payload());
        let is_whole = topic.len().saturating_add(payload.len()) <= record::WHOLE;
        let (inside, outside) = if is_whole { (payload, &[][..]) } else { (&[][..], payload) };
        let count = outside.len().div_ceil(BODY);
        let body = MESSAGE_HEAD.saturating_add(topic.len()).saturating_add(inside.len());
        let size = item::<N>(body).saturating_add(item::<N>(BODY).saturating_mul(count));
        if topic.len() > TOPIC || count > P || size > self.capacity {
            return Err(StoreError::TooLarge);
        }
        let [l1, l2, l3, l4] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let flags = publish.qos().bits() | u8::from(publish.is_retain()).wrapping_shl(2);
        let head = [flags, byte(topic.len()), l1, l2, l3, l4];
        let mut pieces = outside.chunks(BODY);
        let mut piece = 0_u16;
        loop {
            let (free, most) = self.table.free_parts(order);
            let step = if let Some(cell) = self.table.message(id.get()) {
                // Its publisher gave up in the middle, and the identifier went to this message.
                (MESSAGES, self.table.gone(cell), [&[][..]; 3])
            } else if piece == 0 && size > self.capacity.saturating_sub(self.used()) {
                // What earlier payloads left takes room.
                let stale = most.filter(|part| part.len > 0).ok_or(StoreError::Full)?;
                (PARTS, Cell { kind: kind::GONE, len: 0, ..stale }, [&[][..]; 3])
            } else if piece == 0 && free < count {
                return Err(StoreError::Full);
            } else if let (Some(bytes), Some(part)) = (pieces.next(), most) {
                let kind = if pieces.len() == 0 { kind::END } else { kind::PART };
                let cell = Cell { kind, len: byte(bytes.len()), id: piece, order, index: part.index };
                piece = piece.wrapping_add(1);
                (PARTS, cell, [bytes, &[], &[]])
            } else {
                let free = self.table.messages.iter().find(|cell| !cell.is_live()).ok_or(StoreError::Full)?;
                let kind = if is_whole { kind::MESSAGE } else { kind::LARGE };
                let cell = Cell { kind, len: byte(body), id: id.get(), order, index: free.index };
                (MESSAGES, cell, [&head[..], topic, inside])
            };
            let (which, cell, body) = step;
            self.write(which, cell, body).await?;
            if cell.is_message() {
                return Ok(());
            }
        }
    }

    async fn mark(&mut self, marks: &[Mark]) -> Outcome<(), N> {
        self.begin().await?;
        let mut left = marks;
        while let Some((mark, behind)) = left.split_first() {
            let mut ids = self.table.ids;
            let (which, cell, body) = if is_incoming(mark) {
                // However many they are, they go into one record.
                let mut count = self.table.ids().len();
                while let Some((mark, behind)) = left.split_first().filter(|(mark, _)| is_incoming(mark)) {
                    count = table::receive(&mut ids, count, mark).ok_or(StoreError::TooSmall)?;
                    left = behind;
                }
                let bytes = ids.get(..count).unwrap_or_default().as_flattened();
                if bytes == self.table.ids().as_flattened() {
                    continue;
                }
                let order = record::checksum(0, bytes);
                let cell = Cell { kind: kind::RECEIVED, len: byte(bytes.len()), id: 0, order, index: 0 };
                (RECEIVED, cell, bytes)
            } else {
                left = behind;
                let Some(cell) = self.table.marked(mark) else { continue };
                (MESSAGES, cell, &[][..])
            };
            self.write(which, cell, [body, &[], &[]]).await?;
            if which == RECEIVED {
                self.table.ids = ids;
            }
        }
        Ok(())
    }

    async fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> Outcome<usize, N> {
        let Some(message) = self.table.messages.iter().find(|cell| cell.is_message() && cell.order == order) else {
            return Ok(0);
        };
        let number = offset.checked_div(BODY).unwrap_or_default();
        let is_its = |part: &&Cell| part.is_part_of(order) && usize::from(part.id) == number;
        let (which, cell, within) = if message.kind == kind::MESSAGE {
            (MESSAGES, message, offset)
        } else {
            let Some(part) = self.table.parts.iter().find(is_its) else { return Ok(0) };
            (PARTS, part, offset.checked_rem(BODY).unwrap_or_default())
        };
        let (kind, index) = (cell.kind, cell.index);
        let Some(at) = self.fetch(which, index).await? else { return Ok(0) };
        let body = self.opened(which, index, at).map_or(&[][..], |opened| opened.body);
        let begin = match (kind, body.get(1)) {
            (kind::MESSAGE, Some(topic)) => usize::from(*topic).saturating_add(MESSAGE_HEAD),
            _ => 0,
        };
        let bytes = body.get(begin.saturating_add(within)..).unwrap_or_default();
        let len = out.len().min(bytes.len());
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(len)
    }

    async fn subscribe(&mut self, filter: &Filter<'_>) -> Outcome<(), N> {
        self.set_filter(filter.text(), Some(filter.qos())).await
    }

    async fn unsubscribe(&mut self, filter: &str) -> Outcome<(), N> {
        self.set_filter(filter, None).await
    }

    async fn entry(&mut self, index: usize) -> Outcome<Option<Entry<'_>>, N> {
        loop {
            let (which, cell) = match self.table.nth(index) {
                Ok(cell) if cell.kind == kind::RELEASED => {
                    return Ok(PacketId::new(cell.id).map(Entry::Released));
                }
                Ok(cell) => (MESSAGES, cell),
                Err(messages) => {
                    let index = index.saturating_sub(messages);
                    if let Some(id) = self.table.ids().get(index) {
                        return Ok(PacketId::new(u16::from_be_bytes(*id)).map(Entry::Received));
                    }
                    let index = index.saturating_sub(self.table.ids().len());
                    let Some(cell) = self.table.filters.iter().filter(|cell| cell.is_live()).nth(index) else {
                        return Ok(None);
                    };
                    (FILTERS, *cell)
                }
            };
            // What was found by its place must be found by its key: the parts, and last what they belong to.
            let mut is_whole = true;
            for at in 0..=P {
                let part =
                    self.table.parts.get(at).filter(|part| cell.kind == kind::LARGE && part.is_part_of(cell.order));
                let (which, cell) = match part.copied() {
                    Some(part) => (PARTS, part),
                    None if at == P => (which, cell),
                    None => continue,
                };
                let at = self.fetch(which, cell.index).await?;
                let opened = at.and_then(|at| self.opened(which, cell.index, at));
                is_whole &= opened.is_some_and(|opened| opened.cell == cell);
            }
            if is_whole {
                let at = KEY..KEY.saturating_add(HEAD).saturating_add(usize::from(cell.len));
                let entry = self.opened(which, cell.index, at).and_then(|opened| opened.entry());
                return entry.map(Some).ok_or(StoreError::Unreliable);
            }
            self.table.drop(which, cell.index);
            self.damage.records = self.damage.records.saturating_add(1);
        }
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        self.table.last
    }

    fn damage(&self) -> Damage {
        self.damage
    }
}

impl<N: NorFlash, const M: usize, const P: usize, const R: usize, const F: usize> FlashStore<N, M, P, R, F> {
    /// The record in `buffer`, if it is whole.
    fn opened(&self, which: u8, index: u16, at: Range<usize>) -> Option<Opened<'_>> {
        record::open(Table::<M, P, R, F>::key(which, index), self.buffer.get(at)?)
    }

    /// Keeps a filter with a quality of service, and forgets it without.
    async fn set_filter(&mut self, text: &str, qos: Option<QoS>) -> Outcome<(), N> {
        self.begin().await?;
        let text = text.as_bytes();
        if text.len() > TOPIC {
            return Err(StoreError::TooLarge);
        }
        let (id, order) = table::name(text);
        let filters = &self.table.filters;
        let known = filters.iter().find(|cell| cell.is_live() && cell.order == order && cell.id == id);
        let free = || filters.iter().find(|cell| !cell.is_live());
        let Some(place) = known.or_else(free) else {
            return if qos.is_some() { Err(StoreError::Full) } else { Ok(()) };
        };
        let len = byte(text.len().saturating_add(1));
        let mut cell = Cell { kind: kind::FILTER, len, id, order, index: place.index };
        let bits = qos.map_or(0, QoS::bits);
        let mut body = [core::slice::from_ref(&bits), text, &[]];
        if qos.is_none() {
            if known.is_none() {
                return Ok(());
            }
            (cell.kind, cell.len, body) = (kind::GONE, 0, [&[][..]; 3]);
        } else if item::<N>(usize::from(len)) > self.capacity.saturating_sub(self.used()) {
            return Err(StoreError::Full);
        }
        self.write(FILTERS, cell, body).await
    }
}

/// Bytes of the key before a record.
const KEY: usize = size_of::<u32>();

fn is_incoming(mark: &Mark) -> bool {
    matches!(mark.stage, Stage::Received | Stage::Forgotten)
}

/// Lengths in a record; what does not fit was refused before.
fn byte(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

fn word<N: NorFlash>() -> usize {
    N::WRITE_SIZE.max(N::READ_SIZE)
}

/// Bytes of flash that a record with so many bytes of contents takes.
fn item<N: NorFlash>(body: usize) -> usize {
    let overhead = usize::try_from(Map::<N>::item_overhead_size()).unwrap_or(usize::MAX);
    let data = body.saturating_add(HEAD).saturating_add(KEY);
    let rounded = data.checked_next_multiple_of(word::<N>()).unwrap_or(data);
    overhead.saturating_add(rounded)
}

fn medium<E>(error: Error<E>) -> StoreError<E> {
    match error {
        Error::Storage { value, .. } => StoreError::Medium(value),
        _ => StoreError::Unreliable,
    }
}

/// Flash with a blocking driver, as one for executors that is always ready.
#[derive(Clone, Debug)]
pub struct Blocking<F>(pub F);

impl<F: embedded_storage::nor_flash::ErrorType> ErrorType for Blocking<F> {
    type Error = F::Error;
}

impl<F: embedded_storage::nor_flash::ReadNorFlash> ReadNorFlash for Blocking<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: embedded_storage::nor_flash::NorFlash> NorFlash for Blocking<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.0.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.write(offset, bytes)
    }
}

impl<N, const M: usize, const P: usize, const R: usize, const F: usize> FlashStore<Blocking<N>, M, P, R, F>
where
    N: embedded_storage::nor_flash::NorFlash,
{
    /// As [`mount`](Self::mount), on flash with a blocking driver.
    ///
    /// # Errors
    /// The same.
    pub fn mount_blocking(flash: N, range: Range<u32>) -> Result<Self, StoreError<N::Error>> {
        crate::block::block_on(Self::mount(Blocking(flash), range))
    }
}
