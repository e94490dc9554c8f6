#![no_std]
#![no_main]
//! A till that loses no sale: each message is on flash before `publish` returns, and goes out exactly once, whenever the
//! power goes.
//!
//! The messages are numbered, so whoever receives them knows what is missing and what came twice. The test bench kills the
//! emulator and starts it again on the same flash.
//!
//! Arguments: the broker's port on the host; the file with the flash; `sell` for ever, or `last`: bring everything to
//! its end, and send one more message that says so; the number of the first message.
use core::fmt::Write;

use board::flash::{FlashError, HostFlash};
use board::lan9118::Frames;
use board::net::Net;
use board::{clock, host, say, stack};
use cortex_m_rt::entry;
use dunlin_core::{Inbox, Instant, Options, Publish, Session, Storage, Transmit};
use dunlin_store::{Blocking, Durable, FlashStore, PublishError, StoreError};
use heapless::String;
use smoltcp::iface::SocketStorage;
use static_cell::{ConstStaticCell, StaticCell};

const OPTIONS: Options = Options::new("till-1").durable().keep_alive(30);
const TOPIC: &str = "till/1/sale";
/// Sales that are under way at a time.
const OPEN: usize = 8;

type Flash = FlashStore<Blocking<HostFlash>, 15, 4, 256>;

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static SOCKETS: ConstStaticCell<[SocketStorage; 1]> = ConstStaticCell::new([SocketStorage::EMPTY]);
    static RX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let mut net = Net::new(board::start(), FRAMES.take(), SOCKETS.take(), RX.take(), TX.take(), host::seed());
    let verdict = run(&mut net);
    say!("@ stack {}", stack::peak());
    host::exit(verdict)
}

fn run(net: &mut Net) -> Result<(), &'static str> {
    static STORAGE: ConstStaticCell<Storage<512, 256, 12, 4, 64>> = ConstStaticCell::new(Storage::new());
    static STORE: StaticCell<Flash> = StaticCell::new();
    let (memory, mut inbox) = STORAGE.take().split();
    let port = host::number(1).unwrap_or(1883) as u16;
    let path = host::argument(2).ok_or("no flash")?;
    let is_last = host::argument(3).is_some_and(|text| text == "last");
    let flash = HostFlash::open(&path).ok_or("no file with the flash")?;
    // Too large to be moved about on the stack.
    let store = STORE.init_with(|| Flash::new(Blocking(flash), 0..board::flash::SIZE as u32));
    let mut mqtt = Durable::recover(Session::new(OPTIONS, memory), store).map_err(failed)?;
    let mut next = host::number(4).unwrap_or(1);
    let recovery = mqtt.recovery();
    let damage = recovery.damage != Default::default();
    say!("@ recovered {} {} {}", recovery.messages, recovery.released, u8::from(damage));
    loop {
        net.poll();
        if !net.socket().is_open() {
            net.connect(port).map_err(|_| "connect")?;
            mqtt.open(now(), &mut inbox).map_err(failed)?;
        }
        while !is_last && mqtt.session().outgoing_count() < OPEN {
            if !sell(&mut mqtt, next)? {
                break;
            }
            say!("@ accepted {next}");
            next += 1;
        }
        if net.socket().may_send() {
            step(net, &mut mqtt, &mut inbox)?;
            if is_last && mqtt.session().is_connected() && mqtt.session().outgoing_count() == 0 {
                break;
            }
        }
        net.sleep(mqtt.deadline().map(Instant::as_millis), || false);
    }
    // Everything has arrived. One more message says so, and that it is the last.
    mqtt.publish(&Publish::new(TOPIC, b"end").exactly_once()).map_err(|_| "the end does not fit")?;
    while mqtt.session().outgoing_count() > 0 {
        net.poll();
        step(net, &mut mqtt, &mut inbox)?;
        net.sleep(mqtt.deadline().map(Instant::as_millis), || false);
    }
    mqtt.settle().map_err(failed)
}

/// One sale to flash; `false` if there is no room for it now.
fn sell(mqtt: &mut Durable<'_, &mut Flash>, number: u32) -> Result<bool, &'static str> {
    let mut text: String<10> = String::new();
    let _ = write!(text, "{number}"); // ten digits fit
    match mqtt.publish(&Publish::new(TOPIC, text.as_bytes()).exactly_once()) {
        Ok(_) => Ok(true),
        // No room in the session, or in the store: messages that are over make some.
        Err(PublishError::Session(_) | PublishError::Store(StoreError::Full)) => Ok(false),
        Err(PublishError::Store(error)) => Err(failed(error)),
        Err(_) => Err("not a sale"),
    }
}

/// What came, to the session; what it has to say, to the stream.
fn step(net: &mut Net, mqtt: &mut Durable<'_, &mut Flash>, inbox: &mut Inbox<'_>) -> Result<(), &'static str> {
    let mut out = [0; 256];
    loop {
        let has_read = net.socket().recv(|bytes| {
            let count = inbox.push(bytes);
            (count, count > 0)
        });
        while let Some(_event) = mqtt.poll(now(), inbox).map_err(|fault| {
            say!("{fault}");
            "the session ended in a fault"
        })? {}
        let room = out.len().min(net.socket().send_capacity() - net.socket().send_queue());
        let has_sent = match mqtt.transmit(now(), &mut out[..room]).map_err(failed)? {
            Transmit::Bytes(count) => net.socket().send_slice(&out[..count]).map_err(|_| "send")? == count,
            _ => false,
        };
        if !has_sent && !has_read.unwrap_or(false) {
            return Ok(());
        }
    }
}

fn failed(error: StoreError<FlashError>) -> &'static str {
    say!("{error}");
    "the store failed"
}

fn now() -> Instant {
    Instant::from_millis(clock::millis())
}
