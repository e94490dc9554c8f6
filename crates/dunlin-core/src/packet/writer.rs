//! Encoding through a window, so that any packet leaves through a buffer of any size.
//!
//! An encoder always runs from the first byte of its packet; the window keeps what falls into it. An empty window
//! measures a packet with the very code that writes it, so the two cannot disagree.

use super::header;

/// Bytes `skip..skip + out.len()` of whatever is put.
pub(crate) struct Writer<'o> {
    skip: usize,
    out: &'o mut [u8],
    written: usize,
    total: usize,
}

impl<'o> Writer<'o> {
    pub fn new(skip: usize, out: &'o mut [u8]) -> Self {
        Self { skip, out, written: 0, total: 0 }
    }

    /// Begins another packet, of which `skip` bytes are left out.
    pub fn begin(&mut self, skip: usize) {
        self.skip = skip;
        self.total = 0;
    }

    /// Bytes of the window that are free.
    pub fn room(&self) -> usize {
        self.out.len()
    }

    /// Bytes that fell into the window.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Bytes that were put, in the window or not.
    pub fn total(&self) -> usize {
        self.total
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.total = self.total.wrapping_add(bytes.len());
        let hidden = self.skip.min(bytes.len());
        self.skip = self.skip.wrapping_sub(hidden);
        let visible = bytes.get(hidden..).unwrap_or_default();
        let n = copy(self.out, visible);
        self.written = self.written.wrapping_add(n);
        let (_, rest) = core::mem::take(&mut self.out).split_at_mut_checked(n).unwrap_or_default();
        self.out = rest;
    }

    /// `len` bytes follow that somebody else writes.
    #[cfg(feature = "large")]
    pub fn announce(&mut self, len: usize) {
        self.total = self.total.wrapping_add(len);
    }

    pub fn put_u16(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    /// Bytes with their length before them. Texts are checked to be at most 65,535 bytes before they come here.
    pub fn put_binary(&mut self, bytes: &[u8]) {
        self.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.put(bytes);
    }

    /// First byte and Remaining Length.
    pub fn put_header(&mut self, first: u8, remaining: usize) {
        let mut bytes = [0; 5];
        self.put(header::write(first, remaining, &mut bytes));
    }
}

/// Copies `bytes` to the front of `out`, and gives the room behind: for where there is room.
pub(crate) fn put<'o>(bytes: &[u8], out: &'o mut [u8]) -> &'o mut [u8] {
    let Some((place, behind)) = out.split_at_mut_checked(bytes.len()) else { return &mut [] };
    copy(place, bytes);
    behind
}

/// As [`put`], a number.
pub(crate) fn put_u16(number: u16, out: &mut [u8]) -> &mut [u8] {
    let Some((place, behind)) = out.split_first_chunk_mut() else { return &mut [] };
    *place = number.to_be_bytes();
    behind
}

/// Copies as much of `from` as `to` can hold, and says how much.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) -> usize {
    let len = to.len().min(from.len());
    let (to, from) = (to.get_mut(..len).unwrap_or_default(), from.get(..len).unwrap_or_default());
    copy_all(to, from);
    len
}

/// On hosts, `memcpy`.
#[cfg(target_pointer_width = "64")]
fn copy_all(to: &mut [u8], from: &[u8]) {
    if to.len() == from.len() {
        to.copy_from_slice(from);
    }
}

/// A loop, since `copy_from_slice` keeps its panic where the optimiser does not see both lengths.
#[cfg(not(target_pointer_width = "64"))]
fn copy_all(to: &mut [u8], from: &[u8]) {
    let (to, from) = copy_words(to, from);
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Copies four bytes at a time and leaves the rest: for devices, where `memcpy` is the largest function of many a small
/// program. Each byte goes by its name, since as an array they would be taken for a `memcpy` again.
#[cfg(any(test, not(target_pointer_width = "64")))]
fn copy_words<'a>(to: &'a mut [u8], from: &'a [u8]) -> (&'a mut [u8], &'a [u8]) {
    let (to_words, to_rest) = to.as_chunks_mut::<4>();
    let (from_words, from_rest) = from.as_chunks::<4>();
    for ([a, b, c, d], [from_a, from_b, from_c, from_d]) in to_words.iter_mut().zip(from_words) {
        (*a, *b, *c, *d) = (*from_a, *from_b, *from_c, *from_d);
    }
    (to_rest, from_rest)
}

#[cfg(test)]
mod tests {
    use super::copy_words;

    #[test]
    fn words_are_copied_and_the_rest_is_left() {
        let from: [u8; 23] = core::array::from_fn(|n| u8::try_from(n).unwrap_or(0) + 1);
        for len in 0..=from.len() {
            let mut to = [0; 23];
            let (to_rest, from_rest) = copy_words(&mut to[..len], &from[..len]);
            let words = len / 4 * 4;
            assert_eq!((to_rest.len(), from_rest), (len - words, &from[words..len]));
            assert_eq!(to[..words], from[..words]);
            assert_eq!(to[words..], [0; 23][words..]);
        }
    }
}
