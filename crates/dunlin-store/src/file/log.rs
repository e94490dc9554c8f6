//! Records of a log: length, checksum and contents. Bytes only; what they mean to a store is its business.

use std::io;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use dunlin_core::{Mark, PacketId, Publish, QoS, Stage};

use crate::store::StoreError;

/// The format of what is written. Programs refuse a greater one.
const FORMAT: u8 = 1;
pub const MAGIC: &[u8] = b"dunlin";
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

pub fn record(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    fill(&mut bytes);
    let len = ((bytes.len() - HEAD) as u32).to_be_bytes();
    let sum = checksum(len, &bytes[HEAD..]).to_be_bytes();
    bytes[..4].copy_from_slice(&len);
    bytes[4..HEAD].copy_from_slice(&sum);
    bytes
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

pub fn mark_record(mark: &Mark) -> Option<Vec<u8>> {
    let (stage, _) = STAGES.iter().find(|(_, stage)| *stage == mark.stage)?;
    Some(record(|body| {
        body.extend([kind::MARK, *stage]);
        body.extend(mark.id.get().to_be_bytes());
    }))
}

pub fn filter_record(text: &str, qos: QoS) -> Vec<u8> {
    record(|body| {
        body.extend([kind::SUBSCRIBE, qos.bits()]);
        body.extend(text.as_bytes());
    })
}

pub fn no_filter_record(text: &str) -> Vec<u8> {
    record(|body| {
        body.push(kind::UNSUBSCRIBE);
        body.extend(text.as_bytes());
    })
}

pub fn last_record(id: PacketId, order: u32) -> Vec<u8> {
    record(|body| {
        body.push(kind::LAST);
        body.extend(id.get().to_be_bytes());
        body.extend(order.to_be_bytes());
    })
}

pub fn header() -> Vec<u8> {
    record(|body| {
        body.extend(MAGIC);
        body.push(FORMAT);
    })
}

pub fn check_header(body: &[u8]) -> Result<(), StoreError<io::Error>> {
    match body.strip_prefix(MAGIC) {
        Some([format]) if *format > FORMAT => Err(StoreError::Newer { format: *format }),
        Some([_]) => Ok(()),
        _ => Err(StoreError::Region),
    }
}

/// The contents of the record at the front, if it is whole.
pub fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let ([l1, l2, l3, l4, sum @ ..], rest) = bytes.split_first_chunk::<HEAD>()?;
    let len = [*l1, *l2, *l3, *l4];
    let body = rest.get(..usize::try_from(u32::from_be_bytes(len)).ok()?)?;
    (!body.is_empty() && checksum(len, body) == u32::from_be_bytes(*sum)).then_some(body)
}

pub fn checksum(len: [u8; 4], body: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&len);
    digest.update(body);
    digest.finalize()
}
