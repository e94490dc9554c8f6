#![no_std]
#![no_main]
//! The story over plain TCP, in one loop.
//!
//! Arguments: the broker's port on the host; milliseconds of the idle chapter.
mod teller;

use board::lan9118::Frames;
use board::net::Net;
use board::{cost, host, stack};
use cortex_m_rt::entry;
use smoltcp::iface::SocketStorage;
use static_cell::ConstStaticCell;
use teller::{Outcome, Teller};

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static SOCKETS: ConstStaticCell<[SocketStorage; 1]> = ConstStaticCell::new([SocketStorage::EMPTY]);
    static RX: ConstStaticCell<[u8; 1536]> = ConstStaticCell::new([0; 1536]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let mut net = Net::new(board::start(), FRAMES.take(), SOCKETS.take(), RX.take(), TX.take(), host::seed());
    let port = host::number(1).unwrap_or(1883) as u16;
    let mut teller = Teller::new(u64::from(host::number(2).unwrap_or(0)));
    cost::note("start");
    let verdict = loop {
        // A broker that restarts refuses for a while.
        if net.connect_now(port).is_err() {
            teller.wait_before_retry(&mut net);
            continue;
        }
        match teller.tell(&mut net) {
            Ok(Outcome::Goodbye) => break Ok(()),
            Ok(Outcome::Lost) => net.close(),
            Ok(Outcome::Cut) => net.socket().abort(),
            Err(why) => break Err(why),
        }
    };
    net.close();
    board::say!("@ stack {}", stack::peak());
    cost::print();
    host::exit(verdict)
}
