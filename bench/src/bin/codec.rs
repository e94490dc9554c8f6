//! `codec LIBRARY encode|decode PAYLOAD COUNT`: a PUBLISH at QoS 0, from topic and payload to bytes, or back, so many
//! times.
//!
//! dunlin has no codec that could be called alone: what is counted is the session, from `publish` to the bytes that
//! `transmit` gives, and from bytes to the event of `poll`.

use std::hint::black_box;

use bytes::BytesMut;
use dunlin::{Event, Inbox, Instant, Options, Publish, Session, Storage, Transmit};
use dunlin_bench::{TOPIC, wire};
use mqtt_protocol_core::mqtt::packet::{Qos, v3_1_1};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [library, direction, payload, count] = &arguments[..] else { panic!("LIBRARY encode|decode PAYLOAD COUNT") };
    let payload: Vec<u8> = vec![7; payload.parse().expect("a length")];
    let count: usize = count.parse().expect("a number");
    let (packet, _) = wire::publish(TOPIC, 0, &payload);
    let is_encode = direction == "encode";
    match &library[..] {
        "dunlin" => dunlin(is_encode, &payload, &packet, count),
        "mqttbytes" => mqttbytes(is_encode, &payload, &packet, count),
        "rumqttc" => rumqttc(is_encode, &payload, &packet, count),
        "mqtt-protocol-core" => protocol_core(is_encode, &payload, &packet, count),
        other => panic!("{other}?"),
    }
}

fn dunlin(is_encode: bool, payload: &[u8], packet: &[u8], count: usize) {
    let now = Instant::from_millis(0);
    let mut storage: Box<Storage<8192, 32, 4>> = Box::default();
    let (memory, mut small) = storage.split();
    let mut session = Session::new(Options::new("codec").keep_alive(0), memory);
    let mut out = vec![0; 8192];
    session.open(now, &mut small);
    let Transmit::Bytes(_) = session.transmit(now, &mut out) else { panic!("no CONNECT") };
    small.push(&[0x20, 2, 0, 0]);
    assert!(matches!(session.poll(now, &mut small), Ok(Some(Event::Connected { .. }))));
    let publish = Publish::new(TOPIC, payload);
    let mut buffer = vec![0; 64 * 1024];
    let mut inbox = Inbox::new(&mut buffer);
    let mut seen = 0;
    if is_encode {
        for _ in 0..count {
            session.publish(black_box(&publish)).expect("room");
            let Transmit::Bytes(n) = session.transmit(now, &mut out) else { panic!("nothing to send") };
            black_box(&out[..n]);
        }
        return;
    }
    while seen < count {
        while inbox.space().len() > packet.len() {
            inbox.push(packet);
        }
        while let Some(event) = session.poll(now, &mut inbox).expect("no fault") {
            let Event::Message(message) = event else { panic!("no message") };
            black_box((message.topic, message.payload));
            seen += 1;
        }
    }
}

fn mqttbytes(is_encode: bool, payload: &[u8], packet: &[u8], count: usize) {
    use mqttbytes::{QoS, v4};
    let payload = bytes::Bytes::from(payload.to_vec());
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    for _ in 0..count {
        buffer.clear();
        if is_encode {
            let publish = v4::Publish::from_bytes(black_box(TOPIC), QoS::AtMostOnce, payload.clone());
            publish.write(&mut buffer).expect("room");
            black_box(&buffer);
        } else {
            buffer.extend_from_slice(black_box(packet));
            black_box(v4::read(&mut buffer, 1 << 20).expect("a packet"));
        }
    }
}

fn rumqttc(is_encode: bool, payload: &[u8], packet: &[u8], count: usize) {
    use rumqttc::QoS;
    use rumqttc::mqttbytes::v4;
    let payload = bytes::Bytes::from(payload.to_vec());
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    for _ in 0..count {
        buffer.clear();
        if is_encode {
            let publish = v4::Publish::from_bytes(black_box(TOPIC), QoS::AtMostOnce, payload.clone());
            publish.write(&mut buffer).expect("room");
            black_box(&buffer);
        } else {
            buffer.extend_from_slice(black_box(packet));
            black_box(v4::Packet::read(&mut buffer, 1 << 20).expect("a packet"));
        }
    }
}

fn protocol_core(is_encode: bool, payload: &[u8], packet: &[u8], count: usize) {
    let (head, _) = wire::lengths(packet).expect("a packet");
    let mut out: Vec<u8> = Vec::with_capacity(64 * 1024);
    for _ in 0..count {
        if is_encode {
            out.clear();
            let builder = v3_1_1::Publish::builder().topic_name(black_box(TOPIC)).expect("a topic");
            let publish = builder.qos(Qos::AtMostOnce).payload(black_box(payload)).build().expect("a packet");
            publish.to_buffers().iter().for_each(|bytes| out.extend_from_slice(bytes));
            black_box(&out);
        } else {
            let body: std::sync::Arc<[u8]> = black_box(&packet[head..]).into();
            black_box(v3_1_1::Publish::parse(0, body).expect("a packet"));
        }
    }
}
