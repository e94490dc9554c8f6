//! A broker in the fewest lines that keep MQTT's rules, for one client and one topic.

use crate::packet::Packet;
use crate::referee::Verdict;

/// Messages that are under way to the client at a time.
const IN_FLIGHT: usize = 2;

/// Its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broker {
    /// It keeps a session for the client.
    has_session: bool,
    connected: bool,
    /// The session began with this connection.
    is_fresh: bool,
    subscribed: bool,
    /// QoS 2 messages from the client whose PUBREL has not come: identifier and number.
    incoming: Vec<(u16, u8)>,
    /// Messages from the client that came in this session and are not over.
    seen: Vec<u8>,
    /// Messages for the client, in order.
    outgoing: Vec<Outgoing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Outgoing {
    id: u16,
    message: u8,
    /// PUBLISH has left, so that another one has DUP.
    sent: bool,
    /// PUBREC came.
    released: bool,
}

/// What a packet from the client meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Nothing,
    /// The broker is responsible for this message now.
    Taken(u8),
    /// PUBREL came for this message.
    Released(u8),
    /// The client says that it has handled this message, for good.
    Ended(u8),
}

impl Broker {
    /// The stream is gone.
    pub fn hung_up(&mut self) {
        self.connected = false;
    }

    /// A restart without its session.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Messages from the client whose exchange is not over.
    pub fn unfinished(&self) -> impl Iterator<Item = u8> + '_ {
        self.seen.iter().copied().chain(self.incoming.iter().map(|(_, message)| *message))
    }

    pub fn has_session(&self) -> bool {
        self.has_session
    }

    /// The message for the client that goes by this identifier.
    pub fn message(&self, id: u16) -> Option<u8> {
        self.outgoing.iter().find(|outgoing| outgoing.id == id).map(|outgoing| outgoing.message)
    }

    /// Messages for the client whose PUBLISH has left: another one has DUP.
    pub fn sent(&self) -> impl Iterator<Item = u8> + '_ {
        self.outgoing.iter().filter(|outgoing| outgoing.sent).map(|outgoing| outgoing.message)
    }

    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// Whether it would take a message for the client.
    pub fn has_room(&self) -> bool {
        self.subscribed && self.outgoing.len() < IN_FLIGHT
    }

    /// Nothing is under way and the client is subscribed.
    pub fn is_idle(&self) -> bool {
        self.incoming.is_empty() && self.outgoing.is_empty() && self.subscribed
    }

    /// Someone else publishes. Sent at once if the client is there.
    pub fn publish(&mut self, message: u8) -> Option<Packet> {
        let id = (1..).find(|id| self.outgoing.iter().all(|other| other.id != *id))?;
        // To an absent client it goes out at the next connection.
        self.outgoing.push(Outgoing { id, message, sent: self.connected, released: false });
        self.connected.then_some(Packet::Publish { dup: false, qos: message & 3, id, message })
    }

    /// A packet from the client, and the answers to it.
    pub fn take(
        &mut self,
        packet: Packet,
        on_release: bool,
        out: &mut impl Extend<Packet>,
    ) -> Result<Meaning, Verdict> {
        if self.connected == (packet == Packet::Connect) {
            return Err(Verdict::OutOfPlace);
        }
        match packet {
            Packet::Connect => {
                self.connected = true;
                self.is_fresh = !self.has_session;
                out.extend([Packet::Connack { resumed: self.has_session }]);
                self.has_session = true;
                // [MQTT-4.4.0-1]
                out.extend(self.outgoing.iter().map(|outgoing| match *outgoing {
                    Outgoing { id, released: true, .. } => Packet::Pubrel(id),
                    Outgoing { id, message, sent, .. } => {
                        Packet::Publish { dup: sent, qos: message & 3, id, message } // [MQTT-3.3.1-1]
                    }
                }));
                self.outgoing.iter_mut().for_each(|outgoing| outgoing.sent = true);
                Ok(Meaning::Nothing)
            }
            Packet::Publish { dup, qos, id, message } => self.on_publish(dup, qos, id, message, on_release, out),
            Packet::Pubrel(id) => {
                let known = self.incoming.iter().position(|(other, _)| *other == id);
                if known.is_none() && self.is_fresh {
                    return Err(Verdict::Stranger); // the session that knew it is gone
                }
                out.extend([Packet::Pubcomp(id)]);
                let Some(at) = known else { return Ok(Meaning::Nothing) };
                let (_, message) = self.incoming.remove(at);
                self.seen.retain(|seen| *seen != message);
                Ok(Meaning::Released(message))
            }
            Packet::Puback(id) => {
                // [MQTT-4.6.0-2] In the order of the PUBLISHes.
                let first = self.outgoing.iter().position(|outgoing| outgoing.message & 3 == 1);
                let Some(at) = first.filter(|at| self.outgoing[*at].id == id) else {
                    return Err(Verdict::AckOrder);
                };
                Ok(Meaning::Ended(self.outgoing.remove(at).message))
            }
            Packet::Pubrec(id) => {
                // [MQTT-4.6.0-3]; a second PUBREC answers a message that was sent twice.
                let again = self.outgoing.iter().any(|outgoing| outgoing.id == id && outgoing.released);
                let first = self.outgoing.iter_mut().find(|outgoing| outgoing.message & 3 == 2 && !outgoing.released);
                match first.filter(|outgoing| outgoing.id == id) {
                    Some(outgoing) => outgoing.released = true,
                    None if again => {}
                    None => return Err(Verdict::AckOrder),
                }
                out.extend([Packet::Pubrel(id)]);
                Ok(Meaning::Nothing)
            }
            Packet::Pubcomp(id) => {
                let at = self.outgoing.iter().position(|outgoing| outgoing.id == id && outgoing.released);
                let Some(at) = at else { return Err(Verdict::AckOrder) };
                Ok(Meaning::Ended(self.outgoing.remove(at).message))
            }
            Packet::Subscribe(id) => {
                self.subscribed = true;
                out.extend([Packet::Suback(id)]);
                Ok(Meaning::Nothing)
            }
            Packet::Connack { .. } | Packet::Suback(_) => Err(Verdict::OutOfPlace),
        }
    }

    fn on_publish(
        &mut self,
        dup: bool,
        qos: u8,
        id: u16,
        message: u8,
        on_release: bool,
        out: &mut impl Extend<Packet>,
    ) -> Result<Meaning, Verdict> {
        let seen = self.seen.contains(&message);
        if seen && !dup {
            return Err(Verdict::NoDup); // [MQTT-3.3.1-1]
        }
        if dup && self.is_fresh {
            return Err(Verdict::WrongDup); // [MQTT-3.3.1-3] a new session has no past
        }
        if !seen {
            self.seen.push(message);
            self.seen.sort_unstable();
        }
        if qos == 1 {
            out.extend([Packet::Puback(id)]);
            return Ok(Meaning::Taken(message));
        }
        out.extend([Packet::Pubrec(id)]);
        match self.incoming.iter().find(|(other, _)| *other == id) {
            Some((_, other)) if *other != message => Err(Verdict::IdReused), // [MQTT-2.3.1-2]
            Some(_) => Ok(Meaning::Nothing),
            None => {
                self.incoming.push((id, message));
                Ok(if on_release { Meaning::Nothing } else { Meaning::Taken(message) })
            }
        }
    }
}
