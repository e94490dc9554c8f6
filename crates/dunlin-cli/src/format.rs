//! How `dunlin sub` prints a message.

use std::str::Chars;

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
    Field(Field, Layout),
    /// A conversion of strftime, with its percent sign.
    Time(String),
}

/// What stands between the percent sign and the letter of a field: `-`, `0`, a width, a dot with a precision, and what
/// separates groups of hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    is_left: bool,
    has_zeros: bool,
    width: u16,
    precision: Option<u16>,
    separator: Option<char>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Topic,
    Payload,
    Hex,
    HexUpper,
    /// The payload is a number in eight bytes, or in four.
    Double,
    Float,
    Len,
    QoS,
    Retain,
    PacketId,
    Time,
    UnixTime,
    Nanoseconds,
    Json,
    JsonOfJson,
    /// What only MQTT 5 has: nothing.
    Absent,
}

const FIELDS: [(char, Field); 14] = [
    ('t', Field::Topic),
    ('p', Field::Payload),
    ('x', Field::Hex),
    ('X', Field::HexUpper),
    ('d', Field::Double),
    ('f', Field::Float),
    ('l', Field::Len),
    ('q', Field::QoS),
    ('r', Field::Retain),
    ('m', Field::PacketId),
    ('I', Field::Time),
    ('U', Field::UnixTime),
    ('j', Field::Json),
    ('J', Field::JsonOfJson),
];

/// Properties of MQTT 5, which formats may name that are for both versions.
const PROPERTIES: &str = "ACDEFPRS";

const ESCAPES: [(char, char); 8] =
    [('n', '\n'), ('t', '\t'), ('r', '\r'), ('0', '\0'), ('a', '\x07'), ('e', '\x1b'), ('v', '\x0b'), ('\\', '\\')];

/// Conversions of strftime that follow the locale, as the one of C has them.
const LOCALE: [(char, &str); 3] = [('c', "%a %b %e %H:%M:%S %Y"), ('r', "%I:%M:%S %p"), ('x', "%m/%d/%y")];

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
                ('%', Some(_)) => {
                    let layout = Layout::parse(&mut chars)?;
                    let name =
                        chars.clone().next().ok_or("a field of % lacks its letter; write %% for the sign itself")?;
                    Ok(Piece::Field(Field::named(name).ok_or_else(|| unknown(name))?, layout))
                }
                ('@', Some('N')) => Ok(Piece::Field(Field::Nanoseconds, Layout::default())),
                ('@', Some(name)) => {
                    let known = LOCALE.iter().find(|(known, _)| *known == name);
                    let conversion = known.map_or(format!("%{name}"), |(_, text)| (*text).to_owned());
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
                Piece::Field(Field::Payload, layout) => layout.put(message.payload(), true, &mut line),
                Piece::Field(field, layout) => {
                    let text = field.text(*layout, message, now)?;
                    layout.put(text.as_bytes(), field.is_number(), &mut line);
                }
            }
        }
        Ok(line)
    }
}

/// `%J` wants a payload that is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl Layout {
    /// Takes it from the front of `chars`, and leaves the letter of the field there.
    fn parse(chars: &mut Chars<'_>) -> Result<Self, String> {
        let mut layout = Self { is_left: take(chars, |c| c == '-').is_some(), ..Self::default() };
        layout.has_zeros = take(chars, |c| c == '0').is_some();
        layout.width = number(chars)?;
        if take(chars, |c| c == '.').is_some() {
            layout.precision = Some(number(chars)?);
            layout.separator = take(chars, |c| !c.is_alphanumeric());
        }
        Ok(layout)
    }

    /// The first characters of a text, if there is a limit to them.
    fn cut<'a>(&self, text: &'a str) -> &'a str {
        let limit = self.precision.map_or(usize::MAX, usize::from);
        text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
    }

    /// Hexadecimal digits, in groups of as many as the precision says.
    fn hex(&self, payload: &[u8], digits: &[u8; 16]) -> String {
        let group = self.precision.map_or(0, usize::from);
        let all = payload.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| digits[usize::from(digit)]);
        let mut text = String::with_capacity(2 * payload.len());
        for (count, digit) in all.enumerate() {
            if group > 0 && count > 0 && count % group == 0 {
                text.push(self.separator.unwrap_or(' '));
            }
            text.push(digit.into());
        }
        text
    }

    /// A number with as many decimals as the precision says, six by default. A payload of another length is none.
    fn decimal(&self, number: Option<f64>) -> String {
        format!("{:.*}", self.precision.map_or(6, usize::from), number.unwrap_or(f64::NAN))
    }

    /// Puts `text`, filled up to the width, behind `line`. Characters count, or bytes where they are no text.
    fn put(&self, text: &[u8], may_have_zeros: bool, line: &mut Vec<u8>) {
        let len = std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count());
        let fill = usize::from(self.width).saturating_sub(len);
        let filled = |line: &mut Vec<u8>, with| line.resize(line.len() + fill, with);
        if self.is_left {
            line.extend_from_slice(text);
            return filled(line, b' ');
        }
        let has_zeros = self.has_zeros && may_have_zeros;
        let (sign, text) = text.split_at(usize::from(has_zeros && text.starts_with(b"-")));
        line.extend_from_slice(sign);
        filled(line, if has_zeros { b'0' } else { b' ' });
        line.extend_from_slice(text);
    }
}

/// The next character, if it is one of these.
fn take(chars: &mut Chars<'_>, is_wanted: impl Fn(char) -> bool) -> Option<char> {
    let next = chars.clone().next().filter(|c| is_wanted(*c));
    if next.is_some() {
        chars.next();
    }
    next
}

/// The digits at the front; zero if there are none.
fn number(chars: &mut Chars<'_>) -> Result<u16, String> {
    let rest = chars.as_str();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(digits);
    *chars = rest.chars();
    if number.is_empty() { Ok(0) } else { number.parse().map_err(|_| format!("{number} is too wide")) }
}

impl Field {
    fn named(name: char) -> Option<Self> {
        let known = FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
        known.or_else(|| PROPERTIES.contains(name).then_some(Self::Absent))
    }

    /// Whether zeros may fill it up.
    fn is_number(self) -> bool {
        matches!(
            self,
            Self::Hex
                | Self::HexUpper
                | Self::Double
                | Self::Float
                | Self::Len
                | Self::QoS
                | Self::Retain
                | Self::PacketId
        )
    }

    fn text(self, layout: Layout, message: &Message, now: &Zoned) -> Result<String, NotJson> {
        let payload = message.payload();
        Ok(match self {
            Self::Absent => String::new(),
            Self::Topic => layout.cut(message.topic()).to_owned(),
            Self::Payload => String::from_utf8_lossy(payload).into_owned(),
            Self::Hex => layout.hex(payload, b"0123456789abcdef"),
            Self::HexUpper => layout.hex(payload, b"0123456789ABCDEF"),
            Self::Double => layout.decimal(payload.try_into().ok().map(f64::from_ne_bytes)),
            Self::Float => layout.decimal(payload.try_into().ok().map(|bytes| f32::from_ne_bytes(bytes).into())),
            Self::Len => payload.len().to_string(),
            Self::QoS => message.qos().bits().to_string(),
            Self::Retain => u8::from(message.is_retain()).to_string(),
            Self::PacketId => packet_id(message).to_string(),
            Self::Time => layout.cut(&now.strftime("%Y-%m-%dT%H:%M:%S%z").to_string()).to_owned(),
            Self::UnixTime => {
                let time = now.timestamp();
                format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
            }
            Self::Nanoseconds => format!("{:09}", now.timestamp().subsec_nanosecond()),
            Self::Json | Self::JsonOfJson if payload.is_empty() => json(message, now, "null"),
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
        let field = |field| Piece::Field(field, Layout::default());
        assert_eq!(format.0, [field(Field::Topic), text("="), field(Field::Payload), text(" %\n")]);
        assert_eq!(
            Format::parse("%q%k").unwrap_err(),
            "unknown sequence %k; known are %t %p %x %X %d %f %l %q %r %m %I %U %j %J and %%"
        );
        let expected =
            [Piece::Time("%Y".into()), text("-"), Piece::Time("%m".into()), text(" @ "), field(Field::Topic)];
        assert_eq!(Format::parse("@Y-@m @@ %t").unwrap().0, expected);
        let layout = Layout { is_left: true, has_zeros: true, width: 20, precision: Some(2), separator: Some(':') };
        assert_eq!(Format::parse("%-020.2:x").unwrap().0, [Piece::Field(Field::Hex, layout)]);
        assert!(Format::parse("%-20.").unwrap_err().contains("letter"));
        assert!(Format::parse("%70000t").unwrap_err().contains("70000"));
        assert!(Format::parse("100%").unwrap_err().contains("%%"));
        assert!(Format::parse("me@").unwrap_err().contains("@@"));
        assert!(Format::parse("me@@home @!").unwrap_err().contains("%!"));
        assert!(Format::parse(r"\q").unwrap_err().contains(r"\q"));
    }

    #[test]
    fn texts_are_cut_and_filled_up_to_the_width() {
        let put = |format: &str, text: &str, is_number| {
            let layout = Layout::parse(&mut format.chars()).unwrap();
            let mut line = Vec::new();
            layout.put(layout.cut(text).as_bytes(), is_number, &mut line);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(put("", "abc", false), "abc");
        assert_eq!(put("5", "\u{e4}bc", false), "  \u{e4}bc");
        assert_eq!(put("05", "abc", false), "  abc");
        assert_eq!(put("-5", "abc", false), "abc  ");
        assert_eq!(put("5.2", "\u{e4}bc", false), "   \u{e4}b");
        assert_eq!(put("2", "abc", false), "abc");
        assert_eq!(put(".0", "abc", false), "");
        assert_eq!(put("05", "-17", true), "-0017");
        assert_eq!(put("-05", "17", true), "17   ");
    }

    #[test]
    fn times_are_those_of_the_locale_of_c() {
        let time: Zoned = "2026-11-06T07:08:09+00:00[UTC]".parse().unwrap();
        let shown = |format| match Format::parse(format).unwrap().0.as_slice() {
            [Piece::Time(conversion)] => strtime::format(conversion, &time).unwrap(),
            other => panic!("{other:?}"),
        };
        let expected = ["Fri Nov  6 07:08:09 2026", "07:08:09 AM", "11/06/26", "07:08:09"];
        assert_eq!(["@c", "@r", "@x", "@X"].map(shown), expected);
    }

    #[test]
    fn payloads_are_shown_in_groups_of_digits_or_as_the_numbers_that_they_are() {
        let layout = |text: &str| Layout::parse(&mut text.chars()).unwrap();
        let hex = |text| layout(text).hex(&[0x0a, 0xff, 0x17], b"0123456789abcdef");
        let shown = ["", ".1", ".2", ".4:", ".100"].map(hex);
        assert_eq!(shown, ["0aff17", "0 a f f 1 7", "0a ff 17", "0aff:17", "0aff17"]);
        assert_eq!(layout(".3").decimal(Some(3.375)), "3.375");
        assert_eq!(layout("").decimal(Some(-0.5)), "-0.500000");
        assert_eq!(layout("").decimal(None), "NaN");
    }
}
