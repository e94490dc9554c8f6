//! Flash whose erases are whole: a power cut leaves a page as it was, or erased, as far as anyone above can see.
//!
//! An interrupted erase leaves any mix of old, erased and undecided bytes, and the page's own marks are among them: the
//! map above may take such a page for one it is writing to, and then erase the only good copy of what was in it. So an
//! erase is announced in the page *before* it (around the ring), and the erased page is stamped with the same number, in
//! words of its own that the map does not see. A page that lacks the stamp that was announced is erased again before
//! anything else happens.
//!
//! The page that was cut has words, too, and they may be what they were long ago: it seems to announce what it had
//! announced then. That is no announcement any more, since the page behind it has that stamp, or a later one. And numbers
//! are written so that no erase, begun or done, turns one into another: as many bits to set as to clear. So a number that
//! can be read is what was written.
//!
//! A page keeps its words until it is erased itself. In the ring of the map that is one erase of its neighbour, and one
//! more for each power cut inside a page that is being filled.

use core::future::Future;
use core::ops::Range;
use core::pin::pin;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

use super::Done;
use crate::block::block_on;

/// Words in a page: its stamp, and announcements. With more cuts than those in a row, at the same place, erases go
/// unannounced.
const WORDS: usize = 8;
const MAX_WORD: usize = 32;
/// The first number, and what lies between one and the next.
const LEAST: u8 = 0x0f;

/// Flash of slightly smaller pages, from address 0 on. To be [`finish`](Self::finish)ed before it is used. Nothing is
/// read or written across the end of a page.
pub struct Whole<'a, F> {
    flash: &'a mut F,
    start: u32,
    pages: u32,
}

macro_rules! block {
    ($future:expr) => {
        block_on(pin!($future))
    };
}

/// Erases pages, or those of them whose erase was announced and not brought to its end. Written once and compiled twice:
/// for executors, and for who waits.
macro_rules! erase_pages {
    ($whole:ident, $pages:expr, $is_only_announced:expr, $wait:ident) => {{
        for page in $pages {
            let before = page.checked_sub(1).unwrap_or($whole.pages.wrapping_sub(1));
            let mut word = [0; MAX_WORD];
            let (mut stamp, mut announced, mut room) = (0, 0, None);
            let mut index = 0_usize;
            while index < WORDS {
                let at = $whole.word(if index == 0 { page } else { before }, index);
                $wait!($whole.flash.read(at, cut::<F>(&mut word)))?;
                let number = word[0];
                match index {
                    0 => stamp = number,
                    _ if cut::<F>(&mut word).iter().all(|byte| *byte == 0xff) => {
                        room = Some(at);
                        break;
                    }
                    _ => announced = number,
                }
                index = index.wrapping_add(1);
            }
            let is_announced = is_number(announced) && (!is_number(stamp) || announced == after(stamp));
            let mut number = announced;
            if !is_announced {
                if $is_only_announced {
                    continue;
                }
                // Unannounced, it has the stamp that it had: what is announced for it stays as old as it was.
                number = stamp;
                if let Some(at) = room {
                    number = after(stamp);
                    word.fill(number);
                    $wait!($whole.flash.write(at, cut::<F>(&mut word)))?;
                }
            }
            let start = $whole.page(page);
            $wait!($whole.flash.erase(start, start.wrapping_add(size(F::ERASE_SIZE))))?;
            if is_number(number) {
                word.fill(number);
                $wait!($whole.flash.write($whole.word(page, 0), cut::<F>(&mut word)))?;
            }
        }
        Ok(())
    }};
}

impl<'a, F: NorFlash> Whole<'a, F> {
    const WORD: usize = if F::READ_SIZE > F::WRITE_SIZE { F::READ_SIZE } else { F::WRITE_SIZE };

    /// `None`: the range does not consist of pages of this flash.
    pub fn new(flash: &'a mut F, range: &Range<u32>) -> Option<Self> {
        let page = size(F::ERASE_SIZE);
        let len = range.end.checked_sub(range.start)?;
        let is_whole = range.start.is_multiple_of(page) & len.is_multiple_of(page);
        let is_inside = range.end <= size(flash.capacity());
        (is_whole & is_inside).then_some(Self { flash, start: range.start, pages: len.checked_div(page)? })
    }

    /// How many there are.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Its bytes, as the map may use them.
    pub fn len(&self) -> u32 {
        self.pages.wrapping_mul(size(Self::ERASE_SIZE))
    }

    /// Brings to an end the erases that a power cut interrupted; or erases everything.
    pub fn finish(&mut self, is_reset: bool) -> impl Future<Output = Result<(), F::Error>> {
        self.erase_pages(0..self.pages, !is_reset)
    }

    #[expect(clippy::manual_async_fn, reason = "an `async fn` has its arguments in memory twice")]
    fn erase_pages(
        &mut self,
        pages: Range<u32>,
        is_only_announced: bool,
    ) -> impl Future<Output = Result<(), F::Error>> {
        async move { erase_pages!(self, pages, is_only_announced, wait) }
    }

    /// The same, for who waits.
    fn erase_pages_now(&mut self, pages: Range<u32>, is_only_announced: bool) -> Result<(), F::Error> {
        erase_pages!(self, pages, is_only_announced, block)
    }

    // All of these lie within the range, so that nothing overflows.

    fn page(&self, page: u32) -> u32 {
        self.start.wrapping_add(page.wrapping_mul(size(F::ERASE_SIZE)))
    }

    fn word(&self, page: u32, index: usize) -> u32 {
        self.page(page).wrapping_add(size(Self::ERASE_SIZE.wrapping_add(index.wrapping_mul(Self::WORD))))
    }

    /// The page with these bytes.
    fn page_of(offset: u32) -> u32 {
        offset.checked_div(size(Self::ERASE_SIZE)).unwrap_or_default()
    }

    /// Where these bytes lie.
    fn address(&self, offset: u32) -> u32 {
        let page = Self::page_of(offset);
        let hidden = page.wrapping_mul(size(WORDS.wrapping_mul(Self::WORD)));
        self.start.wrapping_add(offset).wrapping_add(hidden)
    }
}

impl<F: NorFlash> ErrorType for Whole<'_, F> {
    type Error = F::Error;
}

impl<F: NorFlash> ReadNorFlash for Whole<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> impl Future<Output = Result<(), F::Error>> {
        self.flash.read(self.address(offset), bytes)
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.len()).unwrap_or(usize::MAX)
    }
}

impl<F: NorFlash> NorFlash for Whole<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE.saturating_sub(WORDS.saturating_mul(Self::WORD));

    fn erase(&mut self, from: u32, to: u32) -> impl Future<Output = Result<(), F::Error>> {
        self.erase_pages(Self::page_of(from)..Self::page_of(to), false)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> impl Future<Output = Result<(), F::Error>> {
        self.flash.write(self.address(offset), bytes)
    }
}

/// The same flash for who waits: always ready.
pub struct Waiting<'a, F>(pub Whole<'a, F>);

impl<F: NorFlash> Waiting<'_, F> {
    /// As [`Whole::pages`].
    pub fn pages(&self) -> u32 {
        self.0.pages
    }

    /// As [`Whole::finish`].
    pub fn finish(&mut self, is_reset: bool) -> impl Future<Output = Result<(), F::Error>> {
        Done(self.0.erase_pages_now(0..self.0.pages, !is_reset))
    }
}

impl<F: NorFlash> ErrorType for Waiting<'_, F> {
    type Error = F::Error;
}

impl<F: NorFlash> ReadNorFlash for Waiting<'_, F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> impl Future<Output = Result<(), F::Error>> {
        Done(block!(self.0.read(offset, bytes)))
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> NorFlash for Waiting<'_, F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = Whole::<F>::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> impl Future<Output = Result<(), F::Error>> {
        Done(self.0.erase_pages_now(Whole::<F>::page_of(from)..Whole::<F>::page_of(to), false))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> impl Future<Output = Result<(), F::Error>> {
        Done(block!(self.0.write(offset, bytes)))
    }
}

/// As much of it as a word of this flash has.
fn cut<F: NorFlash>(word: &mut [u8; MAX_WORD]) -> &mut [u8] {
    word.get_mut(..Whole::<F>::WORD).unwrap_or_default()
}

/// Whether this is a number of an erase: four bits, and their complement.
fn is_number(byte: u8) -> bool {
    (byte ^ byte.wrapping_shr(4)) & LEAST == LEAST
}

/// The number of the next erase of a page with this stamp.
#[inline(always)] // twice in one function
fn after(stamp: u8) -> u8 {
    if is_number(stamp) & (stamp < 0xf0) { stamp.saturating_add(LEAST) } else { LEAST }
}

fn size(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use dunlin_testkit::flash::{Cut, Flash, FlashError};

    use super::*;
    use crate::block::block_on;

    type Pages = Flash<4, 256>;

    fn erase(flash: &mut Pages, page: u32) -> Result<(), FlashError> {
        let range = 0..size(flash.bytes().len());
        let mut whole = Whole::new(flash, &range).unwrap();
        let page_len = size(<Whole<'_, Pages> as NorFlash>::ERASE_SIZE);
        block_on(pin!(whole.erase(page * page_len, (page + 1) * page_len)))
    }

    /// The erase of the last page is cut short, which had announced that of the first one many times, and of its words
    /// these are left as they were.
    fn cut(pages: usize, announced: usize, left: usize) -> Pages {
        let mut flash = Pages::new(pages);
        let last = (pages - 1) * 256;
        for _ in 0..announced {
            erase(&mut flash, 0).unwrap();
        }
        flash.bytes_mut()[..4].copy_from_slice(b"kept");
        flash.bytes_mut()[last..last + 4].copy_from_slice(b"gone");
        let before = flash.bytes()[last..].to_vec();
        flash.cut_power(Cut { operation: 1, tear: 1, seed: 0 });
        assert_eq!(erase(&mut flash, size(pages) - 1), Err(FlashError::PowerOff));
        flash.power_on();
        let words = 256 - WORDS * 4;
        flash.bytes_mut()[last + words..].fill(0xff);
        flash.bytes_mut()[last..last + words + left * 4].copy_from_slice(&before[..words + left * 4]);
        flash
    }

    #[test]
    fn a_page_is_erased_again_whose_erase_was_cut_short_and_no_other() {
        for pages in 2..=3 {
            for announced in 1..WORDS {
                for left in 0..=WORDS {
                    let mut flash = cut(pages, announced, left);
                    let range = 0..size(flash.bytes().len());
                    block_on(pin!(Whole::new(&mut flash, &range).unwrap().finish(false))).unwrap();
                    let last = (pages - 1) * 256;
                    assert_eq!(flash.bytes()[..4], *b"kept", "{pages} pages, {announced} announced, {left} left");
                    assert_eq!(flash.bytes()[last..last + 4], [0xff; 4]);
                    let erases = flash.erases().to_vec();
                    block_on(pin!(Whole::new(&mut flash, &range).unwrap().finish(false))).unwrap();
                    assert_eq!(flash.erases(), erases, "it is done once");
                }
            }
        }
    }

    #[test]
    fn no_bits_that_an_erase_sets_make_another_number_of_one() {
        let numbers: Vec<u8> = (0..=0xff).filter(|byte| is_number(*byte)).collect();
        assert_eq!(numbers.len(), 16);
        for number in &numbers {
            assert!(numbers.iter().all(|other| other == number || number & other != *number));
        }
        let round: Vec<u8> = std::iter::successors(Some(LEAST), |number| Some(after(*number))).take(17).collect();
        assert_eq!(round[..16], numbers);
        assert_eq!((round[16], after(0xff), after(0)), (LEAST, LEAST, LEAST));
    }
}
