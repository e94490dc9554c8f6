//! Records on flash: length, checksum and contents, so that whatever reads back whole is what was written.
//!
//! The store below has checksums of its own. They are not relied on: pages after an interrupted erase have passed them.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use dunlin_core::{PacketId, QoS};

/// Bytes of a record before its contents: checksum, length, number, census.
pub(crate) const HEAD: usize = 14;
/// The longest record.
pub(crate) const MAX: usize = 240;
/// The most contents.
pub(crate) const BODY: usize = MAX - HEAD;
/// Bytes of a message's record before its topic.
pub(crate) const MESSAGE_HEAD: usize = 15;
/// Bytes of the payload in a record of its own.
pub(crate) const PART: usize = BODY - 4;
/// The longest topic, so that one and a part of the payload fit a record.
pub(crate) const TOPIC: usize = BODY - MESSAGE_HEAD;

const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// Which record: the key in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The format of the store.
    Format,
    /// The message in a slot.
    Slot(u16),
    /// A piece of a payload.
    Part(u16),
    /// Identifiers received.
    Received,
    /// A filter.
    Filter(u16),
    /// Of another program.
    Unknown,
}

impl Key {
    pub fn number(self) -> u32 {
        let of = |kind: u32, index: u16| kind.wrapping_shl(24) | u32::from(index);
        match self {
            Self::Format => 0,
            Self::Slot(slot) => of(1, slot),
            Self::Part(part) => of(2, part),
            Self::Received => of(3, 0),
            Self::Filter(index) => of(4, index),
            Self::Unknown => u32::MAX,
        }
    }

    pub fn of(number: u32) -> Self {
        let [kind, zero, high, low] = number.to_be_bytes();
        let index = u16::from_be_bytes([high, low]);
        match (kind, zero) {
            (0, 0) if index == 0 => Self::Format,
            (1, 0) => Self::Slot(index),
            (2, 0) => Self::Part(index),
            (3, 0) if index == 0 => Self::Received,
            (4, 0) => Self::Filter(index),
            _ => Self::Unknown,
        }
    }
}

/// What is in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing; the message that was there last.
    Free,
    /// A message that was not acknowledged.
    Message(Shape),
    /// Past PUBREC; its place in the order of PUBRECs.
    Released(u32),
}

/// How a message lies on flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub qos: QoS,
    pub retain: bool,
    pub payload_len: u32,
    pub first_part: u16,
    pub topic_len: u8,
}

impl Shape {
    /// Bytes of the payload that lie behind the topic.
    pub fn inline_len(&self) -> usize {
        let room = TOPIC.saturating_sub(usize::from(self.topic_len));
        usize::try_from(self.payload_len).unwrap_or(usize::MAX).min(room)
    }

    /// Records of their own for the rest.
    pub fn parts(&self) -> usize {
        let len = usize::try_from(self.payload_len).unwrap_or(usize::MAX);
        len.saturating_sub(self.inline_len()).div_ceil(PART)
    }

    /// Contents of the message's record.
    pub fn body_len(&self) -> usize {
        MESSAGE_HEAD.saturating_add(usize::from(self.topic_len)).saturating_add(self.inline_len())
    }
}

/// A slot's record without topic and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub id: PacketId,
    pub order: u32,
    pub state: State,
}

impl Slot {
    /// Reads the contents of a slot's record.
    pub fn read(body: &[u8]) -> Option<Self> {
        let ([kind, flags, id @ .., o1, o2, o3, o4], rest) = body.split_first_chunk::<8>()?;
        let &[id_high, id_low] = id;
        let id = PacketId::new(u16::from_be_bytes([id_high, id_low]))?;
        let order = u32::from_be_bytes([*o1, *o2, *o3, *o4]);
        let state = match kind {
            0 => State::Free,
            1 => {
                let ([l1, l2, l3, l4, p1, p2, topic_len], _) = rest.split_first_chunk::<7>()?;
                State::Message(Shape {
                    qos: QoS::from_bits(flags & 3)?,
                    retain: flags & 4 != 0,
                    payload_len: u32::from_be_bytes([*l1, *l2, *l3, *l4]),
                    first_part: u16::from_be_bytes([*p1, *p2]),
                    topic_len: *topic_len,
                })
            }
            2 => State::Released(u32::from_be_bytes(*rest.first_chunk()?)),
            _ => return None,
        };
        Some(Self { id, order, state })
    }

    /// Writes it; for a message, topic and payload follow.
    pub fn write(&self, record: &mut Record) {
        let (kind, flags) = match &self.state {
            State::Free => (0, 0),
            State::Message(shape) => (1, shape.qos.bits() | if shape.retain { 4 } else { 0 }),
            State::Released(_) => (2, 0),
        };
        record.put(&[kind, flags]);
        record.put(&self.id.get().to_be_bytes());
        record.put(&self.order.to_be_bytes());
        match &self.state {
            State::Free => {}
            State::Message(shape) => {
                record.put(&shape.payload_len.to_be_bytes());
                record.put(&shape.first_part.to_be_bytes());
                record.put(&[shape.topic_len]);
            }
            State::Released(turn) => record.put(&turn.to_be_bytes()),
        }
    }
}

/// A record that is being made.
pub(crate) struct Record {
    bytes: [u8; MAX],
    len: usize,
}

impl Record {
    pub const fn new() -> Self {
        Self { bytes: [0; MAX], len: HEAD }
    }

    /// Begins another one.
    pub fn clear(&mut self) {
        self.len = HEAD;
    }

    /// Adds contents; what does not fit is left out, and no caller has as much.
    pub fn put(&mut self, bytes: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.len).zip(bytes) {
            *place = *byte;
        }
        self.len = self.len.saturating_add(bytes.len()).min(MAX);
    }

    /// Ends it: checksum, length, number and census.
    pub fn seal(&mut self, key: Key, number: u32, census: u32) {
        let len = u16::try_from(self.len.saturating_sub(HEAD)).unwrap_or(u16::MAX).to_be_bytes();
        let head = len.into_iter().chain(number.to_be_bytes()).chain(census.to_be_bytes());
        for (place, byte) in self.bytes.iter_mut().skip(SUM).zip(head) {
            *place = byte;
        }
        let sum = checksum(key, self.bytes.get(SUM..self.len).unwrap_or_default()).to_be_bytes();
        for (place, byte) in self.bytes.iter_mut().zip(sum) {
            *place = byte;
        }
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A record that was read back whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    pub body: &'a [u8],
    /// Counts the records written; comes round.
    pub number: u32,
    /// What all that is kept amounted to when this record had been written. If the latest record says otherwise than
    /// what was found, something was lost: a damaged record is passed over in silence by the map.
    pub census: u32,
}

/// A record, if it is whole.
pub(crate) fn open(key: Key, bytes: &[u8]) -> Option<Opened<'_>> {
    let (sum, rest) = bytes.split_first_chunk::<SUM>()?;
    if u32::from_be_bytes(*sum) != checksum(key, rest) {
        return None;
    }
    let ([len @ .., n1, n2, n3, n4, c1, c2, c3, c4], body) = rest.split_first_chunk::<{ HEAD - SUM }>()?;
    let is_whole = usize::from(u16::from_be_bytes(*len)) == body.len();
    let number = u32::from_be_bytes([*n1, *n2, *n3, *n4]);
    let census = u32::from_be_bytes([*c1, *c2, *c3, *c4]);
    is_whole.then_some(Opened { body, number, census })
}

/// A number for one thing that is kept; a census adds them up.
pub(crate) fn count(key: Key, content: &[u8]) -> u32 {
    checksum(key, content)
}

/// Bytes of the checksum.
const SUM: usize = 4;

fn checksum(key: Key, bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&key.number().to_be_bytes());
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let mut record = Record::new();
        let slot = Slot { id: PacketId::new(7).unwrap(), order: 3, state: State::Released(9) };
        slot.write(&mut record);
        record.seal(Key::Slot(1), 5, 6);
        let bytes = record.bytes().to_vec();
        let opened = open(Key::Slot(1), &bytes).unwrap();
        assert_eq!((Slot::read(opened.body), opened.number, opened.census), (Some(slot), 5, 6));
        assert_eq!(open(Key::Slot(2), &bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(Key::Slot(1), &bytes), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(open(Key::Slot(1), &bytes[..len]), None);
        }
    }

    #[test]
    fn keys_come_back_from_their_numbers() {
        for key in [Key::Format, Key::Slot(0), Key::Slot(65_535), Key::Part(3), Key::Received, Key::Filter(2)] {
            assert_eq!(Key::of(key.number()), key);
        }
        assert_eq!(Key::of(5 << 24), Key::Unknown);
    }

    #[test]
    fn a_slot_of_each_state_comes_back() {
        let shape = Shape { qos: QoS::ExactlyOnce, retain: true, payload_len: 70_000, first_part: 12, topic_len: 200 };
        for state in [State::Free, State::Message(shape), State::Released(u32::MAX)] {
            let slot = Slot { id: PacketId::new(0x1234).unwrap(), order: 0x0102_0304, state };
            let mut record = Record::new();
            slot.write(&mut record);
            assert_eq!(Slot::read(&record.bytes()[HEAD..]), Some(slot));
        }
    }
}
