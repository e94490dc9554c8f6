//! A store on NOR flash: a few pages, two at least.
//!
//! Built on the map of `sequential-storage`, which levels wear and recovers from power cuts, and never trusting it
//! alone: each record carries its own length and checksum, is read back after it is written, and written again if it
//! is not there. (After two cuts at the same place the map can report success and keep nothing.) Each record also says
//! what all records amount to, so that one that has become unreadable is missed; and erases are made whole: see `whole`.
//!
//! A message takes a slot. Its record is overwritten by "released", and that by "free", so that the number of keys has
//! a bound; what does not fit the record lies in parts, written before it and emptied after it. The map holds the
//! latest record of each key, and moves them as pages fill. Of all that is kept, RAM holds a table.

use core::ops::Range;

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage};
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use crate::record::{self, HEAD, Key, Opened, PART, Record, Shape, Slot, State};
use crate::store::{Damage, Entry, Store, StoreError};
use crate::whole::Whole;

/// The format of what is written. Programs refuse a greater one.
const FORMAT: u8 = 1;

/// A record with its key, rounded up to the largest word.
const BUFFER: usize = 256;

/// How often a record is written before the flash is called unreliable.
const TRIES: usize = 4;

/// Bytes of a slot's record that is not a message: the larger of the two.
const SMALL: usize = 12;

type Map<F> = MapStorage<u32, Whole<F>, Cache<Uncached, Uncached, Uncached, u32>>;

/// A store on NOR flash.
///
/// `MESSAGES`: outgoing messages at a time. `PARTS`: pieces of 222 bytes for payloads that do not fit a record of 240
/// bytes together with their topic. `RECEIVED`: incoming QoS 2 messages at a time, at most 117. `FILTERS`: filters
/// added at run time. Topics and filters have at most 211 bytes. All four may be changed by an update of the program,
/// as long as what is stored fits.
///
/// For flash with a blocking driver, wrap it: [`Blocking`].
pub struct FlashStore<
    F: NorFlash,
    const MESSAGES: usize = 16,
    const PARTS: usize = 64,
    const RECEIVED: usize = 21,
    const FILTERS: usize = 8,
> {
    map: Map<F>,
    slots: [Place; MESSAGES],
    parts: [Part; PARTS],
    received: [u16; RECEIVED],
    filters: [u8; FILTERS],
    last: Option<(PacketId, u32)>,
    /// The next place in the order of PUBRECs.
    turn: u32,
    /// The number of the next record.
    number: u32,
    damage: Damage,
    /// Something is being written. If that is so when something else begins, its future was dropped in the middle.
    is_writing: bool,
    record: Record,
    buffer: [u8; BUFFER],
}

/// A slot, or room to know one.
#[derive(Clone, Copy)]
struct Place {
    /// The number in its key.
    slot: u16,
    content: Option<Slot>,
}

/// What is known of a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Never written, as far as is known.
    Unknown,
    /// Written, and emptied.
    Empty,
    /// Holds a piece of a payload, or what is left of one.
    Full,
}

/// A filter that is not there.
const NO_FILTER: u8 = 0;

impl<F: NorFlash, const MESSAGES: usize, const PARTS: usize, const RECEIVED: usize, const FILTERS: usize>
    FlashStore<F, MESSAGES, PARTS, RECEIVED, FILTERS>
{
    /// Opens the store in this range of the flash, in bytes; makes an empty one where there is none.
    ///
    /// What a power cut left half done is brought to an end. [`damage`](Store::damage) tells whether anything was
    /// found that had been whole and could not be read.
    ///
    /// # Errors
    /// [`StoreError`]: the store is of a newer format, larger than the tables of this program, or cannot be reached.
    pub async fn mount(flash: F, range: Range<u32>) -> Result<Self, StoreError<F::Error>> {
        const { assert!(RECEIVED <= record::BODY / 2, "identifiers received must fit a record") };
        let is_inside = usize::try_from(range.end).is_ok_and(|end| end <= flash.capacity());
        let page = u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
        let is_whole = range.start.is_multiple_of(page) && range.end.is_multiple_of(page);
        let is_enough = range.end.saturating_sub(range.start) >= page.saturating_mul(2);
        let region = [is_inside, is_whole, is_enough];
        if region.contains(&false) {
            return Err(StoreError::Region);
        }
        let mut flash = Whole::new(flash, range);
        flash.finish().await.map_err(StoreError::Medium)?;
        let config = MapConfig::try_new(0..flash.len()).map_err(|_| StoreError::Region)?;
        let mut slots = [Place { slot: 0, content: None }; MESSAGES];
        for (place, number) in slots.iter_mut().zip(0..) {
            place.slot = number;
        }
        let mut store = Self {
            map: MapStorage::new(flash, config, Cache::new_uncached()),
            slots,
            parts: [Part::Unknown; PARTS],
            received: [0; RECEIVED],
            filters: [NO_FILTER; FILTERS],
            last: None,
            turn: 0,
            number: 0,
            damage: Damage::default(),
            is_writing: false,
            record: Record::new(),
            buffer: [0; BUFFER],
        };
        if store.capacity() <= store.used() {
            return Err(StoreError::Region);
        }
        store.read_all().await?;
        Ok(store)
    }

    /// Bytes of records that can be kept, with all that the map needs to move them.
    pub fn capacity(&self) -> usize {
        let range = self.map.flash_range();
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        // One page is always free to move into; the others lose a mark at each end and what the last record leaves.
        let page = Whole::<F>::ERASE_SIZE;
        let pages = len.checked_div(page).unwrap_or_default().saturating_sub(1);
        let lost = word::<F>().saturating_mul(2).saturating_add(item::<F>(record::BODY));
        pages.saturating_mul(page.saturating_sub(lost))
    }

    /// Bytes that what is kept takes of it, with what is set aside for becoming something else.
    pub fn used(&self) -> usize {
        let mut used = item::<F>(1).saturating_add(item::<F>(RECEIVED.saturating_mul(2)));
        used = used.saturating_add(item::<F>(SMALL).saturating_mul(MESSAGES));
        for place in &self.slots {
            if let Some(Slot { state: State::Message(shape), .. }) = place.content {
                used = used.saturating_add(item::<F>(shape.body_len()));
            }
        }
        for part in &self.parts {
            used = used.saturating_add(match part {
                Part::Unknown => 0,
                Part::Empty => item::<F>(0),
                Part::Full => item::<F>(record::BODY),
            });
        }
        for len in &self.filters {
            used = used.saturating_add(item::<F>(usize::from(*len)));
        }
        used
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> F {
        self.map.destroy().0.into_inner()
    }

    /// The flash, to be looked at.
    pub fn flash(&mut self) -> &mut F {
        self.map.flash().inner()
    }

    // Mounting

    async fn read_all(&mut self) -> Result<(), StoreError<F::Error>> {
        let outcome = match self.fold().await {
            Err(StoreError::TooSmall) => self.look_up().await,
            other => other,
        };
        match outcome {
            Ok(Some(latest)) => {
                self.number = latest.number.wrapping_add(1);
                let is_all_there = latest.census == self.census(Change::Nothing);
                self.damage.records = self.damage.records.saturating_add(u32::from(!is_all_there));
            }
            Ok(None) => self.write(Key::Format, &[&[FORMAT]], Change::Nothing).await?,
            Err(StoreError::Unreliable) => {
                self.map.erase_all().await.map_err(medium)?;
                self.forget_all();
                self.damage.is_reset = true;
                self.write(Key::Format, &[&[FORMAT]], Change::Nothing).await?;
            }
            Err(error) => return Err(error),
        }
        self.check_messages().await?;
        self.empty_parts().await
    }

    fn forget_all(&mut self) {
        for place in &mut self.slots {
            place.content = None;
        }
        self.parts = [Part::Unknown; PARTS];
        self.received = [0; RECEIVED];
        self.filters = [NO_FILTER; FILTERS];
        self.last = None;
        self.turn = 0;
    }

    /// Reads all records in the order in which they were written; the latest of each key counts. Gives the latest of
    /// all, if there is one.
    async fn fold(&mut self) -> Result<Option<Latest>, StoreError<F::Error>> {
        let mut latest = None;
        let mut items = self.map.fetch_all_items(&mut self.buffer).await.map_err(broken)?;
        // The table is taken along, since the iterator borrows the map.
        let mut table = Table {
            slots: &mut self.slots,
            parts: &mut self.parts,
            received: &mut self.received,
            filters: &mut self.filters,
            last: &mut self.last,
            turn: &mut self.turn,
        };
        loop {
            let next = items.next::<&[u8]>(&mut self.buffer).await.map_err(broken)?;
            let Some((number, bytes)) = next else { return Ok(latest) };
            let key = Key::of(number);
            let Some(opened) = record::open(key, bytes) else {
                self.damage.records = self.damage.records.saturating_add(1);
                continue;
            };
            check_format(key, opened.body)?;
            Latest::see(&mut latest, &opened);
            if !table.take(key, opened.body) {
                return Err(StoreError::TooSmall);
            }
        }
    }

    /// The slow way, when the log holds more slots than there are places: most of them may be over.
    async fn look_up(&mut self) -> Result<Option<Latest>, StoreError<F::Error>> {
        self.forget_all();
        let mut latest = None;
        let mut most = 0;
        {
            let mut items = self.map.fetch_all_items(&mut self.buffer).await.map_err(broken)?;
            while let Some((number, _)) = items.next::<&[u8]>(&mut self.buffer).await.map_err(broken)? {
                if let Key::Slot(index) | Key::Part(index) | Key::Filter(index) = Key::of(number) {
                    most = index.max(most);
                }
            }
        }
        let of_index = (0..=most).flat_map(|index| [Key::Slot(index), Key::Part(index), Key::Filter(index)]);
        for key in of_index.chain([Key::Received, Key::Format]) {
            let Some(bytes) = self.map.fetch_item::<&[u8]>(&mut self.buffer, &key.number()).await.map_err(broken)?
            else {
                continue;
            };
            let Some(opened) = record::open(key, bytes) else { continue };
            check_format(key, opened.body)?;
            Latest::see(&mut latest, &opened);
            let mut table = Table {
                slots: &mut self.slots,
                parts: &mut self.parts,
                received: &mut self.received,
                filters: &mut self.filters,
                last: &mut self.last,
                turn: &mut self.turn,
            };
            if !table.take(key, opened.body) {
                return Err(StoreError::TooSmall);
            }
        }
        Ok(latest)
    }

    /// Messages whose payload is not whole are lost, and said to be.
    async fn check_messages(&mut self) -> Result<(), StoreError<F::Error>> {
        for index in 0..MESSAGES {
            let Some(Slot { order, state: State::Message(shape), .. }) = self.content(index) else { continue };
            let mut is_whole = true;
            for number in 0..shape.parts() {
                is_whole &= self.part(&shape, order, number).await?.is_some();
            }
            if !is_whole {
                self.damage.records = self.damage.records.saturating_add(1);
                self.free(index).await?;
            }
        }
        Ok(())
    }

    /// Empties the parts that no message names: what a power cut left.
    async fn empty_parts(&mut self) -> Result<(), StoreError<F::Error>> {
        for index in 0..PARTS {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            let is_full = self.parts.get(index) == Some(&Part::Full);
            if is_full && !self.is_named(number) {
                self.empty_part(number).await?;
            }
        }
        Ok(())
    }

    fn is_named(&self, part: u16) -> bool {
        self.slots.iter().any(|place| match place.content {
            Some(Slot { state: State::Message(shape), .. }) => {
                let behind = usize::from(part.wrapping_sub(shape.first_part));
                behind < shape.parts()
            }
            _ => false,
        })
    }

    /// Something is about to be written. What was being written when its future was dropped is looked up first: it is
    /// there or not, as after a power cut.
    async fn begin(&mut self) -> Result<(), StoreError<F::Error>> {
        if self.is_writing {
            self.forget_all();
            self.map.flash().finish().await.map_err(StoreError::Medium)?;
            self.read_all().await?;
        }
        self.is_writing = true;
        Ok(())
    }

    // Records

    /// Writes a record and makes sure that it is there.
    async fn write(&mut self, key: Key, body: &[&[u8]], change: Change<'_>) -> Result<(), StoreError<F::Error>> {
        self.record.clear();
        for bytes in body {
            self.record.put(bytes);
        }
        self.write_record(key, change).await
    }

    /// Writes the record that was made. `change` is what is kept once it is there; the caller notes it then.
    async fn write_record(&mut self, key: Key, change: Change<'_>) -> Result<(), StoreError<F::Error>> {
        let (number, census) = (self.number, self.census(change));
        self.number = number.wrapping_add(1);
        self.record.seal(key, number, census);
        for _ in 0..TRIES {
            match self.map.store_item(&mut self.buffer, &key.number(), &self.record.bytes()).await {
                Ok(()) => {}
                Err(Error::FullStorage) => return Err(StoreError::Full),
                Err(Error::Storage { value, .. }) => return Err(StoreError::Medium(value)),
                Err(_) => continue,
            }
            match self.map.fetch_item::<&[u8]>(&mut self.buffer, &key.number()).await {
                Ok(Some(bytes)) if bytes == self.record.bytes() => return Ok(()),
                Err(Error::Storage { value, .. }) => return Err(StoreError::Medium(value)),
                Ok(_) | Err(_) => {} // the map said that it was stored, and it is not
            }
        }
        Err(StoreError::Unreliable)
    }

    /// The contents of a record, into `buffer`: where they lie there.
    async fn read_record(&mut self, key: Key) -> Result<Option<Range<usize>>, StoreError<F::Error>> {
        let bytes = match self.map.fetch_item::<&[u8]>(&mut self.buffer, &key.number()).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(Error::Storage { value, .. }) => return Err(StoreError::Medium(value)),
            Err(_) => return Ok(None),
        };
        let Some(opened) = record::open(key, bytes) else { return Ok(None) };
        // Key, head of the record, contents.
        let start = size_of::<u32>().saturating_add(HEAD);
        Ok(Some(start..start.saturating_add(opened.body.len())))
    }

    /// A piece of a payload: where it lies in `buffer`.
    async fn part(
        &mut self,
        shape: &Shape,
        order: u32,
        number: usize,
    ) -> Result<Option<Range<usize>>, StoreError<F::Error>> {
        let index = shape.first_part.wrapping_add(u16::try_from(number).unwrap_or(u16::MAX));
        let Some(at) = self.read_record(Key::Part(index)).await? else { return Ok(None) };
        let body = self.buffer.get(at.clone()).unwrap_or_default();
        let is_its = body.first_chunk() == Some(&order.to_be_bytes());
        Ok(is_its.then_some(at.start.saturating_add(4)..at.end))
    }

    async fn empty_part(&mut self, number: u16) -> Result<(), StoreError<F::Error>> {
        self.write(Key::Part(number), &[], Change::Nothing).await?;
        if let Some(part) = self.parts.get_mut(usize::from(number)) {
            *part = Part::Empty;
        }
        Ok(())
    }

    // The table

    /// What all that is kept amounts to, with a change that is about to be made.
    fn census(&self, change: Change<'_>) -> u32 {
        let mut sum = 0_u32;
        for (index, place) in self.slots.iter().enumerate() {
            let content = match change {
                Change::Slot(changed, content) if changed == index => content,
                _ => place.content,
            };
            if let Some(slot) = content {
                let (kind, turn) = match slot.state {
                    State::Free => (0, 0),
                    State::Message(shape) => (1, shape.payload_len),
                    State::Released(turn) => (2, turn),
                };
                let [i1, i2] = slot.id.get().to_be_bytes();
                let [o1, o2, o3, o4] = slot.order.to_be_bytes();
                let [t1, t2, t3, t4] = turn.to_be_bytes();
                let content = [kind, i1, i2, o1, o2, o3, o4, t1, t2, t3, t4];
                sum = sum.wrapping_add(record::count(Key::Slot(place.slot), &content));
            }
        }
        let received = if let Change::Received(received) = change { received } else { &self.received };
        for id in received.iter().filter(|id| **id != 0) {
            sum = sum.wrapping_add(record::count(Key::Received, &id.to_be_bytes()));
        }
        for ((index, len), number) in self.filters.iter().enumerate().zip(0_u16..) {
            let len = match change {
                Change::Filter(changed, len) if changed == index => len,
                _ => *len,
            };
            if len != NO_FILTER {
                sum = sum.wrapping_add(record::count(Key::Filter(number), &[len]));
            }
        }
        sum
    }

    fn content(&self, index: usize) -> Option<Slot> {
        self.slots.get(index).and_then(|place| place.content)
    }

    fn index_of(&self, wanted: impl Fn(&Slot) -> bool) -> Option<usize> {
        self.slots.iter().position(|place| place.content.as_ref().is_some_and(&wanted))
    }

    /// Writes a slot's record and notes it.
    async fn set(&mut self, index: usize, slot: Slot) -> Result<(), StoreError<F::Error>> {
        let Some(number) = self.slots.get(index).map(|place| place.slot) else { return Err(StoreError::Full) };
        let content = Some(slot).filter(|slot| slot.state != State::Free);
        self.record.clear();
        slot.write(&mut self.record);
        self.write_record(Key::Slot(number), Change::Slot(index, content)).await?;
        if let Some(place) = self.slots.get_mut(index) {
            place.content = content;
        }
        Ok(())
    }

    async fn free(&mut self, index: usize) -> Result<(), StoreError<F::Error>> {
        let Some(slot) = self.content(index) else { return Ok(()) };
        self.set(index, Slot { state: State::Free, ..slot }).await?;
        self.drop_payload(slot).await
    }

    async fn drop_payload(&mut self, slot: Slot) -> Result<(), StoreError<F::Error>> {
        let State::Message(shape) = slot.state else { return Ok(()) };
        for number in 0..shape.parts() {
            self.empty_part(shape.first_part.wrapping_add(u16::try_from(number).unwrap_or(u16::MAX))).await?;
        }
        Ok(())
    }

    /// So many parts in a row that hold nothing: the first of them.
    fn free_parts(&self, count: usize) -> Option<u16> {
        if count == 0 {
            return Some(0);
        }
        let mut run = 0_usize;
        for (part, number) in self.parts.iter().zip(0_u16..) {
            run = if *part == Part::Full || self.is_named(number) { 0 } else { run.saturating_add(1) };
            if run == count {
                return number.checked_sub(u16::try_from(count.saturating_sub(1)).ok()?);
            }
        }
        None
    }

    async fn put_message(
        &mut self,
        id: PacketId,
        order: u32,
        publish: &Publish<'_>,
    ) -> Result<(), StoreError<F::Error>> {
        let (topic, payload) = (publish.topic().as_bytes(), publish.payload());
        let topic_len = u8::try_from(topic.len()).map_err(|_| StoreError::TooLarge)?;
        let payload_len = u32::try_from(payload.len()).map_err(|_| StoreError::TooLarge)?;
        let mut shape =
            Shape { qos: publish.qos(), retain: publish.is_retain(), payload_len, first_part: 0, topic_len };
        let size = item::<F>(shape.body_len()).saturating_add(item::<F>(record::BODY).saturating_mul(shape.parts()));
        if topic.len() > record::TOPIC || shape.parts() > PARTS || size > self.capacity() {
            return Err(StoreError::TooLarge);
        }
        // Its publisher gave up in the middle, and the identifier went to this message.
        if let Some(index) = self.index_of(|slot| slot.id == id) {
            self.free(index).await?;
        }
        let index = self.slots.iter().position(|place| place.content.is_none()).ok_or(StoreError::Full)?;
        shape.first_part = self.free_parts(shape.parts()).ok_or(StoreError::Full)?;
        if size > self.capacity().saturating_sub(self.used()) {
            return Err(StoreError::Full);
        }
        let (begin, rest) = payload.split_at_checked(shape.inline_len()).unwrap_or((payload, &[]));
        for (piece, number) in rest.chunks(PART).zip(shape.first_part..) {
            if let Some(part) = self.parts.get_mut(usize::from(number)) {
                *part = Part::Full;
            }
            self.write(Key::Part(number), &[&order.to_be_bytes(), piece], Change::Nothing).await?;
        }
        let Some(number) = self.slots.get(index).map(|place| place.slot) else { return Err(StoreError::Full) };
        let slot = Slot { id, order, state: State::Message(shape) };
        self.record.clear();
        slot.write(&mut self.record);
        self.record.put(topic);
        self.record.put(begin);
        self.write_record(Key::Slot(number), Change::Slot(index, Some(slot))).await?;
        if let Some(place) = self.slots.get_mut(index) {
            place.content = Some(slot);
        }
        self.last = Some((id, order));
        Ok(())
    }

    async fn mark_all(&mut self, marks: &[Mark]) -> Result<(), StoreError<F::Error>> {
        let is_incoming = |mark: &Mark| matches!(mark.stage, Stage::Received | Stage::Forgotten);
        for marks in marks.chunk_by(|one, next| is_incoming(one) == is_incoming(next)) {
            if marks.first().is_some_and(is_incoming) {
                self.mark_received(marks).await?;
                continue;
            }
            for mark in marks {
                self.mark_one(mark).await?;
            }
        }
        Ok(())
    }

    async fn mark_one(&mut self, mark: &Mark) -> Result<(), StoreError<F::Error>> {
        match mark.stage {
            Stage::Released => {
                let Some(index) = self.index_of(|slot| slot.id == mark.id) else { return Ok(()) };
                let Some(slot) = self.content(index) else { return Ok(()) };
                if let State::Message(_) = slot.state {
                    self.set(index, Slot { state: State::Released(self.turn), ..slot }).await?;
                    self.turn = self.turn.wrapping_add(1);
                    self.drop_payload(slot).await?;
                }
                Ok(())
            }
            Stage::Done => match self.index_of(|slot| slot.id == mark.id) {
                Some(index) => self.free(index).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Identifiers received and forgotten go into one record, however many they are.
    async fn mark_received(&mut self, marks: &[Mark]) -> Result<(), StoreError<F::Error>> {
        let mut received = self.received;
        for mark in marks {
            let id = mark.id.get();
            let known = received.iter().position(|known| *known == id);
            match (mark.stage, known) {
                (Stage::Received, None) => {
                    let free = received.iter_mut().find(|known| **known == 0).ok_or(StoreError::TooSmall)?;
                    *free = id;
                }
                (Stage::Forgotten, Some(at)) => {
                    if let Some(place) = received.get_mut(at) {
                        *place = 0;
                    }
                }
                _ => {}
            }
        }
        if received == self.received {
            return Ok(());
        }
        self.record.clear();
        for id in received.iter().filter(|id| **id != 0) {
            self.record.put(&id.to_be_bytes());
        }
        self.write_record(Key::Received, Change::Received(&received)).await?;
        self.received = received;
        Ok(())
    }

    /// The filter that is kept under this index, in `buffer`.
    async fn filter(&mut self, index: usize) -> Result<Option<Range<usize>>, StoreError<F::Error>> {
        if self.filters.get(index).is_none_or(|len| *len == NO_FILTER) {
            return Ok(None);
        }
        self.read_record(Key::Filter(u16::try_from(index).unwrap_or(u16::MAX))).await
    }

    async fn find_filter(&mut self, text: &str) -> Result<Option<usize>, StoreError<F::Error>> {
        for index in 0..FILTERS {
            if let Some(at) = self.filter(index).await?
                && self.buffer.get(at).and_then(|body| body.get(1..)) == Some(text.as_bytes())
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    async fn set_filter(&mut self, index: usize, body: &[&[u8]]) -> Result<(), StoreError<F::Error>> {
        let len = body.iter().fold(0_usize, |len, bytes| len.saturating_add(bytes.len()));
        let len = u8::try_from(len).unwrap_or(u8::MAX);
        let key = Key::Filter(u16::try_from(index).unwrap_or(u16::MAX));
        self.write(key, body, Change::Filter(index, len)).await?;
        if let Some(filter) = self.filters.get_mut(index) {
            *filter = len;
        }
        Ok(())
    }

    /// Which slot, identifier or filter is the entry of this index.
    fn nth(&self, index: usize) -> Option<Nth> {
        let newest = self.last.map_or(0, |(_, order)| order);
        // Both numbers come round; what is kept lies close together before the newest.
        let rank = |slot: &Slot| match slot.state {
            State::Released(turn) => (0, u32::MAX.wrapping_sub(self.turn.wrapping_sub(turn))),
            _ => (1, u32::MAX.wrapping_sub(newest.wrapping_sub(slot.order))),
        };
        for place in &self.slots {
            let Some(slot) = place.content else { continue };
            let before = self.slots.iter().filter_map(|other| other.content.as_ref());
            if before.filter(|other| rank(other) < rank(&slot)).count() == index {
                return Some(Nth::Slot(place.slot, slot));
            }
        }
        let kept = self.slots.iter().filter(|place| place.content.is_some()).count();
        let index = index.checked_sub(kept)?;
        let mut received = self.received.iter().filter_map(|id| PacketId::new(*id));
        if let Some(id) = received.nth(index) {
            return Some(Nth::Received(id));
        }
        let index = index.checked_sub(self.received.iter().filter(|id| **id != 0).count())?;
        let mut filters = self.filters.iter().enumerate().filter(|(_, len)| **len != NO_FILTER);
        filters.nth(index).map(|(at, _)| Nth::Filter(at))
    }
}

/// What a record that is about to be written changes.
#[derive(Clone, Copy)]
enum Change<'a> {
    Nothing,
    Slot(usize, Option<Slot>),
    Received(&'a [u16]),
    Filter(usize, u8),
}

/// The record written last.
#[derive(Clone, Copy)]
struct Latest {
    number: u32,
    census: u32,
}

impl Latest {
    fn see(latest: &mut Option<Self>, opened: &Opened<'_>) {
        let is_later = latest.is_none_or(|latest| opened.number.wrapping_sub(latest.number) < 1 << 31);
        if is_later {
            *latest = Some(Self { number: opened.number, census: opened.census });
        }
    }
}

fn check_format<E>(key: Key, body: &[u8]) -> Result<(), StoreError<E>> {
    match (key, body.first()) {
        (Key::Format, Some(format)) if *format > FORMAT => Err(StoreError::Newer { format: *format }),
        _ => Ok(()),
    }
}

enum Nth {
    Slot(u16, Slot),
    Received(PacketId),
    Filter(usize),
}

impl<F: NorFlash, const MESSAGES: usize, const PARTS: usize, const RECEIVED: usize, const FILTERS: usize> Store
    for FlashStore<F, MESSAGES, PARTS, RECEIVED, FILTERS>
{
    type Error = F::Error;

    async fn put(&mut self, id: PacketId, order: u32, publish: &Publish<'_>) -> Result<(), StoreError<F::Error>> {
        self.begin().await?;
        let result = self.put_message(id, order, publish).await;
        if result.is_err() {
            // Parts that were written belong to nobody. If emptying them fails as well, the next mount does it.
            let _ = self.empty_parts().await;
        }
        self.is_writing = false;
        result
    }

    async fn mark(&mut self, marks: &[Mark]) -> Result<(), StoreError<F::Error>> {
        self.begin().await?;
        let result = self.mark_all(marks).await;
        self.is_writing = false;
        result
    }

    async fn read(&mut self, order: u32, offset: usize, out: &mut [u8]) -> Result<usize, StoreError<F::Error>> {
        let is_it = |slot: &Slot| slot.order == order && matches!(slot.state, State::Message(_));
        let Some(index) = self.index_of(is_it) else { return Ok(0) };
        let (Some(place), Some(Slot { state: State::Message(shape), .. })) =
            (self.slots.get(index).copied(), self.content(index))
        else {
            return Ok(0);
        };
        let at = match offset.checked_sub(shape.inline_len()) {
            None => {
                let head = record::MESSAGE_HEAD.saturating_add(usize::from(shape.topic_len));
                let at = self.read_record(Key::Slot(place.slot)).await?;
                at.map(|at| at.start.saturating_add(head).saturating_add(offset)..at.end)
            }
            Some(behind) => {
                let (number, within) = (behind.checked_div(PART), behind.checked_rem(PART));
                let (Some(number), Some(within)) = (number, within) else { return Ok(0) };
                if number >= shape.parts() {
                    return Ok(0);
                }
                let at = self.part(&shape, order, number).await?;
                at.map(|at| at.start.saturating_add(within)..at.end)
            }
        };
        let bytes = at.and_then(|at| self.buffer.get(at)).unwrap_or_default();
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(out.len().min(bytes.len()))
    }

    async fn subscribe(&mut self, filter: &Filter<'_>) -> Result<(), StoreError<F::Error>> {
        let text = filter.text();
        if text.len() > record::TOPIC {
            return Err(StoreError::TooLarge);
        }
        let index = match self.find_filter(text).await? {
            Some(index) => index,
            None => self.filters.iter().position(|len| *len == NO_FILTER).ok_or(StoreError::Full)?,
        };
        let size = item::<F>(text.len().saturating_add(1));
        if size > self.capacity().saturating_sub(self.used()) {
            return Err(StoreError::Full);
        }
        self.begin().await?;
        let result = self.set_filter(index, &[&[filter.qos().bits()], text.as_bytes()]).await;
        self.is_writing = false;
        result
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), StoreError<F::Error>> {
        let Some(index) = self.find_filter(filter).await? else { return Ok(()) };
        self.begin().await?;
        let result = self.set_filter(index, &[]).await;
        self.is_writing = false;
        result
    }

    async fn entry(&mut self, index: usize) -> Result<Option<Entry<'_>>, StoreError<F::Error>> {
        let (id, order, shape, number) = match self.nth(index) {
            None => return Ok(None),
            Some(Nth::Received(id)) => return Ok(Some(Entry::Received(id))),
            Some(Nth::Filter(index)) => {
                let at = self.filter(index).await?.ok_or(StoreError::Unreliable)?;
                let body = self.buffer.get(at).unwrap_or_default();
                let (qos, text) = body.split_first().ok_or(StoreError::Unreliable)?;
                let text = core::str::from_utf8(text).map_err(|_| StoreError::Unreliable)?;
                let qos = QoS::from_bits(*qos).ok_or(StoreError::Unreliable)?;
                let filter = Filter::new(text, qos).map_err(|_| StoreError::Unreliable)?;
                return Ok(Some(Entry::Subscription(filter)));
            }
            Some(Nth::Slot(number, Slot { id, order, state: State::Message(shape) })) => (id, order, shape, number),
            Some(Nth::Slot(_, slot)) => return Ok(Some(Entry::Released(slot.id))),
        };
        let at = self.read_record(Key::Slot(number)).await?.ok_or(StoreError::Unreliable)?;
        let body = self.buffer.get(at).unwrap_or_default();
        let topic = body.get(record::MESSAGE_HEAD..).and_then(|rest| rest.get(..usize::from(shape.topic_len)));
        let topic = topic.and_then(|topic| core::str::from_utf8(topic).ok()).ok_or(StoreError::Unreliable)?;
        let head = Publish::new(topic, &[]).with_qos(shape.qos);
        let head = if shape.retain { head.retain() } else { head };
        Ok(Some(Entry::Message { id, order, head, len: shape.payload_len }))
    }

    fn last(&self) -> Option<(PacketId, u32)> {
        self.last
    }

    fn damage(&self) -> Damage {
        self.damage
    }
}

/// The tables, while the map is borrowed.
struct Table<'t> {
    slots: &'t mut [Place],
    parts: &'t mut [Part],
    received: &'t mut [u16],
    filters: &'t mut [u8],
    last: &'t mut Option<(PacketId, u32)>,
    turn: &'t mut u32,
}

impl Table<'_> {
    /// Notes a record. `false`: there is no room for what it says.
    fn take(&mut self, key: Key, body: &[u8]) -> bool {
        match key {
            Key::Slot(number) => match Slot::read(body) {
                Some(slot) => self.take_slot(number, slot),
                None => true, // of a later format, which would have been refused
            },
            Key::Part(number) => {
                if let Some(part) = self.parts.get_mut(usize::from(number)) {
                    *part = if body.is_empty() { Part::Empty } else { Part::Full };
                }
                true
            }
            Key::Received => {
                self.received.fill(0);
                let (ids, _) = body.as_chunks();
                for (place, id) in self.received.iter_mut().zip(ids) {
                    *place = u16::from_be_bytes(*id);
                }
                ids.len() <= self.received.len()
            }
            Key::Filter(index) => match self.filters.get_mut(usize::from(index)) {
                Some(len) => {
                    *len = u8::try_from(body.len()).unwrap_or(u8::MAX);
                    true
                }
                None => body.is_empty(),
            },
            Key::Format | Key::Unknown => true,
        }
    }

    fn take_slot(&mut self, number: u16, slot: Slot) -> bool {
        let is_newer = |newest: u32| slot.order.wrapping_sub(newest) < 1 << 31;
        if self.last.is_none_or(|(_, newest)| is_newer(newest)) {
            *self.last = Some((slot.id, slot.order));
        }
        if let State::Released(turn) = slot.state
            && turn.wrapping_sub(*self.turn) < 1 << 31
        {
            *self.turn = turn.wrapping_add(1);
        }
        let content = Some(slot).filter(|slot| slot.state != State::Free);
        if let Some(place) = self.slots.iter_mut().find(|place| place.slot == number) {
            place.content = content;
            return true;
        }
        if content.is_none() {
            return true;
        }
        // A slot beyond those of this program: any free place may know it.
        match self.slots.iter_mut().rev().find(|place| place.content.is_none()) {
            Some(place) => {
                *place = Place { slot: number, content };
                true
            }
            None => false,
        }
    }
}

fn word<F: NorFlash>() -> usize {
    F::WRITE_SIZE.max(F::READ_SIZE)
}

/// Bytes of flash that a record with so many bytes of contents takes.
fn item<F: NorFlash>(body: usize) -> usize {
    let overhead = usize::try_from(Map::<F>::item_overhead_size()).unwrap_or(usize::MAX);
    let data = body.saturating_add(HEAD).saturating_add(size_of::<u32>());
    let rounded = data.checked_next_multiple_of(word::<F>()).unwrap_or(data);
    overhead.saturating_add(rounded)
}

fn medium<E>(error: Error<E>) -> StoreError<E> {
    match error {
        Error::Storage { value, .. } => StoreError::Medium(value),
        _ => StoreError::Unreliable,
    }
}

/// While mounting: whatever is not the medium's fault means that the map is broken beyond repair.
fn broken<E>(error: Error<E>) -> StoreError<E> {
    medium(error)
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

impl<F, const MESSAGES: usize, const PARTS: usize, const RECEIVED: usize, const FILTERS: usize>
    FlashStore<Blocking<F>, MESSAGES, PARTS, RECEIVED, FILTERS>
where
    F: embedded_storage::nor_flash::NorFlash,
{
    /// As [`mount`](Self::mount), on flash with a blocking driver.
    ///
    /// # Errors
    /// The same.
    pub fn mount_blocking(flash: F, range: Range<u32>) -> Result<Self, StoreError<F::Error>> {
        crate::block::block_on(Self::mount(Blocking(flash), range))
    }
}
