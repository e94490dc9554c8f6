//! Records on flash: checksum, length, kind and contents, so that whatever reads back whole is what was written.
//!
//! The map below has checksums of its own. They are not relied on: pages after an interrupted erase have passed them.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use dunlin_core::{Filter, PacketId, Publish, QoS};
use sequential_storage::map::{SerializationError, Value};

use super::table::{Cell, Table, kind};
use crate::store::Entry;

/// The format of what is written. Programs refuse a greater one.
pub const FORMAT: u8 = 1;
/// Bytes of a record before its contents: checksum, length, format and kind, identifier, order, number, census.
pub const HEAD: usize = 20;
/// The most contents.
pub const BODY: usize = 220;
/// Bytes of a message's contents before its topic: quality of service and RETAIN, length of the topic, of the payload.
pub const MESSAGE_HEAD: usize = 6;
/// The longest topic.
pub const TOPIC: usize = 211;
/// A message whose topic and payload have more bytes than this has its payload in parts.
pub const WHOLE: usize = BODY - MESSAGE_HEAD;

const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// A record that is being written.
pub struct Draft<'a> {
    pub key: u32,
    pub cell: Cell,
    /// Counts the records written; comes round.
    pub number: u32,
    /// What all that is kept amounts to with this record. If the latest record says otherwise than what was found,
    /// something was lost: a damaged record is passed over in silence by the map.
    pub census: u32,
    /// The contents, in three pieces.
    pub body: [&'a [u8]; 3],
}

impl Draft<'_> {
    fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let (record, _) = buffer.split_at_mut_checked(HEAD.saturating_add(usize::from(self.cell.len)))?;
        let (head, mut rest) = record.split_first_chunk_mut::<HEAD>()?;
        let [_, _, _, _, len, kind, id @ .., o1, o2, o3, o4, n1, n2, n3, n4, c1, c2, c3, c4] = head;
        *len = self.cell.len;
        *kind = FORMAT.wrapping_shl(4) | self.cell.kind;
        *id = self.cell.id.to_be_bytes();
        [*o1, *o2, *o3, *o4] = self.cell.order.to_be_bytes();
        [*n1, *n2, *n3, *n4] = self.number.to_be_bytes();
        [*c1, *c2, *c3, *c4] = self.census.to_be_bytes();
        for piece in self.body {
            let (place, behind) = rest.split_at_mut_checked(piece.len())?;
            place.copy_from_slice(piece);
            rest = behind;
        }
        let (sum, covered) = record.split_first_chunk_mut()?;
        *sum = checksum(self.key, covered).to_be_bytes();
        Some(record.len())
    }
}

/// Only ever written: what is read, [`open`] looks at.
impl<'a> Value<'a> for Draft<'_> {
    fn serialize_into(&self, buffer: &mut [u8]) -> Result<usize, SerializationError> {
        self.write(buffer).ok_or(SerializationError::BufferTooSmall)
    }

    fn deserialize_from(_: &'a [u8]) -> Result<(Self, usize), SerializationError> {
        Err(SerializationError::InvalidFormat)
    }
}

/// A record that was read back whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    pub format: u8,
    pub cell: Cell,
    pub number: u32,
    pub census: u32,
    pub body: &'a [u8],
}

impl<'a> Opened<'a> {
    /// A message or a filter.
    pub fn entry(&self) -> Option<Entry<'a>> {
        if self.cell.kind == kind::FILTER {
            let (qos, text) = self.body.split_first()?;
            let text = core::str::from_utf8(text).ok()?;
            return Filter::new(text, QoS::from_bits(*qos)?).ok().map(Entry::Subscription);
        }
        let ([flags, topic_len, len @ ..], rest) = self.body.split_first_chunk::<MESSAGE_HEAD>()?;
        let topic = core::str::from_utf8(rest.get(..usize::from(*topic_len))?).ok()?;
        let head = Publish::new(topic, &[]).with_qos(QoS::from_bits(flags & 3)?);
        let head = if flags & 4 != 0 { head.retain() } else { head };
        let id = PacketId::new(self.cell.id)?;
        Some(Entry::Message { id, order: self.cell.order, head, len: u32::from_be_bytes(*len) })
    }
}

/// A record, if it is whole.
pub fn open(key: u32, bytes: &[u8]) -> Option<Opened<'_>> {
    let (sum, covered) = bytes.split_first_chunk()?;
    if u32::from_be_bytes(*sum) != checksum(key, covered) {
        return None;
    }
    let (head, body) = bytes.split_first_chunk::<HEAD>()?;
    let [_, _, _, _, len, kind, i1, i2, o1, o2, o3, o4, n1, n2, n3, n4, c1, c2, c3, c4] = *head;
    let (_, index) = Table::<0, 0, 0, 0>::of_key(key);
    let cell = Cell {
        kind: kind & 0xf,
        len,
        id: u16::from_be_bytes([i1, i2]),
        order: u32::from_be_bytes([o1, o2, o3, o4]),
        index,
    };
    let opened = Opened {
        format: kind.wrapping_shr(4),
        cell,
        number: u32::from_be_bytes([n1, n2, n3, n4]),
        census: u32::from_be_bytes([c1, c2, c3, c4]),
        body,
    };
    (usize::from(len) == body.len()).then_some(opened)
}

/// A checksum over these bytes and what they belong to.
pub fn checksum(key: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest_with_initial(key);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let cell = Cell { kind: 4, len: 5, id: 7, order: 3, index: 1 };
        let key = 1 << 24 | 1;
        let draft = Draft { key, cell, number: 5, census: 6, body: [b"ab", b"", b"cde"] };
        let mut buffer = [0; 64];
        let len = draft.serialize_into(&mut buffer).unwrap();
        let bytes = &buffer[..len];
        let opened = open(key, bytes).unwrap();
        assert_eq!(opened, Opened { format: FORMAT, cell, number: 5, census: 6, body: b"abcde" });
        assert_eq!(open(2, bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(key, &bytes), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(open(key, &bytes[..len]), None);
        }
        assert!(draft.serialize_into(&mut [0; 24]).is_err());
    }
}
