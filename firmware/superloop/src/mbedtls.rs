#![no_std]
#![no_main]
//! The story over TLS with Mbed TLS, in one loop; or, if it is told what must be refused, one refused connection.
//!
//! Its arguments are in `secure`.
mod secure;
mod teller;

use core::ffi::c_void;
use core::mem::MaybeUninit;

use board::lan9118::Frames;
use board::net::Net;
use board::{clock, cost, host, say, stack};
use cortex_m_rt::entry;
use dunlin_tls::mbedtls::{self, Library};
use secure::Orders;
use smoltcp::iface::SocketStorage;
use static_cell::ConstStaticCell;
use teller::{Outcome, Stream, Teller};
// Its functions are for the linker.
use tinyrlibc as _;

/// Mbed TLS's heap.
const POOL: usize = 48 * 1024;

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static SOCKETS: ConstStaticCell<[SocketStorage; 1]> = ConstStaticCell::new([SocketStorage::EMPTY]);
    static RX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let mut net = Net::new(board::start(), FRAMES.take(), SOCKETS.take(), RX.take(), TX.take(), host::seed());
    let verdict = run(&mut net);
    net.close();
    say!("@ stack {}", stack::peak());
    cost::print();
    host::exit(verdict)
}

fn run(net: &mut Net) -> Result<(), &'static str> {
    static HEAP: ConstStaticCell<[MaybeUninit<u8>; POOL]> = ConstStaticCell::new([MaybeUninit::uninit(); POOL]);
    let orders = Orders::read()?;
    let library = Library::start(HEAP.take(), host::entropy, clock::millis).ok_or("started twice")?;
    let mut saved = None;
    let mut teller = Teller::new(orders.idle_ms);
    cost::note("start");
    loop {
        if net.connect_now(orders.port).is_err() {
            teller.wait_before_retry(net);
            continue;
        }
        let outcome = {
            let before = clock::busy_ticks();
            let config = orders.config();
            let connected = library.connect(&mut *net, &config, saved.as_ref());
            if !orders.has_story() {
                return orders.judge(connected.err());
            }
            match connected {
                Ok(mut tls) => {
                    say!("@ handshake {}", clock::busy_ticks() - before);
                    say!("@ pool {}", library.pool_peak());
                    let outcome = teller.tell(&mut tls)?;
                    saved = tls.save().ok();
                    if !matches!(outcome, Outcome::Cut) {
                        let _ = tls.close(); // the other side may have gone first
                    }
                    outcome
                }
                Err(error) => secure::lost(error)?,
            }
        };
        match outcome {
            Outcome::Goodbye => return Ok(()),
            Outcome::Lost => net.close(),
            Outcome::Cut => net.socket().abort(),
        }
    }
}

impl Stream for mbedtls::Stream<'_, &mut Net<'_>> {
    fn sleep(&mut self, deadline: Option<u64>) {
        self.with_transport(|net| net.sleep(deadline, board::sensor::has_reading));
    }
}

/// Mbed TLS names the C library's allocator as its first one, and never calls it: the pool takes its place before.
#[unsafe(no_mangle)]
extern "C" fn calloc(_: usize, _: usize) -> *mut c_void {
    core::ptr::null_mut()
}

#[unsafe(no_mangle)]
extern "C" fn free(_: *mut c_void) {}
