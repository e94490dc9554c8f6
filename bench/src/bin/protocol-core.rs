//! mqtt-protocol-core, a protocol without I/O. Its user writes the loop; this one batches what it writes and gives no
//! message up for resending.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use dunlin_bench::{Arguments, Meter, Mode, TOPIC};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{Packet, Qos, SubEntry, SubOpts, v3_1_1};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::{Connection, Version, role};

fn main() {
    let arguments = Arguments::read();
    let case = &arguments.case;
    if case.mode == Mode::Idle {
        let _first = Client::connect(&arguments, 0, 4096);
        let meter = Meter::start();
        let _others: Vec<_> = (1..case.count).map(|n| Client::connect(&arguments, n, 4096)).collect();
        return meter.report(Vec::new());
    }
    let mut client = Client::connect(&arguments, 0, 128 * 1024);
    let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(case.qos)];
    let body = case.body();
    let meter = Meter::start();
    let mut round_trips = Vec::new();
    match case.mode {
        Mode::Publish if case.qos == 0 => {
            for _ in 0..case.count {
                client.publish(qos, &body);
            }
            client.publish(Qos::AtLeastOnce, &body);
            while client.acknowledged == 0 {
                client.turn();
            }
        }
        Mode::Publish => {
            let mut sent = 0;
            while client.acknowledged < case.count {
                while sent < case.count && sent - client.acknowledged < usize::from(case.window) {
                    client.publish(qos, &body);
                    sent += 1;
                }
                client.turn();
            }
        }
        Mode::Receive => {
            client.subscribe(qos);
            while client.received < case.count {
                client.turn();
            }
            assert_eq!(client.bytes, case.count * case.payload);
        }
        Mode::Echo => {
            for n in 0..case.count {
                let begin = Instant::now();
                client.publish(qos, &body);
                while client.received <= n {
                    client.turn();
                }
                round_trips.push(begin.elapsed().as_nanos() as u64);
            }
        }
        Mode::Idle => {}
    }
    meter.report(round_trips);
}

struct Client {
    stream: TcpStream,
    connection: Connection<role::Client>,
    input: Vec<u8>,
    output: Vec<u8>,
    is_connected: bool,
    acknowledged: usize,
    received: usize,
    bytes: usize,
}

impl Client {
    fn connect(arguments: &Arguments, n: usize, buffer: usize) -> Self {
        let stream = TcpStream::connect((&arguments.host[..], arguments.port)).expect("a sink");
        stream.set_nodelay(true).expect("an open socket");
        let mut connection = Connection::new(Version::V3_1_1);
        connection.set_auto_pub_response(true);
        let mut client = Self {
            stream,
            connection,
            input: vec![0; buffer],
            output: Vec::new(),
            is_connected: false,
            acknowledged: 0,
            received: 0,
            bytes: 0,
        };
        let builder = v3_1_1::Connect::builder().client_id(arguments.case.client_id(n)).expect("an identifier");
        let packet = builder.clean_session(true).keep_alive(60).build().expect("a packet");
        let events = client.connection.checked_send(packet);
        client.handle(events);
        while !client.is_connected {
            client.turn();
        }
        client
    }

    fn publish(&mut self, qos: Qos, body: &[u8]) {
        let mut builder = v3_1_1::Publish::builder().topic_name(TOPIC).expect("a topic").qos(qos).payload(body);
        if qos != Qos::AtMostOnce {
            builder = builder.packet_id(self.connection.acquire_packet_id().expect("an identifier"));
        }
        let events = self.connection.checked_send(builder.build().expect("a packet"));
        self.handle(events);
        if self.output.len() >= 128 * 1024 {
            self.write();
        }
    }

    fn subscribe(&mut self, qos: Qos) {
        let entry = SubEntry::new(TOPIC, SubOpts::new().set_qos(qos)).expect("a filter");
        let id = self.connection.acquire_packet_id().expect("an identifier");
        let packet = v3_1_1::Subscribe::builder().packet_id(id).entries(vec![entry]).build().expect("a packet");
        let events = self.connection.checked_send(packet);
        self.handle(events);
    }

    fn handle(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    packet.to_buffers().iter().for_each(|bytes| self.output.extend_from_slice(bytes));
                }
                Event::NotifyPacketReceived(Packet::V3_1_1Publish(message)) => {
                    self.received += 1;
                    self.bytes += message.payload().len();
                }
                Event::NotifyPacketReceived(Packet::V3_1_1Puback(_) | Packet::V3_1_1Pubcomp(_)) => {
                    self.acknowledged += 1;
                }
                Event::NotifyPacketReceived(Packet::V3_1_1Connack(_)) => self.is_connected = true,
                Event::NotifyError(error) => panic!("{error:?}"),
                _ => {}
            }
        }
    }

    fn write(&mut self) {
        self.stream.write_all(&self.output).expect("the sink reads");
        self.output.clear();
    }

    /// Writes what there is, and reads once.
    fn turn(&mut self) {
        if !self.output.is_empty() {
            self.write();
        }
        let mut input = std::mem::take(&mut self.input);
        let n = self.stream.read(&mut input).expect("the sink writes");
        assert!(n > 0, "the sink has closed the connection");
        let mut cursor = Cursor::new(&input[..n]);
        while (cursor.position() as usize) < n {
            let events = self.connection.recv(&mut cursor);
            self.handle(events);
        }
        self.input = input;
        if !self.output.is_empty() {
            self.write();
        }
    }
}
