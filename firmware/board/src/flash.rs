//! NOR flash in a file of the host, written through semihosting, so that it outlives the emulator.
//!
//! No Cortex-M board of QEMU has flash that is kept: `mps2-an386` runs from RAM, and the boards with CFI flash have
//! other processors. So the chip is played here, by its rules: a write clears bits and sets none, an erase sets a page,
//! and both go on word by word, each a system call of its own. An emulator that is killed leaves records with some
//! of their words, and pages with some of their words erased.
use core::fmt;

use cortex_m_semihosting::syscall;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use heapless::String;

/// Bytes of the flash; the file must be as long.
pub const SIZE: usize = 8 * PAGE;
/// Bytes that are erased at a time.
pub const PAGE: usize = 4096;
/// Bytes that are written at a time.
const WORD: usize = 4;
/// Bytes of a page that are erased before the next ones.
const STRETCH: usize = 256;

/// The flash.
pub struct HostFlash {
    file: usize,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashError {
    /// The program has done what flash does not allow.
    Refused(NorFlashErrorKind),
    /// A word that is not erased was to get a bit set.
    NotErased,
    /// The host's file cannot be reached.
    File,
}

impl HostFlash {
    /// The flash in this file of the host; `None` if there is none.
    pub fn open(path: &str) -> Option<Self> {
        const UPDATE_BINARY: usize = 3; // "r+b"
        let mut name: String<129> = String::try_from(path).ok()?;
        name.push('\0').ok()?;
        // SAFETY: the name ends with a nul, and its length is given without it.
        let file = unsafe { syscall!(OPEN, name.as_ptr() as usize, UPDATE_BINARY, path.len()) };
        (file != usize::MAX).then_some(Self { file })
    }

    fn seek(&mut self, offset: usize) -> Result<(), FlashError> {
        // SAFETY: SYS_SEEK takes a handle and a number.
        match unsafe { syscall!(SEEK, self.file, offset) } {
            0 => Ok(()),
            _ => Err(FlashError::File),
        }
    }

    fn get(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.seek(offset)?;
        // SAFETY: SYS_READ fills `bytes` and returns how much it did not fill.
        match unsafe { syscall!(READ, self.file, bytes.as_mut_ptr() as usize, bytes.len()) } {
            0 => Ok(()),
            _ => Err(FlashError::File),
        }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> Result<(), FlashError> {
        self.seek(offset)?;
        // SAFETY: SYS_WRITE reads `bytes` and returns how much it did not write.
        match unsafe { syscall!(WRITE, self.file, bytes.as_ptr() as usize, bytes.len()) } {
            0 => Ok(()),
            _ => Err(FlashError::File),
        }
    }
}

impl ErrorType for HostFlash {
    type Error = FlashError;
}

impl ReadNorFlash for HostFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        check_read(self, offset, bytes.len()).map_err(FlashError::Refused)?;
        self.get(offset as usize, bytes)
    }

    fn capacity(&self) -> usize {
        SIZE
    }
}

impl NorFlash for HostFlash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        check_erase(self, from, to).map_err(FlashError::Refused)?;
        (from as usize..to as usize).step_by(STRETCH).try_for_each(|at| self.put(at, &[0xff; STRETCH]))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        check_write(self, offset, bytes.len()).map_err(FlashError::Refused)?;
        for (word, at) in bytes.chunks_exact(WORD).zip((offset as usize..).step_by(WORD)) {
            let mut old = [0; WORD];
            self.get(at, &mut old)?;
            if old.iter().zip(word).any(|(old, new)| old & new != *new) {
                return Err(FlashError::NotErased);
            }
            self.put(at, word)?;
        }
        Ok(())
    }
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Refused(kind) => *kind,
            Self::NotErased | Self::File => NorFlashErrorKind::Other,
        }
    }
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for FlashError {}
