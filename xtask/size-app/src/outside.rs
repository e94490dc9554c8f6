//! The world outside the application, defined in outside.s: a transport with a send window of its own, a clock, and whoever
//! wants the messages.

use dunlin_core::{Instant, Topic};

unsafe extern "C" {
    safe fn transport_connect() -> i32;
    safe fn transport_close();
    safe fn transport_back_off();
    safe fn transport_window() -> *mut u8;
    safe fn transport_window_len() -> usize;
    safe fn transport_commit(len: usize);
    safe fn transport_receive(into: *mut u8, len: usize, until_ms: u32) -> i32;
    safe fn clock_ms() -> u32;
    safe fn message_arrived(topic: *const u8, topic_len: usize, payload: *const u8, payload_len: usize);
}

pub fn connect() -> bool {
    transport_connect() >= 0
}

pub fn close() {
    transport_close();
}

pub fn back_off() {
    transport_back_off();
}

/// Where the transport wants the next bytes.
pub fn window() -> &'static mut [u8] {
    // SAFETY: the transport lends its window until `commit`.
    unsafe { core::slice::from_raw_parts_mut(transport_window(), transport_window_len()) }
}

pub fn commit(len: usize) {
    transport_commit(len);
}

/// Waits for bytes, no longer than `until`; `None` when the connection is over.
pub fn receive(into: &mut [u8], until: Option<Instant>) -> Option<usize> {
    let until = until.map_or(u32::MAX, |instant| u32::try_from(instant.as_millis()).unwrap_or(u32::MAX));
    usize::try_from(transport_receive(into.as_mut_ptr(), into.len(), until)).ok()
}

pub fn clock() -> Instant {
    Instant::from_millis(clock_ms().into())
}

pub fn on_message(topic: Topic<'_>, payload: &[u8]) {
    let topic = topic.as_bytes();
    message_arrived(topic.as_ptr(), topic.len(), payload.as_ptr(), payload.len());
}
