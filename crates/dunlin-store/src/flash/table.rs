//! What is kept on flash, as RAM knows it: a cell for each key of the map. Pure arithmetic; reads and writes nothing.
//!
//! A message has a key, which its record, "released" and "gone" share; one for each part of a payload that does not fit
//! the record; filters have keys, and one holds all identifiers received. What a cell says stands in the head of its
//! record, so that reading the heads of all records makes the table anew.

use dunlin_core::{Mark, PacketId, Stage};

use super::record::{Opened, checksum};

/// The latest record of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub kind: u8,
    /// Bytes of its contents.
    pub len: u8,
    /// Of a message its identifier; of a part its number.
    pub id: u16,
    /// Of a message and its parts the order; of what was released, in RAM, the number of that record; else a checksum.
    pub order: u32,
    /// The number in its key.
    pub index: u16,
}

/// Kinds of records: what a key holds.
pub mod kind {
    /// Nothing was ever written.
    pub const NEVER: u8 = 0;
    /// Nothing any more.
    pub const GONE: u8 = 1;
    /// A message, whole.
    pub const MESSAGE: u8 = 2;
    /// A message without its payload.
    pub const LARGE: u8 = 3;
    /// A message past PUBREC.
    pub const RELEASED: u8 = 4;
    /// A part of a payload.
    pub const PART: u8 = 5;
    /// The last part of a payload.
    pub const END: u8 = 6;
    pub const FILTER: u8 = 7;
    pub const RECEIVED: u8 = 8;
}

/// Which keys: the first byte of each.
pub const MESSAGES: u8 = 1;
pub const PARTS: u8 = 2;
pub const RECEIVED: u8 = 3;
pub const FILTERS: u8 = 4;

impl Cell {
    const fn unused(index: u16) -> Self {
        Self { kind: kind::NEVER, len: 0, id: 0, order: 0, index }
    }

    /// As it stands in RAM when its record has this number.
    pub fn noted(self, number: u32) -> Self {
        if self.kind == kind::RELEASED { Self { order: number, ..self } } else { self }
    }

    pub fn is_live(&self) -> bool {
        self.kind > kind::GONE
    }

    /// Whether it is a part of the payload of the message of this order.
    pub fn is_part_of(&self, order: u32) -> bool {
        self.is_live() && self.order == order
    }

    pub fn is_message(&self) -> bool {
        matches!(self.kind, kind::MESSAGE | kind::LARGE)
    }
}

/// See the module. The sizes are those of the store.
pub struct Table<const M: usize, const P: usize, const R: usize, const F: usize> {
    pub messages: [Cell; M],
    pub parts: [Cell; P],
    pub filters: [Cell; F],
    pub received: Cell,
    /// As the record has them, from the front.
    pub ids: [[u8; 2]; R],
    pub last: Option<(PacketId, u32)>,
    /// What all that is kept amounts to.
    pub census: u32,
    /// The number of the next record, and what the latest said about the census.
    pub number: u32,
    pub latest_census: u32,
}

impl<const M: usize, const P: usize, const R: usize, const F: usize> Table<M, P, R, F> {
    /// A table that knows nothing; to be [`clear`](Self::clear)ed before it is used.
    pub const fn new() -> Self {
        Self {
            messages: [Cell::unused(0); M],
            parts: [Cell::unused(0); P],
            filters: [Cell::unused(0); F],
            received: Cell::unused(0),
            ids: [[0; 2]; R],
            last: None,
            census: 0,
            number: 0,
            latest_census: 0,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for which in [MESSAGES, PARTS, FILTERS, RECEIVED] {
            for (cell, index) in self.cells(which).iter_mut().zip(0..) {
                *cell = Cell::unused(index);
            }
        }
        (self.last, self.census, self.number) = (None, 0, 0);
    }

    pub fn key(which: u8, index: u16) -> u32 {
        u32::from(which).wrapping_shl(24) | u32::from(index)
    }

    pub fn of_key(key: u32) -> (u8, u16) {
        let [which, _, high, low] = key.to_be_bytes();
        (which, u16::from_be_bytes([high, low]))
    }

    pub fn cells(&mut self, which: u8) -> &mut [Cell] {
        match which {
            MESSAGES => &mut self.messages,
            PARTS => &mut self.parts,
            FILTERS => &mut self.filters,
            RECEIVED => core::slice::from_mut(&mut self.received),
            _ => &mut [],
        }
    }

    /// The identifiers received.
    pub fn ids(&self) -> &[[u8; 2]] {
        self.ids.get(..usize::from(self.received.len).wrapping_shr(1)).unwrap_or_default()
    }

    /// Takes the identifiers of a record. `false`: more than there is room for.
    pub fn take_ids(&mut self, body: &[u8]) -> bool {
        let (ids, _) = body.as_chunks();
        for (place, id) in self.ids.iter_mut().zip(ids) {
            *place = *id;
        }
        ids.len() <= R
    }

    /// The census if `cell` were noted.
    pub fn census_with(&mut self, which: u8, cell: &Cell) -> u32 {
        let old = self.cells(which).iter().find(|old| old.index == cell.index).map_or(0, |old| weight(which, old));
        self.census.wrapping_sub(old).wrapping_add(weight(which, cell))
    }

    /// Notes what a record says that has been written or read. `false`: the table has no such cell.
    pub fn note(&mut self, which: u8, opened: &Opened<'_>) -> bool {
        let mut cell = opened.cell;
        if which == MESSAGES {
            let is_newer = |newest: u32| cell.order.wrapping_sub(newest) < 1 << 31;
            if self.last.is_none_or(|(_, newest)| is_newer(newest)) {
                self.last = PacketId::new(cell.id).map(|id| (id, cell.order));
            }
        }
        cell = cell.noted(opened.number);
        let census = self.census_with(which, &cell);
        let Some(place) = self.cells(which).iter_mut().find(|place| place.index == cell.index) else { return false };
        *place = cell;
        self.census = census;
        true
    }

    /// As [`note`](Self::note), in any cell that holds nothing.
    pub fn adopt(&mut self, which: u8, opened: &Opened<'_>) -> bool {
        let Some(free) = self.cells(which).iter_mut().rev().find(|cell| !cell.is_live()) else { return false };
        *free = Cell::unused(opened.cell.index);
        self.note(which, opened)
    }

    /// A record that was read: which was the latest?
    pub fn see(&mut self, opened: &Opened<'_>, is_first: bool) {
        if is_first || opened.number.wrapping_sub(self.number) < 1 << 31 {
            self.number = opened.number.wrapping_add(1);
            self.latest_census = opened.census;
        }
    }

    /// Forgets messages whose payload is not whole, and parts that belong to none: what a power cut left.
    pub fn drop_torn(&mut self) {
        for at in 0..M {
            let Some(cell) = self.messages.get(at).copied() else { return };
            if cell.kind == kind::LARGE && !self.is_whole(cell.order) {
                self.drop(MESSAGES, cell.index);
            }
        }
        for at in 0..P {
            let is_named = self.parts.get(at).is_some_and(|part| self.is_named(part));
            if let Some(part) = self.parts.get_mut(at).filter(|part| part.is_live() && !is_named) {
                part.kind = kind::GONE;
            }
        }
    }

    /// What a cell says cannot be read (any more).
    pub fn drop(&mut self, which: u8, index: u16) {
        let Some(cell) = self.cells(which).iter_mut().find(|cell| cell.index == index) else { return };
        let lost = weight(which, cell);
        cell.kind = kind::GONE;
        self.census = self.census.wrapping_sub(lost);
    }

    fn is_whole(&self, order: u32) -> bool {
        let parts = self.parts.iter().filter(|part| part.is_part_of(order));
        let (mut count, mut end) = (0, None);
        for part in parts {
            count += 1_u32;
            if part.kind == kind::END {
                end = Some(u32::from(part.id));
            }
        }
        end.is_some_and(|end| count == end.wrapping_add(1))
    }

    /// Whether a part belongs to a message.
    fn is_named(&self, part: &Cell) -> bool {
        part.is_live() && self.messages.iter().any(|cell| cell.kind == kind::LARGE && cell.order == part.order)
    }

    /// Parts that may be written for the message of this order, and the one among them that holds most.
    pub fn free_parts(&self, order: u32) -> (usize, Option<Cell>) {
        let free = self.parts.iter().filter(|part| !part.is_part_of(order) && !self.is_named(part));
        free.fold((0, None), |(count, most), part: &Cell| {
            let most = most.filter(|most: &Cell| most.len >= part.len);
            (count.wrapping_add(1), most.or(Some(*part)))
        })
    }

    pub fn message(&self, id: u16) -> Option<Cell> {
        self.messages.iter().find(|cell| cell.is_live() && cell.id == id).copied()
    }

    /// What a mark makes of its message, if anything.
    pub fn marked(&self, mark: &Mark) -> Option<Cell> {
        let cell = self.message(mark.id.get())?;
        match mark.stage {
            Stage::Done => Some(self.gone(cell)),
            Stage::Released if cell.is_message() => Some(Cell { kind: kind::RELEASED, len: 0, ..cell }),
            _ => None,
        }
    }

    /// What a message becomes when it is over: its record still tells the order of the last one, if it is that.
    pub fn gone(&self, cell: Cell) -> Cell {
        let order = self.last.map_or(0, |(last, order)| order.wrapping_sub(u32::from(last.get() != cell.id)));
        Cell { kind: kind::GONE, len: 0, order, ..cell }
    }

    /// The cell of the entry with this index: what was released, messages, filters; or how many there are.
    pub fn nth(&self, index: usize) -> Result<Cell, usize> {
        let newest = self.last.map_or(0, |(_, order)| order);
        // Both numbers come round; what is kept lies close together before the newest.
        let age = |cell: &Cell| match cell.kind {
            kind::RELEASED => (0, u32::MAX.wrapping_sub(self.number.wrapping_sub(cell.order))),
            _ => (1, u32::MAX.wrapping_sub(newest.wrapping_sub(cell.order))),
        };
        let live = || self.messages.iter().filter(|cell| cell.is_live());
        let mut count = 0_usize;
        for cell in live() {
            if live().filter(|other| age(other) < age(cell)).count() == index {
                return Ok(*cell);
            }
            count = count.wrapping_add(1);
        }
        Err(count)
    }
}

/// Adds or removes an identifier among `count` of them, and says how many there are then.
pub fn receive(ids: &mut [[u8; 2]], count: usize, mark: &Mark) -> Option<usize> {
    let id = mark.id.get().to_be_bytes();
    let known = ids.iter().take(count).position(|known| *known == id);
    match (mark.stage, known) {
        (Stage::Received, None) => {
            *ids.get_mut(count)? = id;
            count.checked_add(1)
        }
        (Stage::Forgotten, Some(at)) => {
            let last = count.checked_sub(1)?;
            let moved = *ids.get(last)?;
            *ids.get_mut(at)? = moved;
            Some(last)
        }
        _ => Some(count),
    }
}

/// Two numbers by which a filter is known, without reading it: 48 bits of it.
pub fn name(text: &[u8]) -> (u16, u32) {
    let folded = text.iter().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(*byte)));
    (folded, checksum(0, text))
}

/// What a cell adds to the census. Parts that are missing are noticed at their message.
fn weight(which: u8, cell: &Cell) -> u32 {
    if !cell.is_live() || which == PARTS {
        return 0;
    }
    let [i1, i2] = cell.id.to_be_bytes();
    let [o1, o2, o3, o4] = cell.order.to_be_bytes();
    checksum(Table::<0, 0, 0, 0>::key(which, cell.index), &[cell.kind, cell.len, i1, i2, o1, o2, o3, o4])
}
