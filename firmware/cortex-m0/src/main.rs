#![no_std]
#![no_main]
//! Plays what a host has recorded of a session, on QEMU's `microbit`: a Cortex-M0 without divider, without unaligned
//! access, without atomics beyond load and store, and with 16 KiB of RAM.
//!
//! Argument: a file of the host, with a length of two bytes and that many bytes for each call and for each outcome.
use core::fmt::Write;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hio, nr, syscall, syscall1};
use vectors::{Call, Outcome, Player, Room};

#[entry]
fn main() -> ! {
    let outcome = play();
    if let Ok(mut console) = hio::hstdout() {
        let _ = match outcome {
            Ok(calls) => writeln!(console, "@ played {calls}\nPASS"),
            Err(why) => writeln!(console, "FAIL {why}"),
        };
    }
    debug::exit(if outcome.is_ok() { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}

/// Makes each call of the file, and compares what comes of it. Gives how many there were.
fn play() -> Result<u32, &'static str> {
    let mut room = Room::new();
    let (mut call_bytes, mut expected) = ([0; Outcome::SIZE], [0; Outcome::SIZE]);
    let mut outcome = Outcome::new();
    let mut out = [0; 256];
    let mut file = File::open().ok_or("no file")?;
    let mut calls = 0;
    let mut profile = 0;
    loop {
        let mut player = Player::new(profile, room.split());
        profile = loop {
            let Some(len) = file.read_record(&mut call_bytes)? else { return Ok(calls) };
            let call: Call<'_> = postcard::from_bytes(&call_bytes[..len]).map_err(|_| "not a call")?;
            let expected_len = file.read_record(&mut expected)?.ok_or("a call without an outcome")?;
            calls += 1;
            if let Call::New { profile } = call {
                break profile;
            }
            player.play(&call, &mut out, &mut outcome, &mut |_| {});
            if outcome.as_bytes() != &expected[..expected_len] {
                report(calls, &call, &expected[..expected_len], outcome.as_bytes());
                return Err("another outcome than on the host");
            }
        };
    }
}

fn report(number: u32, call: &Call<'_>, expected: &[u8], outcome: &[u8]) {
    let Ok(mut console) = hio::hstdout() else { return };
    let _ = writeln!(
        console,
        "call {number}: {call:?}\non the host: {}\nhere:        {}",
        expected.escape_ascii(),
        outcome.escape_ascii()
    );
}

/// A file of the host, through semihosting, a piece at a time.
struct File {
    handle: usize,
    piece: [u8; 512],
    at: usize,
    len: usize,
}

impl File {
    /// Opens the file that the first argument names.
    fn open() -> Option<Self> {
        let mut line = [0u8; 256];
        let mut block = [line.as_mut_ptr() as usize, line.len()];
        // SAFETY: SYS_GET_CMDLINE fills the buffer that `block` names and stores its length in the second word.
        if unsafe { syscall1(nr::GET_CMDLINE, block.as_mut_ptr() as usize) } != 0 {
            return None;
        }
        let start = line.iter().position(|byte| *byte == b' ')? + 1;
        let len = line[start..].iter().position(|byte| matches!(byte, 0 | b' '))?;
        line[start + len] = 0;
        const READ_BINARY: usize = 1;
        // SAFETY: the path ends with a nul, and its length is given without it.
        let handle = unsafe { syscall!(OPEN, line[start..].as_ptr() as usize, READ_BINARY, len) };
        (handle != usize::MAX).then_some(Self { handle, piece: [0; 512], at: 0, len: 0 })
    }

    /// Reads the next record into `buffer` and gives its length; `None` at the end of the file.
    fn read_record(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, &'static str> {
        let Some(low) = self.byte() else { return Ok(None) };
        let high = self.byte().ok_or("half a record")?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        for place in buffer.get_mut(..len).ok_or("a record that is too long")? {
            *place = self.byte().ok_or("half a record")?;
        }
        Ok(Some(len))
    }

    fn byte(&mut self) -> Option<u8> {
        if self.at == self.len {
            // SAFETY: SYS_READ writes into `piece`, at most as much as it holds, and returns how much it did not fill.
            let unread = unsafe { syscall!(READ, self.handle, self.piece.as_mut_ptr() as usize, self.piece.len()) };
            self.len = self.piece.len().checked_sub(unread)?;
            self.at = 0;
        }
        let byte = *self.piece[..self.len].get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Ok(mut console) = hio::hstdout() {
        let _ = writeln!(console, "PANIC {info}");
    }
    debug::exit(debug::EXIT_FAILURE);
    loop {
        cortex_m::asm::wfi();
    }
}
