#![no_std]
#![no_main]
//! The smallest useful program: readings from an interrupt go out at QoS 1, commands come in.
//!
//! This is what to begin a port with, and what `baseline` is compared with. smoltcp's buffers are read and written in
//! place: a byte is copied once between the ring of the socket and the session.
//!
//! Argument: the broker's port on the host. It ends when all readings have come back as commands.
use board::lan9118::Frames;
use board::net::Net;
use board::{clock, cost, host, say, sensor, stack};
use cortex_m_rt::entry;
use dunlin_core::{Event, Filter, Inbox, Instant, Options, Publish, QoS, Session, Storage, Transmit};
use smoltcp::iface::SocketStorage;
use static_cell::ConstStaticCell;

const OPTIONS: Options = Options::new("pump-7").keep_alive(30).subscriptions(COMMANDS);
const COMMANDS: &[Filter] = &[Filter::literal("plant/7/valve/+/set", QoS::AtLeastOnce)];
const COUNT: u32 = 8;

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static SOCKETS: ConstStaticCell<[SocketStorage; 1]> = ConstStaticCell::new([SocketStorage::EMPTY]);
    static RX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static STORAGE: ConstStaticCell<Storage<512, 256, 8>> = ConstStaticCell::new(Storage::new());
    let net = Net::new(board::start(), FRAMES.take(), SOCKETS.take(), RX.take(), TX.take(), host::seed());
    let (memory, inbox) = STORAGE.take().split();
    let session = Session::new(OPTIONS, memory);
    let verdict = run(net, session, inbox, host::number(1).unwrap_or(1883) as u16);
    say!("@ stack {}", stack::peak());
    cost::print();
    host::exit(verdict)
}

fn run(mut net: Net, mut session: Session, mut inbox: Inbox, port: u16) -> Result<(), &'static str> {
    let give_up = clock::millis() + 5000;
    let mut commands = 0;
    cost::note("start");
    loop {
        net.poll();
        if !net.socket().is_open() {
            net.connect(port).map_err(|_| "connect")?;
            session.open(now(), &mut inbox); // what was unacknowledged stays
        }
        // Before `transmit`, so that they leave now and not after the next sleep.
        while session.outgoing_count() < 8
            && let Some(reading) = sensor::take()
        {
            let topic = if reading % 2 == 0 { "plant/7/valve/1/set" } else { "plant/7/valve/2/set" };
            session.publish(&Publish::new(topic, &reading.to_be_bytes()).at_least_once()).map_err(|_| "publish")?;
        }
        if net.socket().may_send() {
            let _ = net.socket().recv(|bytes| (inbox.push(bytes), ())); // an error is an empty ring
            while let Ok(Some(event)) = session.poll(now(), &mut inbox) {
                match event {
                    Event::Subscribed(_) => {
                        cost::note("connect");
                        sensor::start(COUNT, 20, sensor::queue);
                    }
                    Event::Message(message) => {
                        if let ["plant", "7", "valve", _, "set"] = &message.levels()[..] {
                            commands += 1;
                            if commands == COUNT {
                                session.close();
                            }
                        }
                    }
                    _ => {}
                }
            }
            let transmit = net.socket().send(|ring| match session.transmit(now(), ring) {
                Transmit::Bytes(count) => (count, Transmit::Bytes(count)),
                other => (0, other),
            });
            if session.has_said_goodbye() {
                break;
            }
            if transmit == Ok(Transmit::Close) {
                net.socket().close();
                session.lost();
            }
        }
        if clock::millis() > give_up {
            return Err("too slow");
        }
        net.sleep(session.deadline().map(Instant::as_millis), sensor::has_reading);
    }
    cost::note("echo1");
    net.close();
    Ok(())
}

fn now() -> Instant {
    Instant::from_millis(clock::millis())
}
