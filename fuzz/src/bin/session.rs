//! A session in any order of calls, against a server that sends anything.
//!
//! Whatever happens: no panic, no invariant broken, no loop without end, no request that fails and leaves a trace, and
//! not one byte sent that a strict server would refuse.

#![no_main]

use arbitrary::Arbitrary;
use dunlin_core::{Event, External, Filter, Inbox, Instant, Memory, Options, Publish, QoS, Replace, Session, Transmit};
use dunlin_fuzz::{Served, Setup};
use dunlin_testkit::packet::Stream;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Life {
    setup: Setup,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Open,
    Lost,
    Close,
    Wait { ms: u16, times: u8 },
    Serve(Served),
    Poll,
    Transmit { room: u8 },
    Publish { qos: u8, retain: bool, topic: u8, len: u8, replace: u8 },
    External { qos: u8, len: u16 },
    Subscribe { count: u8, which: u8 },
    Unsubscribe { which: u8 },
    Acknowledge { which: u8 },
    Withdraw { which: u8 },
    Store { count: u8 },
    Hold,
}

const FILTERS: [&str; 4] = ["a", "a/+", "plant/#", "#"];
const TOPICS: [&str; 6] = ["a", "a/b", "plant/7/valve", "", "a/#", "\u{20ac}"];

struct World<'s> {
    session: Option<Session<'s>>,
    options: Options<'s>,
    inbox: Inbox<'s>,
    now: Instant,
    sent: Stream,
    receipts: Vec<dunlin_core::Receipt>,
    ids: Vec<dunlin_core::PacketId>,
}

fuzz_target!(|life: Life| {
    let mut room = life.setup.room();
    let (memory, inbox) = room.split();
    let options = life.setup.options();
    let mut world = World {
        session: Some(Session::new(options.clone(), memory)),
        options,
        inbox,
        now: Instant::from_millis(1),
        sent: Stream::default(),
        receipts: Vec::new(),
        ids: Vec::new(),
    };
    for call in life.calls.iter().take(200) {
        world.call(call);
        if let Some(session) = &world.session {
            assert_eq!(session.invariant(), Ok(()), "after {call:?}");
        }
    }
});

impl<'s> World<'s> {
    fn session(&mut self) -> &mut Session<'s> {
        self.session.as_mut().expect("only `ask` takes it out")
    }

    fn call(&mut self, call: &Call) {
        let now = self.now;
        match call {
            Call::Open => {
                self.sent = Stream::default();
                if let Some(session) = &mut self.session {
                    session.open(now, &mut self.inbox);
                }
            }
            Call::Lost => self.session().lost(),
            Call::Close => self.session().close(),
            Call::Wait { ms, times } => {
                self.now = now.after_millis(u64::from(*ms) * u64::from(*times));
                let _ = self.session().deadline();
            }
            Call::Hold => self.session().hold(now),
            Call::Serve(served) => {
                let bytes = served.bytes();
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let n = self.inbox.push(rest);
                    rest = &rest[n..];
                    let was_stuck = n == 0;
                    self.poll();
                    if was_stuck && self.inbox.space().is_empty() {
                        self.transmit(64);
                        self.poll();
                        if self.inbox.space().is_empty() {
                            break; // it waits for the application
                        }
                    }
                }
            }
            Call::Poll => self.poll(),
            Call::Transmit { room } => self.transmit(usize::from(*room)),
            Call::Publish { qos, retain, topic, len, replace } => {
                let payload = vec![0x55; usize::from(*len)];
                let mut publish = Publish::new(TOPICS[usize::from(topic % 6)], &payload).with_qos(qos_of(*qos));
                if *retain {
                    publish = publish.retain();
                }
                let policy = [Replace::Nothing, Replace::SameTopic, Replace::Oldest][usize::from(replace % 3)];
                let id = self.ask(|session| session.publish_replacing(&publish, policy));
                self.ids.extend(id.flatten());
            }
            Call::External { qos, len } => {
                let payload = External { key: 7, len: u32::from(*len) };
                let head = Publish::new("external", b"").with_qos(qos_of(*qos));
                let id = self.ask(|session| session.publish_external(&head, payload));
                self.ids.extend(id.flatten());
            }
            Call::Subscribe { count, which } => {
                let filters: Vec<_> = (0..count % 4)
                    .filter_map(|n| Filter::new(FILTERS[usize::from(which.wrapping_add(n) % 4)], qos_of(*which)).ok())
                    .collect();
                self.ask(|session| session.subscribe(&filters));
            }
            Call::Unsubscribe { which } => {
                self.ask(|session| session.unsubscribe(&[TOPICS[usize::from(which % 6)]]));
            }
            Call::Acknowledge { which } => {
                if !self.receipts.is_empty() {
                    // Perhaps one that was used before: the server may have given its identifier to another message.
                    let receipt = self.receipts[usize::from(*which) % self.receipts.len()];
                    self.session().acknowledge(receipt);
                }
            }
            Call::Withdraw { which } => {
                if !self.ids.is_empty() {
                    let id = self.ids[usize::from(*which) % self.ids.len()];
                    self.session().withdraw(id);
                }
            }
            Call::Store { count } => {
                for _ in 0..*count {
                    let Some(mark) = self.session().next_mark() else { break };
                    assert_eq!(self.session().next_mark(), Some(mark), "asking twice gives the same answer");
                    self.session().mark_stored(mark);
                }
            }
        }
    }

    /// Makes a request, and sees to it that one that fails leaves no trace.
    fn ask<T, E>(&mut self, request: impl FnOnce(&mut Session<'s>) -> Result<T, E>) -> Option<T> {
        let session = self.session.take()?;
        let (state, memory) = session.suspend();
        let before = (state.clone(), copy(&memory));
        let mut session = Session::resume(self.options.clone(), state, memory);
        let outcome = request(&mut session).ok();
        if outcome.is_none() {
            let (state, memory) = session.suspend();
            assert!(before == (state.clone(), copy(&memory)), "a request that failed has changed something");
            session = Session::resume(self.options.clone(), state, memory);
        }
        self.session = Some(session);
        outcome
    }

    fn poll(&mut self) {
        let Some(session) = &mut self.session else { return };
        // Each event uses up bytes of the inbox or a message to report.
        for _ in 0..1000 {
            match session.poll(self.now, &mut self.inbox) {
                Ok(None) => return,
                Ok(Some(event)) => self.receipts.extend(look_at(&event)),
                Err(fault) => {
                    assert_eq!(session.poll(self.now, &mut self.inbox), Err(fault), "a fault stays");
                    return;
                }
            }
        }
        panic!("poll does not come to an end");
    }

    fn transmit(&mut self, room: usize) {
        let now = self.now;
        let mut out = vec![0; room.max(1)];
        for _ in 0..10_000 {
            let bytes = match self.session().transmit(now, &mut out) {
                Transmit::Idle | Transmit::Close => return,
                Transmit::Bytes(n) => out[..n].to_vec(),
                Transmit::Payload { key, offset, len } => {
                    assert_eq!(key, 7);
                    let n = len.min(1 + offset % 97);
                    self.session().supplied(n);
                    vec![0xAA; n]
                }
                other => panic!("{other:?} is new here"),
            };
            assert!(!bytes.is_empty());
            self.sent.push(&bytes);
            while let Some(_packet) = self.sent.next_packet().expect("a strict server takes what is sent") {}
        }
        panic!("transmit does not come to an end");
    }
}

fn qos_of(bits: u8) -> QoS {
    QoS::from_bits(bits % 3).unwrap_or(QoS::AtMostOnce)
}

fn copy(memory: &Memory<'_>) -> (Vec<u8>, Vec<dunlin_core::Slot>, Vec<dunlin_core::Received>, Vec<u8>) {
    (memory.tx.to_vec(), memory.slots.to_vec(), memory.received.to_vec(), memory.filters.to_vec())
}

/// Reads all that an event holds.
fn look_at(event: &Event<'_>) -> Option<dunlin_core::Receipt> {
    match event {
        Event::Message(message) => {
            assert!(dunlin_core::topic::is_name(&message.topic), "{:?}", message.topic);
            let _ = message.levels().len();
            message.receipt()
        }
        Event::Chunk(chunk) => {
            assert!(chunk.offset + chunk.bytes.len() <= chunk.total);
            assert_eq!(chunk.topic.is_some(), chunk.offset == 0);
            chunk.receipt()
        }
        Event::Subscribed(subscribed) => {
            assert!(subscribed.codes.granted().count() > 0);
            None
        }
        _ => None,
    }
}
