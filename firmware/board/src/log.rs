//! The log: lines on the board's first serial port, which QEMU prints.
//!
//! A line that starts with `@` is for the test bench: a wish (`@ restart-broker`) or a figure (`@ connect 12345`).
use core::fmt;
use core::ptr::{read_volatile, write_volatile};

/// Prints one line.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::log::line(format_args!($($text)*))
    };
}

/// Prints one line; use [`say!`](crate::say).
pub fn line(text: fmt::Arguments<'_>) {
    // Writing to the port cannot fail.
    let _ = fmt::write(&mut Port, text);
    let _ = fmt::Write::write_str(&mut Port, "\n");
}

struct Port;

impl fmt::Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const BASE: usize = 0x4000_4000;
        const DATA: *mut u32 = BASE as *mut u32;
        const STATE: *const u32 = (BASE + 0x04) as *const u32;
        const CTRL: *mut u32 = (BASE + 0x08) as *mut u32;
        const DIVISOR: *mut u32 = (BASE + 0x10) as *mut u32;
        // SAFETY: registers of the first CMSDK serial port; writing them in any order is harmless.
        unsafe {
            write_volatile(DIVISOR, 16);
            write_volatile(CTRL, 1); // transmit
            for byte in text.bytes() {
                while read_volatile(STATE) & 1 != 0 {}
                write_volatile(DATA, u32::from(byte));
            }
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("PANIC {info}");
    crate::host::exit(Err("panic"))
}
