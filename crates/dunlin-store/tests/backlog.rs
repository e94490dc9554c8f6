//! A device comes back to a server that has kept many messages for it.
//!
//! mosquitto 2.0.11 answers each PUBCOMP with two messages while its queue is not empty, so that more and more QoS 2
//! exchanges are open at a time, whatever its `max_inflight_messages`. Tables that are too small for that cost
//! connections, never messages.

use dunlin_core::{Event, Filter, Memory, Options, Publish, QoS, Received, Session, Slot, Storage};
use dunlin_store::{Durable, MemoryStore};
use dunlin_testkit::mosquitto::Mosquitto;

use crate::kill::Link;

const FILTERS: &[Filter<'static>] = &[Filter::literal("till/#", QoS::ExactlyOnce)];
const BACKLOG: u32 = 300;

/// What became of the backlog at one device.
#[derive(Debug)]
struct Outcome {
    received: Vec<u32>,
    connections: u32,
    /// Connections that ended without bringing anything.
    in_vain: u32,
}

/// A device with so many entries for messages received, until it has enough.
fn device(port: u16, entries: usize, mut is_enough: impl FnMut(&Session<'_>, &[u32]) -> bool) -> Outcome {
    let mut received_table = vec![Received::FREE; entries];
    let (mut tx, mut slots, mut filters) = ([0; 64], [Slot::FREE; 2], [0; 64]);
    let mut rx = [0; 1024];
    let mut inbox = dunlin_core::Inbox::new(&mut rx);
    let memory = Memory { tx: &mut tx, slots: &mut slots, received: &mut received_table, filters: &mut filters };
    let options = Options::new("office").durable().keep_alive(5).subscriptions(FILTERS);
    let mut mqtt = Durable::recover(Session::new(options, memory), MemoryStore::new()).unwrap();
    let mut outcome = Outcome { received: Vec::new(), connections: 0, in_vain: 0 };
    loop {
        let mut link = Link::open(port).unwrap();
        mqtt.open(link.now(), &mut inbox).unwrap();
        outcome.connections += 1;
        let before = outcome.received.len();
        loop {
            let turn = link.turn(&mut mqtt, &mut inbox, |event| {
                if let Event::Message(message) = event {
                    outcome.received.push(message.text().unwrap().parse().unwrap());
                }
            });
            if let Err(reason) = turn {
                assert_eq!(reason, dunlin_core::Fault::TooMany.to_string());
                link.finish();
                break;
            }
            if is_enough(mqtt.session(), &outcome.received) {
                return outcome;
            }
        }
        outcome.in_vain += u32::from(outcome.received.len() == before);
        mqtt.lost();
    }
}

/// Publishes the numbers up to `BACKLOG`, each when the one before it is with the server.
fn fill(port: u16) {
    let mut storage: Storage<2048, 256, 16> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut mqtt = Durable::recover(Session::new(Options::new("till").durable(), memory), MemoryStore::new()).unwrap();
    let mut link = Link::open(port).unwrap();
    mqtt.open(link.now(), &mut inbox).unwrap();
    let mut next = 1;
    while next <= BACKLOG || mqtt.session().outgoing_count() > 0 {
        while next <= BACKLOG && mqtt.session().outgoing_count() < 8 {
            mqtt.publish(&Publish::new("till/sale", next.to_string().as_bytes()).exactly_once()).unwrap();
            next += 1;
        }
        link.turn(&mut mqtt, &mut inbox, |_| {}).unwrap();
    }
}

fn backlog_for(entries: usize) -> Outcome {
    let broker = Mosquitto::start();
    device(broker.port(), 4, |session, _| session.is_connected() && session.is_idle());
    fill(broker.port());
    device(broker.port(), entries, |_, received| received.len() as u32 >= BACKLOG)
}

#[test]
fn a_backlog_arrives_once_and_in_order_whatever_the_table() {
    let expected: Vec<_> = (1..=BACKLOG).collect();
    for entries in [2, 21, BACKLOG as usize + 1] {
        let outcome = backlog_for(entries);
        assert_eq!(outcome.received, expected, "each once, in order");
        assert!(entries <= BACKLOG as usize || outcome.connections == 1, "{outcome:?}");
        println!(
            "{BACKLOG} messages waiting, {entries} entries: {} connections, {} of them brought nothing",
            outcome.connections, outcome.in_vain
        );
    }
}
