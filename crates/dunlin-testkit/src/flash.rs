//! NOR flash that loses power.
//!
//! Keeps to the rules of the real thing: an erased byte is 0xFF, a write can only clear bits, a word is written once
//! between two erases, everything is aligned and in range. What a program gets wrong is an error, not a silent repair.
//! Power can be cut inside any write, after any byte, and inside any erase, which leaves a mix of old, erased and
//! indeterminate bytes; from then on nothing works until [`Flash::power_on`]. Counts what wears flash out.
//!
//! How to try every cut: run the story once, then walk [`Flash::log`]:
//! ```
//! # use dunlin_testkit::flash::{Cut, Flash};
//! # use embedded_storage::nor_flash::NorFlash;
//! # fn story(flash: &mut Flash<4, 256>) { let _ = flash.write(0, b"abcd"); }
//! let mut flash = Flash::<4, 256>::new(2);
//! story(&mut flash);
//! for (operation, kind) in flash.log().iter().enumerate() {
//!     for tear in 0..kind.tears() {
//!         let mut flash = Flash::<4, 256>::new(2);
//!         flash.cut_power(Cut { operation, tear, seed: 1 });
//!         story(&mut flash);
//!         flash.power_on();
//!         // ... recover from `flash` alone and compare.
//!     }
//! }
//! ```

use embedded_storage::nor_flash::{
    ErrorType, MultiwriteNorFlash, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};

use crate::seed::Rng;

/// What an erased byte reads as.
const ERASED: u8 = 0xff;

/// Words of so many bytes and more have check bits on most flash: once written they are known as such, even all ones.
const CHECKED: usize = 8;

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlashError {
    /// Offset or length is no multiple of the word or page.
    NotAligned,
    /// Beyond the end.
    OutOfBounds,
    /// The word at this offset was written before and not erased since.
    Rewritten(u32),
    /// The power is off.
    PowerOff,
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            FlashError::NotAligned => NorFlashErrorKind::NotAligned,
            FlashError::OutOfBounds => NorFlashErrorKind::OutOfBounds,
            FlashError::Rewritten(_) | FlashError::PowerOff => NorFlashErrorKind::Other,
        }
    }
}

impl From<NorFlashErrorKind> for FlashError {
    fn from(kind: NorFlashErrorKind) -> Self {
        match kind {
            NorFlashErrorKind::NotAligned => FlashError::NotAligned,
            _ => FlashError::OutOfBounds,
        }
    }
}

/// One operation that changes flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A write of this many bytes.
    Write {
        /// Where.
        offset: u32,
        /// Bytes.
        len: usize,
    },
    /// An erase of this many pages.
    Erase {
        /// The first.
        page: usize,
        /// How many.
        count: usize,
    },
}

impl Operation {
    /// In how many ways it can be cut: before and after each byte of a write; before, inside and after each page of
    /// an erase.
    pub fn tears(&self) -> usize {
        match self {
            Operation::Write { len, .. } => len + 1,
            Operation::Erase { count, .. } => 2 * count + 1,
        }
    }
}

/// Where the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// How many writes and erases still succeed.
    pub operation: usize,
    /// How far the next one gets: bytes of a write; two steps for each page of an erase, the odd ones inside it.
    pub tear: usize,
    /// Decides what the torn word or the half-erased page holds. Seed 0 tears cleanly: a byte is old or new.
    pub seed: u64,
}

/// Flash of pages of `ERASE` bytes, written in words of `WRITE` bytes, read by the byte.
///
/// With `MULTIWRITE`, a word may be written again before it is erased; bits can still only be cleared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flash<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool = false> {
    bytes: Vec<u8>,
    /// One per word: written since the last erase.
    written: Vec<bool>,
    powered: bool,
    zeroing: bool,
    cut: Option<Cut>,
    log: Vec<Operation>,
    erases: Vec<u32>,
    bytes_written: u64,
    bytes_read: u64,
}

impl<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool> Flash<WRITE, ERASE, MULTIWRITE> {
    /// Erased flash of this many pages.
    pub fn new(pages: usize) -> Self {
        const { assert!(WRITE >= 1 && ERASE.is_multiple_of(WRITE)) };
        Self {
            bytes: vec![ERASED; pages * ERASE],
            written: vec![false; pages * ERASE / WRITE],
            powered: true,
            zeroing: false,
            cut: None,
            log: Vec::new(),
            erases: vec![0; pages],
            bytes_written: 0,
            bytes_read: 0,
        }
    }

    /// From now on a word that was written may be overwritten with zeros, as nearly all flash allows.
    pub fn allow_zeroing(&mut self) {
        self.zeroing = true;
    }

    /// Plans a power cut, counted from now. It replaces one that is still planned.
    pub fn cut_power(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Forgets a cut that has not happened.
    pub fn keep_power(&mut self) {
        self.cut = None;
    }

    /// The power is back. The bytes are as the cut left them.
    pub fn power_on(&mut self) {
        self.powered = true;
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.powered
    }

    /// Every write and erase that was begun.
    pub fn log(&self) -> &[Operation] {
        &self.log
    }

    /// Empties the log and the counters.
    pub fn clear_log(&mut self) {
        self.log.clear();
        self.erases.fill(0);
        self.bytes_written = 0;
        self.bytes_read = 0;
    }

    /// How often each page was erased.
    pub fn erases(&self) -> &[u32] {
        &self.erases
    }

    /// Bytes that were written.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Bytes that were read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it holds, to be damaged: age, radiation, another program.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// True when this operation is the one during which the power fails.
    fn fails_now(&mut self, operation: Operation) -> Option<Cut> {
        self.log.push(operation);
        let cut = self.cut.as_mut()?;
        if cut.operation > 0 {
            cut.operation -= 1;
            return None;
        }
        self.powered = false;
        self.cut.take()
    }

    fn do_read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        if !self.powered {
            return Err(FlashError::PowerOff);
        }
        check_read(self, offset, bytes.len())?;
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        self.bytes_read += bytes.len() as u64;
        Ok(())
    }

    fn do_write(&mut self, offset: u32, new: &[u8]) -> Result<(), FlashError> {
        if !self.powered {
            return Err(FlashError::PowerOff);
        }
        check_write(self, offset, new.len())?;
        let start = offset as usize;
        let words = start / WRITE..(start + new.len()) / WRITE;
        let is_zeroed =
            |word: usize| self.zeroing && new[word * WRITE - start..][..WRITE].iter().all(|byte| *byte == 0);
        let is_spent = |word: &usize| self.written[*word] && !is_zeroed(*word);
        if !MULTIWRITE && let Some(word) = words.clone().find(is_spent) {
            return Err(FlashError::Rewritten((word * WRITE) as u32));
        }
        let cut = self.fails_now(Operation::Write { offset, len: new.len() });
        let whole = cut.map_or(new.len(), |cut| cut.tear.min(new.len()));
        for (old, new) in self.bytes[start..].iter_mut().zip(&new[..whole]) {
            *old &= new;
        }
        self.bytes_written += whole as u64;
        let Some(cut) = cut else {
            self.written[words].fill(true);
            return Ok(());
        };
        let mut end = (start + whole) / WRITE;
        // Where a write broke off, ones have left no trace but in check bits, which small words do not have.
        while WRITE < CHECKED && end > start / WRITE && self.reads_as_erased(end - 1) {
            end -= 1;
        }
        self.written[start / WRITE..end].fill(true);
        if !whole.is_multiple_of(WRITE) || (cut.seed != 0 && whole < new.len()) {
            // The word under the needle: some of the bits that were to be cleared are.
            let word = (start + whole) / WRITE;
            let mut rng = Rng::new(cut.seed);
            for at in word * WRITE..(word + 1) * WRITE {
                if cut.seed != 0 && at >= start + whole {
                    self.bytes[at] &= new[at - start] | rng.number() as u8;
                }
            }
            // What still reads as erased may be written: no program could tell.
            self.written[word] |= !self.reads_as_erased(word);
        }
        Err(FlashError::PowerOff)
    }

    fn do_erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        if !self.powered {
            return Err(FlashError::PowerOff);
        }
        check_erase(self, from, to)?;
        let (first, end) = (from as usize / ERASE, to as usize / ERASE);
        let cut = self.fails_now(Operation::Erase { page: first, count: end - first });
        let whole = cut.map_or(end - first, |cut| (cut.tear / 2).min(end - first));
        for page in first..first + whole {
            self.bytes[page * ERASE..][..ERASE].fill(ERASED);
            self.written[page * ERASE / WRITE..][..ERASE / WRITE].fill(false);
            self.erases[page] += 1;
        }
        let Some(cut) = cut else { return Ok(()) };
        if cut.tear % 2 == 1 && first + whole < end {
            self.half_erase(first + whole, cut.seed);
        }
        Err(FlashError::PowerOff)
    }

    fn reads_as_erased(&self, word: usize) -> bool {
        self.bytes[word * WRITE..][..WRITE].iter().all(|byte| *byte == ERASED)
    }

    /// Leaves a page between old and erased. What reads as erased may be written: no program could tell.
    fn half_erase(&mut self, page: usize, seed: u64) {
        self.erases[page] += 1;
        let mut rng = Rng::new(seed);
        // An erase works on all cells at once, some quicker; seen in stretches, long or short, not in single bytes only.
        let longest = ((ERASE / 4) >> rng.below(ERASE.ilog2() as usize - 1)).max(1);
        let mut at = page * ERASE;
        while at < (page + 1) * ERASE {
            let stretch = (1 + rng.below(longest)).min((page + 1) * ERASE - at);
            let how = rng.below(3);
            for byte in &mut self.bytes[at..at + stretch] {
                match how {
                    0 => *byte = ERASED,
                    1 => {}
                    _ => *byte |= rng.number() as u8,
                }
            }
            at += stretch;
        }
        for word in page * ERASE / WRITE..(page + 1) * ERASE / WRITE {
            self.written[word] = !self.reads_as_erased(word);
        }
    }
}

impl<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool> ErrorType for Flash<WRITE, ERASE, MULTIWRITE> {
    type Error = FlashError;
}

impl<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool> ReadNorFlash for Flash<WRITE, ERASE, MULTIWRITE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.do_read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool> NorFlash for Flash<WRITE, ERASE, MULTIWRITE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        self.do_erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.do_write(offset, bytes)
    }
}

impl<const WRITE: usize, const ERASE: usize> MultiwriteNorFlash for Flash<WRITE, ERASE, true> {}

impl<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool> embedded_storage_async::nor_flash::ReadNorFlash
    for Flash<WRITE, ERASE, MULTIWRITE>
{
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.do_read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize, const ERASE: usize, const MULTIWRITE: bool> embedded_storage_async::nor_flash::NorFlash
    for Flash<WRITE, ERASE, MULTIWRITE>
{
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = ERASE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        self.do_erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.do_write(offset, bytes)
    }
}

impl<const WRITE: usize, const ERASE: usize> embedded_storage_async::nor_flash::MultiwriteNorFlash
    for Flash<WRITE, ERASE, true>
{
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;

    use super::*;

    type Words = Flash<4, 64>;

    fn read<const W: usize, const E: usize, const M: bool>(flash: &mut Flash<W, E, M>, at: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        flash.read(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn new_flash_is_erased_and_keeps_what_is_written() {
        let mut flash = Words::new(2);
        assert_eq!(read(&mut flash, 0, 128), [0xff; 128]);
        flash.write(8, b"abcdefgh").unwrap();
        assert_eq!(read(&mut flash, 7, 10), b"\xffabcdefgh\xff");
        assert_eq!(ReadNorFlash::capacity(&flash), 128);
    }

    #[test]
    fn a_word_is_written_once_between_two_erases() {
        let mut flash = Words::new(2);
        flash.write(4, b"abcd").unwrap();
        assert_eq!(flash.write(0, b"abcdefgh"), Err(FlashError::Rewritten(4)));
        assert_eq!(read(&mut flash, 0, 4), [0xff; 4], "a refused write changes nothing");
        flash.write(64, &[0xff; 4]).unwrap();
        assert_eq!(flash.write(64, b"abcd"), Err(FlashError::Rewritten(64)), "writing ones counts as well");
        flash.erase(0, 64).unwrap();
        flash.write(4, b"wxyz").unwrap();
        assert_eq!(flash.write(64, b"abcd"), Err(FlashError::Rewritten(64)), "the other page was not erased");
    }

    #[test]
    fn zeros_may_go_over_a_written_word_where_the_flash_allows_it() {
        let mut flash = Words::new(1);
        flash.write(4, b"abcd").unwrap();
        assert_eq!(flash.write(4, &[0; 4]), Err(FlashError::Rewritten(4)));
        flash.allow_zeroing();
        assert_eq!(flash.write(4, &[0, 0, 0, 1]), Err(FlashError::Rewritten(4)));
        flash.write(4, &[0; 8]).unwrap();
        assert_eq!(read(&mut flash, 0, 12), *b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn multiwrite_clears_bits_and_sets_none() {
        let mut flash = Flash::<1, 16, true>::new(1);
        flash.write(0, &[0b1010_1010]).unwrap();
        flash.write(0, &[0b1100_1111]).unwrap();
        assert_eq!(read(&mut flash, 0, 1), [0b1000_1010]);
    }

    #[test]
    fn crooked_and_far_operations_are_refused() {
        let mut flash = Words::new(2);
        assert_eq!(flash.write(2, b"abcd"), Err(FlashError::NotAligned));
        assert_eq!(flash.write(0, b"abc"), Err(FlashError::NotAligned));
        assert_eq!(flash.write(128, b"abcd"), Err(FlashError::OutOfBounds));
        assert_eq!(flash.write(124, b"abcdefgh"), Err(FlashError::OutOfBounds));
        assert_eq!(flash.read(127, &mut [0; 2]), Err(FlashError::OutOfBounds));
        assert_eq!(flash.erase(0, 32), Err(FlashError::NotAligned));
        assert_eq!(flash.erase(64, 192), Err(FlashError::OutOfBounds));
        assert_eq!(flash.erase(64, 0), Err(FlashError::OutOfBounds));
        assert!(flash.log().is_empty());
    }

    #[test]
    fn a_cut_tears_a_write_after_the_byte_that_was_named() {
        for tear in 0..=8 {
            let mut flash = Words::new(1);
            flash.write(0, b"0000").unwrap();
            flash.cut_power(Cut { operation: 0, tear, seed: 0 });
            assert_eq!(flash.write(4, b"abcdefgh"), Err(FlashError::PowerOff));
            assert_eq!(flash.read(0, &mut [0; 4]), Err(FlashError::PowerOff));
            assert_eq!(flash.write(32, b"abcd"), Err(FlashError::PowerOff));
            assert_eq!(flash.erase(0, 64), Err(FlashError::PowerOff));
            flash.power_on();
            let mut left = b"0000".to_vec();
            left.extend(&b"abcdefgh"[..tear]);
            left.resize(64, 0xff);
            assert_eq!(flash.bytes(), left);
            let untouched = tear.div_ceil(4);
            assert_eq!(flash.write(4 + 4 * untouched as u32, b"wxyz"), Ok(()), "a word that was not begun is free");
        }
    }

    #[test]
    fn ones_at_the_end_of_a_torn_write_leave_no_trace_in_small_words() {
        let mut flash = Flash::<1, 16>::new(1);
        flash.cut_power(Cut { operation: 0, tear: 4, seed: 0 });
        assert_eq!(flash.write(0, b"a\xffb\xffc"), Err(FlashError::PowerOff));
        flash.power_on();
        assert_eq!(flash.write(1, b"d"), Err(FlashError::Rewritten(1)), "what follows shows that it was written");
        assert_eq!(flash.write(3, b"d"), Ok(()));
        let mut flash = Flash::<8, 16>::new(1);
        flash.cut_power(Cut { operation: 0, tear: 8, seed: 0 });
        assert_eq!(flash.write(0, &[0xff; 16]), Err(FlashError::PowerOff));
        flash.power_on();
        assert_eq!(flash.write(0, b"abcdefgh"), Err(FlashError::Rewritten(0)), "it has check bits");
    }

    #[test]
    fn a_torn_word_holds_old_bits_and_new_ones_and_no_others() {
        let mut torn = std::collections::BTreeSet::new();
        for seed in 1..200 {
            let mut flash = Words::new(1);
            flash.cut_power(Cut { operation: 0, tear: 5, seed });
            assert_eq!(flash.write(0, b"abcdefghijkl"), Err(FlashError::PowerOff));
            flash.power_on();
            let left = flash.bytes();
            assert_eq!(left[..5], b"abcde"[..]);
            assert!(left[5..8].iter().zip(b"fgh").all(|(left, new)| left & new == *new), "only named bits are cleared");
            assert_eq!(left[8..12], [0xff; 4], "the next word is untouched");
            torn.insert(left.to_vec());
            assert_eq!(flash.write(4, b"abcd"), Err(FlashError::Rewritten(4)));
        }
        assert!(torn.len() > 100);
    }

    #[test]
    fn a_cut_leaves_a_page_half_erased() {
        let mut seen = [false; 3];
        for seed in 1..50 {
            let mut flash = Words::new(3);
            for at in (0..192).step_by(4) {
                flash.write(at, b"\x0f\x0f\x0f\x0f").unwrap();
            }
            flash.cut_power(Cut { operation: 0, tear: 3, seed });
            assert_eq!(flash.erase(0, 192), Err(FlashError::PowerOff));
            flash.power_on();
            assert_eq!(flash.bytes()[..64], [0xff; 64], "the page before is erased");
            assert_eq!(flash.bytes()[128..], [0x0f; 64], "the page behind is as it was");
            for byte in &flash.bytes()[64..128] {
                assert_eq!(byte & 0x0f, 0x0f, "an erase sets bits and clears none");
                seen[match byte {
                    0xff => 0,
                    0x0f => 1,
                    _ => 2,
                }] = true;
            }
            flash.erase(64, 128).unwrap();
            assert_eq!(flash.erases(), [1, 2, 0]);
        }
        assert_eq!(seen, [true; 3], "erased, old and indeterminate bytes");
    }

    #[test]
    fn a_cut_falls_on_the_operation_that_was_named_and_a_second_one_can_follow() {
        let mut flash = Words::new(2);
        flash.cut_power(Cut { operation: 2, tear: 0, seed: 0 });
        flash.erase(0, 64).unwrap();
        flash.write(0, b"abcd").unwrap();
        assert_eq!(flash.write(4, b"abcd"), Err(FlashError::PowerOff));
        flash.power_on();
        flash.cut_power(Cut { operation: 0, tear: 4, seed: 0 });
        assert_eq!(flash.write(4, b"abcd"), Err(FlashError::PowerOff), "done, but nobody was told");
        flash.power_on();
        assert_eq!(read(&mut flash, 4, 4), b"abcd");
        assert_eq!(flash.write(8, b"abcd"), Ok(()));
        assert_eq!(flash.log().len(), 5);
        assert_eq!(flash.log()[1].tears(), 5);
        assert_eq!(flash.log()[0].tears(), 3);
        assert_eq!((flash.bytes_written(), flash.erases()), (12, &[1, 0][..]));
    }

    #[test]
    fn both_traits_show_the_same_flash() {
        let mut flash = Flash::<32, 128>::new(1);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        {
            let write = embedded_storage_async::nor_flash::NorFlash::write(&mut flash, 32, &[7; 32]);
            assert_eq!(std::pin::pin!(write).poll(&mut context), std::task::Poll::Ready(Ok(())));
        }
        assert_eq!(read(&mut flash, 31, 2), [0xff, 7]);
    }
}
