#![no_std]
#![no_main]
//! The story over TLS, in one loop; or, if it is told what must be refused, one refused connection.
//!
//! Its arguments are in `secure`.
mod secure;
mod teller;

use board::lan9118::Frames;
use board::net::Net;
use board::{clock, cost, host, say, stack};
use cortex_m_rt::entry;
use dunlin_tls::embedded::{self, Link, Memory};
use secure::Orders;
use smoltcp::iface::SocketStorage;
use static_cell::ConstStaticCell;
use teller::{Outcome, Stream, Teller};

/// Records of 1,024 bytes, which the server is asked to keep to.
const RECORD: usize = 5 + 1024 + 256;

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
    static MEMORY: ConstStaticCell<Memory<RECORD, 1280>> = ConstStaticCell::new(Memory::new());
    let orders = Orders::read()?;
    let memory = MEMORY.take();
    let mut teller = Teller::new(orders.idle_ms);
    cost::note("start");
    loop {
        if net.connect_now(orders.port).is_err() {
            teller.wait_before_retry(net);
            continue;
        }
        let mut link = Link::new(&mut *net, memory.buffers());
        let before = clock::busy_ticks();
        let connected = link.connect(&orders.config(), host::entropy);
        if !orders.has_story() {
            return orders.judge(connected.err());
        }
        let outcome = match connected {
            Ok(mut tls) => {
                say!("@ handshake {}", clock::busy_ticks() - before);
                let outcome = teller.tell(&mut tls)?;
                if !matches!(outcome, Outcome::Cut) {
                    let _ = tls.close(); // the other side may have gone first
                }
                outcome
            }
            Err(error) => secure::lost(error)?,
        };
        match outcome {
            Outcome::Goodbye => return Ok(()),
            Outcome::Lost => net.close(),
            Outcome::Cut => net.socket().abort(),
        }
    }
}

impl Stream for embedded::Stream<'_, '_, &mut Net<'_>> {
    fn sleep(&mut self, deadline: Option<u64>) {
        self.with_transport(|net| net.sleep(deadline, board::sensor::has_reading));
    }
}
