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
        if self.qos == QoS::AtMostOnce { 0 } else { 2 }
    }
}

/// What stands before the payload of a received PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub flags: Flags,
    pub id: Option<PacketId>,
    pub topic_len: usize,
    /// Bytes of topic, its length, and packet identifier: where the payload starts, counted from the variable header.
    pub len: usize,
}

/// Reads topic name and packet identifier from `body`, the bytes behind the fixed header.
pub(crate) fn head(flags: Flags, body: &[u8]) -> Result<Head, Violation> {
    let (name, rest) = reader::text(body)?; // [MQTT-3.3.2-1]
    if !topic::is_name(name) {
        // [MQTT-3.3.2-2] [MQTT-4.7.3-1]; U+0000 is an error of the text [MQTT-1.5.3-2]
        return Err(if name.contains('\0') { Violation::Text } else { Violation::Topic });
    }
    let (id, rest) = match flags.qos {
        QoS::AtMostOnce => (None, rest),
        QoS::AtLeastOnce | QoS::ExactlyOnce => {
            let (id, rest) = reader::packet_id(rest)?;
            (Some(id), rest)
        }
    };
    Ok(Head { flags, id, topic_len: name.len(), len: body.len().wrapping_sub(rest.len()) })
}

/// A PUBLISH to encode, its payload apart.
pub(crate) struct Outgoing<'a> {
    pub topic: &'a str,
    pub qos: QoS,
    pub retain: bool,
    pub payload_len: usize,
}

impl Outgoing<'_> {
    /// Remaining Length, or `None` beyond what MQTT can say.
    pub fn remaining(&self) -> Option<usize> {
        let id_len = if self.qos == QoS::AtMostOnce { 0 } else { 2_usize };
        let head = self.topic.len().saturating_add(2).saturating_add(id_len);
        Some(head.saturating_add(self.payload_len)).filter(|len| *len <= header::MAX_REMAINING)
    }

    /// Writes everything before the payload. DUP is clear [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1].
    pub fn write_head(&self, id: u16, remaining: usize, writer: &mut Writer<'_>) {
        let retain = if self.retain { RETAIN } else { 0 };
        writer.put_header(header::PUBLISH | self.qos.bits() << 1 | retain, remaining);
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
