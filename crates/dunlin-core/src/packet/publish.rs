//! PUBLISH (MQTT 3.3).

#[cfg(target_pointer_width = "64")]
use super::writer;
use super::writer::Writer;
use super::{PacketId, QoS, Violation, header, reader};

/// Set on a PUBLISH that is sent again.
pub(crate) const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;
/// Both QoS bits.
const QOS: u8 = 0x06;

/// The first byte of a PUBLISH, with its flags. Of a received one, they have been checked by [`header::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flags(u8);

impl Flags {
    pub const fn new(first: u8) -> Self {
        Self(first)
    }

    /// Those of a message to be sent. DUP is clear [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1].
    pub fn of(qos: QoS, retain: bool) -> Self {
        Self(header::PUBLISH | qos.bits() << 1 | if retain { RETAIN } else { 0 })
    }

    /// Checks those of a message that came.
    pub fn check(self) -> Result<(), Violation> {
        if self.0 & QOS == QOS {
            return Err(Violation::QoS); // [MQTT-3.3.1-4]
        }
        if self.0 & (DUP | QOS) == DUP { Err(Violation::Duplicate) } else { Ok(()) } // [MQTT-3.3.1-2]
    }

    pub fn qos(self) -> QoS {
        match self.0 & QOS {
            0 => QoS::AtMostOnce,
            2 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    pub fn is_qos0(self) -> bool {
        self.0 & QOS == 0
    }

    pub fn is_qos2(self) -> bool {
        cfg!(feature = "qos2") && self.0 & 4 != 0
    }

    pub fn is_retain(self) -> bool {
        self.0 & RETAIN != 0
    }

    pub fn is_dup(self) -> bool {
        self.0 & DUP != 0
    }

    /// Bytes that the packet identifier takes [MQTT-2.3.1-5].
    pub fn id_len(self) -> usize {
        if self.is_qos0() { 0 } else { 2 }
    }
}

/// What stands before the payload of a received PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// `None` at QoS 0.
    pub id: Option<PacketId>,
    pub topic_len: usize,
    /// Bytes of all of it.
    pub len: usize,
}

/// Reads topic name and packet identifier from `body`, the bytes behind the fixed header.
pub(crate) fn head(flags: Flags, body: &[u8]) -> Result<Head, Violation> {
    let topic_len = usize::from(reader::number(body, 0).ok_or(Violation::Length)?);
    let topic_end = topic_len.wrapping_add(2);
    let name = body.get(2..topic_end).ok_or(Violation::Length)?;
    reader::check_name(name)?; // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
    let id = if flags.is_qos0() { None } else { Some(reader::packet_id(body, topic_end)?) };
    Ok(Head { id, topic_len, len: topic_end.wrapping_add(flags.id_len()) })
}

/// A PUBLISH to encode, its payload apart.
pub(crate) struct Outgoing<'a> {
    pub flags: Flags,
    pub topic: &'a [u8],
    /// Remaining Length.
    remaining: usize,
}

impl<'a> Outgoing<'a> {
    /// A payload is never longer than half the address space, so no sum of lengths overflows.
    pub fn new(flags: Flags, topic: &'a [u8], payload_len: usize) -> Self {
        let head_len = topic.len().wrapping_add(2).wrapping_add(flags.id_len());
        Self { flags, topic, remaining: payload_len.wrapping_add(head_len) }
    }

    /// As one that may have been sent before [MQTT-3.3.1-1].
    #[cfg(feature = "durable")]
    pub fn repeated(mut self) -> Self {
        self.flags.0 |= DUP;
        self
    }

    /// Bytes of the whole packet; more than [`header::MAX_PACKET`] is more than MQTT can say.
    pub fn packet_len(&self) -> usize {
        header_len(self.remaining).wrapping_add(self.remaining)
    }

    /// Writes the packet to `out`, from `at` on, where there is room for it; `payload` may as well be what stands for it.
    #[cfg(not(target_pointer_width = "64"))]
    #[inline]
    pub fn write(&self, id: u16, payload: &[u8], out: &mut [u8], at: usize) {
        let mut writer = Writer::new(out);
        writer.begin(at);
        writer.put_header(self.flags.0, self.remaining);
        writer.put_binary(self.topic);
        if !self.flags.is_qos0() {
            writer.put_u16(id); // [MQTT-2.3.1-1] [MQTT-2.3.1-5]
        }
        writer.put(payload);
    }

    /// The same on hosts, piece by piece: takes more code, and half the time.
    #[cfg(target_pointer_width = "64")]
    #[inline]
    pub fn write(&self, id: u16, payload: &[u8], out: &mut [u8], at: usize) {
        let out = out.get_mut(at..).unwrap_or_default();
        let mut rest = match u8::try_from(self.remaining) {
            Ok(length @ ..0x80) => writer::put_u16(u16::from_be_bytes([self.flags.0, length]), out),
            _ => {
                let mut writer = Writer::new(out);
                writer.put_header(self.flags.0, self.remaining);
                writer.into_rest()
            }
        };
        rest = writer::put_u16(u16::try_from(self.topic.len()).unwrap_or(u16::MAX), rest);
        rest = writer::put(self.topic, rest);
        if !self.flags.is_qos0() {
            rest = writer::put_u16(id, rest); // [MQTT-2.3.1-1] [MQTT-2.3.1-5]
        }
        writer::put(payload, rest);
    }
}

/// Bytes of the fixed header before `remaining` more.
pub(crate) const fn header_len(remaining: usize) -> usize {
    let mut len = 2_usize;
    let mut rest = remaining.wrapping_shr(7);
    while rest > 0 && len < 5 {
        len = len.wrapping_add(1);
        rest = rest.wrapping_shr(7);
    }
    len
}
