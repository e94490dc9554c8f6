//! The fixed header: packet type, flags and Remaining Length (MQTT 2.2).

use super::Violation;
use super::publish::Flags;

/// First bytes of the packets that a client sends [MQTT-2.2.2-1]; PUBLISH takes flags.
pub(crate) const CONNECT: u8 = 0x10;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62; // [MQTT-3.6.1-1]
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBSCRIBE: u8 = 0x82; // [MQTT-3.8.1-1]
pub(crate) const UNSUBSCRIBE: u8 = 0xA2; // [MQTT-3.10.1-1]
pub(crate) const PINGREQ: u8 = 0xC0;
pub(crate) const DISCONNECT: u8 = 0xE0; // [MQTT-3.14.1-1]

/// The largest Remaining Length that four bytes can say.
pub(crate) const MAX_REMAINING: usize = 268_435_455;
/// The largest packet.
pub(crate) const MAX_PACKET: usize = MAX_REMAINING + 5;

/// First bytes of the packets that only a server sends.
pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const UNSUBACK: u8 = 0xB0;
pub(crate) const PINGRESP: u8 = 0xD0;

/// A fixed header that has been read and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Packet type and flags; for PUBLISH, see [`is_publish`](Self::is_publish).
    pub first: u8,
    /// Bytes of the fixed header itself, 2 to 5.
    pub len: usize,
    /// Bytes that follow it.
    pub remaining: usize,
}

impl Header {
    /// Whether it is a PUBLISH, whose flags are looked at elsewhere.
    pub fn is_publish(self) -> bool {
        self.first & 0xF0 == PUBLISH
    }
}

/// What a server may send, by packet type (MQTT 2.2.1): the flags it must have [MQTT-2.2.2-2] in the lower half, those of
/// PUBLISH apart, and its length in the three highest bits, above one that is always set.
const FORMS: [u8; 16] = [
    0,
    0,
    TWO_BYTES,                   // CONNACK
    AT_LEAST_THREE,              // PUBLISH
    TWO_BYTES,                   // PUBACK
    TWO_BYTES,                   // PUBREC
    TWO_BYTES | (PUBREL & 0x0F), // PUBREL
    TWO_BYTES,                   // PUBCOMP
    0,
    AT_LEAST_THREE, // SUBACK
    0,
    TWO_BYTES, // UNSUBACK
    0,
    EMPTY, // PINGRESP
    0,
    0,
];
const EMPTY: u8 = 0x10;
const TWO_BYTES: u8 = 0x50;
const AT_LEAST_THREE: u8 = 0x70;

/// Reads the fixed header at the start of `bytes`; `None` means that more bytes must come.
///
/// Refuses as early as a refusal is certain: an HTTP answer falls at its first byte, a PUBACK with a length of a
/// thousand before any of the thousand came.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let form = FORMS.get(usize::from(first >> 4)).copied().unwrap_or_default();
    if form == 0 {
        return Err(Violation::PacketType);
    }
    if first & 0xF0 == PUBLISH {
        Flags::new(first).check()?;
    } else if (first ^ form) & 0x0F != 0 {
        return Err(Violation::Flags);
    }
    let Some((remaining, len)) = read_length(bytes)? else { return Ok(None) };
    // What may be longer than three bytes may have any length above that.
    if usize::from(form >> 5) == remaining.min(3) {
        Ok(Some(Header { first, len, remaining }))
    } else {
        Err(Violation::Length)
    }
}

/// Remaining Length (MQTT 2.2.3): its value and how many bytes are before its end, the first byte of the packet
/// included. Longer forms than needed are not forbidden in 3.1.1 and accepted; a fifth byte is refused at the fourth.
#[inline(always)] // once, where the header is read
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut value = 0_usize;
    let mut len = 1_usize;
    let mut shift = 0_u32;
    while shift < 28 {
        let Some(byte) = bytes.get(len) else { return Ok(None) };
        value |= usize::from(byte & 0x7F).wrapping_shl(shift);
        shift = shift.wrapping_add(7);
        len = len.wrapping_add(1);
        if byte & 0x80 == 0 {
            return Ok(Some((value, len)));
        }
    }
    Err(Violation::Length)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::packet::writer::Writer;

    #[test]
    fn every_length_reads_back_in_its_shortest_form() {
        for value in (0..20_000).chain(2_097_000..2_097_300).chain(MAX_REMAINING - 10..=MAX_REMAINING) {
            let mut bytes = [0; 5];
            let mut writer = Writer::new(&mut bytes);
            writer.put_header(0xD0, value);
            let len = writer.at();
            let shortest = 2 + usize::from(value > 127) + usize::from(value > 16_383) + usize::from(value > 2_097_151);
            assert_eq!((len, read_length(&bytes[..len])), (shortest, Ok(Some((value, len)))));
            for cut in 1..len {
                assert_eq!(read_length(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn a_length_of_five_bytes_is_refused_at_the_fourth() {
        assert_eq!(read_length(&[0xD0, 0xFF, 0xFF, 0xFF]), Ok(None));
        assert_eq!(read_length(&[0xD0, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Violation::Length));
        assert_eq!(read_length(&[0xD0, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(Violation::Length));
    }

    #[test]
    fn a_longer_form_than_needed_is_accepted() {
        assert_eq!(read_length(&[0xD0, 0x80, 0x00]), Ok(Some((0, 3))));
    }
}
