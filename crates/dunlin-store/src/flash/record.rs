//! Records on flash: checksum, kind, length and contents, so that whatever reads back whole is what was written.
//!
//! The map below has checksums of its own. They are not relied on: pages after an interrupted erase have passed them.

use super::table::Cell;

/// The format of what is written: the first byte of each key. Programs refuse any other.
pub const FORMAT: u8 = 3;
/// Bytes of the key, which the map puts before a record.
pub const KEY: usize = size_of::<u16>();
/// Bytes of a record before its contents: five words.
pub const HEAD: usize = 20;
/// Bytes of a message's or filter's contents before its text: quality of service and RETAIN, length of the text.
pub const PREFIX: usize = 2;
/// RETAIN beside the quality of service.
pub const RETAIN: u8 = 4;
/// The most contents: their length has twelve bits.
pub const BODY: usize = 0xfff;

/// CRC-32/ISO-HDLC, its bits in the order in which they go over a wire. Without a table: flash is dearer than time here.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// The key of a cell.
pub fn key(index: u32) -> u16 {
    u16::from(FORMAT) << 8 | index as u16
}

/// A record that is being written.
pub struct Draft<'b> {
    buffer: &'b mut [u8],
    /// Bytes of it; more than the buffer has when it does not fit.
    len: usize,
}

impl<'b> Draft<'b> {
    /// Its head. `number` counts the records written, and comes round. `state`: what all that is kept amounts to with this
    /// record, and the identifier that was used last. If the latest record says otherwise than what was found, something
    /// was lost: a damaged record is passed over in silence by the map.
    pub fn new(buffer: &'b mut [u8], [head, order, number, state]: [u32; 4]) -> Self {
        let mut draft = Self { buffer, len: 0 };
        for word in &[0, head, order, number, state] {
            draft.put(&word.to_le_bytes());
        }
        draft
    }

    /// Some of its contents.
    #[inline(never)]
    pub fn put(&mut self, piece: &[u8]) {
        let end = self.len.saturating_add(piece.len());
        if let Some(place) = self.buffer.get_mut(self.len..end) {
            place.copy_from_slice(piece);
        }
        self.len = end;
    }

    /// How many bytes it has, and its checksum written; `None`: the buffer has fewer.
    pub fn seal(self, key: u16) -> Option<usize> {
        let (sum, covered) = self.buffer.get_mut(..self.len)?.split_first_chunk_mut()?;
        *sum = checksum(key, covered).to_le_bytes();
        Some(self.len)
    }
}

/// A record that was read back whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    pub cell: Cell,
    pub number: u32,
    pub state: u32,
    pub body: &'a [u8],
}

/// A record, if it is whole.
pub fn open(key: u16, bytes: &[u8]) -> Option<Opened<'_>> {
    let (sum, covered) = bytes.split_first_chunk()?;
    if u32::from_le_bytes(*sum) != checksum(key, covered) {
        return None;
    }
    let (head, body) = bytes.split_first_chunk::<HEAD>()?;
    let ([_, word, order, number, state], _) = head.as_chunks() else { return None };
    let [_, index] = key.to_be_bytes();
    let cell = Cell { head: u32::from_le_bytes(*word), order: u32::from_le_bytes(*order), index: index as u32 };
    let opened = Opened { cell, number: u32::from_le_bytes(*number), state: u32::from_le_bytes(*state), body };
    (cell.len() == body.len()).then_some(opened)
}

/// A message's or filter's contents taken apart: quality of service and RETAIN, text, payload.
pub fn split(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([flags, len], rest) = body.split_first_chunk::<PREFIX>()?;
    let (text, payload) = rest.split_at_checked(usize::from(*len))?;
    Some((*flags, text, payload))
}

/// A checksum over these bytes and what they belong to.
pub fn checksum(key: u16, bytes: &[u8]) -> u32 {
    let mut crc = u32::from(key).reverse_bits();
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let is_odd = crc & 1 == 1;
            crc = crc.wrapping_shr(1) ^ if is_odd { POLYNOMIAL } else { 0 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32_that_begins_with_the_key() {
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
        for key in [0, 1, 0x0217, 0xffff] {
            for bytes in [&b""[..], b"a", b"123456789"] {
                let mut digest = crc.digest_with_initial(u32::from(key));
                digest.update(bytes);
                assert_eq!(checksum(key, bytes), digest.finalize(), "{key}, {bytes:?}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let cell = Cell { index: 1, ..Cell::new(4, 5, 7, 3) };
        let write = |buffer: &mut [u8]| {
            let mut draft = Draft::new(buffer, [cell.head, cell.order, 5, 6]);
            [&b"ab"[..], b"", b"cde"].iter().for_each(|piece| draft.put(piece));
            draft.seal(key(1))
        };
        let mut buffer = [0; 64];
        let len = write(&mut buffer).unwrap();
        let bytes = &buffer[..len];
        let opened = open(key(1), bytes).unwrap();
        assert_eq!(opened, Opened { cell, number: 5, state: 6, body: b"abcde" });
        assert_eq!(open(key(2), bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(key(1), &bytes), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(open(key(1), &bytes[..len]), None);
        }
        assert_eq!(write(&mut [0; 24]), None);
        assert_eq!(write(&mut [0; 25]), Some(25));
    }
}
