//! Encoding through a window, so that any packet leaves through a buffer of any size; and copying.
//!
//! An encoder of a packet that may be cut runs from its first byte each time; the window keeps what falls into it. A
//! packet is measured with the very code that writes it, so the two cannot disagree.

/// Puts bytes where they fall into a window.
pub(crate) struct Writer<'o> {
    window: &'o mut [u8],
    /// Where in the window the next byte goes. Before its beginning, less than zero, which is far behind its end.
    at: usize,
}

impl<'o> Writer<'o> {
    pub fn new(window: &'o mut [u8]) -> Self {
        Self { window, at: 0 }
    }

    /// Begins a packet, the first byte of which goes to `at`.
    pub fn begin(&mut self, at: usize) {
        self.at = at;
    }

    /// Where the next byte goes.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes that the window has.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    #[cfg_attr(not(target_pointer_width = "64"), inline(never))] // from many places
    pub fn put_byte(&mut self, byte: u8) {
        if let Some(place) = self.window.get_mut(self.at) {
            *place = byte;
        }
        self.at = self.at.wrapping_add(1);
    }

    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.at.wrapping_add(bytes.len());
        let hidden = bytes.get(0_usize.wrapping_sub(self.at)..).unwrap_or_default();
        let (room, visible) = match self.window.get_mut(self.at..) {
            Some(room) => (room, bytes),
            None => (&mut *self.window, hidden), // it begins before the window, or behind it
        };
        copy(room, visible);
        self.at = end;
    }

    pub fn put_u16(&mut self, number: u16) {
        let [high, low] = number.to_be_bytes();
        self.put_byte(high);
        self.put_byte(low);
    }

    /// Bytes with their length before them. Texts are checked to be at most 65,535 bytes before they come here.
    pub fn put_binary(&mut self, bytes: &[u8]) {
        self.put_u16(u16::try_from(bytes.len() & usize::from(u16::MAX)).unwrap_or_default());
        self.put(bytes);
    }

    /// The fixed header: first byte, and Remaining Length in its shortest form, which is at most
    /// [`MAX_REMAINING`](super::header::MAX_REMAINING).
    pub fn put_header(&mut self, first: u8, remaining: usize) {
        self.put_byte(first);
        let mut rest = remaining;
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest = rest.wrapping_shr(7);
            if rest == 0 {
                return self.put_byte(low & 0x7F);
            }
            self.put_byte(low | 0x80);
        }
    }
}

#[cfg(target_pointer_width = "64")]
impl<'o> Writer<'o> {
    /// What is free of the window.
    pub fn into_rest(self) -> &'o mut [u8] {
        self.window.get_mut(self.at..).unwrap_or_default()
    }
}

/// Copies `bytes` to the front of `out`, and gives the room behind: for where there is room.
#[cfg(target_pointer_width = "64")]
pub(crate) fn put<'o>(bytes: &[u8], out: &'o mut [u8]) -> &'o mut [u8] {
    let Some((place, behind)) = out.split_at_mut_checked(bytes.len()) else { return &mut [] };
    copy_all(place, bytes);
    behind
}

/// As [`put`], a number.
#[cfg(target_pointer_width = "64")]
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
    use super::{Writer, copy_words};

    #[test]
    fn a_window_keeps_what_falls_into_it() {
        let write = |writer: &mut Writer<'_>| {
            writer.put_header(0x82, 300);
            writer.put_u16(0x0102);
            writer.put_binary(b"plant/7");
            writer.put(b"");
            writer.put_byte(1);
        };
        let mut whole = [0; 15];
        let mut writer = Writer::new(&mut whole);
        write(&mut writer);
        assert_eq!(writer.at(), 15);
        assert_eq!(whole, *b"\x82\xAC\x02\x01\x02\x00\x07plant/7\x01");
        for len in 0..20 {
            for skip in 0..15 {
                let mut window = [0xEE; 20];
                let mut writer = Writer::new(&mut window[..len]);
                writer.begin(0_usize.wrapping_sub(skip));
                write(&mut writer);
                assert_eq!((writer.at(), writer.len()), (15 - skip, len));
                let fits = len.min(15 - skip);
                assert_eq!(window[..fits], whole[skip..skip + fits]);
                assert!(window[fits..].iter().all(|byte| *byte == 0xEE));
            }
        }
    }

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
