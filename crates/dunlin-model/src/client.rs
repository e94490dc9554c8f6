//! The shipped session in a form that can be copied, compared and hashed, and what a driver does with it.

#[cfg_attr(not(feature = "whole"), path = "client/small.rs")]
#[cfg_attr(feature = "whole", path = "client/whole.rs")]
mod parts;

use dunlin_core::{Event, Fault, Inbox, Instant, Memory, PacketId, QoS, Received, Session, Slot, Suspended, Transmit};

use crate::packet::Packet;
use parts::{FILTERS, OPTIONS};

const SLOTS: usize = 3;
const TX: usize = SLOTS * 16;
const RECEIVED: usize = 3;
const INBOX: usize = 48;
const NOW: Instant = Instant::from_millis(1);

/// A session, its memory, and the bytes it has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    session: Suspended,
    tx: [u8; TX],
    slots: [Slot; SLOTS],
    received: [Received; RECEIVED],
    filters: [u8; FILTERS],
    inbox: Vec<u8>,
}

/// What the application was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    Connected,
    Message { message: u8, qos: u8, dup: bool },
    Delivered(PacketId),
    Forgotten(PacketId),
    Subscribed,
}

impl Client {
    /// A new session.
    fn new() -> Self {
        Self {
            session: blank(),
            tx: [0; TX],
            slots: [Slot::FREE; SLOTS],
            received: [Received::FREE; RECEIVED],
            filters: [0; FILTERS],
            inbox: Vec::new(),
        }
    }

    /// Puts the session together, lets `what` use it, and takes it apart again.
    pub fn with<R>(&mut self, what: impl FnOnce(&mut Session<'_>, &mut Inbox<'_>) -> R) -> R {
        let mut bytes = [0; INBOX];
        let mut inbox = Inbox::new(&mut bytes);
        assert_eq!(inbox.push(&self.inbox), self.inbox.len(), "what was in the inbox fits it");
        let suspended = std::mem::replace(&mut self.session, blank());
        let memory = Memory {
            tx: &mut self.tx,
            slots: &mut self.slots,
            received: &mut self.received,
            filters: &mut self.filters,
        };
        let mut session = Session::resume(OPTIONS, suspended, memory);
        let result = what(&mut session, &mut inbox);
        self.inbox = inbox.pending().to_vec();
        self.session = session.suspend().0;
        result
    }

    pub fn open(&mut self) {
        self.with(|session, inbox| session.open(NOW, inbox));
    }

    pub fn lost(&mut self, reuse_ids: bool) {
        self.with(|session, inbox| {
            session.lost();
            inbox.clear();
            if reuse_ids {
                parts::reuse_ids(session);
            }
        });
    }

    pub fn withdraw(&mut self, id: PacketId) -> bool {
        self.with(|session, _| session.withdraw(id))
    }

    #[cfg_attr(not(feature = "whole"), expect(unused_variables, reason = "payloads are in the session"))]
    /// The next packet that leaves, written byte by byte; with `cut_short`, all of it but the last byte. A payload
    /// outside the session is asked for by its number.
    pub fn transmit(&mut self, cut_short: bool, has_payload: impl Fn(u8) -> bool) -> Transmitted {
        self.with(|session, _| {
            let mut bytes = Vec::new();
            loop {
                let mut byte = [0];
                match session.transmit(NOW, &mut byte) {
                    Transmit::Bytes(_) => bytes.extend(byte),
                    #[cfg(feature = "whole")]
                    Transmit::Payload { key, .. } => {
                        let number = u8::try_from(key).expect("keys are message numbers");
                        if !has_payload(number) {
                            return Transmitted::NoPayload;
                        }
                        bytes.push(number);
                        session.supplied(1);
                    }
                    _ if bytes.is_empty() => return Transmitted::Nothing,
                    _ => return Transmitted::NoPayload,
                }
                match bytes[..] {
                    // Every packet of the model is shorter than 128 bytes.
                    [_, remaining, ..] if cut_short && bytes.len() == usize::from(remaining) + 1 => {
                        return Transmitted::Part;
                    }
                    [_, remaining, ..] if bytes.len() == usize::from(remaining) + 2 => {
                        let packet = Packet::decode(&bytes).expect("a whole packet");
                        return Transmitted::Packet(packet);
                    }
                    _ => {}
                }
            }
        })
    }

    /// What happened next. `Err`: the session gave up the connection.
    pub fn poll(&mut self) -> Result<Option<Told>, Fault> {
        self.with(|session, inbox| {
            let Some(event) = session.poll(NOW, inbox)? else { return Ok(None) };
            Ok(Some(match event {
                Event::Connected { .. } => Told::Connected,
                Event::Message(m) => Told::Message { message: m.payload[0], qos: m.qos.bits(), dup: m.dup },
                Event::Delivered(id) => Told::Delivered(id),
                Event::Forgotten(id) => Told::Forgotten(id),
                Event::Subscribed(_) => Told::Subscribed,
                other => panic!("the model has no {other:?}"),
            }))
        })
    }

    pub fn push(&mut self, packet: Packet) {
        self.inbox.extend(packet.encode());
    }
}

/// What left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmitted {
    Nothing,
    /// All of a packet but its last byte.
    Part,
    Packet(Packet),
    /// A payload was asked for that is not kept any more, or a packet stopped in the middle.
    NoPayload,
}

/// The quality of service of a message is the lowest two bits of its number.
pub fn qos_of(message: u8) -> u8 {
    message & 3
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits).expect("0, 1 or 2")
}

fn blank() -> Suspended {
    Session::new(OPTIONS, Memory { tx: &mut [], slots: &mut [], received: &mut [], filters: &mut [] }).suspend().0
}
