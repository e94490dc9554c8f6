//! Items in an order, in memory that the caller gave, around whose end they go on at its beginning.
//!
//! Most items leave at the front, so that is where removing costs nothing: what stands before an item that leaves moves
//! up by one.

pub(crate) struct Queue<'s, T> {
    items: &'s mut [T],
    /// Where in `items` the first one lies.
    first: usize,
    len: usize,
}

impl<'s, T: Copy> Queue<'s, T> {
    /// An empty queue. What was in `items` does not matter.
    pub fn new(items: &'s mut [T]) -> Self {
        Self { items, first: 0, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// How many more items can be pushed.
    pub fn space(&self) -> usize {
        self.items.len().wrapping_sub(self.len)
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        if index < self.len { self.items.get(self.place(index)) } else { None }
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let place = self.place(index);
        if index < self.len { self.items.get_mut(place) } else { None }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|index| self.get(index))
    }

    /// Adds an item behind the others, if there is space.
    pub fn push(&mut self, item: T) {
        let index = self.len;
        self.len = index.wrapping_add(1).min(self.items.len());
        if let Some(place) = self.get_mut(index) {
            *place = item;
        }
    }

    /// Moves the item at `from` down to `to`; those between move up by one.
    pub fn lower(&mut self, to: usize, from: usize) {
        let Some(item) = self.get_mut(from) else { return };
        let mut carried = *item;
        for index in to..from.wrapping_add(1) {
            let Some(place) = self.get_mut(index) else { return };
            carried = core::mem::replace(place, carried); // `swap` goes through a loop of its own
        }
    }

    /// Removes the item at `index`.
    pub fn remove(&mut self, index: usize) {
        if index > 0 {
            self.lower(0, index);
        }
        self.first = self.place(1);
        self.len = self.len.wrapping_sub(1);
    }

    fn place(&self, index: usize) -> usize {
        let place = self.first.wrapping_add(index);
        if place < self.items.len() { place } else { place.wrapping_sub(self.items.len()) }
    }
}

/// Where a cursor stands after the item at `removed` has been removed: those behind it have moved.
pub(crate) fn moved(cursor: usize, removed: usize) -> usize {
    if cursor > removed { cursor.wrapping_sub(1) } else { cursor }
}

#[cfg(feature = "suspend")]
impl<'s, T: Copy> Queue<'s, T> {
    /// The items from the front of the memory on, what is unused filled with `unused`; and how many they are.
    pub fn into_parts(self, unused: T) -> (&'s mut [T], usize) {
        self.items.rotate_left(self.first);
        self.items.get_mut(self.len..).unwrap_or_default().fill(unused);
        (self.items, self.len)
    }

    pub fn from_parts(items: &'s mut [T], len: usize) -> Self {
        Self { items, first: 0, len }
    }
}
