//! No client at all: packets that were made before, written and read in large pieces. What any client must pay.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use dunlin_bench::{Arguments, Case, Meter, Mode, TOPIC, wire};

fn main() {
    let arguments = Arguments::read();
    let case = &arguments.case;
    let mut stream = connect(&arguments, 0);
    if case.mode == Mode::Idle {
        let meter = Meter::start();
        let _others: Vec<_> = (1..case.count).map(|n| connect(&arguments, n)).collect();
        return meter.report(Vec::new());
    }
    let (packet, id_at) = wire::publish(TOPIC, case.qos, &case.body());
    let meter = Meter::start();
    let mut round_trips = Vec::new();
    match (case.mode, case.qos) {
        (Mode::Publish, 0) => publish_qos0(&mut stream, case, &packet),
        (Mode::Publish, _) => publish(&mut stream, case, &packet, id_at),
        (Mode::Receive, _) => receive(&mut stream, case, &packet, id_at),
        (Mode::Echo, _) => {
            let mut answered = [&packet[..], &[0x40, 2, 0, 1]].concat();
            answered[id_at + 1] = 1;
            let mut came = vec![0; answered.len()];
            for _ in 0..case.count {
                let begin = Instant::now();
                stream.write_all(&answered).expect("the sink reads");
                stream.read_exact(&mut came).expect("the sink answers");
                round_trips.push(begin.elapsed().as_nanos() as u64);
            }
        }
        (Mode::Idle, _) => {}
    }
    meter.report(round_trips);
}

fn connect(arguments: &Arguments, n: usize) -> TcpStream {
    let mut stream = TcpStream::connect((&arguments.host[..], arguments.port)).expect("a sink");
    stream.set_nodelay(true).expect("an open socket");
    let id = arguments.case.client_id(n);
    let mut connect = Vec::new();
    wire::header(0x10, 12 + id.len(), &mut connect);
    connect.extend(b"\x00\x04MQTT\x04\x02\x00\x3c\x00");
    connect.push(id.len() as u8);
    connect.extend(id.as_bytes());
    stream.write_all(&connect).expect("the sink reads");
    stream.read_exact(&mut [0; 4]).expect("CONNACK");
    stream
}

fn publish_qos0(stream: &mut TcpStream, case: &Case, packet: &[u8]) {
    let batch = (256 * 1024 / packet.len()).max(1);
    let packets = packet.repeat(batch);
    let mut left = case.count;
    while left > 0 {
        let n = left.min(batch);
        stream.write_all(&packets[..n * packet.len()]).expect("the sink reads");
        left -= n;
    }
    // An answer to the last one says that all have arrived.
    stream.write_all(&[0xC0, 0]).expect("the sink reads");
    stream.read_exact(&mut [0; 2]).expect("PINGRESP");
}

/// Writes a window full of packets whenever the one before is acknowledged.
fn publish(stream: &mut TcpStream, case: &Case, packet: &[u8], id_at: usize) {
    let window = usize::from(case.window);
    let mut packets = packet.repeat(window);
    for (n, packet) in packets.chunks_exact_mut(packet.len()).enumerate() {
        packet[id_at..id_at + 2].copy_from_slice(&(n as u16 + 1).to_be_bytes());
    }
    let mut acks = vec![0; 4 * window];
    let mut left = case.count;
    while left > 0 {
        let n = left.min(window);
        stream.write_all(&packets[..n * packet.len()]).expect("the sink reads");
        stream.read_exact(&mut acks[..4 * n]).expect("PUBACK or PUBREC");
        if case.qos == 2 {
            for ack in acks[..4 * n].chunks_exact_mut(4) {
                ack[0] = 0x62;
            }
            stream.write_all(&acks[..4 * n]).expect("the sink reads");
            stream.read_exact(&mut acks[..4 * n]).expect("PUBCOMP");
        }
        left -= n;
    }
}

fn receive(stream: &mut TcpStream, case: &Case, packet: &[u8], id_at: usize) {
    let mut subscribe = Vec::new();
    wire::header(0x82, 5 + TOPIC.len(), &mut subscribe);
    subscribe.extend([0, 1, 0, TOPIC.len() as u8]);
    subscribe.extend(TOPIC.as_bytes());
    subscribe.push(case.qos);
    stream.write_all(&subscribe).expect("the sink reads");
    stream.read_exact(&mut [0; 5]).expect("SUBACK");
    let mut buffer = vec![0; 256 * 1024];
    if case.qos == 0 {
        let mut left = case.count * packet.len();
        while left > 0 {
            left -= stream.read(&mut buffer).expect("the sink writes");
        }
        return;
    }
    let (mut filled, mut ended) = (0, 0);
    let mut acks = Vec::new();
    while ended < case.count {
        filled += stream.read(&mut buffer[filled..]).expect("the sink writes");
        let mut at = 0;
        acks.clear();
        while filled - at >= 4 {
            let rest = &buffer[at..filled];
            if rest[0] == 0x62 {
                acks.extend([0x70, 2, rest[2], rest[3]]);
                ended += 1;
                at += 4;
            } else if rest.len() >= packet.len() {
                acks.extend([if case.qos == 1 { 0x40 } else { 0x50 }, 2, rest[id_at], rest[id_at + 1]]);
                ended += usize::from(case.qos == 1);
                at += packet.len();
            } else {
                break;
            }
        }
        stream.write_all(&acks).expect("the sink reads");
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}
