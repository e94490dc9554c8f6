//! Moving things inside a slice, without a path to a panic.

/// Moves `len` bytes from `from` down to `to`; the ranges may overlap. Upwards nothing moves, and nothing out of range.
pub(crate) fn slide(bytes: &mut [u8], to: usize, from: usize, len: usize) {
    if to < from {
        slide_down(bytes, to, from, len);
    }
}

/// On hosts, `memmove`.
#[cfg(target_pointer_width = "64")]
fn slide_down(bytes: &mut [u8], to: usize, from: usize, len: usize) {
    let end = from.wrapping_add(len);
    if from <= end && end <= bytes.len() {
        bytes.copy_within(from..end, to);
    }
}

#[cfg(not(target_pointer_width = "64"))]
use slide_each as slide_down;

/// A loop that looks at each place: without that it would be made a call of `memmove`, the largest function of many a
/// small program.
#[cfg(any(test, not(target_pointer_width = "64")))]
fn slide_each(bytes: &mut [u8], to: usize, from: usize, len: usize) {
    let mut to = to;
    for from in from..from.wrapping_add(len) {
        let Some(byte) = bytes.get(from).copied() else { return };
        let Some(place) = bytes.get_mut(to) else { return };
        *place = byte;
        to = to.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{slide, slide_each};

    #[test]
    fn bytes_slide_down_over_any_gap() {
        for to in 0..6 {
            for from in to..9 {
                for len in 0..=16 - from {
                    let bytes: [u8; 16] = core::array::from_fn(|n| u8::try_from(n).unwrap_or(0));
                    let (mut expected, mut slid, mut slid_each) = (bytes, bytes, bytes);
                    expected.copy_within(from..from + len, to);
                    slide(&mut slid, to, from, len);
                    slide_each(&mut slid_each, to, from, len);
                    assert_eq!(slid, expected, "{to} {from} {len}");
                    assert_eq!(slid_each, expected, "{to} {from} {len}");
                }
            }
        }
    }

    #[test]
    fn nothing_moves_out_of_range() {
        let mut bytes = [1, 2, 3];
        slide(&mut bytes, 5, 9, 1);
        slide_each(&mut bytes, 5, 9, 1);
        slide(&mut bytes, 1, 0, 2);
        assert_eq!(bytes, [1, 2, 3]);
    }
}
