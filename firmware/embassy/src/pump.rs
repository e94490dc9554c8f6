#![no_std]
#![no_main]
//! The smallest useful program on an executor: readings from an interrupt go out at QoS 1, commands come in.
//!
//! One task reads and writes the connection, joined; any other one may publish. This is what to begin a port with, and
//! what `echo` is compared with.
//!
//! Argument: the broker's port on the host. It ends when all readings have come back as commands.
mod net;

use core::cell::Cell;

use board::embassy::Ethernet;
use board::lan9118::Frames;
use board::{clock, cost, host, say, sensor, stack};
use cortex_m_rt::entry;
use dunlin::asynch::{Clock, LinkError, Shared};
use dunlin::{Event, Filter, Inbox, Instant, Options, Publish, QoS, Session, Storage};
use embassy_executor::raw::Executor;
use embassy_futures::select::{Either3, select3};
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_time::{Duration, Timer, with_timeout};
use static_cell::{ConstStaticCell, StaticCell};

const OPTIONS: Options = Options::new("pump-8").keep_alive(30).subscriptions(COMMANDS);
const COMMANDS: &[Filter] = &[Filter::literal("plant/8/valve/+/set", QoS::AtLeastOnce)];
const COUNT: u32 = 8;

static READINGS: Channel<CriticalSectionRawMutex, u32, 8> = Channel::new();

#[derive(Clone, Copy)]
struct BoardClock;

impl Clock for BoardClock {
    fn now(&self) -> Instant {
        Instant::from_millis(clock::millis())
    }

    async fn sleep_until(&self, deadline: Instant) {
        Timer::at(embassy_time::Instant::from_millis(deadline.as_millis())).await;
    }
}

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    static STORAGE: ConstStaticCell<Storage<512, 256, 8>> = ConstStaticCell::new(Storage::new());
    static SHARED: StaticCell<Shared<'static>> = StaticCell::new();
    let ethernet = Ethernet::new(board::start(), FRAMES.take());
    board::embassy::run(EXECUTOR.init(Executor::new(core::ptr::null_mut())), |spawner| {
        let (stack, runner) = net::stack(ethernet);
        let (memory, inbox) = STORAGE.take().split();
        let mqtt = SHARED.init(Shared::new(Session::new(OPTIONS, memory)));
        // Each task is spawned once, so there is room for it.
        spawner.spawn(net::network(runner).expect("room"));
        spawner.spawn(readings(stack, mqtt, inbox).expect("room"));
    })
}

#[embassy_executor::task]
async fn readings(stack: Stack<'static>, mqtt: &'static Shared<'static>, mut inbox: Inbox<'static>) {
    let verdict = with_timeout(Duration::from_secs(5), run(stack, mqtt, &mut inbox)).await;
    say!("@ stack {}", stack::peak());
    cost::print();
    host::exit(verdict.unwrap_or(Err("too slow")))
}

async fn run(stack: Stack<'static>, mqtt: &Shared<'static>, inbox: &mut Inbox<'static>) -> Result<(), &'static str> {
    static RX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let mut socket = TcpSocket::new(stack, RX.take(), TX.take());
    cost::note("start");
    socket.connect(net::host_port(1883)).await.map_err(|_| "connect")?;
    let (reader, writer) = socket.split();
    let (mut events, pump) = mqtt.open(inbox, reader, writer, BoardClock);
    let is_over = Cell::new(false);
    let listen = async {
        let mut commands = 0;
        loop {
            match events.next(inbox).await {
                Ok(Event::Subscribed(_)) => {
                    cost::note("connect");
                    sensor::start(COUNT, 20, |reading| READINGS.try_send(reading).is_ok());
                }
                Ok(Event::Message(message)) => {
                    if let ["plant", "8", "valve", _, "set"] = &message.levels()[..] {
                        commands += 1;
                    }
                    if commands == COUNT {
                        cost::note("echo1");
                        is_over.set(true);
                        mqtt.close(); // and the pump ends
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    let publish = async {
        loop {
            let reading = READINGS.receive().await;
            let topic = if reading % 2 == 0 { "plant/8/valve/1/set" } else { "plant/8/valve/2/set" };
            if mqtt.publish(&Publish::new(topic, &reading.to_be_bytes()).at_least_once()).await.is_err() {
                return;
            }
        }
    };
    let outcome = match select3(listen, pump.run(), publish).await {
        Either3::Second(LinkError::Closed) => Ok(()),
        Either3::First(()) if is_over.get() => Ok(()), // the broker has hung up before the goodbye was acknowledged
        Either3::First(()) | Either3::Second(_) => Err("the connection is lost"),
        Either3::Third(()) => Err("publish"),
    };
    socket.close();
    let _ = socket.flush().await; // nothing follows
    outcome
}
