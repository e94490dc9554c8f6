#![no_std]
//! QEMU's `mps2-an386`: a Cortex-M4F at 25 MHz with a LAN9118 Ethernet chip.
//!
//! What a port to a new board consists of, one module each: a network device ([`lan9118`]), a clock that can sleep
//! ([`clock`]), an interrupt that produces data ([`sensor`]), a log ([`log`]), and what the test bench needs
//! ([`host`]: arguments, entropy, date, exit status; [`stack`]: how deep the stack has been; [`cost`]: instructions).
//! The images hold the
//! application and nothing of the board. The code touches registers, so this is the one place with `unsafe`; each
//! block says why it may.

pub mod clock;
pub mod cost;
#[cfg(feature = "embassy")]
pub mod embassy;
#[cfg(feature = "flash")]
pub mod flash;
pub mod host;
pub mod lan9118;
pub mod log;
#[cfg(feature = "smoltcp")]
pub mod net;
pub mod sensor;
pub mod stack;

mod interrupts;

/// The address that QEMU's user network expects the guest to have, and the one under which it sees the host.
pub const ADDRESS: [u8; 4] = [10, 0, 2, 15];
/// The host's loopback, as the guest sees it.
pub const HOST: [u8; 4] = [10, 0, 2, 2];
/// A locally administered MAC address.
pub const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x15];

/// Starts clock and Ethernet, and paints the stack. Call it first and once.
///
/// # Panics
/// If the Ethernet chip does not answer: without it there is nothing to run.
pub fn start() -> lan9118::Lan9118 {
    stack::paint();
    clock::start();
    // SAFETY: `start` is called once, so this is the only driver of the chip; the interrupt handler writes nothing but
    // the interrupt mask.
    let mut ethernet = unsafe { lan9118::Lan9118::new() };
    ethernet.init(MAC).expect("LAN9118");
    interrupts::enable();
    ethernet
}
