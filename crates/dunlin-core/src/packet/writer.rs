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

    /// Bytes that fell into the window.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Bytes that were put, in the window or not.
    pub fn total(&self) -> usize {
        self.total
    }

    pub fn put(&mut self, bytes: &[u8]) {
        let hidden = self.skip.min(bytes.len());
        self.skip = self.skip.wrapping_sub(hidden);
        self.total = self.total.wrapping_add(bytes.len());
        let visible = bytes.get(hidden..).unwrap_or_default();
        let room = self.out.get_mut(self.written..).unwrap_or_default();
        self.written = self.written.wrapping_add(copy(room, visible));
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
        let (header, len) = header::write(first, remaining);
        self.put(header.get(..len).unwrap_or_default());
    }
}

/// Copies as much of `from` as `to` can hold, and says how much.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) -> usize {
    let len = to.len().min(from.len());
    // A loop, since `copy_from_slice` keeps its panic where the optimiser does not see both lengths.
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    len
}
