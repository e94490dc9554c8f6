//! CONNECT and CONNACK (MQTT 3.1, 3.2).

use super::writer::Writer;
use super::{QoS, Violation};
use crate::session::options::Options;

/// The flags of a CONNECT (MQTT 3.1.2.3).
pub(crate) const CLEAN_SESSION: u8 = 0x02;
pub(crate) const PASSWORD: u8 = 0x40;
pub(crate) const USER_NAME: u8 = 0x80;

/// Those of a will. Without one, its QoS and RETAIN stay zero [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15].
pub(crate) const fn will_flags(qos: QoS, retain: bool) -> u8 {
    // [MQTT-3.1.2-14]
    0x04 | qos.bits() << 3 | if retain { 0x20 } else { 0 }
}
/// All that a will can set.
pub(crate) const WILL: u8 = will_flags(QoS::ExactlyOnce, true) | will_flags(QoS::AtLeastOnce, true);

/// Why a server refused the connection (MQTT 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// 1: the server does not speak this version of MQTT [MQTT-3.1.2-2].
    ProtocolVersion,
    /// 2: the server does not take this client identifier [MQTT-3.1.3-8] [MQTT-3.1.3-9].
    ClientId,
    /// 3: the server is there, MQTT on it is not. Trying again later is right.
    ServerUnavailable,
    /// 4: user name or password is malformed.
    Credentials,
    /// 5: this client may not connect.
    NotAuthorized,
    /// A return code that MQTT 3.1.1 reserves, 6 to 255 [MQTT-3.2.2-6].
    Reserved(u8),
}

impl Refusal {
    /// Whether the same CONNECT may succeed later. Where it cannot, a client that tries for ever only makes noise.
    #[must_use]
    pub const fn may_heal(self) -> bool {
        match self {
            Self::ServerUnavailable | Self::Reserved(_) => true,
            Self::ProtocolVersion | Self::ClientId | Self::Credentials | Self::NotAuthorized => false,
        }
    }
}

/// What a CONNACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connack {
    Accepted { session_present: bool },
    Refused(Refusal),
}

/// Reads the two bytes after the fixed header of a CONNACK.
pub(crate) fn connack(bytes: u16) -> Result<Connack, Violation> {
    match bytes.to_be_bytes() {
        [present @ 0..=1, 0] => Ok(Connack::Accepted { session_present: present == 1 }),
        [0, code] => Ok(Connack::Refused(match code {
            1 => Refusal::ProtocolVersion,
            2 => Refusal::ClientId,
            3 => Refusal::ServerUnavailable,
            4 => Refusal::Credentials,
            5 => Refusal::NotAuthorized,
            reserved => Refusal::Reserved(reserved),
        })),
        _ => Err(Violation::SessionPresent), // [MQTT-3.2.2-4] and the reserved flags
    }
}

/// Writes what follows the fixed header of the CONNECT that `options` describe: protocol name, level 4, and flags whose
/// lowest bit is zero [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.2-3].
pub(crate) fn write(options: &Options<'_>, writer: &mut Writer<'_>) {
    writer.put(b"\0\x04MQTT\x04");
    writer.put_byte(options.flags);
    writer.put_u16(options.keep_alive_s);
    // [MQTT-3.1.3-1] identifier, will topic, will message, user name, password. [MQTT-3.1.3-3]
    for field in options.fields.iter().flatten() {
        writer.put_binary(field); // [MQTT-3.1.2-9] [MQTT-3.1.2-19] [MQTT-3.1.2-21]
    }
}
