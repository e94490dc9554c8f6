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

use core::ops::Range;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

/// Words in a page: its stamp, and announcements. With more cuts than those in a row, at the same place, erases go
/// unannounced.
const WORDS: usize = 8;
const MAX_WORD: usize = 32;
/// The first number, and what lies between one and the next.
const LEAST: u8 = 0x0f;

/// Flash of slightly smaller pages, from address 0 on. To be [`finish`](Self::finish)ed before it is used. Nothing is
/// read or written across the end of a page.
pub struct Whole<F> {
    flash: F,
    range: Range<u32>,
}

impl<F: NorFlash> Whole<F> {
    const WORD: usize = if F::READ_SIZE > F::WRITE_SIZE { F::READ_SIZE } else { F::WRITE_SIZE };

    pub const fn new(flash: F, range: Range<u32>) -> Self {
        Self { flash, range }
    }

    pub fn into_inner(self) -> F {
        self.flash
    }

    pub fn inner(&mut self) -> &mut F {
        &mut self.flash
    }

    pub fn pages(&self) -> u32 {
        self.range.end.saturating_sub(self.range.start).checked_div(number(F::ERASE_SIZE)).unwrap_or_default()
    }

    /// Its bytes, as the map may use them.
    pub fn len(&self) -> u32 {
        self.pages().saturating_mul(number(Self::ERASE_SIZE))
    }

    /// Brings to an end the erases that a power cut interrupted.
    pub async fn finish(&mut self) -> Result<(), F::Error> {
        self.erase_pages(0..self.pages(), true).await
    }

    /// Erases pages, or those of them whose erase was announced and not brought to its end.
    async fn erase_pages(&mut self, pages: Range<u32>, is_only_announced: bool) -> Result<(), F::Error> {
        for page in pages {
            let mut word = [0; MAX_WORD];
            let word = word.get_mut(..Self::WORD).unwrap_or_default();
            let stamp_at = self.words(page);
            self.flash.read(stamp_at, word).await?;
            let stamp = first(word);
            let mut at = self.words(page.checked_sub(1).unwrap_or_else(|| self.pages().saturating_sub(1)));
            let mut announced = 0;
            let mut is_room = false;
            for _ in 1..WORDS {
                at = at.saturating_add(number(Self::WORD));
                self.flash.read(at, word).await?;
                is_room = word.iter().all(|byte| *byte == 0xff);
                if is_room {
                    break;
                }
                announced = first(word);
            }
            let is_announced = is_number(announced) && (!is_number(stamp) || announced == after(stamp));
            if is_only_announced && !is_announced {
                continue;
            }
            if !is_announced && is_room {
                announced = after(stamp);
                word.fill(announced);
                self.flash.write(at, word).await?;
            }
            let start = self.start(page);
            self.flash.erase(start, start.saturating_add(number(F::ERASE_SIZE))).await?;
            if is_number(announced) {
                word.fill(announced);
                self.flash.write(stamp_at, word).await?;
            }
        }
        Ok(())
    }

    /// Where the words of a page begin.
    fn words(&self, page: u32) -> u32 {
        self.start(page).saturating_add(number(Self::ERASE_SIZE))
    }

    fn start(&self, page: u32) -> u32 {
        self.range.start.saturating_add(page.saturating_mul(number(F::ERASE_SIZE)))
    }

    /// Where these bytes lie.
    fn address(&self, offset: u32) -> u32 {
        let page = offset.checked_div(number(Self::ERASE_SIZE)).unwrap_or_default();
        let hidden = page.saturating_mul(number(WORDS.saturating_mul(Self::WORD)));
        self.range.start.saturating_add(offset).saturating_add(hidden)
    }
}

impl<F: NorFlash> ErrorType for Whole<F> {
    type Error = F::Error;
}

impl<F: NorFlash> ReadNorFlash for Whole<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.flash.read(self.address(offset), bytes).await
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.len()).unwrap_or(usize::MAX)
    }
}

impl<F: NorFlash> NorFlash for Whole<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE.saturating_sub(WORDS.saturating_mul(Self::WORD));

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        let page = |offset: u32| offset.checked_div(number(Self::ERASE_SIZE)).unwrap_or_default();
        self.erase_pages(page(from)..page(to), false).await
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        self.flash.write(self.address(offset), bytes).await
    }
}

/// Whether this is a number of an erase: four bits, and their complement.
fn is_number(byte: u8) -> bool {
    byte.is_multiple_of(LEAST) & (byte != 0) & (byte != 0xff)
}

/// The number of the next erase of a page with this stamp.
fn after(stamp: u8) -> u8 {
    if is_number(stamp) & (stamp < 0xf0) { stamp.saturating_add(LEAST) } else { LEAST }
}

fn first(word: &[u8]) -> u8 {
    word.first().copied().unwrap_or_default()
}

fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
