#![no_std]
#![no_main]
//! The board for a program in C: `c/pump.c` is the application, `c/board.h` what it asks of the board.
//!
//! The session is that of `dunlin-c`, linked into this image instead of a static library. Each function is a few lines
//! around what the other images use; there is no state besides what the application hands back.
//!
//! Argument: the broker's port on the host.
use core::ffi::{CStr, c_char, c_void};
use core::ptr::null_mut;
use core::slice;

use board::lan9118::Frames;
use board::net::Net;
use board::{clock, cost, host, say, sensor, stack};
use cortex_m_rt::entry;
use dunlin_c as _;
use smoltcp::iface::SocketStorage;
use static_cell::ConstStaticCell;

/// What C knows as `struct board`.
pub struct Board {
    net: Net<'static>,
    port: u16,
}

unsafe extern "C" {
    safe fn pump(board: &mut Board) -> *const c_char;
}

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static SOCKETS: ConstStaticCell<[SocketStorage; 1]> = ConstStaticCell::new([SocketStorage::EMPTY]);
    static RX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let net = Net::new(board::start(), FRAMES.take(), SOCKETS.take(), RX.take(), TX.take(), host::seed());
    let wrong = pump(&mut Board { net, port: host::number(1).unwrap_or(1883) as u16 });
    say!("@ stack {}", stack::peak());
    cost::print();
    // SAFETY: what is wrong is said with a literal, or with a text of `dunlin_fault_text`.
    host::exit(if wrong.is_null() { Ok(()) } else { Err(unsafe { text(wrong) }) })
}

#[unsafe(no_mangle)]
extern "C" fn board_now_ms() -> u64 {
    clock::millis()
}

#[unsafe(no_mangle)]
extern "C" fn board_connect(board: &mut Board) -> bool {
    board.net.connect_now(board.port).is_ok()
}

/// The stack's buffer is lent until the next call: C writes to it in between.
#[unsafe(no_mangle)]
extern "C" fn board_ring(board: &mut Board, room: &mut usize) -> *mut c_void {
    let ring = board.net.socket().send(|ring| (0, (ring.as_mut_ptr().cast(), ring.len())));
    let (ring, len) = ring.unwrap_or((null_mut(), 0));
    *room = len;
    ring
}

#[unsafe(no_mangle)]
extern "C" fn board_sent(board: &mut Board, len: usize) {
    // An error is a connection that is over, which `board_wait` says.
    let _ = board.net.socket().send(|ring| (len.min(ring.len()), ()));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn board_receive(board: &mut Board, into: *mut u8, len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    // SAFETY: C has so many bytes there, and does nothing else with them meanwhile.
    let into = unsafe { slice::from_raw_parts_mut(into, len) };
    board.net.socket().recv_slice(into).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn board_wait(board: &mut Board, milliseconds: u32) -> bool {
    board.net.poll();
    if board.net.socket().can_recv() {
        return true;
    }
    board.net.sleep(Some(clock::millis() + u64::from(milliseconds)), sensor::has_reading);
    board.net.poll();
    board.net.socket().may_recv() || board.net.socket().can_recv()
}

#[unsafe(no_mangle)]
extern "C" fn board_close(board: &mut Board) {
    board.net.close();
}

/// What was sent has left, and its answer finds nobody.
#[unsafe(no_mangle)]
extern "C" fn board_cut(board: &mut Board) {
    board.net.poll();
    board.net.socket().abort();
    board.net.poll();
}

#[unsafe(no_mangle)]
extern "C" fn board_start_sensor(readings: u32) {
    sensor::start(readings, 20, sensor::queue);
}

#[unsafe(no_mangle)]
extern "C" fn board_take_reading(reading: &mut u32) -> bool {
    let taken = sensor::take();
    if let Some(taken) = taken {
        *reading = taken;
    }
    taken.is_some()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn board_note(name: *const c_char) {
    // SAFETY: names are literals.
    cost::note(unsafe { text(name) });
}

/// A literal of C.
unsafe fn text(of_c: *const c_char) -> &'static str {
    // SAFETY: it ends with a zero, and is there for ever.
    unsafe { CStr::from_ptr(of_c) }.to_str().unwrap_or("?")
}
