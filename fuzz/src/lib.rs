//! What the fuzz targets share: packets that a server might send, mostly well-formed, and memory for a session.
//!
//! `cargo xtask fuzz [SECONDS]` builds the targets with coverage and runs each of them; see src/bin.

#![forbid(unsafe_code)]

use arbitrary::Arbitrary;
use dunlin_core::{Inbox, Memory, Options, Received, Slot};
use dunlin_testkit::{Message, Packet, packet::raw};

/// What a server sends.
#[derive(Arbitrary, Clone, Debug)]
pub enum Served {
    Connack {
        present: bool,
        code: u8,
    },
    Publish {
        qos: u8,
        dup: bool,
        retain: bool,
        id: u8,
        topic: u8,
        len: u16,
    },
    Puback(u8),
    Pubrec(u8),
    Pubrel(u8),
    Pubcomp(u8),
    Suback {
        id: u8,
        codes: Vec<u8>,
    },
    Unsuback(u8),
    Pingresp,
    /// A fixed header of any kind, and any body.
    Packet {
        first: u8,
        body: Vec<u8>,
    },
    Bytes(Vec<u8>),
}

impl Served {
    /// Its bytes. Identifiers are few, so that they meet.
    pub fn bytes(&self) -> Vec<u8> {
        let name = |id: &u8| u16::from(id % 8);
        match self {
            Self::Connack { present, code } => {
                Packet::Connack { session_present: *present, code: if *code < 240 { 0 } else { *code } }.encode()
            }
            Self::Publish { qos, dup, retain, id, topic, len } => {
                let topic = ["a", "a/b", "plant/7/valve", "$SYS/x"][usize::from(topic % 4)];
                let mut message = Message::new(topic, vec![*id; usize::from(len % 700)]).qos(qos % 3);
                message.retain = *retain;
                let id = if message.qos == 0 { 0 } else { name(id).max(1) };
                Packet::Publish { dup: *dup && message.qos > 0, id, message }.encode()
            }
            Self::Puback(id) => Packet::Puback(name(id)).encode(),
            Self::Pubrec(id) => Packet::Pubrec(name(id)).encode(),
            Self::Pubrel(id) => Packet::Pubrel(name(id)).encode(),
            Self::Pubcomp(id) => Packet::Pubcomp(name(id)).encode(),
            Self::Suback { id, codes } => Packet::Suback { id: name(id), codes: codes.clone() }.encode(),
            Self::Unsuback(id) => Packet::Unsuback(name(id)).encode(),
            Self::Pingresp => Packet::Pingresp.encode(),
            Self::Packet { first, body } => raw(*first, body),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// Sizes of memory and choices of options.
#[derive(Arbitrary, Clone, Debug)]
pub struct Setup {
    tx: u8,
    rx: u8,
    slots: u8,
    received: u8,
    filters: u8,
    session: u8,
    window: u8,
    keep_alive: u8,
    chunk_align: Option<u8>,
    is_manual: bool,
    skips: bool,
}

/// The memory that a [`Setup`] asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Room {
    tx: Vec<u8>,
    rx: Vec<u8>,
    slots: Vec<Slot>,
    received: Vec<Received>,
    filters: Vec<u8>,
}

impl Setup {
    /// Memory, small enough to be full soon.
    pub fn room(&self) -> Room {
        Room {
            tx: vec![0; usize::from(self.tx)],
            rx: vec![0; 16 + usize::from(self.rx)],
            slots: vec![Slot::FREE; usize::from(self.slots % 9)],
            received: vec![Received::FREE; usize::from(self.received % 9)],
            filters: vec![0; usize::from(self.filters)],
        }
    }

    /// The options.
    pub fn options(&self) -> Options<'static> {
        const TABLE: &[dunlin_core::Filter<'static>] =
            &[dunlin_core::Filter::literal("plant/#", dunlin_core::QoS::ExactlyOnce)];
        let mut options =
            Options::new("fuzz").window(1 + u16::from(self.window % 8)).keep_alive(self.keep_alive.into());
        options = match self.session % 3 {
            0 => options,
            1 => options.persistent().subscriptions(TABLE),
            _ => options.durable(),
        };
        if let Some(align) = self.chunk_align {
            options = options.stream_large(align.into());
        }
        if self.is_manual {
            options = options.manual_acks();
        }
        if self.skips {
            options = options.oversize(dunlin_core::Oversize::Skip);
        }
        options
    }
}

impl Room {
    /// Memory and inbox.
    pub fn split(&mut self) -> (Memory<'_>, Inbox<'_>) {
        let memory = Memory {
            tx: &mut self.tx,
            slots: &mut self.slots,
            received: &mut self.received,
            filters: &mut self.filters,
        };
        (memory, Inbox::new(&mut self.rx))
    }
}
