//! Checked reads from the front of a slice. Each gives back what it read and what is left.

use super::{PacketId, Violation};

/// Two bytes, most significant first (MQTT 1.5.2).
pub(crate) fn u16(bytes: &[u8]) -> Result<(u16, &[u8]), Violation> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Violation::Length)?;
    Ok((u16::from_be_bytes(*number), rest))
}

/// A packet identifier [MQTT-2.3.1-1].
pub(crate) fn packet_id(bytes: &[u8]) -> Result<(PacketId, &[u8]), Violation> {
    let (number, rest) = u16(bytes)?;
    Ok((PacketId::new(number).ok_or(Violation::PacketId)?, rest))
}

/// A text with its length before it: well-formed UTF-8 [MQTT-1.5.3-1] without U+0000 [MQTT-1.5.3-2].
/// U+FEFF stays where it is [MQTT-1.5.3-3].
pub(crate) fn text(bytes: &[u8]) -> Result<(&str, &[u8]), Violation> {
    let (len, rest) = u16(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::from(len)).ok_or(Violation::Length)?;
    let text = core::str::from_utf8(text).map_err(|_| Violation::Text)?;
    Ok((text, rest))
}
