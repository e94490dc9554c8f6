//! Checked reads from the front of a slice. Each gives back what it read and what is left.

use super::{PacketId, Violation};

/// Two bytes, most significant first (MQTT 1.5.2).
pub(crate) fn u16(bytes: &[u8]) -> Result<(u16, &[u8]), Violation> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Violation::Length)?;
    Ok((u16::from_be_bytes(*number), rest))
}

/// A packet identifier, the server's own [MQTT-2.3.1-4] or one of ours that it repeats [MQTT-2.3.1-7]: never zero
/// [MQTT-2.3.1-1].
pub(crate) fn packet_id(bytes: &[u8]) -> Result<(PacketId, &[u8]), Violation> {
    let (number, rest) = u16(bytes)?;
    Ok((PacketId::new(number).ok_or(Violation::PacketId)?, rest))
}

/// A text with its length before it: well-formed UTF-8 [MQTT-1.5.3-1]. U+FEFF stays where it is [MQTT-1.5.3-3].
pub(crate) fn text(bytes: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let (len, rest) = u16(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::from(len)).ok_or(Violation::Length)?;
    if is_utf8(text) { Ok((text, rest)) } else { Err(Violation::Text) }
}

/// Whether `text` is well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
///
/// The standard library's own check is faster on long texts in many languages and several times as large.
fn is_utf8(text: &[u8]) -> bool {
    if text.iter().fold(0, |all, byte| all | byte) < 0x80 {
        return true;
    }
    let mut rest = text;
    while let [lead, tail @ ..] = rest {
        rest = tail;
        // How many bytes follow, what the lead byte says, and the least that needs so many bytes.
        let (count, bits, least) = match lead {
            0..=0x7F => continue,
            0xC0..=0xDF => (1, lead & 0x1F, 0x80),
            0xE0..=0xEF => (2, lead & 0x0F, 0x800),
            0xF0..=0xF7 => (3, lead & 0x07, 0x1_0000),
            _ => return false,
        };
        let mut point = u32::from(bits);
        for _ in 0..count {
            let [byte, tail @ ..] = rest else { return false };
            if byte & 0xC0 != 0x80 {
                return false;
            }
            point = point << 6 | u32::from(byte & 0x3F);
            rest = tail;
        }
        if point < least || point > 0x10_FFFF || point >> 11 == 0x1B {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_utf8;

    /// Every text of up to three bytes, and every one of four that begins like one of four bytes.
    #[test]
    fn utf8_is_what_the_standard_library_says_it_is() {
        // [MQTT-1.5.3-1]
        let agrees = |text: &[u8]| assert_eq!(is_utf8(text), core::str::from_utf8(text).is_ok(), "{text:x?}");
        for a in 0..=255 {
            agrees(&[a]);
            for b in 0..=255 {
                agrees(&[a, b]);
                for c in 0..=255 {
                    agrees(&[a, b, c]);
                }
            }
        }
        for a in 0xEF..=0xF8 {
            for b in 0x7F..=0xC0 {
                for c in 0x7F..=0xC0 {
                    for d in 0x7F..=0xC0 {
                        agrees(&[a, b, c, d]);
                        agrees(&[b'x', a, b, c, d, b'y']);
                    }
                }
            }
        }
    }
}
