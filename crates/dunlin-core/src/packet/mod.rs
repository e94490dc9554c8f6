//! MQTT control packets: what their bytes mean (MQTT 2 and 3).
//!
//! Knows no session: functions here turn bytes into checked values and values into bytes. Decoders borrow from the
//! bytes they read; encoders write through a window, see [`writer::Writer`].

pub(crate) mod connect;
pub(crate) mod header;
pub(crate) mod publish;
pub(crate) mod reader;
pub(crate) mod subscribe;
pub(crate) mod writer;

use core::num::NonZeroU16;

/// Quality of service of a message (MQTT 4.3). The order is the order of the promises: a greater one promises more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "closed: MQTT reserves the fourth value for ever")]
pub enum QoS {
    /// Sent once and forgotten: arrives once or not at all.
    AtMostOnce,
    /// Kept until PUBACK: arrives once or more.
    AtLeastOnce,
    /// Kept until PUBREC, then released: arrives exactly once.
    ExactlyOnce,
}

impl QoS {
    /// The two bits of the standard: 0, 1 or 2.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// The quality of service that `bits` stand for; `None` for 3 and above.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Names a packet until its last acknowledgement (MQTT 2.3.1). Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// A packet identifier, or `None` for zero [MQTT-2.3.1-1].
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number on the wire, 1 to 65,535.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// What a server broke when [`Fault::Malformed`](crate::Fault::Malformed) ended the connection. Report it to whoever
/// runs the broker; there is nothing to mend in the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// A packet type that MQTT 3.1.1 does not have, or that only clients send (MQTT 2.2.1).
    PacketType,
    /// Flag bits that the packet type does not allow (MQTT 2.2.2).
    Flags,
    /// A length that the packet type cannot have, or a field that runs over the end of its packet.
    Length,
    /// Text that is not UTF-8 (MQTT 1.5.3).
    Text,
    /// A topic name that is empty, or holds a wildcard or U+0000 (MQTT 3.3.2.1, 1.5.3).
    Topic,
    /// Both QoS bits of a PUBLISH are set [MQTT-3.3.1-4], or a quality of service that this build has left out.
    QoS,
    /// DUP is set on a PUBLISH at QoS 0 [MQTT-3.3.1-2].
    Duplicate,
    /// A packet identifier is zero [MQTT-2.3.1-1].
    PacketId,
    /// Something other than CONNACK came first [MQTT-3.2.0-1], or a second CONNACK.
    OutOfPlace,
    /// Reserved CONNACK flags are set, or session present where no session can be [MQTT-3.2.2-1], [MQTT-3.2.2-4].
    SessionPresent,
    /// A SUBACK with fewer or more return codes than there were filters [MQTT-3.8.4-5].
    ReturnCodeCount,
    /// A SUBACK return code that MQTT does not define [MQTT-3.9.3-2].
    ReturnCode,
}
