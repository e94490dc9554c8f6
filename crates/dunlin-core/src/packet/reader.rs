//! Checked reads.

use super::{PacketId, Violation};

/// The two bytes at `at`, most significant first (MQTT 1.5.2).
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let number = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*number))
}

/// The packet identifier at `at`, the server's own [MQTT-2.3.1-4] or one of ours that it repeats [MQTT-2.3.1-7]: never
/// zero [MQTT-2.3.1-1].
pub(crate) fn packet_id(bytes: &[u8], at: usize) -> Result<PacketId, Violation> {
    PacketId::new(number(bytes, at).ok_or(Violation::Length)?).ok_or(Violation::PacketId)
}

/// Checks a topic name that came: well-formed UTF-8, so no overlong forms, no surrogates, nothing above U+10FFFF
/// [MQTT-1.5.3-1]; not empty, no wildcard, no U+0000 [MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-1.5.3-2]. U+FEFF stays where
/// it is [MQTT-1.5.3-3].
///
/// The standard library's own check is faster on long texts in many languages and several times as large.
#[inline(never)]
pub(crate) fn check_name(name: &[u8]) -> Result<(), Violation> {
    if name.is_empty() {
        return Err(Violation::Topic);
    }
    let mut rest = without_plain_words(name).iter();
    while let Some(lead) = rest.next() {
        if *lead < 0x80 {
            if matches!(*lead, 0 | b'+' | b'#') {
                return Err(Violation::Topic);
            }
            continue;
        }
        if *lead < 0xC2 || *lead > 0xF4 {
            return Err(Violation::Text);
        }
        // A lead byte begins with as many ones as its character has bytes; bit 6 of it stands where the ones end.
        let mut point = u32::from(*lead);
        let mut mark = 0x40_u32;
        while point & mark != 0 {
            let Some(byte) = rest.next() else { return Err(Violation::Text) };
            if byte & 0xC0 != 0x80 {
                return Err(Violation::Text);
            }
            point = point << 6 | u32::from(byte & 0x3F);
            mark <<= 5;
        }
        // Without the ones: what is left must need so many bytes, and be no surrogate.
        point &= mark.wrapping_sub(1);
        if point < mark >> 5 || point > 0x10_FFFF || point >> 11 == 0x1B {
            return Err(Violation::Text);
        }
    }
    Ok(())
}

/// `name` from its first word on that holds something other than plain ASCII: most names are nothing else.
fn without_plain_words(name: &[u8]) -> &[u8] {
    /// A byte in each place of a word.
    const fn each(byte: u8) -> usize {
        usize::from_ne_bytes([byte; size_of::<usize>()])
    }
    /// The top bits are clear of bytes from 1 to 128.
    const fn has_zero(word: usize) -> usize {
        word.wrapping_sub(each(1))
    }
    let mut rest = name;
    while let Some((word, tail)) = rest.split_first_chunk() {
        let word = usize::from_ne_bytes(*word);
        // `+` and `#` differ in one bit.
        let wildcards = (word | each(b'+' ^ b'#')) ^ each(b'+' | b'#');
        if (word | has_zero(word) | has_zero(wildcards)) & each(0x80) != 0 {
            break;
        }
        rest = tail;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::{Violation, check_name};

    #[test]
    fn every_byte_is_looked_at_wherever_it_stands() {
        // [MQTT-3.3.2-2] [MQTT-1.5.3-1]
        for len in 1..=25 {
            for place in 0..len {
                for byte in 0..=255 {
                    let mut name = [b'a'; 25];
                    name[place] = byte;
                    let is_plain = byte < 0x80 && !b"\0+#".contains(&byte);
                    assert_eq!(check_name(&name[..len]).is_ok(), is_plain, "{byte} at {place} of {len}");
                }
            }
        }
    }

    /// Every text of up to three bytes, and every one of four that begins like one of four bytes.
    #[test]
    fn utf8_is_what_the_standard_library_says_it_is() {
        // [MQTT-1.5.3-1]
        let agrees = |text: &[u8]| {
            let is_text = core::str::from_utf8(text).is_ok();
            let is_name = is_text && !text.iter().any(|byte| b"\0+#".contains(byte));
            assert_eq!(check_name(text).is_ok(), is_name, "{text:x?}");
            assert!(is_text || check_name(text).is_err());
            assert_eq!(crate::topic::is_text(text), is_text && !text.contains(&0), "{text:x?}");
            if is_text && !is_name {
                assert_eq!(check_name(text), Err(Violation::Topic));
            }
        };
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
