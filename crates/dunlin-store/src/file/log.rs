//! Records of a log: length, checksum and contents. Bytes only; what they mean to a store is its business.

use std::hash::{BuildHasher, RandomState};
use std::io;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use dunlin_core::{Mark, PacketId, Publish, QoS, Stage};

use crate::store::StoreError;

/// The format of what is written. Programs refuse a greater one. The first had no seal.
const FORMAT: u8 = 2;
const MAGIC: &[u8] = b"dunlin";
/// Bytes of a record before its contents.
pub const HEAD: usize = 8;
const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// Kinds of records, their first byte.
pub mod kind {
    pub const PUT: u8 = 1;
    pub const MARK: u8 = 2;
    pub const SUBSCRIBE: u8 = 3;
    pub const UNSUBSCRIBE: u8 = 4;
    /// The message put last, if it is over.
    pub const LAST: u8 = 5;
}

/// Stages as they are written. A message that is accepted has a record of its own.
pub const STAGES: [(u8, Stage); 4] =
    [(1, Stage::Released), (2, Stage::Done), (3, Stage::Received), (4, Stage::Forgotten)];

/// What the checksums of one log begin with: drawn at random, so that nobody who has a say in what a message contains can
/// make a part of it look like a record, should it be looked for behind one that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal(u32);

impl Seal {
    /// That of the first record, which tells the others', and of logs of the first format.
    pub const NONE: Self = Self(0);

    pub fn draw() -> Self {
        // The standard library's hash maps are seeded by the system.
        Self(RandomState::new().hash_one(MAGIC) as u32 | 1)
    }

    pub fn record(self, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        fill(&mut bytes);
        let len = ((bytes.len() - HEAD) as u32).to_be_bytes();
        let sum = self.checksum(len, &bytes[HEAD..]).to_be_bytes();
        bytes[..4].copy_from_slice(&len);
        bytes[4..HEAD].copy_from_slice(&sum);
        bytes
    }

    pub fn mark(self, mark: &Mark) -> Option<Vec<u8>> {
        let (stage, _) = STAGES.iter().find(|(_, stage)| *stage == mark.stage)?;
        Some(self.record(|body| {
            body.extend([kind::MARK, *stage]);
            body.extend(mark.id.get().to_be_bytes());
        }))
    }

    pub fn filter(self, text: &str, qos: QoS) -> Vec<u8> {
        self.record(|body| {
            body.extend([kind::SUBSCRIBE, qos.bits()]);
            body.extend(text.as_bytes());
        })
    }

    pub fn no_filter(self, text: &str) -> Vec<u8> {
        self.record(|body| {
            body.push(kind::UNSUBSCRIBE);
            body.extend(text.as_bytes());
        })
    }

    pub fn last(self, id: PacketId, order: u32) -> Vec<u8> {
        self.record(|body| {
            body.push(kind::LAST);
            body.extend(id.get().to_be_bytes());
            body.extend(order.to_be_bytes());
        })
    }

    /// The contents of the record at the front, if it is whole.
    pub fn whole(self, bytes: &[u8]) -> Option<&[u8]> {
        let ([l1, l2, l3, l4, sum @ ..], rest) = bytes.split_first_chunk::<HEAD>()?;
        let len = [*l1, *l2, *l3, *l4];
        let body = rest.get(..usize::try_from(u32::from_be_bytes(len)).ok()?)?;
        (may_be_record(body) && self.checksum(len, body) == u32::from_be_bytes(*sum)).then_some(body)
    }

    fn checksum(self, len: [u8; 4], body: &[u8]) -> u32 {
        let mut digest = CRC.digest();
        if self != Self::NONE {
            digest.update(&self.0.to_be_bytes());
        }
        digest.update(&len);
        digest.update(body);
        digest.finalize()
    }
}

/// Whether these may be the contents of a record. Asked before the checksum, since a record that is looked for in many
/// bytes may seem to begin, and to be long, at any of them.
fn may_be_record(body: &[u8]) -> bool {
    match body {
        [kind::PUT, _, _, _, _, _, _, flags, t1, t2, rest @ ..] => {
            *flags < 8 && rest.len() >= usize::from(u16::from_be_bytes([*t1, *t2]))
        }
        [kind::MARK, _, _, _] | [kind::LAST, _, _, _, _, _, _] => true,
        [kind::SUBSCRIBE, 0..=2, text @ ..] | [kind::UNSUBSCRIBE, text @ ..] => text.len() <= usize::from(u16::MAX),
        other => other.starts_with(MAGIC),
    }
}

/// Bytes of the record of a mark.
pub const MARK: usize = HEAD + 4;

/// Bytes of the record of a filter.
pub const fn filter_len(text: &str) -> usize {
    HEAD + 2 + text.len()
}

/// Begins the contents of a message's record: all but the payload.
pub fn put_head(body: &mut Vec<u8>, id: PacketId, order: u32, publish: &Publish<'_>) {
    body.push(kind::PUT);
    body.extend(id.get().to_be_bytes());
    body.extend(order.to_be_bytes());
    body.push(publish.qos().bits() | if publish.is_retain() { 4 } else { 0 });
    body.extend((publish.topic().len() as u16).to_be_bytes());
    body.extend(publish.topic().as_bytes());
}

/// The first record of a log.
pub fn header(seal: Seal) -> Vec<u8> {
    Seal::NONE.record(|body| {
        body.extend(MAGIC);
        body.push(FORMAT);
        body.extend(seal.0.to_be_bytes());
    })
}

/// Bytes of the first record.
pub const HEADER: usize = HEAD + MAGIC.len() + 5;

/// What the contents of the first record say.
pub fn read_header(body: &[u8]) -> Result<Seal, StoreError<io::Error>> {
    match body.strip_prefix(MAGIC) {
        Some([1]) => Ok(Seal::NONE),
        Some([FORMAT, seal @ ..]) => match seal.try_into() {
            Ok(seal) => Ok(Seal(u32::from_be_bytes(seal))),
            Err(_) => Err(StoreError::Region),
        },
        Some([format, ..]) if *format > FORMAT => Err(StoreError::Newer { format: *format }),
        _ => Err(StoreError::Region),
    }
}
