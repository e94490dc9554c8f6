//! How `dunlin sub` prints a message.

use dunlin::blocking::Message;
use jiff::Zoned;
use jiff::fmt::strtime;
use serde_json::value::RawValue;

/// The format of `-F`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
    /// A conversion of strftime, with its percent sign.
    Time(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Topic,
    Payload,
    Hex,
    HexUpper,
    Len,
    QoS,
    Retain,
    PacketId,
    Time,
    UnixTime,
    Nanoseconds,
    Json,
    JsonOfJson,
}

const FIELDS: [(char, Field); 12] = [
    ('t', Field::Topic),
    ('p', Field::Payload),
    ('x', Field::Hex),
    ('X', Field::HexUpper),
    ('l', Field::Len),
    ('q', Field::QoS),
    ('r', Field::Retain),
    ('m', Field::PacketId),
    ('I', Field::Time),
    ('U', Field::UnixTime),
    ('j', Field::Json),
    ('J', Field::JsonOfJson),
];

const ESCAPES: [(char, char); 8] =
    [('n', '\n'), ('t', '\t'), ('r', '\r'), ('0', '\0'), ('a', '\x07'), ('e', '\x1b'), ('v', '\x0b'), ('\\', '\\')];

impl Format {
    /// Takes the text of `-F` apart.
    ///
    /// # Errors
    /// A sequence that is not known; says which are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let piece = match (c, chars.clone().next()) {
                ('%' | '@' | '\\', None) => return Err(format!("{c} stands at the end; write {c}{c} for itself")),
                ('%', Some('%')) | ('@', Some('@')) => Err(c),
                ('%', Some(name)) => {
                    let field = FIELDS.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name))?;
                    Ok(Piece::Field(field.1))
                }
                ('@', Some('N')) => Ok(Piece::Field(Field::Nanoseconds)),
                ('@', Some(name)) => {
                    let conversion = format!("%{name}");
                    strtime::format(&conversion, &Zoned::now()).map_err(|_| format!("strftime knows no %{name}"))?;
                    Ok(Piece::Time(conversion))
                }
                ('\\', Some(name)) => {
                    let escape = ESCAPES.iter().find(|(known, _)| *known == name);
                    Err(escape.ok_or_else(|| format!("unknown escape \\{name}"))?.1)
                }
                (c, _) => {
                    literal.push(c);
                    continue;
                }
            };
            chars.next();
            match piece {
                Err(c) => literal.push(c),
                Ok(piece) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    pieces.push(piece);
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// One message, without a line end.
    ///
    /// # Errors
    /// `%J` met a payload that is not JSON.
    pub fn render(&self, message: &Message, now: &Zoned) -> Result<Vec<u8>, NotJson> {
        let mut line = Vec::with_capacity(message.payload().len() + 64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.extend_from_slice(text.as_bytes()),
                // It was tried when the format was taken apart.
                Piece::Time(conversion) => {
                    line.extend_from_slice(strtime::format(conversion, now).unwrap_or_default().as_bytes());
                }
                Piece::Field(Field::Payload) => line.extend_from_slice(message.payload()),
                Piece::Field(field) => line.extend_from_slice(field.text(message, now)?.as_bytes()),
            }
        }
        Ok(line)
    }
}

/// `%J` wants a payload that is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl Field {
    fn text(self, message: &Message, now: &Zoned) -> Result<String, NotJson> {
        let payload = message.payload();
        Ok(match self {
            Self::Topic => message.topic().to_owned(),
            Self::Payload => String::from_utf8_lossy(payload).into_owned(),
            Self::Hex => payload.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::HexUpper => payload.iter().map(|byte| format!("{byte:02X}")).collect(),
            Self::Len => payload.len().to_string(),
            Self::QoS => message.qos().bits().to_string(),
            Self::Retain => u8::from(message.is_retain()).to_string(),
            Self::PacketId => packet_id(message).to_string(),
            Self::Time => now.strftime("%Y-%m-%dT%H:%M:%S%z").to_string(),
            Self::UnixTime => {
                let time = now.timestamp();
                format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
            }
            Self::Nanoseconds => format!("{:09}", now.timestamp().subsec_nanosecond()),
            Self::Json => json(message, now, &quoted(&String::from_utf8_lossy(payload))),
            Self::JsonOfJson => {
                let value: &RawValue = serde_json::from_slice(payload).map_err(|_| NotJson)?;
                // Line ends can only stand between the parts of it, and a message is to be one line.
                json(message, now, &value.get().replace(['\n', '\r'], " "))
            }
        })
    }
}

/// 0 at QoS 0, which has none.
fn packet_id(message: &Message) -> u16 {
    message.receipt().map_or(0, |receipt| receipt.packet_id().get())
}

/// The names, and their order, are those of `mosquitto_sub`.
fn json(message: &Message, now: &Zoned, payload: &str) -> String {
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6f%z");
    let (topic, len) = (quoted(message.topic()), message.payload().len());
    let (qos, retain) = (message.qos().bits(), u8::from(message.is_retain()));
    let id = match packet_id(message) {
        0 => String::new(),
        id => format!(r#""mid":{id},"#),
    };
    format!(
        r#"{{"tst":"{time}","topic":{topic},"qos":{qos},"retain":{retain},"payloadlen":{len},{id}"payload":{payload}}}"#
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn unknown(c: char) -> String {
    let known: Vec<_> = FIELDS.iter().map(|(name, _)| format!("%{name}")).collect();
    format!("unknown sequence %{c}; known are {} and %%", known.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_taken_apart_and_unknown_sequences_name_the_known_ones() {
        let format = Format::parse(r"%t=%p %%\n").unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let expected = [Piece::Field(Field::Topic), text("="), Piece::Field(Field::Payload), text(" %\n")];
        assert_eq!(format.0, expected);
        assert_eq!(
            Format::parse("%q%k").unwrap_err(),
            "unknown sequence %k; known are %t %p %x %X %l %q %r %m %I %U %j %J and %%"
        );
        let expected =
            [Piece::Time("%Y".into()), text("-"), Piece::Time("%m".into()), text(" @ "), Piece::Field(Field::Topic)];
        assert_eq!(Format::parse("@Y-@m @@ %t").unwrap().0, expected);
        assert!(Format::parse("100%").unwrap_err().contains("%%"));
        assert!(Format::parse("me@").unwrap_err().contains("@@"));
        assert!(Format::parse("me@@home @!").unwrap_err().contains("%!"));
        assert!(Format::parse(r"\q").unwrap_err().contains(r"\q"));
    }
}
