//! The driver for devices, on a socket of the operating system: one thread, no heap in the client, every step in sight.
//!
//! `cargo run --example single_thread [HOST:PORT]`, with a broker on this machine by default. Ends with the first message
//! that comes back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use dunlin::blocking::{Link, LinkError};
use dunlin::{Event, Filter, Instant, Options, Publish, QoS, Session, Storage};
use embedded_io::{ErrorType, Read, ReadReady, Write};

const FILTERS: &[Filter] = &[Filter::literal("greet/+", QoS::AtLeastOnce)];
const OPTIONS: Options = Options::new("single-thread").keep_alive(10).subscriptions(FILTERS);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:1883".to_owned());
    let zero = std::time::Instant::now();
    let clock = || Instant::from_millis(zero.elapsed().as_millis() as u64);

    let mut storage: Storage<512, 512, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(OPTIONS, memory);
    let mut out = [0; 512];
    let stream = Socket(TcpStream::connect(address)?);
    let mut link = Link::open(stream, &mut out, &mut session, &mut inbox, clock());
    loop {
        // Sleeps until bytes come or the session's deadline; with work of its own, a program calls `poll` instead.
        match link.next(&mut session, &mut inbox, clock, |socket, deadline| socket.sleep(clock(), deadline)) {
            Ok(Event::Subscribed(_)) => {
                session.publish(&Publish::new("greet/world", b"hello").exactly_once())?;
            }
            Ok(Event::Message(message)) => {
                println!("{}: {}", message.topic, message.text().unwrap_or("not text"));
                session.close();
            }
            Ok(_) => {}
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a port has to bring: three functions around the stream.
struct Socket(TcpStream);

impl Socket {
    /// Waits for bytes, until `deadline` at most.
    fn sleep(&mut self, now: Instant, deadline: Option<Instant>) {
        let time = deadline.map(|deadline| Duration::from_millis(deadline.millis_since(now).max(1)));
        let _ = self.0.set_read_timeout(time);
        let _ = self.0.peek(&mut [0]);
    }
}

impl ErrorType for Socket {
    type Error = std::io::Error;
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.read(bytes)
    }
}

impl ReadReady for Socket {
    fn read_ready(&mut self) -> Result<bool, Self::Error> {
        self.0.set_nonblocking(true)?;
        let result = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false)?;
        match result {
            Ok(_) => Ok(true), // also at the end of the stream, which `read` then tells
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.0.flush()
    }
}
