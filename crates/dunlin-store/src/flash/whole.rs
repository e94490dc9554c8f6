//! Flash whose erases are whole: a power cut leaves a page as it was, or erased, as far as anyone above can see.
//!
//! An interrupted erase leaves any mix of old, erased and undecided bytes, and the page's own marks are among them: the
//! map above may take such a page for one it is writing to, and then erase the only good copy of what was in it. So an
//! erase is announced and confirmed in the page *before* it (around the ring), in words of its own that the map does
//! not see. Whatever was announced and not confirmed is erased again before anything else happens.
//!
//! An announcement that was torn counts: whoever asked for the erase had no need of the page any more. A page keeps
//! announcements until it is erased itself. In the ring of the map that is one erase of its neighbour, and one more for
//! each power cut inside a page that is being filled.

use core::ops::Range;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

/// Erases of the next page that a page has room to announce and confirm. With more cuts than that in a row, at the
/// same place, erases go unannounced.
const ERASES: u32 = 4;

/// Flash of slightly smaller pages, from address 0 on. To be [`finish`](Self::finish)ed before it is used.
pub struct Whole<F> {
    flash: F,
    range: Range<u32>,
}

/// What becomes of one announcement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    Unused,
    Announced,
    Confirmed,
}

impl<F: NorFlash> Whole<F> {
    pub const fn new(flash: F, range: Range<u32>) -> Self {
        Self { flash, range }
    }

    pub fn into_inner(self) -> F {
        self.flash
    }

    pub fn inner(&mut self) -> &mut F {
        &mut self.flash
    }

    /// Its bytes, as the map may use them.
    pub fn len(&self) -> u32 {
        self.pages().saturating_mul(size::<F>())
    }

    /// Brings to an end the erases that a power cut interrupted.
    pub async fn finish(&mut self) -> Result<(), F::Error> {
        for page in 0..self.pages() {
            if let (at, Notice::Announced) = self.last_notice(self.before(page)).await? {
                self.erase_page(page).await?;
                self.write_notice(self.before(page), at, Notice::Confirmed).await?;
            }
        }
        Ok(())
    }

    fn pages(&self) -> u32 {
        self.range.end.saturating_sub(self.range.start).checked_div(page_size::<F>()).unwrap_or_default()
    }

    fn before(&self, page: u32) -> u32 {
        page.checked_sub(1).unwrap_or_else(|| self.pages().saturating_sub(1))
    }

    fn start(&self, page: u32) -> u32 {
        self.range.start.saturating_add(page.saturating_mul(page_size::<F>()))
    }

    async fn erase_page(&mut self, page: u32) -> Result<(), F::Error> {
        let start = self.start(page);
        self.flash.erase(start, start.saturating_add(page_size::<F>())).await
    }

    /// The last notice in a page about the next one, and its place.
    async fn last_notice(&mut self, page: u32) -> Result<(u32, Notice), F::Error> {
        for at in (0..ERASES).rev() {
            let is_confirmed = self.is_written(page, at, Notice::Confirmed).await?;
            let is_announced = is_confirmed || self.is_written(page, at, Notice::Announced).await?;
            match (is_announced, is_confirmed) {
                (_, true) => return Ok((at, Notice::Confirmed)),
                (true, false) => return Ok((at, Notice::Announced)),
                (false, false) => {}
            }
        }
        Ok((0, Notice::Unused))
    }

    fn notice_address(&self, page: u32, at: u32, notice: Notice) -> u32 {
        let index = at.saturating_mul(2).saturating_add(u32::from(notice == Notice::Confirmed));
        let behind = size::<F>().saturating_add(index.saturating_mul(word::<F>()));
        self.start(page).saturating_add(behind)
    }

    async fn is_written(&mut self, page: u32, at: u32, notice: Notice) -> Result<bool, F::Error> {
        let mut bytes = [0; MAX_WORD];
        let len = usize::try_from(word::<F>()).unwrap_or(MAX_WORD);
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        self.flash.read(self.notice_address(page, at, notice), bytes).await?;
        Ok(bytes.iter().any(|byte| *byte != 0xff))
    }

    async fn write_notice(&mut self, page: u32, at: u32, notice: Notice) -> Result<(), F::Error> {
        let bytes = [0; MAX_WORD];
        let len = usize::try_from(word::<F>()).unwrap_or(MAX_WORD);
        self.flash.write(self.notice_address(page, at, notice), bytes.get(..len).unwrap_or_default()).await
    }

    /// Where these bytes lie: address, and how many of them before the page ends.
    fn place(&self, offset: u32, len: usize) -> (u32, usize) {
        let page = offset.checked_div(size::<F>()).unwrap_or_default();
        let within = offset.checked_rem(size::<F>()).unwrap_or_default();
        let left = usize::try_from(size::<F>().saturating_sub(within)).unwrap_or(usize::MAX);
        (self.start(page).saturating_add(within), len.min(left))
    }
}

impl<F: NorFlash> ErrorType for Whole<F> {
    type Error = F::Error;
}

impl<F: NorFlash> ReadNorFlash for Whole<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, mut offset: u32, mut bytes: &mut [u8]) -> Result<(), F::Error> {
        while !bytes.is_empty() {
            let (address, len) = self.place(offset, bytes.len());
            let (now, rest) = bytes.split_at_mut_checked(len).unwrap_or_default();
            self.flash.read(address, now).await?;
            offset = offset.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
            bytes = rest;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.len()).unwrap_or(usize::MAX)
    }
}

impl<F: NorFlash> NorFlash for Whole<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE.saturating_sub(NOTICES.saturating_mul(word_size::<F>()));

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        let (from, to) = (from.checked_div(size::<F>()), to.checked_div(size::<F>()));
        for page in from.unwrap_or_default()..to.unwrap_or_default() {
            let before = self.before(page);
            let next = match self.last_notice(before).await? {
                (_, Notice::Unused) => Some(0),
                (at, Notice::Announced) => Some(at),
                (at, Notice::Confirmed) => at.checked_add(1).filter(|at| *at < ERASES),
            };
            if let Some(at) = next {
                self.write_notice(before, at, Notice::Announced).await?;
            }
            self.erase_page(page).await?;
            if let Some(at) = next {
                self.write_notice(before, at, Notice::Confirmed).await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self, mut offset: u32, mut bytes: &[u8]) -> Result<(), F::Error> {
        while !bytes.is_empty() {
            let (address, len) = self.place(offset, bytes.len());
            let (now, rest) = bytes.split_at_checked(len).unwrap_or_default();
            self.flash.write(address, now).await?;
            offset = offset.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
            bytes = rest;
        }
        Ok(())
    }
}

/// Words for notices in a page.
const NOTICES: usize = 8;
const MAX_WORD: usize = 32;

const _: () = assert!(NOTICES as u32 == 2 * ERASES);

const fn word_size<F: NorFlash>() -> usize {
    if F::READ_SIZE > F::WRITE_SIZE { F::READ_SIZE } else { F::WRITE_SIZE }
}

fn word<F: NorFlash>() -> u32 {
    u32::try_from(word_size::<F>()).unwrap_or(u32::MAX)
}

fn page_size<F: NorFlash>() -> u32 {
    u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX)
}

/// Bytes of a page that the map may use.
fn size<F: NorFlash>() -> u32 {
    u32::try_from(Whole::<F>::ERASE_SIZE).unwrap_or(u32::MAX)
}
