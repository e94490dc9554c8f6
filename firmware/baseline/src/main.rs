#![no_std]
#![no_main]
//! A superloop that sends readings and takes commands over plain TCP: the program of `superloop`'s `pump` with a line of
//! text in the place of a message. The difference between the two in flash, RAM and stack is what MQTT costs.
//!
//! Argument 1: a port on the host whose peer echoes what it gets.
use core::fmt::Write;

use board::{clock, cost, host, lan9118::Frames, net, say, sensor, stack};
use cortex_m_rt::entry;
use heapless::{String, Vec};
use smoltcp::iface::SocketStorage;
use static_cell::ConstStaticCell;

const COUNT: u32 = 8;

#[entry]
fn main() -> ! {
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new(Frames::new());
    static SOCKETS: ConstStaticCell<[SocketStorage; 1]> = ConstStaticCell::new([SocketStorage::EMPTY]);
    static RX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    static TX: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
    let net = net::Net::new(board::start(), FRAMES.take(), SOCKETS.take(), RX.take(), TX.take(), host::seed());
    let verdict = run(net, host::number(1).unwrap_or(7) as u16);
    say!("@ stack {}", stack::peak());
    cost::print();
    host::exit(verdict)
}

/// Sends each reading as a line and wants all of them back, in order.
fn run(mut net: net::Net, port: u16) -> Result<(), &'static str> {
    let give_up = clock::millis() + 5000;
    let mut line: Vec<u8, 64> = Vec::new();
    let mut echoed = 0;
    let mut is_connected = false;
    cost::note("start");
    net.connect(port).map_err(|_| "connect")?;
    while echoed < COUNT {
        net.poll();
        let socket = net.socket();
        if socket.may_send() && !is_connected {
            is_connected = true;
            cost::note("connect");
            sensor::start(COUNT, 20, sensor::queue);
        }
        if !socket.is_open() {
            return Err("the peer has closed");
        }
        while socket.can_send()
            && let Some(reading) = sensor::take()
        {
            let mut text: String<16> = String::new();
            let _ = writeln!(text, "{reading}"); // ten digits and a newline fit
            socket.send_slice(text.as_bytes()).map_err(|_| "send")?;
        }
        let mut byte = [0];
        while socket.recv_slice(&mut byte) == Ok(1) {
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
        if clock::millis() > give_up {
            return Err("the peer is silent");
        }
        net.sleep(Some(give_up), sensor::has_reading);
    }
    cost::note("echo0");
    net.close();
    Ok(())
}
