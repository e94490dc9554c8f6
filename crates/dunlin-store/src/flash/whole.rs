//! Flash whose erases are whole: a power cut leaves a page as it was, or erased, as far as anyone above can see.
//!
//! An interrupted erase leaves any mix of old, erased and undecided bytes, and the page's own marks are among them: the
//! map above may take such a page for one it is writing to, and then erase the only good copy of what was in it. So an
//! erase is announced and confirmed in the page *before* it (around the ring), in words of its own that the map does
//! not see. Whatever was announced and not confirmed is erased again before anything else happens.
//!
//! The words are written one after the other: announced, confirmed, announced... An odd number of them means that an
//! erase is to be done again. An announcement that was torn counts: whoever asked for the erase had no need of the page
//! any more. A page keeps its words until it is erased itself. In the ring of the map that is one erase of its
//! neighbour, and one more for each power cut inside a page that is being filled.

use core::ops::Range;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

/// Words for announcements and confirmations in a page. With more cuts than half of that in a row, at the same place,
/// erases go unannounced.
const WORDS: usize = 8;
const MAX_WORD: usize = 32;

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

    /// Erases pages, or those of them whose erase was announced and not confirmed.
    async fn erase_pages(&mut self, pages: Range<u32>, is_only_announced: bool) -> Result<(), F::Error> {
        for page in pages {
            let before = page.checked_sub(1).unwrap_or_else(|| self.pages().saturating_sub(1));
            let words = self.start(before).saturating_add(number(Self::ERASE_SIZE));
            let at = |count: usize| words.saturating_add(number(count.saturating_mul(Self::WORD)));
            let mut count = WORDS;
            while let Some(index) = count.checked_sub(1) {
                let mut bytes = [0; MAX_WORD];
                let word = bytes.get_mut(..Self::WORD).unwrap_or_default();
                self.flash.read(at(index), word).await?;
                if word.iter().any(|byte| *byte != 0xff) {
                    break;
                }
                count = index;
            }
            let is_announced = count & 1 == 1;
            if is_only_announced && !is_announced {
                continue;
            }
            let zeros = [0; MAX_WORD];
            let zeros = zeros.get(..Self::WORD).unwrap_or_default();
            if !is_announced && count < WORDS {
                self.flash.write(at(count), zeros).await?;
                count = count.saturating_add(1);
            }
            let start = self.start(page);
            self.flash.erase(start, start.saturating_add(number(F::ERASE_SIZE))).await?;
            if count < WORDS {
                self.flash.write(at(count), zeros).await?;
            }
        }
        Ok(())
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

fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
