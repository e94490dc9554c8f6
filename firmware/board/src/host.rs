//! What the test bench gives an image, through semihosting: arguments, entropy, the date; and takes: an exit status.
//!
//! A real board has a true random generator, a real-time clock or SNTP, and no exit.
use cortex_m_semihosting::{debug, nr, syscall, syscall1};
use heapless::String;

/// Argument `index` of the run; 0 is the image's name.
pub fn argument(index: usize) -> Option<String<128>> {
    let mut line = [0u8; 512];
    let mut block = [line.as_mut_ptr() as usize, line.len()];
    // SAFETY: SYS_GET_CMDLINE fills the buffer that `block` names and stores its length in the second word.
    let failed = unsafe { syscall1(nr::GET_CMDLINE, block.as_mut_ptr() as usize) } != 0;
    let line = if failed { None } else { line.get(..block[1]) };
    let argument = core::str::from_utf8(line?).ok()?.trim_end_matches('\0').split(' ').nth(index)?;
    String::try_from(argument).ok()
}

/// Argument `index` as a number.
pub fn number(index: usize) -> Option<u32> {
    argument(index)?.parse().ok()
}

/// Seconds since 1970, from the host's clock.
pub fn unix_time() -> u64 {
    // SAFETY: SYS_TIME takes no argument.
    unsafe { syscall1(nr::TIME, 0) as u64 }
}

/// Fills `buffer` from the host's random generator.
///
/// # Panics
/// If the host has none: nothing may run on predictable numbers.
pub fn entropy(buffer: &mut [u8]) {
    const PATH: &[u8] = b"/dev/urandom\0";
    const READ_BINARY: usize = 1;
    // SAFETY: the path is nul-terminated and its length is given without the nul; `buffer` is writable for its length.
    let unread = unsafe {
        let file = syscall!(OPEN, PATH.as_ptr() as usize, READ_BINARY, PATH.len() - 1);
        let unread = syscall!(READ, file, buffer.as_mut_ptr() as usize, buffer.len());
        syscall!(CLOSE, file);
        unread
    };
    assert!(unread == 0, "no entropy");
}

/// Reads a file of the host into `buffer` and returns what it holds; `None` if there is none or it does not fit.
pub fn file<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    const READ_BINARY: usize = 1;
    let mut name: String<129> = String::try_from(path).ok()?;
    name.push('\0').ok()?;
    // SAFETY: as in `entropy`; SYS_READ returns how much of `buffer` it did not fill.
    unsafe {
        let file = syscall!(OPEN, name.as_ptr() as usize, READ_BINARY, path.len());
        if file == usize::MAX {
            return None;
        }
        let unread = syscall!(READ, file, buffer.as_mut_ptr() as usize, buffer.len());
        syscall!(CLOSE, file);
        let len = buffer.len().checked_sub(unread).filter(|_| unread > 0)?;
        buffer.get(..len)
    }
}

/// Eight random bytes, for what needs a seed.
pub fn seed() -> u64 {
    let mut seed = [0; 8];
    entropy(&mut seed);
    u64::from_le_bytes(seed)
}

/// Ends the run: what the image found out becomes QEMU's exit status.
pub fn exit(verdict: Result<(), &str>) -> ! {
    match verdict {
        Ok(()) => crate::say!("PASS"),
        Err(why) => crate::say!("FAIL {why}"),
    }
    debug::exit(if verdict.is_ok() { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}
