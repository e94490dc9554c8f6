//! Time without a tick: one timer counts, one rings.
//!
//! A 1 kHz tick would wake the processor 60,000 times in an idle minute. Here it sleeps until something is due.
use core::cell::Cell;
use core::ptr::{read_volatile, write_volatile};

use critical_section::Mutex;

/// Both timers count down at this rate.
pub const HZ: u64 = 25_000_000;
const TICKS_PER_MS: u64 = HZ / 1000;

const COUNTER: usize = 0x4000_0000;
const ALARM: usize = 0x4000_1000;
const CTRL: usize = 0x00;
const VALUE: usize = 0x04;
const RELOAD: usize = 0x08;
const INTERRUPT: usize = 0x0c;
const ENABLE: u32 = 1;
const INTERRUPT_ENABLE: u32 = 1 << 3;

static WRAPS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));
static SLEPT: Mutex<Cell<u64>> = Mutex::new(Cell::new(0));
static WAKEUPS: Mutex<Cell<u32>> = Mutex::new(Cell::new(0));

/// 25 MHz ticks since [`start`](crate::start).
pub fn ticks() -> u64 {
    critical_section::with(|cs| {
        let wraps = WRAPS.borrow(cs).get();
        let before = !read(COUNTER, VALUE);
        // The counter may wrap while interrupts are off; then the handler has not counted it yet.
        let (low, wraps) =
            if read(COUNTER, INTERRUPT) == 0 { (before, wraps) } else { (!read(COUNTER, VALUE), wraps + 1) };
        u64::from(wraps) << 32 | u64::from(low)
    })
}

/// Milliseconds since [`start`](crate::start).
pub fn millis() -> u64 {
    ticks() / TICKS_PER_MS
}

/// Sleeps until `deadline` in milliseconds, or any interrupt, or not at all if `ready` says that there is work.
///
/// `ready` is asked with interrupts masked, and a masked interrupt still ends `wfi`: nothing that happens between the
/// question and the sleep is missed.
pub fn sleep_until(deadline: Option<u64>, ready: impl FnOnce() -> bool) {
    sleep_unless(|| ready() || !set_alarm(deadline));
    write(ALARM, CTRL, 0);
}

/// Sleeps until any interrupt, unless `awake` says that there is work.
pub(crate) fn sleep_unless(awake: impl FnOnce() -> bool) {
    cortex_m::interrupt::free(|_| {
        if awake() {
            return;
        }
        let before = ticks();
        cortex_m::asm::dsb();
        cortex_m::asm::wfi();
        critical_section::with(|cs| {
            let slept = SLEPT.borrow(cs);
            slept.set(slept.get() + ticks() - before);
            let count = WAKEUPS.borrow(cs);
            count.set(count.get().wrapping_add(1));
        });
    });
}

/// Ticks that were spent awake. Where QEMU counts instructions (`-icount`), this counts them too, by a fixed factor.
pub fn busy_ticks() -> u64 {
    ticks() - critical_section::with(|cs| SLEPT.borrow(cs).get())
}

/// How often the processor has left its sleep.
pub fn wakeups() -> u32 {
    critical_section::with(|cs| WAKEUPS.borrow(cs).get())
}

/// Arms the alarm; `false` if the time has come already. At most 171 s ahead: then the caller asks again.
pub(crate) fn set_alarm(deadline_ms: Option<u64>) -> bool {
    write(ALARM, CTRL, 0);
    write(ALARM, INTERRUPT, 1);
    let Some(deadline) = deadline_ms else { return true };
    let ahead = deadline.saturating_mul(TICKS_PER_MS).saturating_sub(ticks());
    if ahead == 0 {
        return false;
    }
    write(ALARM, RELOAD, 0); // ring once
    write(ALARM, VALUE, u32::try_from(ahead).unwrap_or(u32::MAX));
    write(ALARM, CTRL, ENABLE | INTERRUPT_ENABLE);
    true
}

pub(crate) fn start() {
    write(COUNTER, RELOAD, u32::MAX);
    write(COUNTER, VALUE, u32::MAX);
    write(COUNTER, CTRL, ENABLE | INTERRUPT_ENABLE);
}

pub(crate) fn on_wrap() {
    critical_section::with(|cs| {
        write(COUNTER, INTERRUPT, 1);
        let wraps = WRAPS.borrow(cs);
        wraps.set(wraps.get() + 1);
    });
}

pub(crate) fn on_alarm() {
    write(ALARM, INTERRUPT, 1);
    #[cfg(feature = "embassy")]
    crate::embassy::on_alarm();
}

fn read(timer: usize, register: usize) -> u32 {
    // SAFETY: a register of a timer that only this module uses; reading has no effect.
    unsafe { read_volatile((timer + register) as *const u32) }
}

fn write(timer: usize, register: usize, value: u32) {
    // SAFETY: as above; any value is allowed.
    unsafe { write_volatile((timer + register) as *mut u32, value) }
}
