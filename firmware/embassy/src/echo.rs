#![no_std]
#![no_main]
//! Readings over plain TCP on an executor: the program of `pump` with a line of text in the place of a message. The
//! difference between the two is what MQTT and its asynchronous halves cost.
//!
//! Argument 1: a port on the host whose peer echoes what it gets.
mod net;

use core::fmt::Write as _;

use board::embassy::Ethernet;
use board::lan9118::Frames;
use board::{cost, host, say, sensor, stack};
use cortex_m_rt::entry;
use embassy_executor::raw::Executor;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{Read, Write};
use heapless::{String, Vec};
use static_cell::{ConstStaticCell, StaticCell};

const COUNT: u32 = 8;

static READINGS: Channel<CriticalSectionRawMutex, u32, 8> = Channel::new();

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let ethernet = Ethernet::new(board::start(), FRAMES.take());
    board::embassy::run(EXECUTOR.init(Executor::new(core::ptr::null_mut())), |spawner| {
        let (stack, runner) = net::stack(ethernet);
        // Each task is spawned once, so there is room for it.
        spawner.spawn(net::network(runner).expect("room"));
        spawner.spawn(readings(stack).expect("room"));
    })
}

#[embassy_executor::task]
async fn readings(stack: Stack<'static>) {
    let verdict = with_timeout(Duration::from_secs(5), run(stack)).await.unwrap_or(Err("too slow"));
    say!("@ stack {}", stack::peak());
    cost::print();
    host::exit(verdict)
}

/// Sends each reading as a line and wants all of them back, in order.
async fn run(stack: Stack<'static>) -> Result<(), &'static str> {
    static RX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let mut socket = TcpSocket::new(stack, RX.take(), TX.take());
    cost::note("start");
    socket.connect(net::host_port(7)).await.map_err(|_| "connect")?;
    cost::note("connect");
    let (mut reader, mut writer) = socket.split();
    sensor::start(COUNT, 20, |reading| READINGS.try_send(reading).is_ok());
    let write = async {
        loop {
            let mut line: String<16> = String::new();
            let _ = writeln!(line, "{}", READINGS.receive().await); // ten digits and a newline fit
            if writer.write_all(line.as_bytes()).await.is_err() || writer.flush().await.is_err() {
                return "send";
            }
        }
    };
    let outcome = match select(listen(&mut reader), write).await {
        Either::First(outcome) => outcome,
        Either::Second(why) => Err(why),
    };
    cost::note("echo0");
    socket.close();
    let _ = socket.flush().await; // nothing follows
    outcome
}

async fn listen(reader: &mut impl Read) -> Result<(), &'static str> {
    let mut line: Vec<u8, 64> = Vec::new();
    let mut echoed = 0;
    while echoed < COUNT {
        let mut byte = [0];
        if !matches!(reader.read(&mut byte).await, Ok(1)) {
            return Err("the peer has closed");
        }
        if byte != *b"\n" {
            line.push(byte[0]).map_err(|_| "a line that is too long")?;
            continue;
        }
        let reading = core::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
        if reading != Some(echoed) {
            return Err("not the line that was sent");
        }
        line.clear();
        echoed += 1;
    }
    Ok(())
}
