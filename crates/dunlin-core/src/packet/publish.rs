//! PUBLISH (MQTT 3.3).

use super::writer::Writer;
use super::{PacketId, QoS, Violation, header, reader};
use crate::topic;

/// Set on a PUBLISH that is sent again.
pub(crate) const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;

/// The flags of a received PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flags {
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
}

impl Flags {
    /// Reads the flags in the first byte of a PUBLISH.
    pub fn read(first: u8) -> Result<Self, Violation> {
        let qos = QoS::from_bits(first >> 1 & 3).ok_or(Violation::QoS)?; // [MQTT-3.3.1-4]
        let dup = first & DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(Violation::Duplicate); // [MQTT-3.3.1-2]
        }
        Ok(Self { qos, retain: first & RETAIN != 0, dup })
    }

    /// Bytes that the packet identifier takes [MQTT-2.3.1-5].
    pub fn id_len(self) -> usize {
        id_len(self.qos)
    }
}

fn id_len(qos: QoS) -> usize {
    if qos == QoS::AtMostOnce { 0 } else { 2 }
}

/// What stands before the payload of a received PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub id: Option<PacketId>,
    pub topic_len: usize,
    /// Bytes of the payload.
    pub payload_len: usize,
}

/// Reads topic name and packet identifier from `body`, the bytes behind the fixed header.
pub(crate) fn head(flags: Flags, body: &[u8]) -> Result<Head, Violation> {
    let (name, rest) = reader::text(body)?; // [MQTT-3.3.2-1]
    if !topic::is_name_bytes(name) {
        return Err(Violation::Topic); // [MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-1.5.3-2]
    }
    if flags.qos == QoS::AtMostOnce {
        return Ok(Head { id: None, topic_len: name.len(), payload_len: rest.len() });
    }
    let (id, rest) = reader::packet_id(rest)?;
    Ok(Head { id: Some(id), topic_len: name.len(), payload_len: rest.len() })
}

/// A PUBLISH to encode, its payload apart.
pub(crate) struct Outgoing<'a> {
    pub topic: &'a str,
    pub qos: QoS,
    pub retain: bool,
    pub payload_len: usize,
}

impl Outgoing<'_> {
    /// Remaining Length; too large a sum stays too large.
    fn remaining(&self) -> usize {
        self.payload_len.saturating_add(self.topic.len().wrapping_add(2).wrapping_add(id_len(self.qos)))
    }

    /// Bytes of the whole packet, or `None` beyond what MQTT can say.
    pub fn packet_len(&self) -> Option<usize> {
        let remaining = self.remaining();
        if remaining > header::MAX_REMAINING { None } else { Some(header_len(remaining).wrapping_add(remaining)) }
    }

    /// Writes everything before the payload. DUP is clear [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1].
    pub fn write_head(&self, id: u16, writer: &mut Writer<'_>) {
        let retain = if self.retain { RETAIN } else { 0 };
        writer.put_header(header::PUBLISH | self.qos.bits() << 1 | retain, self.remaining());
        writer.put_binary(self.topic.as_bytes());
        if self.qos != QoS::AtMostOnce {
            writer.put_u16(id); // [MQTT-2.3.1-1] [MQTT-2.3.1-5]
        }
    }
}

/// Bytes of the fixed header before `remaining` more.
pub(crate) const fn header_len(remaining: usize) -> usize {
    match remaining {
        0..=127 => 2,
        128..=16_383 => 3,
        16_384..=2_097_151 => 4,
        _ => 5,
    }
}
