//! Moving things inside a slice, without a path to a panic.

/// Moves `len` bytes from `from` down to `to`; the ranges may overlap. Out of range, or upwards, nothing moves.
///
/// The bytes change places with those they overwrite, which costs nothing here and, unlike copying, cannot be turned
/// into a call of `memmove`, the largest function of many a small program.
pub(crate) fn slide(bytes: &mut [u8], to: usize, from: usize, len: usize) {
    let gap = from.saturating_sub(to);
    let mut rest = bytes.get_mut(to..).unwrap_or_default();
    let mut left = len;
    // Each turn moves a piece no longer than the gap, so that source and target are apart.
    while left > 0 && gap > 0 {
        let Some((target, source)) = rest.split_at_mut_checked(gap) else { return };
        for (to, from) in target.iter_mut().zip(source.iter_mut()).take(left) {
            core::mem::swap(to, from);
        }
        left = left.saturating_sub(gap);
        rest = source;
    }
}

#[cfg(test)]
mod tests {
    use super::slide;

    #[test]
    fn bytes_slide_down_over_any_gap() {
        for to in 0..6 {
            for from in to..9 {
                for len in 0..=16 - from {
                    let mut bytes: [u8; 16] = core::array::from_fn(|n| u8::try_from(n).unwrap_or(0));
                    let mut expected = bytes;
                    expected.copy_within(from..from + len, to);
                    slide(&mut bytes, to, from, len);
                    assert_eq!(bytes[to..to + len], expected[to..to + len], "{to} {from} {len}");
                }
            }
        }
    }

    #[test]
    fn nothing_moves_out_of_range() {
        let mut bytes = [1, 2, 3];
        slide(&mut bytes, 5, 9, 1);
        slide(&mut bytes, 1, 0, 2);
        assert_eq!(bytes, [1, 2, 3]);
    }
}
