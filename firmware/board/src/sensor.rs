//! A sensor that delivers its readings in an interrupt, as a real one does.
//!
//! The SysTick timer plays it: [`start`] it for a number of readings at a period. What happens with a reading is the
//! application's: it names a function, called in interrupt context. [`queue`] is such a function: a loop takes the
//! readings with [`take`] when it comes round.
use core::cell::{Cell, RefCell};

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use critical_section::Mutex;
use heapless::Deque;

/// Takes one reading, in interrupt context. `false`: there was no room, offer it again with the next tick.
pub type Sink = fn(u32) -> bool;

#[derive(Clone, Copy)]
struct State {
    sink: Sink,
    next: u32,
    left: u32,
}

static QUEUE: Mutex<RefCell<Deque<u32, 8>>> = Mutex::new(RefCell::new(Deque::new()));
static STATE: Mutex<Cell<State>> = Mutex::new(Cell::new(State { sink: |_| true, next: 0, left: 0 }));

/// Produces `count` readings, numbered from 0, one each `period_ms` (at most 600).
pub fn start(count: u32, period_ms: u32, sink: Sink) {
    critical_section::with(|cs| STATE.borrow(cs).set(State { sink, next: 0, left: count }));
    let mut timer = timer();
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload((period_ms * 25_000 - 1).min(0x00ff_ffff));
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

/// Readings that are still to come.
pub fn left() -> u32 {
    critical_section::with(|cs| STATE.borrow(cs).get().left)
}

/// A [`Sink`]: keeps the reading until the loop takes it.
pub fn queue(reading: u32) -> bool {
    critical_section::with(|cs| QUEUE.borrow_ref_mut(cs).push_back(reading).is_ok())
}

/// The oldest reading that was queued.
pub fn take() -> Option<u32> {
    critical_section::with(|cs| QUEUE.borrow_ref_mut(cs).pop_front())
}

/// Whether a reading waits.
pub fn has_reading() -> bool {
    critical_section::with(|cs| !QUEUE.borrow_ref(cs).is_empty())
}

pub(crate) fn on_tick() {
    let mut state = critical_section::with(|cs| STATE.borrow(cs).get());
    if state.left > 0 && (state.sink)(state.next) {
        state.next += 1;
        state.left -= 1;
        critical_section::with(|cs| STATE.borrow(cs).set(state));
    }
    if state.left == 0 {
        timer().disable_counter();
    }
}

fn timer() -> SYST {
    // SAFETY: only this module uses SysTick, and `on_tick` cannot interrupt itself.
    unsafe { cortex_m::Peripherals::steal() }.SYST
}
