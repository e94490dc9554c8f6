//! How deep the stack has been: it is painted at the start, and the paint that is left tells.
use core::ptr::{addr_of, addr_of_mut};

const PAINT: u32 = 0xC5C5_C5C5;

unsafe extern "C" {
    /// End of the statics: the lowest address that the stack may reach. From cortex-m-rt's linker script.
    static mut __sheap: u32;
    static _stack_start: u32;
}

/// Most bytes of stack used since the start of the image.
#[inline(never)]
pub fn peak() -> usize {
    let top = addr_of!(_stack_start);
    // SAFETY: the words between the end of the statics and the top of the stack are RAM; reading races with nobody,
    // since what is below the stack pointer is only painted.
    unsafe {
        let mut word = addr_of!(__sheap);
        while word < top && word.read_volatile() == PAINT {
            word = word.add(1);
        }
        top as usize - word as usize
    }
}

/// Bytes of stack that `call` needs, beyond the frame of its caller. Interrupts must be quiet meanwhile.
#[inline(never)]
pub fn needed(call: impl FnOnce()) -> usize {
    paint();
    let here = cortex_m::register::msp::read() as usize;
    call();
    let top = addr_of!(_stack_start) as usize;
    peak() - (top - here)
}

/// Paints what is below the present frame.
#[inline(never)]
pub(crate) fn paint() {
    const MARGIN: usize = 32; // what this function itself may use
    let end = cortex_m::register::msp::read() as usize - MARGIN;
    // SAFETY: from the end of the statics to below the stack pointer, nothing is in use yet.
    unsafe {
        let mut word = addr_of_mut!(__sheap);
        while (word as usize) < end {
            word.write_volatile(PAINT);
            word = word.add(1);
        }
    }
}
