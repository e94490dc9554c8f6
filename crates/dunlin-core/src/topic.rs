//! Topic names, topic filters, and how one matches the other.
//!
//! Everything here is a pure function of bytes (MQTT 4.7). Nothing is normalised: `/a` and `a` differ, and so do two
//! spellings of one character [MQTT-4.7.3-4].

use core::ops::Deref;

use crate::packet::QoS;
use crate::packet::reader::check_name;

/// The longest text that MQTT can carry, in bytes [MQTT-4.7.3-3].
pub(crate) const MAX_TEXT: usize = 65_535;

/// Whether `name` can be the topic name of a message.
///
/// A topic name has 1 to 65,535 bytes and holds neither U+0000 nor the wildcards `+` and `#`.
///
/// ```
/// # use dunlin_core::topic;
/// assert!(topic::is_name("plant/7/pressure"));
/// assert!(!topic::is_name("plant/+/pressure"));
/// ```
#[must_use]
pub const fn is_name(name: &str) -> bool {
    is_name_in_bytes(name.as_bytes())
}

/// The same of text as bytes, which are UTF-8.
pub(crate) const fn is_name_in_bytes(name: &[u8]) -> bool {
    let mut rest = name;
    // [MQTT-4.7.3-1] [MQTT-4.7.3-3]
    if rest.is_empty() || rest.len() > MAX_TEXT {
        return false;
    }
    // All of it is looked at, good or bad, so that the loop can take many bytes at a time.
    let mut is_good = true;
    while let [byte, tail @ ..] = rest {
        is_good &= !matches!(*byte, 0 | b'+' | b'#'); // [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-2]
        rest = tail;
    }
    is_good
}

/// Whether `bytes` are text that MQTT can carry: well-formed UTF-8 without U+0000, at most 65,535 bytes (MQTT 1.5.3).
///
/// For callers whose text is bytes. Slower than the standard library's check, and a third of its size.
///
/// ```
/// # use dunlin_core::topic;
/// assert!(topic::is_text("pression/\u{e9}t\u{e9}".as_bytes()));
/// assert!(!topic::is_text(b"\xff"));
/// assert!(!topic::is_text(b"a\0b"));
/// ```
#[must_use]
pub fn is_text(bytes: &[u8]) -> bool {
    // Between what no name may hold stands what a name is made of, or nothing.
    let is_part = |part: &[u8]| part.is_empty() || check_name(part).is_ok();
    bytes.len() <= MAX_TEXT && bytes.split(|byte| matches!(*byte, b'+' | b'#')).all(is_part)
}

/// Whether `filter` can be subscribed to.
///
/// A topic filter has 1 to 65,535 bytes and no U+0000; `+` fills a whole level, `#` fills the last one.
///
/// ```
/// # use dunlin_core::topic;
/// assert!(topic::is_filter("plant/+/valve/#"));
/// assert!(!topic::is_filter("plant/valve#"));
/// ```
#[must_use]
pub const fn is_filter(filter: &str) -> bool {
    let mut rest = filter.as_bytes();
    // [MQTT-4.7.3-1] [MQTT-4.7.3-3]
    if rest.is_empty() || rest.len() > MAX_TEXT {
        return false;
    }
    let mut at_level_start = true;
    while let [byte, tail @ ..] = rest {
        let well_placed = match *byte {
            0 => false,                                                // [MQTT-4.7.3-2]
            b'#' => at_level_start && tail.is_empty(),                 // [MQTT-4.7.1-2]
            b'+' => at_level_start && matches!(tail, [] | [b'/', ..]), // [MQTT-4.7.1-3]
            _ => true,
        };
        if !well_placed {
            return false;
        }
        at_level_start = *byte == b'/';
        rest = tail;
    }
    true
}

/// Whether `topic` is matched by `filter`. Both must be well-formed, see [`is_name`] and [`is_filter`].
///
/// ```
/// # use dunlin_core::topic;
/// assert!(topic::matches("plant/+/valve", "plant/7/valve"));
/// assert!(topic::matches("plant/#", "plant")); // `#` includes the parent level
/// assert!(!topic::matches("#", "$SYS/uptime")); // a leading wildcard leaves `$` topics alone
/// ```
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut filter = filter.as_bytes();
    let mut topic = topic.as_bytes();
    // [MQTT-4.7.2-1]
    if let ([b'+' | b'#', ..], [b'$', ..]) = (filter, topic) {
        return false;
    }
    loop {
        match (filter, topic) {
            ([], []) | ([b'#'], _) | ([b'/', b'#'], []) => return true,
            ([b'+', filter_rest @ ..], _) => {
                filter = filter_rest;
                topic = from_next_slash(topic);
            }
            ([a, filter_rest @ ..], [b, topic_rest @ ..]) if a == b => {
                filter = filter_rest;
                topic = topic_rest;
            }
            _ => return false,
        }
    }
}

/// What is left of `topic` from its first `/` on, that slash included.
fn from_next_slash(mut topic: &[u8]) -> &[u8] {
    while let [byte, tail @ ..] = topic {
        if *byte == b'/' {
            break;
        }
        topic = tail;
    }
    topic
}

const MAX_LEVELS: usize = 8;

/// A topic filter together with the quality of service to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filter<'a> {
    text: &'a str,
    qos: QoS,
}

/// The text is not a topic filter: see [`is_filter`] for what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvalidFilter;

impl core::fmt::Display for InvalidFilter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a topic filter")
    }
}

impl core::error::Error for InvalidFilter {}

impl<'a> Filter<'a> {
    /// A filter that is known when the program is written. Use it in a `const` or `static`: a text that is no filter
    /// is then an error of the compiler.
    ///
    /// ```
    /// # use dunlin_core::{Filter, QoS};
    /// const COMMANDS: &[Filter] = &[Filter::literal("plant/7/valve/+/set", QoS::AtLeastOnce)];
    /// ```
    /// ```compile_fail
    /// # use dunlin_core::{Filter, QoS};
    /// const WRONG: Filter = Filter::literal("plant/valve#", QoS::AtLeastOnce);
    /// ```
    ///
    /// Outside a `const`, prefer [`Filter::new`]: this panics on a text that is no filter.
    #[must_use]
    #[expect(clippy::panic, reason = "DEV-01: meant for constants, where a panic is an error of the compiler")]
    pub const fn literal(text: &'a str, qos: QoS) -> Self {
        if is_filter(text) { Self { text, qos } } else { panic!("not a topic filter") }
    }

    /// A filter from text that is only known at run time.
    ///
    /// # Errors
    /// [`InvalidFilter`] if `text` is not a topic filter.
    pub const fn new(text: &'a str, qos: QoS) -> Result<Self, InvalidFilter> {
        if is_filter(text) { Ok(Self { text, qos }) } else { Err(InvalidFilter) }
    }

    /// The text of the filter.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The quality of service to ask for: the most that messages may arrive with.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Whether a message with topic name `topic` matches.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.text, topic)
    }
}

/// The topic name of a message that arrived, or what a store kept: text, checked when it was received or accepted.
///
/// Reads like a `&str` wherever one is wanted. Held as bytes, so that a program which compares topics and prints none
/// does not carry the code that makes text out of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic<'b>(&'b [u8]);

impl<'b> Topic<'b> {
    /// `bytes` are UTF-8: they have passed [`crate::packet::reader::check_name`].
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// A topic name or filter that a store kept: the bytes of one that a session had accepted. What is not UTF-8 reads
    /// as empty text.
    #[cfg(feature = "durable")]
    #[must_use]
    pub const fn from_store(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// The topic name as text.
    #[must_use]
    pub fn as_str(&self) -> &'b str {
        core::str::from_utf8(self.0).unwrap_or_default()
    }

    /// The topic name as bytes, which are UTF-8.
    #[must_use]
    pub const fn as_bytes(&self) -> &'b [u8] {
        self.0
    }

    /// The levels of the topic name, for a slice pattern.
    #[must_use]
    pub fn levels(&self) -> Levels<'b> {
        Levels::of(self.as_str())
    }
}

impl Deref for Topic<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Topic<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Topic<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl<'b> From<Topic<'b>> for &'b str {
    fn from(topic: Topic<'b>) -> Self {
        topic.as_str()
    }
}

impl core::fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::fmt::Debug for Topic<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The levels of a topic name, for matching with a slice pattern.
///
/// Holds at most eight; the eighth keeps whatever follows, slashes included.
///
/// ```
/// # use dunlin_core::topic::Levels;
/// match &Levels::of("plant/7/valve/3/set")[..] {
///     ["plant", _, "valve", number, "set"] => assert_eq!(*number, "3"),
///     _ => unreachable!(),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels<'a> {
    parts: [&'a str; MAX_LEVELS],
    count: usize,
}

impl<'a> Levels<'a> {
    /// The most levels that are told apart.
    pub const MAX: usize = MAX_LEVELS;

    /// Splits `topic` at its slashes.
    #[must_use]
    pub fn of(topic: &'a str) -> Self {
        let mut levels = Self { parts: [""; MAX_LEVELS], count: 0 };
        let mut rest = topic;
        for place in &mut levels.parts {
            levels.count = levels.count.wrapping_add(1);
            *place = rest; // the last place keeps what is left
            let is_last = levels.count == Self::MAX;
            let len = rest.bytes().take_while(|byte| *byte != b'/').fold(0_usize, |len, _| len.wrapping_add(1));
            let Some((level, after)) = rest.split_at_checked(len) else { break };
            let Some(after) = after.strip_prefix('/') else { break };
            if is_last {
                break;
            }
            *place = level;
            rest = after;
        }
        levels
    }
}

impl<'a> Deref for Levels<'a> {
    type Target = [&'a str];

    fn deref(&self) -> &Self::Target {
        self.parts.get(..self.count).unwrap_or(&self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::Levels;

    #[test]
    fn levels_are_what_stands_between_the_slashes() {
        assert_eq!(Levels::of("a")[..], ["a"]);
        assert_eq!(Levels::of("a/b")[..], ["a", "b"]);
        assert_eq!(Levels::of("/a//b/")[..], ["", "a", "", "b", ""]);
        assert_eq!(Levels::of("\u{e9}/\u{20ac}")[..], ["\u{e9}", "\u{20ac}"]);
        assert_eq!(Levels::of("1/2/3/4/5/6/7/8")[..], ["1", "2", "3", "4", "5", "6", "7", "8"]);
        assert_eq!(Levels::of("1/2/3/4/5/6/7/8/9/")[..], ["1", "2", "3", "4", "5", "6", "7", "8/9/"]);
    }
}
