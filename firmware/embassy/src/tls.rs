#![no_std]
#![no_main]
//! The story on an executor, over mutual TLS.
//!
//! Arguments: the broker's port on the host; milliseconds of the idle chapter; the server's name; a directory with
//! `authority.der`, `client.der` and `client.key`.
mod net;
mod teller;

use board::embassy::Ethernet;
use board::lan9118::Frames;
use board::{clock, cost, host, say};
use cortex_m_rt::entry;
use dunlin::Inbox;
use dunlin::asynch::Shared;
use dunlin_tls::embedded::{AsyncLink, Memory};
use dunlin_tls::{Config, Error, Identity};
use embassy_executor::raw::Executor;
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::Timer;
use static_cell::{ConstStaticCell, StaticCell};
use teller::{Outcome, Teller};

/// Records of 1,024 bytes, which the server is asked to keep to.
const RECORD: usize = 5 + 1024 + 256;

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let ethernet = Ethernet::new(board::start(), FRAMES.take());
    board::embassy::run(EXECUTOR.init(Executor::new(core::ptr::null_mut())), |spawner| {
        let (stack, runner) = net::stack(ethernet);
        let (mqtt, inbox) = teller::session();
        // Each task is spawned once, so there is room for it.
        spawner.spawn(net::network(runner).expect("room"));
        spawner.spawn(teller::tick(mqtt).expect("room"));
        spawner.spawn(tell(stack, mqtt, inbox).expect("room"));
    })
}

#[embassy_executor::task]
async fn tell(stack: Stack<'static>, mqtt: &'static Shared<'static>, inbox: Inbox<'static>) {
    let verdict = run(stack, mqtt, inbox).await;
    teller::end(verdict)
}

async fn run(
    stack: Stack<'static>,
    mqtt: &'static Shared<'static>,
    mut inbox: Inbox<'static>,
) -> Result<(), &'static str> {
    static RX: ConstStaticCell<[u8; 2048]> = ConstStaticCell::new([0; 2048]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static MEMORY: ConstStaticCell<Memory<RECORD, 1280>> = ConstStaticCell::new(Memory::new());
    static AUTHORITY: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static CERTIFICATE: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static KEY: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
    let (rx, tx, memory) = (RX.take(), TX.take(), MEMORY.take());
    let server = host::argument(3).ok_or("no server name")?;
    let authority = file("authority.der", AUTHORITY.take())?;
    let identity = Identity::new(file("client.der", CERTIFICATE.take())?, file("client.key", KEY.take())?);
    let broker = net::host_port(8883);
    let teller = Teller::new(teller::idle_ms());
    cost::note("start");
    loop {
        let mut socket = TcpSocket::new(stack, rx, tx);
        if socket.connect(broker).await.is_err() {
            Timer::after_millis(50).await;
            continue;
        }
        let (reader, writer) = socket.split();
        let mut link = AsyncLink::new(reader, writer, memory.buffers());
        let config = Config::new(&server, authority, host::unix_time()).identity(identity);
        let before = clock::busy_ticks();
        let outcome = match link.connect(&config, host::entropy).await {
            Ok(mut tls) => {
                say!("@ handshake {}", clock::busy_ticks() - before);
                let (reader, writer) = tls.split();
                let outcome = teller.tell(mqtt, &mut inbox, reader, writer).await?;
                if !matches!(outcome, Outcome::Cut) {
                    let _ = tls.close().await; // the other side may have gone first
                }
                outcome
            }
            Err(Error::Closed | Error::Io(_)) => Outcome::Lost,
            Err(error) => {
                say!("{error}");
                return Err("the handshake failed");
            }
        };
        drop(link);
        match outcome {
            Outcome::Goodbye => {
                socket.close();
                let _ = socket.flush().await; // nothing follows
                return Ok(());
            }
            Outcome::Lost => {}
            Outcome::Cut => {
                socket.abort();
                let _ = socket.flush().await; // the reset goes out
            }
        }
    }
}

fn file(name: &str, buffer: &'static mut [u8]) -> Result<&'static [u8], &'static str> {
    let mut path = host::argument(4).ok_or("no directory")?;
    path.push('/').and_then(|()| path.push_str(name)).map_err(|_| "a path that is too long")?;
    host::file(&path, buffer).ok_or("a file is missing")
}
