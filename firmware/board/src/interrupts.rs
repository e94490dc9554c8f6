//! Which interrupt goes where. There is no device crate for this board, so the default handler dispatches.
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;

use crate::{clock, lan9118, sensor};

#[derive(Clone, Copy)]
#[repr(u16)]
enum Irq {
    Timer0 = 8,
    Timer1 = 9,
    Ethernet = 13,
}

// SAFETY: the numbers are those of the board's vector table.
unsafe impl InterruptNumber for Irq {
    fn number(self) -> u16 {
        self as u16
    }
}

/// Unmasks what the board uses. The Ethernet chip must be initialised: until then its line idles active.
pub(crate) fn enable() {
    for irq in [Irq::Timer0, Irq::Timer1, Irq::Ethernet] {
        // SAFETY: no critical section is broken, since nothing has started yet.
        unsafe { NVIC::unmask(irq) };
    }
}

#[exception]
unsafe fn DefaultHandler(irq: i16) {
    match irq {
        8 => clock::on_wrap(),
        9 => clock::on_alarm(),
        13 => lan9118::on_interrupt(),
        _ => {}
    }
}

#[exception]
fn SysTick() {
    sensor::on_tick();
}
