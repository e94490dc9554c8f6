#![no_std]
#![no_main]
//! The story over TLS, in one loop; or, if it is told what must be refused, one refused connection.
//!
//! Arguments: the broker's port on the host; milliseconds of the idle chapter; the server's name; a directory with
//! `authority.der`, `client.der` and `client.key`; `mutual` or `anonymous`; and `pass`, or the error
//! that must come.
mod teller;

use core::fmt::Write as _;

use board::lan9118::Frames;
use board::net::Net;
use board::{clock, cost, host, say, stack};
use cortex_m_rt::entry;
use dunlin_tls::embedded::{self, Link, Memory};
use dunlin_tls::{Config, Error, Identity};
use heapless::String;
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
    static AUTHORITY: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static CERTIFICATE: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static KEY: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
    let port = host::number(1).unwrap_or(8883) as u16;
    let server = host::argument(3).ok_or("no server name")?;
    let authority = file("authority.der", AUTHORITY.take())?;
    let identity = Identity::new(file("client.der", CERTIFICATE.take())?, file("client.key", KEY.take())?);
    let mutual = host::argument(5).is_some_and(|text| text == "mutual");
    let goal = host::argument(6).unwrap_or_default();
    let config = || {
        let config = Config::new(&server, authority, host::unix_time());
        if mutual { config.identity(identity) } else { config }
    };
    let memory = MEMORY.take();
    let mut teller = Teller::new(u64::from(host::number(2).unwrap_or(0)));
    cost::note("start");
    loop {
        if net.connect_now(port).is_err() {
            teller.wait_before_retry(net);
            continue;
        }
        let mut link = Link::new(&mut *net, memory.buffers());
        let before = clock::busy_ticks();
        let connected = link.connect(&config(), host::entropy);
        if goal != "pass" {
            return refused_as(connected.err(), &goal);
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
            // While the broker restarts; anything else would come again and again.
            Err(Error::Closed | Error::Io(_)) => Outcome::Lost,
            Err(error) => {
                say!("{error}");
                return Err("the handshake failed");
            }
        };
        match outcome {
            Outcome::Goodbye => return Ok(()),
            Outcome::Lost => net.close(),
            Outcome::Cut => net.socket().abort(),
        }
    }
}

fn refused_as(error: Option<Error>, expected: &str) -> Result<(), &'static str> {
    let mut name: String<64> = String::new();
    let _ = write!(name, "{error:?}"); // a name that is cut off is not the expected one
    say!("refused: {name}");
    match name.strip_prefix("Some(").and_then(|name| name.strip_suffix(")")) == Some(expected) {
        true => Ok(()),
        false => Err("not refused as it must be"),
    }
}

fn file(name: &str, buffer: &'static mut [u8]) -> Result<&'static [u8], &'static str> {
    let mut path = host::argument(4).ok_or("no directory")?;
    path.push('/').and_then(|()| path.push_str(name)).map_err(|_| "a path that is too long")?;
    host::file(&path, buffer).ok_or("a file is missing")
}

impl Stream for embedded::Stream<'_, '_, &mut Net<'_>> {
    fn sleep(&mut self, deadline: Option<u64>) {
        self.with_transport(|net| net.sleep(deadline, board::sensor::has_reading));
    }
}

/// Between connections.
impl Stream for Net<'_> {
    fn sleep(&mut self, deadline: Option<u64>) {
        Net::sleep(self, deadline, board::sensor::has_reading);
    }
}
