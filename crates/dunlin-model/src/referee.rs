//! What must not happen, from the standard and from what the documentation promises.
//!
//! Sees packets, what the application asked and was told, and when the power failed. Never the session's own state:
//! a failure must not be excused by the code that failed.

use std::fmt;

use crate::client::{Told, qos_of};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A message at QoS 2 was taken twice.
    Doubled,
    /// A message overtook another one.
    Order,
    /// A message that `publish` accepted never arrives.
    Lost,
    /// A message that `publish` refused arrived.
    RefusedArrived,
    /// A message was reported as delivered or forgotten and is not.
    Untrue,
    /// PUBLISH again without DUP.
    NoDup,
    /// DUP in a session that has no past.
    WrongDup,
    /// An identifier that is in use names another message.
    IdReused,
    /// An acknowledgement answers nothing, or overtakes another one.
    AckOrder,
    /// PUBREL for an exchange of a session that is gone.
    Stranger,
    /// A packet that has no place there.
    OutOfPlace,
    /// An incoming message was shown again although its PUBREC had left, or without DUP.
    ShownAgain,
    /// An incoming message was acknowledged for good and never shown.
    Swallowed,
    /// The payload of an open message is not kept any more.
    NoPayload,
    /// Nothing is under way, and an exchange is not over.
    Stuck,
    /// What is under way goes on for ever.
    Endless,
    /// The session gave up a connection to a broker that did nothing wrong.
    Fault,
    /// The session's own invariant does not hold.
    Invariant(&'static str),
    /// What was stored cannot be restored.
    Restore(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A set of messages, by the index that is in their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(u16);

impl Set {
    pub fn has(self, message: u8) -> bool {
        self.0 & bit(message) != 0
    }

    pub fn add(&mut self, message: u8) {
        self.0 |= bit(message);
    }

    pub fn remove(&mut self, message: u8) {
        self.0 &= !bit(message);
    }
}

fn bit(message: u8) -> u16 {
    1 << (message >> 2)
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Referee {
    /// Outgoing messages.
    accepted: Set,
    refused: Set,
    taken: Set,
    told_forgotten: Set,
    /// The broker forgot a session in which the exchange was open: MQTT itself promises nothing any more.
    excused: Set,
    /// The names of outgoing messages: identifier and number, the newest last.
    names: Vec<(u16, u8)>,
    has_forgotten: bool,
    /// The broker said that the session is new and the stream was cut before the client heard it. From then on it
    /// says that the session is there, and means the new one: MQTT 3.1.1 gives the client no way to tell.
    is_misled: bool,
    /// The client heard it, and lost its power before it could act on it.
    has_half_heard: bool,
    /// Incoming messages.
    shown: Set,
    /// The power failed after it was shown and before PUBREC (QoS 2) left.
    may_repeat: Set,
    /// PUBREC left.
    recorded: Set,
    /// In a session that the client may not know to be new, the first PUBLISH was lost if it has not been shown, and
    /// the next one has DUP: the client cannot tell it from one of the old session.
    unheard: Set,
}

impl Referee {
    // Outgoing

    pub fn named(&mut self, id: u16, message: u8) {
        self.names.retain(|(_, other)| *other != message);
        self.names.push((id, message));
    }

    /// The message that this identifier was last given to.
    pub fn message(&self, id: u16) -> Option<u8> {
        self.names.iter().rev().find(|(other, _)| *other == id).map(|(_, message)| *message)
    }

    pub fn accepted(&mut self, message: u8) {
        self.accepted.add(message);
    }

    pub fn refused(&mut self, message: u8) {
        self.refused.add(message);
    }

    pub fn taken(&mut self, message: u8, all: &[u8]) -> Result<(), Verdict> {
        if self.refused.has(message) {
            return Err(Verdict::RefusedArrived);
        }
        if self.taken.has(message) {
            let is_double = qos_of(message) == 2 && !self.excused.has(message);
            return if is_double { Err(Verdict::Doubled) } else { Ok(()) };
        }
        self.taken.add(message);
        let later = all.iter().filter(|other| **other > message && qos_of(**other) == qos_of(message));
        if later.copied().any(|other| self.taken.has(other)) && !self.has_forgotten {
            return Err(Verdict::Order);
        }
        Ok(())
    }

    /// The broker lost the session; these exchanges were open there.
    pub fn forgot(&mut self, open: impl Iterator<Item = u8>) {
        self.has_forgotten = true;
        for message in open {
            self.excused.add(message);
        }
    }

    /// The client never heard that the session is new.
    pub fn misled(&mut self) {
        self.is_misled = self.has_forgotten;
    }

    pub fn told(&mut self, told: Told, inbound: &[u8]) -> Result<(), Verdict> {
        match told {
            Told::Connected | Told::Subscribed => Ok(()),
            Told::Delivered(id) => match self.message(id.get()) {
                Some(message) if self.taken.has(message) => Ok(()),
                Some(message) if self.is_unknown(message) => Ok(()),
                _ => Err(Verdict::Untrue),
            },
            Told::Forgotten(id) => match self.message(id.get()) {
                Some(message) if self.has_forgotten => {
                    self.told_forgotten.add(message);
                    Ok(())
                }
                _ => Err(Verdict::Untrue),
            },
            Told::Message { message, qos, dup } => self.showed(message, qos, dup, inbound),
        }
    }

    // Incoming

    fn showed(&mut self, message: u8, qos: u8, dup: bool, inbound: &[u8]) -> Result<(), Verdict> {
        let is_again = self.shown.has(message);
        let is_allowed = match qos {
            2 => dup && self.may_repeat.has(message) && !self.recorded.has(message),
            _ => dup,
        };
        if is_again && !is_allowed {
            return Err(Verdict::ShownAgain);
        }
        self.may_repeat.remove(message);
        self.shown.add(message);
        let later = inbound.iter().filter(|other| **other > message && qos_of(**other) == qos_of(message));
        if !is_again && later.copied().any(|other| self.shown.has(other)) {
            return Err(Verdict::Order);
        }
        Ok(())
    }

    /// The stream was cut after this message was sent.
    pub fn unheard(&mut self, message: u8) {
        if self.is_misled || self.has_half_heard {
            self.unheard.add(message);
        }
    }

    /// PUBREC left for this incoming message.
    pub fn recorded(&mut self, message: u8) {
        self.recorded.add(message);
    }

    /// The client lost its power. It had subscribed in the session that the broker has now, or not.
    pub fn power_cut(&mut self, had_subscribed: bool) {
        self.may_repeat = self.shown;
        self.has_half_heard |= self.has_forgotten;
        // What the old session left behind is dropped from the store before SUBSCRIBE leaves.
        self.is_misled |= self.has_forgotten && !had_subscribed;
    }

    /// The broker was told that this message is handled for good.
    pub fn ended(&self, message: u8) -> Result<(), Verdict> {
        if self.shown.has(message) || self.unheard.has(message) { Ok(()) } else { Err(Verdict::Swallowed) }
    }

    /// The exchange was open in a session that the broker lost, and the client may never have known.
    fn is_unknown(&self, message: u8) -> bool {
        (self.is_misled || self.has_half_heard) && self.excused.has(message)
    }

    // The end

    /// Everything has been said and answered.
    pub fn at_rest(&self, all: &[u8]) -> Result<(), Verdict> {
        let is_lost = |message: u8| {
            let is_open = self.accepted.has(message) && !self.taken.has(message);
            is_open && !self.told_forgotten.has(message) && !self.is_unknown(message)
        };
        if all.iter().any(|message| is_lost(*message)) { Err(Verdict::Lost) } else { Ok(()) }
    }
}
