//! What is kept on flash, as RAM knows it: a cell for each key of the map. Pure arithmetic; reads and writes nothing.
//!
//! A message has a key, which its record, "released" and "gone" share; a filter has one; and the first holds all
//! identifiers received. What a cell says stands in the head of its record, so that reading the heads of all records
//! makes the table anew.
//!
//! What is to be done is decided here, one record at a time: [`Table::plan`] says which, [`Table::note`] is told what
//! became of it.

use core::marker::PhantomData;

use dunlin_core::{Mark, QoS, Stage};
use embedded_storage_async::nor_flash::NorFlash;
use sequential_storage::map::{SerializationError, Value};

use super::record::{self, BODY, Draft, FORMAT, HEAD, KEY, Opened};
use super::whole::Whole;
use crate::store::{Damage, Job, StoreError};

/// The latest record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)] // in this order, copies are not split into bytes
pub struct Cell {
    /// Kind, length and identifier in one word: see [`Cell::new`].
    pub head: u32,
    /// Of a message its order; of a filter a checksum of its text; of all others the number of the record.
    pub order: u32,
    /// The number in its key.
    pub index: u32,
}

/// Kinds of records: what a key holds. Entries come in this order.
pub mod kind {
    /// Nothing, or nothing any more.
    pub const GONE: u32 = 0;
    pub const RECEIVED: u32 = 1;
    /// A message past PUBREC.
    pub const RELEASED: u32 = 2;
    pub const MESSAGE: u32 = 3;
    pub const FILTER: u32 = 4;
}

/// What is to be done with the record of a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Write,
    Read,
}

/// The record to write for a job, as the map wants it: only ever written. What is read, [`record::open`] looks at.
pub struct Writing<'a, 'j, N, const C: usize, const R: usize, const B: usize>(
    pub &'a Table<N, C, R, B>,
    pub &'a Option<Job<'j>>,
);

impl<'v, N: NorFlash, const C: usize, const R: usize, const B: usize> Value<'v> for Writing<'_, '_, N, C, R, B> {
    fn serialize_into(&self, buffer: &mut [u8]) -> Result<usize, SerializationError> {
        self.0.write_record(self.1, buffer).ok_or(SerializationError::BufferTooSmall)
    }

    fn deserialize_from(_: &'v [u8]) -> Result<(Self, usize), SerializationError> {
        Err(SerializationError::InvalidFormat)
    }
}

/// See the module. The sizes are those of the store.
// As it stands here, what is small lies near the beginning, within reach of short instructions.
#[repr(C)]
pub struct Table<N, const C: usize, const R: usize, const B: usize> {
    /// Pages that hold records at any time.
    pages: usize,
    /// What is to be written or read, or was found last.
    pub cell: Cell,
    /// The number of the next record; 0 if there is none. No message has an order beyond it.
    pub number: u32,
    /// The identifier of the message that was put last, or 0.
    pub last: u16,
    /// What the latest record says that all of them amount to.
    census: u16,
    /// Keys beyond the table which are to be read: from here up to there.
    foreign: (u32, u32),
    /// Flash was read, and nothing is being written. If that is not so when something else begins, the future was
    /// dropped in the middle, or has failed.
    pub is_sure: bool,
    pub damage: Damage,
    /// The first one is that of the identifiers received.
    cells: [Cell; C],
    /// As the record has them, from the front.
    ids: [[u8; 2]; R],
    flash: PhantomData<N>,
}

const NOTHING: Cell = Cell::new(kind::GONE, 0, 0, 0);

impl Cell {
    /// `len`: bytes of its contents. `id`: of a message its identifier; of a filter its quality of service.
    pub const fn new(kind: u32, len: u16, id: u16, order: u32) -> Self {
        Self { head: kind << 28 | (len as u32) << 16 | id as u32, order, index: 0 }
    }

    pub const fn message(id: u16, order: u32) -> Self {
        Self::new(kind::MESSAGE, 0, id, order)
    }

    /// A filter is known by its checksum, without reading it.
    #[inline(always)] // without a place in memory for it
    pub fn filter(text: &[u8], qos: QoS) -> Self {
        Self::new(kind::FILTER, 0, u16::from(qos.bits()), record::checksum(0, text))
    }

    pub fn kind(&self) -> u32 {
        self.head >> 28
    }

    pub fn len(&self) -> usize {
        (self.head >> 16 & 0xfff) as usize
    }

    pub fn id(&self) -> u16 {
        self.head as u16
    }

    /// Whether they say the same.
    fn is(&self, other: &Self) -> bool {
        (self.head, self.order) == (other.head, other.order)
    }

    fn is_live(&self) -> bool {
        self.kind() != kind::GONE
    }

    /// Whether this is the cell of that message or filter.
    fn is_of(&self, other: &Self) -> bool {
        if other.kind() == kind::FILTER {
            return self.kind() == kind::FILTER && self.order == other.order;
        }
        matches!(self.kind(), kind::MESSAGE | kind::RELEASED) && self.id() == other.id()
    }
}

impl<N: NorFlash, const C: usize, const R: usize, const B: usize> Table<N, C, R, B> {
    const WORD: usize = if N::READ_SIZE > N::WRITE_SIZE { N::READ_SIZE } else { N::WRITE_SIZE };
    /// Bytes that the map takes of each record.
    const OVERHEAD: usize = super::Map::<Whole<N>>::item_overhead_size() as usize;
    /// Bytes of each page for records: the map marks both ends.
    const PAGE: usize = Whole::<N>::ERASE_SIZE.saturating_sub(2 * Self::WORD);
    /// The most contents of a record that fit the buffer.
    const MOST: usize = {
        let most = (B / Self::WORD * Self::WORD).saturating_sub(KEY + HEAD);
        if most < BODY { most } else { BODY }
    };
    /// What is set aside: what becomes of a message is written under its key; identifiers are written whenever one comes.
    const ASIDE: usize = Self::item(0) * C + Self::RECEIVED;
    const RECEIVED: usize = Self::item(2 * R);

    /// Bytes of flash that a record with so many bytes of contents takes.
    const fn item(body: usize) -> usize {
        let data = body.wrapping_add(HEAD + KEY);
        Self::OVERHEAD.wrapping_add(data.div_ceil(Self::WORD).wrapping_mul(Self::WORD))
    }

    /// Whether records that take so many bytes fit, whatever order they are written in, if the biggest of them takes so
    /// many: up to that many may be left at the end of a page.
    fn fits(&self, used: usize, biggest: usize) -> bool {
        self.pages.wrapping_mul(Self::PAGE.saturating_sub(biggest)) >= used
    }

    /// A table that knows nothing; to be [`clear`](Self::clear)ed before it is used.
    pub const fn new() -> Self {
        Self {
            cells: [NOTHING; C],
            ids: [[0; 2]; R],
            pages: 0,
            cell: NOTHING,
            number: 0,
            last: 0,
            census: 0,
            foreign: (0, 0),
            is_sure: false,
            damage: Damage { records: 0, is_reset: false },
            flash: PhantomData,
        }
    }

    /// Forgets everything, on flash of so many pages.
    pub fn clear(&mut self, pages: u32) {
        // One page is always free to move into.
        self.pages = usize::try_from(pages).unwrap_or_default().wrapping_sub(1);
        for (cell, index) in self.cells.iter_mut().zip(0..) {
            *cell = Cell { index, ..NOTHING };
        }
        // The cell of the identifiers is never free.
        if let Some(cell) = self.cells.first_mut() {
            cell.head = Cell::new(kind::RECEIVED, 0, 0, 0).head;
        }
        let end = C as u32;
        self.foreign = (end, end);
        (self.number, self.last, self.census) = (0, 0, 0);
    }

    /// A record that was read: records come in the order in which they were written, but for those that the map has
    /// moved, and the last one of each key counts.
    pub fn see(&mut self, key: u16, bytes: &[u8]) -> Result<(), StoreError<N::Error>> {
        let [format, _] = key.to_be_bytes();
        if format != FORMAT {
            return Err(if format > FORMAT { StoreError::Newer { format } } else { StoreError::Older { format } });
        }
        match record::open(key, bytes) {
            Some(opened) => self.take(&opened),
            None => {
                self.lost();
                Ok(())
            }
        }
    }

    /// Takes note of a record that is there.
    fn take(&mut self, opened: &Opened<'_>) -> Result<(), StoreError<N::Error>> {
        let cell = opened.cell;
        if self.number == 0 || is_behind(self.number, opened.number) {
            self.number = opened.number.wrapping_add(1).max(1);
            self.last = opened.state as u16;
            self.census = (opened.state >> 16) as u16;
        }
        if cell.kind() == kind::RECEIVED {
            let (ids, _) = opened.body.as_chunks();
            self.ids.get_mut(..ids.len()).ok_or(StoreError::TooSmall)?.copy_from_slice(ids);
        }
        let mut place = self.cells.iter_mut().find(|place| place.index == cell.index);
        if place.is_none() {
            // Its key is beyond the table: what holds something gets a cell, once the records of all others are known.
            if cell.index >= self.foreign.0 {
                self.foreign.1 = self.foreign.1.max(cell.index.saturating_add(1));
                return Ok(());
            }
            if !cell.is_live() {
                return Ok(());
            }
            place = self.cells.iter_mut().rev().find(|place| !place.is_live());
        }
        *place.ok_or(StoreError::TooSmall)? = cell;
        Ok(())
    }

    /// Something cannot be read (any more).
    fn lost(&mut self) {
        self.damage.records = self.damage.records.wrapping_add(1);
    }

    /// What all that is kept amounts to.
    fn sum(&self) -> u16 {
        let live = self.cells.iter().filter(|cell| cell.is_live());
        let sum = live.fold(0_u32, |sum, cell| sum.wrapping_add(cell.head ^ cell.order.wrapping_mul(FACTOR)));
        (sum >> 16) as u16
    }

    /// The next thing to do for this job, with the record of [`cell`](Self::cell).
    #[inline(never)] // in a future, what is computed lies in memory
    pub fn plan(&mut self, job: &mut Option<Job<'_>>) -> Result<Action, StoreError<N::Error>> {
        if !self.is_sure {
            // There may be keys beyond those of this program; most of them hold nothing.
            let (index, end) = self.foreign;
            if index < end {
                self.foreign.0 = index.saturating_add(1);
                self.cell = Cell { index, ..NOTHING };
                return Ok(Action::Read);
            }
            if self.number != 0 && self.census != self.sum() {
                self.lost();
            }
            self.is_sure = true;
        }
        let (new, text, payload) = match job {
            None => return Ok(Action::Nothing),
            Some(Job::Put { id, order, publish }) => {
                let cell = Cell::message(id.get(), *order);
                self.last = id.get();
                if is_behind(self.number, *order) {
                    self.number = *order;
                }
                (cell, publish.topic().len(), publish.payload().len())
            }
            Some(Job::Subscribe(filter)) => {
                let text = filter.text().as_bytes();
                (Cell::filter(text, filter.qos()), text.len(), 0)
            }
            Some(Job::Unsubscribe(text)) => {
                return Ok(self.change(&Cell::filter(text.as_bytes(), QoS::AtMostOnce), kind::GONE));
            }
            Some(Job::Mark(marks)) => return self.mark(marks),
            Some(Job::Seek(index)) => return Ok(self.look_at(self.nth(*index).unwrap_or(NOTHING))),
            Some(Job::Read { order, .. }) => {
                let is_it = |cell: &&Cell| cell.kind() == kind::MESSAGE && cell.order == *order;
                let cell = self.cells.iter().find(is_it).copied().ok_or(StoreError::Unreliable)?;
                return Ok(self.look_at(cell));
            }
        };
        self.keep(new, text, payload)
    }

    /// Has a record read, if there is more in it than in its cell.
    fn look_at(&mut self, cell: Cell) -> Action {
        self.cell = cell;
        if cell.kind() < kind::MESSAGE { Action::Nothing } else { Action::Read }
    }

    /// A message, or a filter; contents of so many bytes.
    fn keep(&mut self, new: Cell, text: usize, payload: usize) -> Result<Action, StoreError<N::Error>> {
        // Slices are never longer than half the address space, so that their sum does not overflow.
        let len = text.wrapping_add(payload).saturating_add(record::PREFIX);
        if text > TEXT || len > Self::MOST {
            return Err(StoreError::TooLarge);
        }
        let size = Self::item(len);
        let (mut used, mut biggest) = (Self::ASIDE.wrapping_add(size), Self::RECEIVED.max(size));
        if !self.fits(used, biggest) {
            return Err(StoreError::TooLarge);
        }
        let mut place = None;
        for cell in &self.cells {
            if cell.kind() >= kind::MESSAGE {
                let size = Self::item(cell.len());
                (used, biggest) = (used.wrapping_add(size), biggest.max(size));
            }
            // If its publisher gave up in the middle, an identifier is there already.
            if cell.is_of(&new) || (place.is_none() && !cell.is_live()) {
                place = Some(cell.index);
            }
        }
        let Some(index) = place else { return Err(StoreError::Full) };
        if !self.fits(used, biggest) {
            return Err(StoreError::Full);
        }
        let cell = Cell { index, head: new.head | (len as u32) << 16, ..new };
        Ok(self.write(cell))
    }

    /// What becomes of a message or filter, if it is there.
    fn change(&mut self, of: &Cell, kind: u32) -> Action {
        match self.cells.iter().find(|cell| cell.is_of(of) && cell.kind() != kind) {
            Some(found) => self.write(Cell { index: found.index, ..Cell::new(kind, 0, found.id(), self.number) }),
            None => Action::Nothing,
        }
    }

    fn mark(&mut self, marks: &mut &[Mark]) -> Result<Action, StoreError<N::Error>> {
        while let Some((mark, behind)) = marks.split_first() {
            *marks = behind;
            let action = if is_incoming(mark) {
                self.receive(mark).ok_or(StoreError::TooSmall)?;
                // However many they are, they go into one record.
                if behind.first().is_some_and(is_incoming) {
                    continue;
                }
                let received = self.cells.first().copied().unwrap_or(NOTHING);
                self.write(Cell { order: self.number, ..received })
            } else {
                let kind = if mark.stage == Stage::Released { kind::RELEASED } else { kind::GONE };
                self.change(&Cell::message(mark.id.get(), 0), kind)
            };
            if action == Action::Write {
                return Ok(action);
            }
        }
        Ok(Action::Nothing)
    }

    /// Removes an identifier, or puts it behind all others.
    fn receive(&mut self, mark: &Mark) -> Option<()> {
        let id = mark.id.get().to_le_bytes();
        // Until it is written, what RAM knows is not so.
        self.is_sure = false;
        let mut count = 0_usize;
        for index in 0..self.ids().len() {
            let known = *self.ids.get(index)?;
            if known != id {
                *self.ids.get_mut(count)? = known;
                count = count.wrapping_add(1);
            }
        }
        if mark.stage == Stage::Received {
            *self.ids.get_mut(count)? = id;
            count = count.wrapping_add(1);
        }
        self.cells.first_mut()?.head = Cell::new(kind::RECEIVED, (count * 2) as u16, 0, 0).head;
        Some(())
    }

    /// The identifiers received.
    fn ids(&self) -> &[[u8; 2]] {
        let len = self.cells.first().map_or(0, Cell::len);
        self.ids.get(..len.wrapping_shr(1)).unwrap_or_default()
    }

    /// Has a record written. Until it is there, what the table says is open.
    fn write(&mut self, cell: Cell) -> Action {
        self.cell = cell;
        self.is_sure = false;
        self.cells.iter_mut().filter(|place| place.index == cell.index).for_each(|place| *place = cell);
        Action::Write
    }

    /// Writes the record for this job; says how many bytes it has.
    fn write_record(&self, job: &Option<Job<'_>>, buffer: &mut [u8]) -> Option<usize> {
        let state = u32::from(self.sum()) << 16 | u32::from(self.last);
        let mut draft = Draft::new(buffer, [self.cell.head, self.cell.order, self.number, state]);
        let mut flags = 0;
        let (text, contents) = match job {
            Some(Job::Put { publish, .. }) => {
                flags = publish.qos().bits() | if publish.is_retain() { record::RETAIN } else { 0 };
                (Some(publish.topic()), publish.payload())
            }
            Some(Job::Subscribe(filter)) => {
                flags = filter.qos().bits();
                (Some(filter.text()), &[][..])
            }
            _ if self.cell.kind() == kind::RECEIVED => (None, self.ids().as_flattened()),
            _ => (None, &[][..]),
        };
        if let Some(text) = text {
            // A text whose length does not fit is refused before.
            draft.put(&[flags, text.len() as u8]);
            draft.put(text.as_bytes());
        }
        draft.put(contents);
        draft.seal(record::key(self.cell.index))
    }

    /// What became of an action: what the record reads as. `false`: it is to be tried again.
    pub fn note(
        &mut self,
        action: Action,
        job: &mut Option<Job<'_>>,
        bytes: Option<&[u8]>,
    ) -> Result<bool, StoreError<N::Error>> {
        let opened = bytes.and_then(|bytes| record::open(record::key(self.cell.index), bytes));
        if action == Action::Write {
            // The map may say that it was stored, and it is not.
            if opened.is_none_or(|opened| opened.number != self.number) {
                return Ok(false);
            }
            self.number = self.number.wrapping_add(1);
            self.is_sure = true;
        } else if !self.is_sure {
            if let Some(opened) = &opened {
                self.take(opened)?;
            }
            return Ok(true);
        } else if let Some(opened) = &opened
            && opened.cell.is(&self.cell)
        {
            if let Some(Job::Read { offset, out, .. }) = job {
                let payload = record::split(opened.body).and_then(|(_, _, payload)| payload.get(*offset..));
                let payload = payload.and_then(|payload| payload.get(..out.len()));
                out.copy_from_slice(payload.ok_or(StoreError::Unreliable)?);
            }
        } else {
            // What was found by its place must be found by its key.
            self.write(Cell { index: self.cell.index, ..NOTHING });
            self.is_sure = true; // nothing is written
            self.lost();
            return Ok(true);
        }
        if !matches!(job, Some(Job::Mark(_))) {
            *job = None;
        }
        Ok(true)
    }

    /// The cell of the entry with this index: identifiers received, what was released, messages, filters.
    fn nth(&self, index: usize) -> Option<Cell> {
        let ids = self.ids();
        if let Some(id) = ids.get(index) {
            return Some(Cell::new(kind::RECEIVED, 0, u16::from_le_bytes(*id), 0));
        }
        let index = index.saturating_sub(ids.len());
        // Numbers come round; those of what is kept lie close together before the next.
        let age = |cell: &Cell| u64::from(cell.kind()) << 32 | u64::from(cell.order.wrapping_sub(self.number));
        let live = || self.cells.iter().filter(|cell| cell.kind() > kind::RECEIVED);
        live().find(|cell| live().filter(|other| age(other) < age(cell)).count() == index).copied()
    }
}

fn is_incoming(mark: &Mark) -> bool {
    matches!(mark.stage, Stage::Received | Stage::Forgotten)
}

/// Whether a number, or an order, has come up to this one: both come round.
fn is_behind(number: u32, other: u32) -> bool {
    other.wrapping_sub(number) < 1 << 31
}

/// Spreads orders, which are often small and close to each other.
const FACTOR: u32 = 0x9e37_79b1;
/// The longest topic or filter.
const TEXT: usize = 255;
