//! What things have cost: the time spent awake between one note and the next.
//!
//! Noted now and printed at the end, since printing costs more than what is measured.
use core::cell::RefCell;

use critical_section::Mutex;
use heapless::Vec;

use crate::clock;

static NOTES: Mutex<RefCell<Vec<(&str, u64), 10>>> = Mutex::new(RefCell::new(Vec::new()));

/// What was done since the last note bears this name.
pub fn note(name: &'static str) {
    let ticks = clock::busy_ticks();
    // One that does not fit is missing in the table, which says so.
    let _ = critical_section::with(|cs| NOTES.borrow_ref_mut(cs).push((name, ticks)));
}

/// Prints a line for each note but the first, from which the next one counts.
pub fn print() {
    let notes = critical_section::with(|cs| NOTES.borrow_ref(cs).clone());
    for pair in notes.windows(2) {
        if let [(_, before), (name, after)] = pair {
            crate::say!("@ cost {name} {}", after - before);
        }
    }
}
