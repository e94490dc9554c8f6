//! Packets as small values; bytes are made and read with the testkit's own codec.

/// The testkit's file alone: the rest of it wants all of the session.
#[path = "../../dunlin-testkit/src/packet.rs"]
#[allow(dead_code, unreachable_pub)]
mod testkit;

use testkit::Message;

/// The one topic of the model.
pub const TOPIC: &str = "t";

/// What the model needs to know of a packet. A message is known by its number, which is its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packet {
    Connect,
    Connack { resumed: bool },
    Publish { dup: bool, qos: u8, id: u16, message: u8 },
    Puback(u16),
    Pubrec(u16),
    Pubrel(u16),
    Pubcomp(u16),
    Subscribe(u16),
    Suback(u16),
}

impl Packet {
    /// The first packet in `bytes`, if it is complete.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (packet, len) = testkit::Packet::decode(bytes).expect("the client breaks no rule of the format")?;
        assert_eq!(len, bytes.len(), "packets are taken one by one");
        Some(match packet {
            testkit::Packet::Connect(_) => Self::Connect,
            testkit::Packet::Publish { dup, id, message } => {
                Self::Publish { dup, qos: message.qos, id, message: message.payload[0] }
            }
            testkit::Packet::Puback(id) => Self::Puback(id),
            testkit::Packet::Pubrec(id) => Self::Pubrec(id),
            testkit::Packet::Pubrel(id) => Self::Pubrel(id),
            testkit::Packet::Pubcomp(id) => Self::Pubcomp(id),
            testkit::Packet::Subscribe { id, .. } => Self::Subscribe(id),
            other => panic!("the model has no {other:?}"),
        })
    }

    /// Its bytes, as a broker sends them.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Connack { resumed } => testkit::Packet::Connack { session_present: resumed, code: 0 },
            Self::Publish { dup, qos, id, message } => {
                testkit::Packet::Publish { dup, id, message: Message::new(TOPIC, [message]).qos(qos) }
            }
            Self::Puback(id) => testkit::Packet::Puback(id),
            Self::Pubrec(id) => testkit::Packet::Pubrec(id),
            Self::Pubrel(id) => testkit::Packet::Pubrel(id),
            Self::Pubcomp(id) => testkit::Packet::Pubcomp(id),
            Self::Suback(id) => testkit::Packet::Suback { id, codes: vec![2] },
            Self::Connect | Self::Subscribe(_) => unreachable!("a broker does not send {self:?}"),
        }
        .encode()
    }
}
