//! Packets as they pass on a link: cut out of the stream, and put into words.
//!
//! Not the codec of the library, on purpose: the demo is to judge that one by the bytes on the wire. Reads what a
//! correct peer sends; shows a field that is missing as empty.

use std::fmt::{self, Write as _};
use std::io::{self, Read};

/// The types of MQTT 3.1.1, by their number (MQTT 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
}

const KINDS: [(Kind, &str); 14] = [
    (Kind::Connect, "CONNECT"),
    (Kind::Connack, "CONNACK"),
    (Kind::Publish, "PUBLISH"),
    (Kind::Puback, "PUBACK"),
    (Kind::Pubrec, "PUBREC"),
    (Kind::Pubrel, "PUBREL"),
    (Kind::Pubcomp, "PUBCOMP"),
    (Kind::Subscribe, "SUBSCRIBE"),
    (Kind::Suback, "SUBACK"),
    (Kind::Unsubscribe, "UNSUBSCRIBE"),
    (Kind::Unsuback, "UNSUBACK"),
    (Kind::Pingreq, "PINGREQ"),
    (Kind::Pingresp, "PINGRESP"),
    (Kind::Disconnect, "DISCONNECT"),
];

/// One packet, whole.
#[derive(Clone)]
pub struct Packet {
    pub kind: Kind,
    /// All of it, as it travels.
    pub bytes: Vec<u8>,
    /// Where the body begins.
    head: usize,
}

/// No packet of the demo is longer.
const LIMIT: usize = 1 << 20;

impl Packet {
    /// Reads the next packet.
    ///
    /// # Errors
    /// Those of the stream, `UnexpectedEof` at its end, and `InvalidData` for what is no packet.
    pub fn read(stream: &mut impl Read) -> io::Result<Self> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        let mut bytes = vec![0];
        stream.read_exact(&mut bytes)?;
        let mut len = 0;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            bytes.push(byte[0]);
            len |= usize::from(byte[0] & 0x7F) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let (kind, _) =
            KINDS.into_iter().find(|(kind, _)| *kind as u8 == bytes[0] >> 4).ok_or(invalid("packet type"))?;
        if len > LIMIT {
            return Err(invalid("length"));
        }
        let head = bytes.len();
        bytes.resize(head + len, 0);
        stream.read_exact(&mut bytes[head..])?;
        Ok(Self { kind, bytes, head })
    }

    /// An acknowledgement.
    pub fn ack(kind: Kind, id: u16) -> Self {
        let flags = if kind == Kind::Pubrel { 2 } else { 0 };
        let [high, low] = id.to_be_bytes();
        Self { kind, bytes: vec![(kind as u8) << 4 | flags, 2, high, low], head: 2 }
    }

    /// The quality of service of a PUBLISH.
    pub fn qos(&self) -> u8 {
        self.bytes[0] >> 1 & 3
    }

    /// The packet identifier, of those that have one.
    pub fn id(&self) -> Option<u16> {
        let mut body = Body(&self.bytes[self.head..]);
        match self.kind {
            Kind::Publish if self.qos() == 0 => None,
            Kind::Publish => {
                body.text();
                Some(body.number())
            }
            Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => Some(body.number()),
            Kind::Subscribe | Kind::Suback | Kind::Unsubscribe | Kind::Unsuback => Some(body.number()),
            Kind::Connect | Kind::Connack | Kind::Pingreq | Kind::Pingresp | Kind::Disconnect => None,
        }
    }

    /// The same PUBLISH under another packet identifier.
    pub fn with_id(&self, id: u16) -> Self {
        let mut copy = self.clone();
        let mut body = Body(&self.bytes[self.head..]);
        let at = self.head + 2 + body.text().len();
        copy.bytes[at..at + 2].copy_from_slice(&id.to_be_bytes());
        copy
    }

    /// The name of the type.
    pub fn name(&self) -> &'static str {
        KINDS[self.kind as usize - 1].1
    }
}

/// What the packet says, in words. Never the password.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id() {
            write!(f, "#{id}")?;
        }
        let mut body = Body(&self.bytes[self.head..]);
        match self.kind {
            Kind::Connect => body.connect(f),
            Kind::Connack => {
                let is_present = body.byte() & 1 != 0;
                match (body.byte(), is_present) {
                    (0, true) => f.write_str("accepted, session present"),
                    (0, false) => f.write_str("accepted, no session present"),
                    (code, _) => write!(f, "refused, return code {code}"),
                }
            }
            Kind::Publish => {
                let topic = body.text();
                if self.qos() > 0 {
                    body.number();
                    f.write_char(' ')?;
                }
                write!(f, "QoS {} {topic} \"{}\"", self.qos(), String::from_utf8_lossy(body.0).escape_debug())?;
                f.write_str(if self.bytes[0] & 1 != 0 { ", retained" } else { "" })?;
                f.write_str(if self.bytes[0] & 8 != 0 { ", DUP" } else { "" })
            }
            Kind::Subscribe => {
                body.number();
                while !body.0.is_empty() {
                    let filter = body.text();
                    write!(f, " {filter} (QoS {})", body.byte())?;
                }
                Ok(())
            }
            Kind::Suback => {
                body.number();
                body.0.iter().try_for_each(|code| match code {
                    0x80 => f.write_str(" refused"),
                    qos => write!(f, " QoS {qos}"),
                })
            }
            Kind::Unsubscribe => {
                body.number();
                while !body.0.is_empty() {
                    write!(f, " {}", body.text())?;
                }
                Ok(())
            }
            Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp | Kind::Unsuback => Ok(()),
            Kind::Pingreq | Kind::Pingresp | Kind::Disconnect => Ok(()),
        }
    }
}

/// What is left of a packet's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn text(&mut self) -> &'a str {
        let len = self.number();
        std::str::from_utf8(self.bytes(usize::from(len))).unwrap_or("?")
    }

    fn connect(&mut self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(); // protocol name
        self.byte(); // and level
        let flags = self.byte();
        let keep_alive = self.number();
        write!(f, "{}", self.text())?;
        f.write_str(if flags & 0x02 != 0 { ", clean session" } else { ", keeps its session" })?;
        if flags & 0x04 != 0 {
            let (topic, payload) = (self.text(), self.text());
            write!(f, ", will {topic} \"{}\" QoS {}", payload.escape_debug(), flags >> 3 & 3)?;
            f.write_str(if flags & 0x20 != 0 { " retained" } else { "" })?;
        }
        if flags & 0x80 != 0 {
            write!(f, ", user {}", self.text())?;
        }
        if flags & 0x40 != 0 {
            f.write_str(", password ***")?;
        }
        write!(f, ", keep alive {keep_alive} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(mut bytes: &[u8]) -> String {
        let packet = Packet::read(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        format!("{} {packet}", packet.name()).trim_end().to_owned()
    }

    #[test]
    fn packets_are_put_into_words() {
        let connect = b"\x10\x25\0\x04MQTT\x04\xEC\0\x0A\0\x02p1\0\x01w\0\x04gone\0\x04pump\0\x06secret";
        let said =
            "CONNECT p1, keeps its session, will w \"gone\" QoS 1 retained, user pump, password ***, keep alive 10 s";
        assert_eq!(words(connect), said);
        assert_eq!(words(b"\x20\x02\x01\x00"), "CONNACK accepted, session present");
        assert_eq!(words(b"\x20\x02\x00\x05"), "CONNACK refused, return code 5");
        assert_eq!(words(b"\x3C\x07\0\x01a\0\x07hi"), "PUBLISH #7 QoS 2 a \"hi\", DUP");
        assert_eq!(words(b"\x31\x04\0\x01ab"), "PUBLISH QoS 0 a \"b\", retained");
        assert_eq!(words(b"\x62\x02\0\x07"), "PUBREL #7");
        assert_eq!(words(b"\x82\x08\0\x01\0\x03a/+\x02"), "SUBSCRIBE #1 a/+ (QoS 2)");
        assert_eq!(words(b"\x90\x04\0\x01\x02\x80"), "SUBACK #1 QoS 2 refused");
        assert_eq!(words(b"\xE0\x00"), "DISCONNECT");
    }

    #[test]
    fn the_copy_under_another_identifier_differs_in_nothing_else() {
        let packet = Packet::read(&mut &b"\x3C\x07\0\x01a\0\x07hi"[..]).unwrap();
        assert_eq!(packet.with_id(0x0108).bytes, b"\x3C\x07\0\x01a\x01\x08hi");
        assert_eq!(Packet::ack(Kind::Pubrel, 7).bytes, b"\x62\x02\0\x07");
    }
}
