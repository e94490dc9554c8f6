#![no_std]
//! Calls to a session and what must come of them, written down.
//!
//! A host plays a session against a model of a broker and writes down each [`Call`] and its outcome. A device plays the
//! calls again, and each outcome must be the same to the byte: what is sent, what is told, when the session wants to be
//! asked again. Both sides run the code of this file, so nothing can differ but the processor and the compiler's idea
//! of it: the width of `usize`, alignment, instructions that are not there.

use core::fmt::{self, Write};

use dunlin_core::{
    Event, External, Filter, Inbox, Instant, Mark, Memory, Options, Oversize, PacketId, Publish, QoS, Receipt, Replace,
    Restored, Session, Storage, Transmit, topic,
};
use serde::{Deserialize, Serialize};

/// The memory that every profile gets: small enough for a device with 16 KiB of RAM, and to run full.
pub type Room = Storage<512, 192, 6, 8, 96>;

/// A message, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
}

/// One thing that is done to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call<'a> {
    /// A new session, of one of the [`PROFILES`]; the old one is gone, as when the power fails.
    New {
        profile: u8,
    },
    Open {
        now: u64,
    },
    Lost,
    Close,
    /// Bytes come.
    Push {
        bytes: &'a [u8],
    },
    Poll {
        now: u64,
    },
    Transmit {
        now: u64,
        room: u16,
    },
    Supplied {
        count: u16,
    },
    Hold {
        now: u64,
    },
    Publish {
        message: Message<'a>,
    },
    PublishReplacing {
        message: Message<'a>,
        oldest: bool,
    },
    PublishExternal {
        message: Message<'a>,
        key: u32,
        len: u32,
    },
    Subscribe {
        first: (&'a str, u8),
        second: Option<(&'a str, u8)>,
    },
    Unsubscribe {
        filter: &'a str,
    },
    /// The message that was shown last is handled.
    Acknowledge,
    Withdraw {
        id: u16,
    },
    /// So many marks are stored.
    Store {
        count: u8,
    },
    RestoreMessage {
        id: u16,
        message: Message<'a>,
    },
    RestoreReleased {
        id: u16,
    },
    RestoreReceived {
        id: u16,
    },
    RestoreNext {
        id: u16,
    },
    /// No session is needed for this one.
    Matches {
        filter: &'a str,
        topic: &'a str,
    },
}

const TABLE: &[Filter] = &[
    Filter::literal("plant/+/set", QoS::ExactlyOnce),
    Filter::literal("plant/all/#", QoS::AtLeastOnce),
    Filter::literal("$SYS/#", QoS::AtMostOnce),
];

/// Who the client is.
pub const CLIENT: &str = "vectors";

/// Options that between them turn on all that a session can do.
pub const PROFILES: &[Options] = &[
    Options::new(CLIENT).keep_alive(30).subscriptions(TABLE),
    Options::new(CLIENT)
        .persistent()
        .keep_alive(3)
        .credentials("device", b"\x00\xffsecret")
        .will(Publish::new("plant/7/status", b"lost").at_least_once().retain())
        .subscriptions(TABLE)
        .stream_large(4),
    Options::new(CLIENT).durable().subscriptions(TABLE).window(3),
    Options::new(CLIENT).durable().manual_acks().stream_large(1).subscriptions(TABLE),
    Options::new(CLIENT).persistent().oversize(Oversize::Skip).answer_timeout(2).window(1),
];

/// What became of a call: text, and bytes as they are.
pub struct Outcome {
    bytes: [u8; Self::SIZE],
    len: usize,
}

impl Outcome {
    /// More than any outcome needs.
    pub const SIZE: usize = 768;

    pub const fn new() -> Self {
        Self { bytes: [0; Self::SIZE], len: 0 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.len += count;
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Outcome {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// A session to which calls are made.
pub struct Player<'m> {
    session: Session<'m>,
    inbox: Inbox<'m>,
    receipt: Option<Receipt>,
}

/// What the recorder must know of an outcome to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// So many bytes are in the buffer that was given.
    Sent(usize),
    /// So many bytes of an external payload are asked for.
    Wanted(usize),
    /// The stream is to be closed.
    Close,
    /// So many of the bytes that came were taken.
    Taken(usize),
    /// An event was told; there may be more.
    Told,
    /// The connection is over.
    Fault,
    /// A message was accepted under this identifier, or 0 at QoS 0.
    Accepted(u16),
}

impl<'m> Player<'m> {
    /// A new session of this profile.
    pub fn new(profile: u8, (memory, inbox): (Memory<'m>, Inbox<'m>)) -> Self {
        let options = PROFILES[usize::from(profile) % PROFILES.len()];
        Self { session: Session::new(options, memory), inbox, receipt: None }
    }

    /// The session, to be asked.
    pub fn session(&self) -> &Session<'m> {
        &self.session
    }

    /// Makes a call, which is not [`Call::New`], and writes down what came of it. What leaves is in `out`, and
    /// marks that are stored go to `stored`.
    pub fn play(
        &mut self,
        call: &Call<'_>,
        out: &mut [u8; 256],
        outcome: &mut Outcome,
        stored: &mut dyn FnMut(Mark),
    ) -> Then {
        outcome.len = 0;
        let then = self.make(call, out, outcome, stored);
        let session = &self.session;
        // Nothing here can fail: what does not fit is left out.
        let _ = write!(
            outcome,
            " | {:?} {} {} {} {} {}",
            session.deadline().map(Instant::as_millis),
            session.outgoing_count(),
            session.is_stalled(),
            session.is_idle(),
            session.ignored_count(),
            self.inbox.pending().len(),
        );
        then
    }

    fn make(
        &mut self,
        call: &Call<'_>,
        out: &mut [u8; 256],
        outcome: &mut Outcome,
        stored: &mut dyn FnMut(Mark),
    ) -> Then {
        let session = &mut self.session;
        match *call {
            Call::New { .. } => {}
            Call::Open { now } => session.open(Instant::from_millis(now), &mut self.inbox),
            Call::Lost => session.lost(),
            Call::Close => session.close(),
            Call::Push { bytes } => return Then::Taken(self.inbox.push(bytes)),
            Call::Poll { now } => return self.poll(now, outcome),
            Call::Transmit { now, room } => {
                let room = usize::from(room).min(out.len());
                let transmit = session.transmit(Instant::from_millis(now), &mut out[..room]);
                say(outcome, &transmit);
                return match transmit {
                    Transmit::Bytes(count) => {
                        outcome.put(&out[..count]);
                        Then::Sent(count)
                    }
                    Transmit::Payload { len, .. } => Then::Wanted(len),
                    Transmit::Close => {
                        say(outcome, &session.fault());
                        Then::Close
                    }
                    _ => Then::Nothing,
                };
            }
            Call::Supplied { count } => session.supplied(usize::from(count)),
            Call::Hold { now } => session.hold(Instant::from_millis(now)),
            Call::Publish { message } => return accepted(outcome, session.publish(&publish(&message))),
            Call::PublishReplacing { message, oldest } => {
                let policy = if oldest { Replace::Oldest } else { Replace::SameTopic };
                return accepted(outcome, session.publish_replacing(&publish(&message), policy));
            }
            Call::PublishExternal { message, key, len } => {
                return accepted(outcome, session.publish_external(&publish(&message), External { key, len }));
            }
            Call::Subscribe { first, second } => {
                let Some(first) = filter(first) else { return Then::Nothing };
                match second.and_then(filter) {
                    Some(second) => say(outcome, &session.subscribe(&[first, second])),
                    None => say(outcome, &session.subscribe(&[first])),
                }
            }
            Call::Unsubscribe { filter } => say(outcome, &session.unsubscribe(&[filter])),
            Call::Acknowledge => {
                let receipt = self.receipt.take();
                say(outcome, &receipt.map(|receipt| session.acknowledge(receipt)));
            }
            Call::Withdraw { id } => say(outcome, &PacketId::new(id).map(|id| session.withdraw(id))),
            Call::Store { count } => {
                for _ in 0..count {
                    let Some(mark) = session.next_mark() else { break };
                    session.mark_stored(mark);
                    say(outcome, &mark);
                    stored(mark);
                }
            }
            Call::RestoreMessage { id, message } => {
                let publish = publish(&message);
                let _ = PacketId::new(id).map(|id| say(outcome, &session.restore(Restored::Message { id, publish })));
            }
            Call::RestoreReleased { id } => self.restore(outcome, id, Restored::Released),
            Call::RestoreReceived { id } => self.restore(outcome, id, Restored::Received),
            Call::RestoreNext { id } => self.restore(outcome, id, Restored::NextId),
            Call::Matches { filter, topic } => {
                let is_filter = topic::is_filter(filter);
                let is_name = topic::is_name(topic);
                say(outcome, &(is_filter, is_name, is_filter && is_name && topic::matches(filter, topic)));
                say(outcome, &topic::Levels::of(topic));
            }
        }
        Then::Nothing
    }

    fn poll(&mut self, now: u64, outcome: &mut Outcome) -> Then {
        match self.session.poll(Instant::from_millis(now), &mut self.inbox) {
            Ok(Some(event)) => {
                say(outcome, &event);
                match event {
                    Event::Message(message) => {
                        outcome.put(message.payload);
                        self.receipt = message.receipt();
                    }
                    Event::Chunk(chunk) => self.receipt = chunk.receipt().or(self.receipt),
                    _ => {}
                }
                Then::Told
            }
            Ok(None) => Then::Nothing,
            Err(fault) => {
                say(outcome, &fault);
                Then::Fault
            }
        }
    }

    fn restore(&mut self, outcome: &mut Outcome, id: u16, entry: impl FnOnce(PacketId) -> Restored<'static>) {
        if let Some(id) = PacketId::new(id) {
            say(outcome, &self.session.restore(entry(id)));
        }
    }
}

fn publish<'a>(message: &Message<'a>) -> Publish<'a> {
    let publish = Publish::new(message.topic, message.payload).with_qos(qos(message.qos));
    if message.retain { publish.retain() } else { publish }
}

fn filter<'a>((text, quality): (&'a str, u8)) -> Option<Filter<'a>> {
    Filter::new(text, qos(quality)).ok()
}

fn qos(number: u8) -> QoS {
    QoS::from_bits(number).unwrap_or(QoS::AtMostOnce)
}

fn accepted<E: fmt::Debug>(outcome: &mut Outcome, result: Result<Option<PacketId>, E>) -> Then {
    say(outcome, &result);
    match result {
        Ok(id) => Then::Accepted(id.map_or(0, PacketId::get)),
        Err(_) => Then::Nothing,
    }
}

/// In the words of `Debug`, which are the same on every target.
fn say(outcome: &mut Outcome, what: &dyn fmt::Debug) {
    let _ = write!(outcome, "{what:?} ");
}
