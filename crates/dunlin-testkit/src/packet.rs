//! MQTT 3.1.1 packets, encoded and decoded strictly, for the referee's use.
//!
//! Written from the standard and from nothing else: the code under test must not be judged by its own codec. Values
//! are owned and plain, sizes do not matter here. Every refusal names the statement that the bytes break.

use std::fmt;

/// A rule of the standard that a peer broke, and how.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Breach {
    /// The statement's number, such as `MQTT-3.3.1-2`, or `U311-…` for a duty that the standard leaves unnumbered.
    pub statement: &'static str,
    /// What happened, in a sentence.
    pub what: String,
}

impl Breach {
    /// A breach of `statement`.
    pub fn new(statement: &'static str, what: impl Into<String>) -> Self {
        Self { statement, what: what.into() }
    }
}

impl fmt::Debug for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.statement, self.what)
    }
}

/// The fourteen packet types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
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

/// The names that stories use: `pair.drop_next(PUBREC)`.
#[allow(missing_docs)]
pub mod kinds {
    use super::Kind;
    pub const CONNECT: Kind = Kind::Connect;
    pub const CONNACK: Kind = Kind::Connack;
    pub const PUBLISH: Kind = Kind::Publish;
    pub const PUBACK: Kind = Kind::Puback;
    pub const PUBREC: Kind = Kind::Pubrec;
    pub const PUBREL: Kind = Kind::Pubrel;
    pub const PUBCOMP: Kind = Kind::Pubcomp;
    pub const SUBSCRIBE: Kind = Kind::Subscribe;
    pub const SUBACK: Kind = Kind::Suback;
    pub const UNSUBSCRIBE: Kind = Kind::Unsubscribe;
    pub const UNSUBACK: Kind = Kind::Unsuback;
    pub const PINGREQ: Kind = Kind::Pingreq;
    pub const PINGRESP: Kind = Kind::Pingresp;
    pub const DISCONNECT: Kind = Kind::Disconnect;
}

/// An application message: what is published, kept as retained, or left as a will.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// RETAIN as the packet says it.
    pub retain: bool,
}

impl Message {
    /// A message at QoS 0, not retained.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self { topic: topic.into(), payload: payload.as_ref().into(), qos: 0, retain: false }
    }

    /// The same at this QoS.
    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    /// The same, retained.
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retain = if self.retain { " retained" } else { "" };
        write!(f, "{:?} \"{}\" q{}{retain}", self.topic, self.payload.escape_ascii(), self.qos)
    }
}

/// `received() == [("a", b"1")]` reads better than a struct with four fields.
impl<const N: usize> PartialEq<(&str, &[u8; N])> for Message {
    fn eq(&self, other: &(&str, &[u8; N])) -> bool {
        self.topic == other.0 && self.payload == other.1
    }
}

impl PartialEq<(&str, &[u8])> for Message {
    fn eq(&self, other: &(&str, &[u8])) -> bool {
        self.topic == other.0 && self.payload == other.1
    }
}

impl PartialEq<(&str, &str)> for Message {
    fn eq(&self, other: &(&str, &str)) -> bool {
        self.topic == other.0 && self.payload == other.1.as_bytes()
    }
}

impl PartialEq<(String, String)> for Message {
    fn eq(&self, other: &(String, String)) -> bool {
        self.topic == other.0 && self.payload == other.1.as_bytes()
    }
}

/// CONNECT, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connect {
    /// Client identifier; may be empty.
    pub client_id: String,
    /// Clean Session flag.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    /// Will, with its QoS and retain flag.
    pub will: Option<Message>,
    /// User name, if its flag is set.
    pub user_name: Option<String>,
    /// Password, if its flag is set.
    pub password: Option<Vec<u8>>,
}

/// One control packet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Packet {
    Connect(Connect),
    Connack {
        session_present: bool,
        code: u8,
    },
    /// `id` is 0 at QoS 0.
    Publish {
        dup: bool,
        id: u16,
        message: Message,
    },
    Puback(u16),
    Pubrec(u16),
    Pubrel(u16),
    Pubcomp(u16),
    Subscribe {
        id: u16,
        filters: Vec<(String, u8)>,
    },
    Suback {
        id: u16,
        codes: Vec<u8>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    Unsuback(u16),
    Pingreq,
    Pingresp,
    Disconnect,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packet::Connect(c) => write!(f, "{c:?}"),
            Packet::Connack { session_present, code } => write!(f, "CONNACK(present {session_present}, code {code})"),
            Packet::Publish { dup, id, message } => {
                write!(f, "PUBLISH({}#{id} {message:?})", if *dup { "DUP " } else { "" })
            }
            Packet::Puback(id) => write!(f, "PUBACK(#{id})"),
            Packet::Pubrec(id) => write!(f, "PUBREC(#{id})"),
            Packet::Pubrel(id) => write!(f, "PUBREL(#{id})"),
            Packet::Pubcomp(id) => write!(f, "PUBCOMP(#{id})"),
            Packet::Subscribe { id, filters } => write!(f, "SUBSCRIBE(#{id} {filters:?})"),
            Packet::Suback { id, codes } => write!(f, "SUBACK(#{id} {codes:02x?})"),
            Packet::Unsubscribe { id, filters } => write!(f, "UNSUBSCRIBE(#{id} {filters:?})"),
            Packet::Unsuback(id) => write!(f, "UNSUBACK(#{id})"),
            Packet::Pingreq => f.write_str("PINGREQ"),
            Packet::Pingresp => f.write_str("PINGRESP"),
            Packet::Disconnect => f.write_str("DISCONNECT"),
        }
    }
}

impl Packet {
    /// A PUBLISH sent for the first time.
    pub fn publish(id: u16, message: Message) -> Self {
        Packet::Publish { dup: false, id, message }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Packet::Connect(_) => Kind::Connect,
            Packet::Connack { .. } => Kind::Connack,
            Packet::Publish { .. } => Kind::Publish,
            Packet::Puback(_) => Kind::Puback,
            Packet::Pubrec(_) => Kind::Pubrec,
            Packet::Pubrel(_) => Kind::Pubrel,
            Packet::Pubcomp(_) => Kind::Pubcomp,
            Packet::Subscribe { .. } => Kind::Subscribe,
            Packet::Suback { .. } => Kind::Suback,
            Packet::Unsubscribe { .. } => Kind::Unsubscribe,
            Packet::Unsuback(_) => Kind::Unsuback,
            Packet::Pingreq => Kind::Pingreq,
            Packet::Pingresp => Kind::Pingresp,
            Packet::Disconnect => Kind::Disconnect,
        }
    }

    /// Its packet identifier, where it has one.
    pub fn id(&self) -> Option<u16> {
        match self {
            Packet::Publish { id, .. } if *id != 0 => Some(*id),
            Packet::Puback(id) | Packet::Pubrec(id) | Packet::Pubrel(id) | Packet::Pubcomp(id) => Some(*id),
            Packet::Subscribe { id, .. } | Packet::Suback { id, .. } | Packet::Unsubscribe { id, .. } => Some(*id),
            Packet::Unsuback(id) => Some(*id),
            _ => None,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        let mut body = Vec::new();
        match self {
            Packet::Connect(connect) => encode_connect(connect, &mut body),
            Packet::Connack { session_present, code } => body.extend([u8::from(*session_present), *code]),
            Packet::Publish { dup, id, message } => {
                flags = u8::from(*dup) << 3 | message.qos << 1 | u8::from(message.retain);
                put_text(&mut body, message.topic.as_bytes());
                if message.qos > 0 {
                    body.extend(id.to_be_bytes());
                }
                body.extend(&message.payload);
            }
            Packet::Puback(id) | Packet::Pubrec(id) | Packet::Pubcomp(id) | Packet::Unsuback(id) => {
                body.extend(id.to_be_bytes());
            }
            Packet::Pubrel(id) => {
                flags = 2;
                body.extend(id.to_be_bytes());
            }
            Packet::Subscribe { id, filters } => {
                flags = 2;
                body.extend(id.to_be_bytes());
                for (filter, qos) in filters {
                    put_text(&mut body, filter.as_bytes());
                    body.push(*qos);
                }
            }
            Packet::Suback { id, codes } => {
                body.extend(id.to_be_bytes());
                body.extend(codes);
            }
            Packet::Unsubscribe { id, filters } => {
                flags = 2;
                body.extend(id.to_be_bytes());
                for filter in filters {
                    put_text(&mut body, filter.as_bytes());
                }
            }
            Packet::Pingreq | Packet::Pingresp | Packet::Disconnect => {}
        }
        raw((self.kind() as u8) << 4 | flags, &body)
    }

    /// The first packet in `bytes` and its length; `None` while more bytes are needed.
    ///
    /// # Errors
    /// The statement that the bytes break. Nothing after them means anything.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Packet, usize)>, Breach> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let mut length = 0usize;
        let mut digits = 0;
        loop {
            let Some(&digit) = rest.get(digits) else { return Ok(None) };
            length |= usize::from(digit & 0x7f) << (7 * digits);
            digits += 1;
            if digit & 0x80 == 0 {
                break;
            }
            if digits == 4 {
                return Err(Breach::new("U311-01", "Remaining Length of more than four bytes"));
            }
        }
        let total = 1 + digits + length;
        let Some(body) = bytes.get(1 + digits..total) else { return Ok(None) };
        Ok(Some((decode_body(first, body)?, total)))
    }
}

/// A packet of any first byte and body, with the right length: for what the standard forbids.
pub fn raw(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        out.push(digit | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("texts have at most 65535 bytes");
    out.extend(length.to_be_bytes());
    out.extend(text);
}

fn encode_connect(connect: &Connect, body: &mut Vec<u8>) {
    put_text(body, b"MQTT");
    let will = connect.will.as_ref();
    let will_flags = will.map_or(0, |w| 4 | w.qos << 3 | u8::from(w.retain) << 5);
    let flags = u8::from(connect.clean) << 1
        | will_flags
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.user_name.is_some()) << 7;
    body.extend([4, flags]);
    body.extend(connect.keep_alive.to_be_bytes());
    put_text(body, connect.client_id.as_bytes());
    if let Some(will) = will {
        put_text(body, will.topic.as_bytes());
        put_text(body, &will.payload);
    }
    if let Some(user_name) = &connect.user_name {
        put_text(body, user_name.as_bytes());
    }
    if let Some(password) = &connect.password {
        put_text(body, password);
    }
}

fn decode_body(first: u8, body: &[u8]) -> Result<Packet, Breach> {
    let flags = first & 0x0f;
    let mut rest = Rest(body);
    let wrong_flags =
        |statement| Err(Breach::new(statement, format!("first byte {first:02x} has wrong flags for its packet type")));
    let packet = match first >> 4 {
        1 if flags != 0 => return wrong_flags("MQTT-2.2.2-1"),
        1 => Packet::Connect(decode_connect(&mut rest)?),
        2 if flags != 0 => return wrong_flags("MQTT-2.2.2-1"),
        2 => {
            let (flags, code) = (rest.byte()?, rest.byte()?);
            if flags > 1 {
                return Err(Breach::new("MQTT-2.2.2-1", "reserved CONNACK flags are set"));
            }
            Packet::Connack { session_present: flags == 1, code }
        }
        3 => decode_publish(flags, &mut rest)?,
        6 if flags != 2 => return wrong_flags("MQTT-3.6.1-1"),
        8 if flags != 2 => return wrong_flags("MQTT-3.8.1-1"),
        10 if flags != 2 => return wrong_flags("MQTT-3.10.1-1"),
        4 | 5 | 7 | 9 | 11 | 12 | 13 if flags != 0 => return wrong_flags("MQTT-2.2.2-1"),
        14 if flags != 0 => return wrong_flags("MQTT-3.14.1-1"),
        4 => Packet::Puback(rest.id()?),
        5 => Packet::Pubrec(rest.id()?),
        6 => Packet::Pubrel(rest.id()?),
        7 => Packet::Pubcomp(rest.id()?),
        8 => decode_subscribe(&mut rest)?,
        9 => {
            let id = rest.id()?;
            let codes = std::mem::take(&mut rest.0).to_vec();
            if codes.is_empty() || codes.iter().any(|code| !matches!(code, 0 | 1 | 2 | 0x80)) {
                return Err(Breach::new("MQTT-3.9.3-2", format!("SUBACK with codes {codes:02x?}")));
            }
            Packet::Suback { id, codes }
        }
        10 => decode_unsubscribe(&mut rest)?,
        11 => Packet::Unsuback(rest.id()?),
        12 => Packet::Pingreq,
        13 => Packet::Pingresp,
        14 => Packet::Disconnect,
        _ => return Err(Breach::new("U311-02", format!("packet type {} does not exist", first >> 4))),
    };
    if !rest.0.is_empty() {
        return Err(Breach::new("U311-03", format!("{} bytes too many in {packet:?}", rest.0.len())));
    }
    Ok(packet)
}

fn decode_connect(rest: &mut Rest<'_>) -> Result<Connect, Breach> {
    if rest.binary()? != b"MQTT" {
        return Err(Breach::new("MQTT-3.1.2-1", "protocol name is not MQTT"));
    }
    if rest.byte()? != 4 {
        return Err(Breach::new("MQTT-3.1.2-2", "protocol level is not 4"));
    }
    let flags = rest.byte()?;
    if flags & 1 != 0 {
        return Err(Breach::new("MQTT-3.1.2-3", "reserved connect flag is set"));
    }
    let keep_alive = rest.u16()?;
    let clean = flags & 2 != 0;
    let client_id = rest.text()?;
    if client_id.is_empty() && !clean {
        return Err(Breach::new("MQTT-3.1.3-7", "an empty client identifier without clean session"));
    }
    let will = if flags & 4 != 0 {
        let qos = flags >> 3 & 3;
        if qos == 3 {
            return Err(Breach::new("MQTT-3.1.2-14", "will QoS 3"));
        }
        let topic = topic_name(rest.text()?)?;
        Some(Message { topic, payload: rest.binary()?.to_vec(), qos, retain: flags & 0x20 != 0 })
    } else {
        if flags & 0x18 != 0 {
            return Err(Breach::new("MQTT-3.1.2-13", "will QoS without a will"));
        }
        if flags & 0x20 != 0 {
            return Err(Breach::new("MQTT-3.1.2-15", "will retain without a will"));
        }
        None
    };
    let user_name = if flags & 0x80 != 0 { Some(rest.text()?) } else { None };
    let password = if flags & 0x40 != 0 { Some(rest.binary()?.to_vec()) } else { None };
    if password.is_some() && user_name.is_none() {
        return Err(Breach::new("MQTT-3.1.2-22", "a password without a user name"));
    }
    Ok(Connect { client_id, clean, keep_alive, will, user_name, password })
}

fn decode_publish(flags: u8, rest: &mut Rest<'_>) -> Result<Packet, Breach> {
    let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
    if qos == 3 {
        return Err(Breach::new("MQTT-3.3.1-4", "QoS bits 11"));
    }
    if qos == 0 && dup {
        return Err(Breach::new("MQTT-3.3.1-2", "DUP at QoS 0"));
    }
    let topic = topic_name(rest.text()?)?;
    let id = if qos > 0 { rest.id()? } else { 0 };
    let payload = std::mem::take(&mut rest.0).to_vec();
    Ok(Packet::Publish { dup, id, message: Message { topic, payload, qos, retain } })
}

fn decode_subscribe(rest: &mut Rest<'_>) -> Result<Packet, Breach> {
    let id = rest.id()?;
    let mut filters = Vec::new();
    while !rest.0.is_empty() {
        let filter = topic_filter(rest.text()?)?;
        let qos = rest.byte()?;
        if qos > 2 {
            return Err(Breach::new("MQTT-3.8.3-4", format!("requested QoS byte {qos:02x}")));
        }
        filters.push((filter, qos));
    }
    if filters.is_empty() {
        return Err(Breach::new("MQTT-3.8.3-3", "SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe { id, filters })
}

fn decode_unsubscribe(rest: &mut Rest<'_>) -> Result<Packet, Breach> {
    let id = rest.id()?;
    let mut filters = Vec::new();
    while !rest.0.is_empty() {
        filters.push(topic_filter(rest.text()?)?);
    }
    if filters.is_empty() {
        return Err(Breach::new("MQTT-3.10.3-2", "UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { id, filters })
}

fn topic_name(topic: String) -> Result<String, Breach> {
    if topic.is_empty() {
        return Err(Breach::new("MQTT-4.7.3-1", "an empty topic name"));
    }
    if topic.contains(['+', '#']) {
        return Err(Breach::new("MQTT-3.3.2-2", format!("wildcard in topic name {topic:?}")));
    }
    Ok(topic)
}

fn topic_filter(filter: String) -> Result<String, Breach> {
    if filter.is_empty() {
        return Err(Breach::new("MQTT-4.7.3-1", "an empty topic filter"));
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (at, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || at + 1 != levels.len()) {
            return Err(Breach::new("MQTT-4.7.1-2", format!("misplaced # in {filter:?}")));
        }
        if level.contains('+') && *level != "+" {
            return Err(Breach::new("MQTT-4.7.1-3", format!("misplaced + in {filter:?}")));
        }
    }
    Ok(filter)
}

/// Whether a message of this topic goes to subscribers of this filter.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1] A filter that starts with a wildcard does not see topics that start with $.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            // The parent level counts as well: `a/#` matches `a`.
            (Some("#"), _) => return true,
            (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(want), Some(is)) if want == is => {}
            _ => return false,
        }
    }
}

/// What is left of a packet's body.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Breach> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(Breach::new("U311-03", "the packet ends inside a field"));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Breach> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Breach> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn id(&mut self) -> Result<u16, Breach> {
        match self.u16()? {
            0 => Err(Breach::new("MQTT-2.3.1-1", "packet identifier 0")),
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], Breach> {
        let count = self.u16()?;
        self.take(count.into())
    }

    fn text(&mut self) -> Result<String, Breach> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Breach::new("MQTT-1.5.3-1", format!("text {bytes:02x?} is not UTF-8")))?;
        if text.contains('\0') {
            return Err(Breach::new("MQTT-1.5.3-2", "U+0000 in a text"));
        }
        Ok(text.to_owned())
    }
}

/// Packets out of a stream of bytes that comes in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Bytes of a packet that is not complete yet.
    pub pending: Vec<u8>,
}

impl Stream {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
    }

    /// The next complete packet.
    ///
    /// # Errors
    /// As [`Packet::decode`]; the same error again if asked again.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, Breach> {
        let Some((packet, length)) = Packet::decode(&self.pending)? else { return Ok(None) };
        self.pending.drain(..length);
        Ok(Some(packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_packet() -> Vec<Packet> {
        let connect = Connect {
            client_id: "c".into(),
            clean: true,
            keep_alive: 300,
            will: Some(Message::new("w", b"\x00\xff").qos(2).retained()),
            user_name: Some(String::new()),
            password: Some(vec![0, 255]),
        };
        let bare = Connect {
            client_id: String::new(),
            clean: true,
            keep_alive: 0,
            will: None,
            user_name: None,
            password: None,
        };
        vec![
            Packet::Connect(connect),
            Packet::Connect(bare),
            Packet::Connack { session_present: true, code: 0 },
            Packet::publish(0, Message::new("a/b", b"")),
            Packet::Publish { dup: true, id: 7, message: Message::new("a", vec![1; 200]).qos(2) },
            Packet::Puback(1),
            Packet::Pubrec(256),
            Packet::Pubrel(65535),
            Packet::Pubcomp(2),
            Packet::Subscribe { id: 3, filters: vec![("a/+/#".into(), 2), ("#".into(), 0)] },
            Packet::Suback { id: 3, codes: vec![2, 0x80] },
            Packet::Unsubscribe { id: 4, filters: vec!["+".into()] },
            Packet::Unsuback(4),
            Packet::Pingreq,
            Packet::Pingresp,
            Packet::Disconnect,
        ]
    }

    #[test]
    fn every_packet_comes_back_as_it_went() {
        for packet in every_packet() {
            let bytes = packet.encode();
            assert_eq!(Packet::decode(&bytes), Ok(Some((packet.clone(), bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(Packet::decode(&bytes[..cut]), Ok(None), "{packet:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn known_bytes() {
        assert_eq!(Packet::publish(10, Message::new("a/b", b"x").qos(1)).encode(), b"\x32\x08\x00\x03a/b\x00\x0ax");
        assert_eq!(Packet::Pubrel(1).encode(), b"\x62\x02\x00\x01");
        let connect = Packet::Connect(Connect {
            client_id: "c".into(),
            clean: false,
            keep_alive: 60,
            will: None,
            user_name: Some("u".into()),
            password: None,
        });
        assert_eq!(connect.encode(), b"\x10\x10\x00\x04MQTT\x04\x80\x00\x3c\x00\x01c\x00\x01u");
    }

    #[test]
    fn forbidden_bytes_are_named() {
        for (bytes, statement) in [
            (&b"\x38\x03\x00\x01a"[..], "MQTT-3.3.1-2"),
            (b"\x36\x05\x00\x01a\x00\x01", "MQTT-3.3.1-4"),
            (b"\x32\x05\x00\x01a\x00\x00", "MQTT-2.3.1-1"),
            (b"\x30\x03\x00\x01#", "MQTT-3.3.2-2"),
            (b"\x30\x02\x00\x00", "MQTT-4.7.3-1"),
            (b"\x30\x03\x00\x01\xff", "MQTT-1.5.3-1"),
            (b"\x30\x03\x00\x01\x00", "MQTT-1.5.3-2"),
            (b"\x60\x02\x00\x01", "MQTT-3.6.1-1"),
            (b"\x41\x02\x00\x01", "MQTT-2.2.2-1"),
            (b"\x80\x06\x00\x01\x00\x01a\x00", "MQTT-3.8.1-1"),
            (b"\x82\x02\x00\x01", "MQTT-3.8.3-3"),
            (b"\x82\x06\x00\x01\x00\x01a\x03", "MQTT-3.8.3-4"),
            (b"\x82\x07\x00\x01\x00\x02a#\x00", "MQTT-4.7.1-2"),
            (b"\x82\x07\x00\x01\x00\x02a+\x00", "MQTT-4.7.1-3"),
            (b"\xa2\x02\x00\x01", "MQTT-3.10.3-2"),
            (b"\xe1\x00", "MQTT-3.14.1-1"),
            (b"\xd0\x80\x80\x80\x80", "U311-01"),
            (b"\xf0\x00", "U311-02"),
            (b"\x40\x03\x00\x01\x00", "U311-03"),
        ] {
            assert_eq!(Packet::decode(bytes).unwrap_err().statement, statement, "{bytes:02x?}");
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, is) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/#", "sport", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("a", "A", false),
            ("a/b", "a", false),
        ] {
            assert_eq!(matches(filter, topic), is, "{filter} {topic}");
        }
    }
}
