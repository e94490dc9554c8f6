//! What is kept on flash, as RAM knows it: a cell for each key of the map. Pure arithmetic; reads and writes nothing.
//!
//! A message has a key, which its record, "released" and "gone" share; a filter has one; and the first holds all
//! identifiers received. What a cell says stands in the head of its record, so that reading the heads of all records
//! makes the table anew.
//!
//! What is to be done is decided here, one record at a time: [`Table::plan`] says which, [`Table::note`] is told what
//! became of it.

use core::marker::PhantomData;

use dunlin_core::{Mark, Stage};
use embedded_storage_async::nor_flash::NorFlash;
use sequential_storage::map::{SerializationError, Value};

use super::record::{self, BODY, Draft, FORMAT, HEAD, KEY, Opened};
use super::whole::Whole;
use crate::store::{Damage, StoreError};

/// The latest record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)] // in this order, copies are not split into bytes
pub struct Cell {
    /// Kind, length and identifier in one word: see [`Cell::new`].
    pub head: u32,
    /// Of a message its order; of a filter a checksum of its text; of what is gone, on flash, an order that is not beyond
    /// the last. Of what was released and of the identifiers received, in RAM, the number of the record.
    pub order: u32,
    /// The number in its key.
    pub index: u8,
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

/// What somebody wants of the store.
pub enum Job<'a> {
    /// Nothing (more) but to know everything.
    Done,
    /// To keep a message or filter: its cell, and its contents.
    Keep(Cell, [u8; record::PREFIX], &'a [u8], &'a [u8]),
    /// To forget a filter.
    Forget(Cell),
    Mark(&'a [Mark]),
    /// To find the entry with this index.
    Seek(usize),
    /// To find the message of this order, and read its payload from there on.
    Read(u32, usize, &'a mut [u8]),
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
    pub &'a Job<'j>,
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
    /// The number of the next record.
    pub number: u32,
    /// The message that was put last: its identifier, or 0, and its order.
    pub last: (u16, u32),
    /// What the latest record says about the census.
    census: Option<u32>,
    /// Keys beyond the table which are to be read: from here up to there.
    foreign: (u8, u8),
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
    pub fn filter(text: &[u8], qos: u8) -> Self {
        Self::new(kind::FILTER, 0, u16::from(qos), record::checksum(0, text))
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

    /// Its record has this number.
    fn note(&mut self, number: u32) {
        if matches!(self.kind(), kind::RELEASED | kind::RECEIVED) {
            self.order = number;
        }
    }

    fn is_live(&self) -> bool {
        self.kind() != kind::GONE
    }

    /// Whether this is the cell of that message or filter.
    fn is_of(&self, other: &Self) -> bool {
        match self.kind() {
            kind::FILTER => other.kind() == kind::FILTER && self.order == other.order,
            kind::MESSAGE | kind::RELEASED => other.kind() != kind::FILTER && self.id() == other.id(),
            _ => false,
        }
    }
}

impl<N: NorFlash, const C: usize, const R: usize, const B: usize> Table<N, C, R, B> {
    const WORD: usize = if N::READ_SIZE > N::WRITE_SIZE { N::READ_SIZE } else { N::WRITE_SIZE };
    /// Bytes that the map takes of each record.
    const OVERHEAD: usize = super::Map::<N>::item_overhead_size() as usize;
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
            last: (0, 0),
            census: None,
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
        let end = u8::try_from(C).unwrap_or(u8::MAX);
        self.foreign = (end, end);
        (self.number, self.last, self.census) = (0, (0, 0), None);
    }

    /// A record that was read: records come in the order in which they were written, but for those that the map has
    /// moved, and the last one of each key counts.
    pub fn see(&mut self, key: u16, bytes: &[u8]) -> Result<(), StoreError<N::Error>> {
        let [format, index] = key.to_be_bytes();
        if format != FORMAT {
            return Err(if format > FORMAT { StoreError::Newer { format } } else { StoreError::Older { format } });
        }
        let Some(mut opened) = record::open(key, bytes) else {
            self.lost();
            return Ok(());
        };
        if self.census.is_none() || opened.number.wrapping_sub(self.number) < 1 << 31 {
            self.number = opened.number.wrapping_add(1);
            self.census = Some(opened.census);
        }
        match opened.cell.kind() {
            kind::FILTER => {}
            kind::RECEIVED => {
                let (ids, _) = opened.body.as_chunks();
                self.ids.get_mut(..ids.len()).ok_or(StoreError::TooSmall)?.copy_from_slice(ids);
            }
            _ => self.put(&opened.cell),
        }
        opened.cell.note(opened.number);
        match self.cells.iter_mut().find(|cell| cell.index == index) {
            Some(cell) => *cell = opened.cell,
            None => self.foreign.1 = self.foreign.1.max(index.saturating_add(1)),
        }
        Ok(())
    }

    /// There is or was such a message: is it the last one?
    fn put(&mut self, cell: &Cell) {
        let (id, order) = self.last;
        if id == 0 || cell.order.wrapping_sub(order) < 1 << 31 {
            self.last = (cell.id(), cell.order);
        }
    }

    /// Something cannot be read (any more).
    fn lost(&mut self) {
        self.damage.records = self.damage.records.wrapping_add(1);
    }

    /// What all that is kept amounts to.
    fn sum(&self) -> u32 {
        let live = self.cells.iter().filter(|cell| cell.is_live());
        live.fold(0, |sum, cell| {
            let what = cell.kind().wrapping_shl(28) | u32::from(cell.id()).wrapping_shl(8);
            sum.wrapping_add(cell.order ^ what)
        })
    }

    /// The next thing to do for this job, with the record of [`cell`](Self::cell).
    #[inline(never)] // in a future, what is computed lies in memory
    pub fn plan(&mut self, job: &mut Job<'_>) -> Result<Action, StoreError<N::Error>> {
        if !self.is_sure {
            // There may be keys beyond those of this program; most of them hold nothing.
            let (index, end) = self.foreign;
            if index < end {
                self.foreign.0 = index.saturating_add(1);
                self.cell = Cell { index, ..NOTHING };
                return Ok(Action::Read);
            }
            if self.census.is_some_and(|census| census != self.sum()) {
                self.lost();
            }
            self.is_sure = true;
        }
        let cell = match job {
            Job::Done => return Ok(Action::Nothing),
            Job::Keep(cell, _, text, payload) => return self.keep(*cell, text.len(), payload.len()),
            Job::Forget(cell) => return Ok(self.change(cell, kind::GONE)),
            Job::Mark(marks) => return self.mark(marks),
            Job::Seek(index) => self.nth(*index).unwrap_or(NOTHING),
            Job::Read(order, ..) => {
                let is_it = |cell: &&Cell| cell.kind() == kind::MESSAGE && cell.order == *order;
                self.cells.iter().find(is_it).copied().ok_or(StoreError::Unreliable)?
            }
        };
        self.cell = cell;
        Ok(if cell.kind() < kind::MESSAGE { Action::Nothing } else { Action::Read })
    }

    fn keep(&mut self, new: Cell, text: usize, payload: usize) -> Result<Action, StoreError<N::Error>> {
        let len = record::PREFIX.saturating_add(text).saturating_add(payload);
        let size = Self::item(len);
        let (mut used, mut biggest) = (Self::ASIDE.saturating_add(size), Self::RECEIVED.max(size));
        if text > TEXT || len > Self::MOST || !self.fits(used, biggest) {
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
        let index = place.filter(|_| self.fits(used, biggest)).ok_or(StoreError::Full)?;
        let cell = Cell { index, head: new.head | (len as u32) << 16, ..new };
        if cell.kind() == kind::MESSAGE {
            self.put(&cell);
        }
        Ok(self.write(cell))
    }

    /// What becomes of a message or filter, if it is there.
    fn change(&mut self, of: &Cell, kind: u32) -> Action {
        match self.cells.iter().find(|cell| cell.is_of(of) && cell.kind() != kind) {
            Some(found) => self.write(Cell { index: found.index, ..Cell::new(kind, 0, found.id(), found.order) }),
            None => Action::Nothing,
        }
    }

    fn mark(&mut self, marks: &mut &[Mark]) -> Result<Action, StoreError<N::Error>> {
        let mut is_changed = false;
        while let Some((mark, behind)) = marks.split_first() {
            let kind = match mark.stage {
                Stage::Received | Stage::Forgotten => {
                    // However many they are, they go into one record.
                    is_changed |= self.receive(mark).ok_or(StoreError::TooSmall)?;
                    *marks = behind;
                    continue;
                }
                Stage::Released => kind::RELEASED,
                _ => kind::GONE,
            };
            if is_changed {
                break;
            }
            *marks = behind;
            if self.change(&Cell::message(mark.id.get(), 0), kind) == Action::Write {
                return Ok(Action::Write);
            }
        }
        let received = self.cells.first().copied().filter(|_| is_changed);
        Ok(received.map_or(Action::Nothing, |cell| self.write(cell)))
    }

    /// Adds or removes an identifier, and says whether that changed anything.
    fn receive(&mut self, mark: &Mark) -> Option<bool> {
        let id = mark.id.get().to_be_bytes();
        let count = self.ids().len();
        let known = self.ids().iter().position(|known| *known == id);
        let count = match (mark.stage, known) {
            (Stage::Received, None) => {
                *self.ids.get_mut(count)? = id;
                count.checked_add(1)?
            }
            (Stage::Forgotten, Some(at)) => {
                let last = count.checked_sub(1)?;
                *self.ids.get_mut(at)? = *self.ids.get(last)?;
                last
            }
            _ => return Some(false),
        };
        self.cells.first_mut()?.head = Cell::new(kind::RECEIVED, (count * 2) as u16, 0, 0).head;
        Some(true)
    }

    /// The identifiers received.
    fn ids(&self) -> &[[u8; 2]] {
        let len = self.cells.first().map_or(0, Cell::len);
        self.ids.get(..len.wrapping_shr(1)).unwrap_or_default()
    }

    /// Has a record written, whose cell is noted already.
    fn write(&mut self, mut cell: Cell) -> Action {
        if matches!(cell.kind(), kind::RELEASED | kind::GONE) {
            // It tells the order of the last message, if it is that.
            let (id, order) = self.last;
            cell.order = order.wrapping_sub(u32::from(id != cell.id()));
        }
        self.cell = cell;
        cell.note(self.number);
        if let Some(place) = self.cells.iter_mut().find(|place| place.index == cell.index) {
            *place = cell;
        }
        self.number = self.number.wrapping_add(1);
        self.is_sure = false;
        Action::Write
    }

    /// Writes the record for this job; says how many bytes it has.
    fn write_record(&self, job: &Job<'_>, buffer: &mut [u8]) -> Option<usize> {
        let mut draft = Draft::new(buffer, &self.cell, self.number.wrapping_sub(1), self.sum());
        if let Job::Keep(_, prefix, text, payload) = job {
            draft.put(prefix);
            draft.put(text);
            draft.put(payload);
        } else if self.cell.kind() == kind::RECEIVED {
            draft.put(self.ids().as_flattened());
        }
        draft.seal(record::key(self.cell.index))
    }

    /// What became of an action: what the record reads as. `false`: it is to be tried again.
    pub fn note(
        &mut self,
        action: Action,
        job: &mut Job<'_>,
        opened: Option<Opened<'_>>,
    ) -> Result<bool, StoreError<N::Error>> {
        if action == Action::Write {
            // The map may say that it was stored, and it is not.
            self.is_sure = opened.is_some_and(|opened| opened.number == self.number.wrapping_sub(1));
            if !self.is_sure {
                return Ok(false);
            }
        } else if !self.is_sure {
            if let Some(mut opened) = opened.filter(|opened| opened.cell.is_live()) {
                opened.cell.note(opened.number);
                let free = self.cells.iter_mut().rev().find(|cell| !cell.is_live());
                *free.ok_or(StoreError::TooSmall)? = opened.cell;
            }
            return Ok(true);
        } else if let Some(opened) = opened.filter(|opened| opened.cell == self.cell) {
            if let Job::Read(_, offset, out) = job {
                let payload = record::split(opened.body).and_then(|(_, _, payload)| payload.get(*offset..));
                let payload = payload.and_then(|payload| payload.get(..out.len()));
                out.copy_from_slice(payload.ok_or(StoreError::Unreliable)?);
            }
        } else {
            // What was found by its place must be found by its key.
            let lost = self.cells.iter_mut().find(|cell| **cell == self.cell);
            lost.into_iter().for_each(|cell| cell.head = 0);
            self.lost();
            return Ok(true);
        }
        if !matches!(job, Job::Mark(_)) {
            *job = Job::Done;
        }
        Ok(true)
    }

    /// The cell of the entry with this index: identifiers received, what was released, messages, filters.
    fn nth(&self, index: usize) -> Option<Cell> {
        let ids = self.ids();
        if let Some(id) = ids.get(index) {
            return Some(Cell::new(kind::RECEIVED, 0, u16::from_be_bytes(*id), 0));
        }
        let index = index.saturating_sub(ids.len());
        // Both numbers come round; what is kept lies close together before the next.
        let (_, last) = self.last;
        let age = |cell: &Cell| {
            let next = if cell.kind() == kind::RELEASED { self.number } else { last.wrapping_add(1) };
            (cell.kind(), cell.order.wrapping_sub(next))
        };
        let live = || self.cells.iter().filter(|cell| cell.kind() > kind::RECEIVED);
        live().find(|cell| live().filter(|other| age(other) < age(cell)).count() == index).copied()
    }
}

/// The longest topic or filter.
const TEXT: usize = 255;
