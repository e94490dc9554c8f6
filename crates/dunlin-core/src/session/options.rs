//! What a session is told once: [`Options`]; and what it is told per message: [`Publish`].
//!
//! All setters are `const`, so a program's configuration is a constant in flash.

use core::fmt;

use crate::packet::{QoS, connect};
#[cfg(feature = "table")]
use crate::topic::Filter;
use crate::topic::{self, MAX_TEXT};

/// Who the client is and how it behaves. Fields of CONNECT (MQTT 3.1) and the policies of the session.
///
/// ```
/// # use dunlin_core::{Filter, Options, Publish, QoS};
/// const OPTIONS: Options = Options::new("pump-3")
///     .persistent()
///     .keep_alive(30)
///     .credentials("pump", b"secret")
///     .will(Publish::new("pump/3/status", b"offline").at_least_once().retain())
///     .subscriptions(&[Filter::literal("pump/3/#", QoS::AtLeastOnce)]);
/// const _: () = assert!(OPTIONS.check().is_ok());
/// ```
#[derive(Clone, Copy)]
pub struct Options<'s> {
    /// What CONNECT says, in its order: client identifier, topic and payload of the will, user name, password.
    pub(crate) fields: [Option<&'s [u8]>; 5],
    #[cfg(feature = "table")]
    pub(crate) subscriptions: &'s [Filter<'s>],
    pub(crate) keep_alive_s: u16,
    pub(crate) answer_timeout_s: u16,
    pub(crate) window: u16,
    /// The flags of CONNECT.
    pub(crate) flags: u8,
    durability: Durability,
    pub(crate) acks: Acks,
    /// What MQTT cannot express of the fields above, as bits of [`invalid`], and the first of it. Found out by the setters,
    /// at compile time for a constant.
    invalid: u8,
    first_invalid: Option<InvalidOptions>,
    #[cfg(feature = "large")]
    pub(crate) oversize: Oversize,
    #[cfg(feature = "large")]
    pub(crate) chunk_align: u16,
}

/// What a CONNECT says of the client, for [`Options::set_client`].
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "closed: MQTT 3.1.1 has no more")]
pub struct Client<'s> {
    /// The client identifier: text, empty only where the session is not persistent.
    pub id: &'s [u8],
    /// Clean session off: see [`Options::persistent`].
    pub is_persistent: bool,
    /// The will: see [`Options::will`].
    pub will: Option<Publish<'s>>,
    /// The user name: text.
    pub user_name: Option<&'s [u8]>,
    /// The password, not without a user name.
    pub password: Option<&'s [u8]>,
}

/// Fields that MQTT cannot express, one bit each.
mod invalid {
    pub const CLIENT_ID: u8 = 1;
    pub const WILL: u8 = 2;
    pub const USER_NAME: u8 = 4;
    pub const PASSWORD: u8 = 8;
}

/// Whether the session survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Durability {
    Volatile,
    #[cfg_attr(not(feature = "durable"), expect(dead_code, reason = "unused then, but the code is smaller with it"))]
    Durable,
}

/// Who says that a received message is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Acks {
    Automatic,
    #[cfg_attr(not(feature = "manual"), expect(dead_code, reason = "unused then, but the code is smaller with it"))]
    Manual,
}

/// What to do with a received message that does not fit the inbox and is not wanted in chunks.
#[cfg(feature = "large")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oversize {
    /// End the connection with [`Fault::TooLarge`](crate::Fault::TooLarge). When the server sends the same message
    /// again to the resumed session it is skipped, since ending the connection over and over helps nobody.
    Close,
    /// Let its bytes pass, acknowledge it as its quality of service asks, and report
    /// [`Event::Skipped`](crate::Event::Skipped).
    Skip,
}

impl<'s> Options<'s> {
    /// A client with this client identifier, by which the server knows the session [MQTT-3.1.3-2], a clean session, a keep alive of 60 seconds and nothing else.
    ///
    /// `client_id` should have 1 to 23 characters out of `0-9a-zA-Z`, which every server takes [MQTT-3.1.3-5]. Empty
    /// lets the server choose one, for clean sessions only [MQTT-3.1.3-7].
    #[must_use]
    pub const fn new(client_id: &'s str) -> Self {
        Self {
            fields: [Some(client_id.as_bytes()), None, None, None, None],
            #[cfg(feature = "table")]
            subscriptions: &[],
            keep_alive_s: 60,
            answer_timeout_s: 10,
            window: 20,
            flags: connect::CLEAN_SESSION,
            durability: Durability::Volatile,
            acks: Acks::Automatic,
            invalid: 0,
            first_invalid: None,
            #[cfg(feature = "large")]
            oversize: Oversize::Close,
            #[cfg(feature = "large")]
            chunk_align: 0,
        }
        .checked(invalid::CLIENT_ID, is_text(client_id))
    }

    /// Sets what a CONNECT says of the client, all of it at once and as bytes: for callers that know it at run time only, as
    /// those in C, whom the setters would cost three times the code.
    ///
    /// # Errors
    /// [`InvalidOptions`], as [`check`](Self::check) would say, and for text that is not UTF-8. The options are as they were.
    pub fn set_client(&mut self, client: Client<'s>) -> Result<(), InvalidOptions> {
        let Client { id, is_persistent, will, user_name, password } = client;
        if !topic::is_text(id) || (is_persistent && id.is_empty()) {
            return Err(InvalidOptions::ClientId); // [MQTT-3.1.3-7]
        }
        let mut flags = if is_persistent { 0 } else { connect::CLEAN_SESSION };
        let mut will_fields = [None, None];
        if let Some(will) = will {
            if !topic::is_name(will.topic) || will.payload.len() > MAX_TEXT {
                return Err(InvalidOptions::Will); // [MQTT-3.1.3-10]
            }
            flags |= connect::will_flags(will.qos, will.retain);
            will_fields = [Some(will.topic.as_bytes()), Some(will.payload)];
        }
        if let Some(name) = user_name {
            if !topic::is_text(name) {
                return Err(InvalidOptions::UserName); // [MQTT-3.1.3-11]
            }
            flags |= connect::USER_NAME; // [MQTT-3.1.2-18]
        }
        if let Some(password) = password {
            if user_name.is_none() || password.len() > MAX_TEXT {
                return Err(InvalidOptions::Password); // [MQTT-3.1.2-22]
            }
            flags |= connect::PASSWORD; // [MQTT-3.1.2-20]
        }
        let [topic, payload] = will_fields;
        self.fields = [Some(id), topic, payload, user_name, password];
        self.flags = flags;
        self.invalid = 0;
        self.first_invalid = None;
        Ok(())
    }

    /// Clean session off: server and client go on after a reconnect where they stopped [MQTT-3.1.2-4]. The server
    /// keeps messages for the absent client, and unacknowledged ones are exchanged to their end.
    #[must_use]
    pub const fn persistent(self) -> Self {
        self.outliving(Durability::Volatile)
    }

    /// Clean session off, and write-ahead marks on: nothing that a power cut could turn into a lost or doubled
    /// message leaves before [`mark_stored`](crate::Session::mark_stored) has been called for it.
    #[cfg(feature = "durable")]
    #[must_use]
    pub const fn durable(self) -> Self {
        self.outliving(Durability::Durable)
    }

    /// The longest silence towards the server, in seconds; 0 turns keep alive off (MQTT 3.1.2.10).
    ///
    /// The session pings when seven eighths of it have passed without a packet sent, so that a driver may be a little
    /// late [MQTT-3.1.2-23].
    ///
    /// While messages at QoS 0 leave more often than that, nothing is sent that a server must answer: that the link is
    /// dead is then found out by the TCP/IP stack's own time limit, or by a driver that calls
    /// [`ping_past`](crate::Session::ping_past).
    #[must_use]
    pub const fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    /// How long CONNACK and PINGRESP may take, in seconds, 10 by default. Then the link is dead:
    /// [`Fault::ConnectTimeout`](crate::Fault::ConnectTimeout) or [`Fault::Silent`](crate::Fault::Silent). A long message may
    /// take longer to arrive: as long as more of it comes, what stands behind it is not missed.
    #[must_use]
    pub const fn answer_timeout(mut self, seconds: u16) -> Self {
        self.answer_timeout_s = seconds;
        self
    }

    /// Most messages at QoS 1 and 2 that are sent and not yet acknowledged, 20 by default; at least 1. More wait.
    ///
    /// MQTT 3.1.1 gives a server no way to say how many it takes, so some end the connection above their limit:
    /// mosquitto does above 20 at QoS 2, unless it is told otherwise.
    #[must_use]
    pub const fn window(mut self, messages: u16) -> Self {
        self.window = if messages == 0 { 1 } else { messages };
        self
    }

    /// The will: what the server publishes when this client disappears without a goodbye (MQTT 3.1.2.5).
    #[must_use]
    pub const fn will(mut self, will: Publish<'s>) -> Self {
        let [client_id, _, _, user_name, password] = self.fields;
        self.fields = [client_id, Some(will.topic.as_bytes()), Some(will.payload), user_name, password];
        self.flags = self.flags & !connect::WILL | connect::will_flags(will.qos, will.retain);
        let is_valid = topic::is_name(will.topic) && will.payload.len() <= MAX_TEXT; // [MQTT-3.1.3-10]
        self.checked(invalid::WILL, is_valid)
    }

    /// A user name without a password.
    #[must_use]
    pub const fn user_name(mut self, user_name: &'s str) -> Self {
        let [client_id, topic, payload, ..] = self.fields;
        self.fields = [client_id, topic, payload, Some(user_name.as_bytes()), None];
        self.flags = self.flags & !connect::PASSWORD | connect::USER_NAME; // [MQTT-3.1.2-18] [MQTT-3.1.2-20]
        self.checked(invalid::PASSWORD, true).checked(invalid::USER_NAME, is_text(user_name)) // [MQTT-3.1.3-11]
    }

    /// A user name and a password. MQTT 3.1.1 has no password without a user name [MQTT-3.1.2-22].
    #[must_use]
    pub const fn credentials(self, user_name: &'s str, password: &'s [u8]) -> Self {
        let mut options = self.user_name(user_name);
        let [client_id, topic, payload, user_name, _] = options.fields;
        options.fields = [client_id, topic, payload, user_name, Some(password)];
        options.flags |= connect::PASSWORD;
        options.checked(invalid::PASSWORD, password.len() <= MAX_TEXT)
    }

    /// Filters that the session subscribes to by itself, whenever the server may not have them: after each CONNACK
    /// without session present, after one that follows a CONNECT without an answer, and on the first connection after
    /// a restart. No copy is made.
    #[cfg(feature = "table")]
    #[must_use]
    pub const fn subscriptions(mut self, filters: &'s [Filter<'s>]) -> Self {
        self.subscriptions = filters;
        self
    }

    /// Acknowledge received messages only when [`acknowledge`](crate::Session::acknowledge) says so, instead of when
    /// `poll` is called again.
    #[cfg(feature = "manual")]
    #[must_use]
    pub const fn manual_acks(mut self) -> Self {
        self.acks = Acks::Manual;
        self
    }

    /// Deliver messages that do not fit the inbox as [`Event::Chunk`](crate::Event::Chunk)s. All chunks of a message
    /// but the last have a multiple of `align` bytes, as flash memories like it; 0 is taken as 1.
    #[cfg(feature = "large")]
    #[must_use]
    pub const fn stream_large(mut self, align: u16) -> Self {
        self.chunk_align = if align == 0 { 1 } else { align };
        self
    }

    /// What to do with messages that do not fit the inbox and are not wanted in chunks; [`Oversize::Close`] by default.
    #[cfg(feature = "large")]
    #[must_use]
    pub const fn oversize(mut self, policy: Oversize) -> Self {
        self.oversize = policy;
        self
    }

    /// Whether MQTT can express these options.
    ///
    /// # Errors
    /// The first [`InvalidOptions`] in the order of CONNECT. A session with such options refuses to connect and says the same as
    /// [`Fault::Options`](crate::Fault::Options).
    pub const fn check(&self) -> Result<(), InvalidOptions> {
        match self.first_invalid {
            None => Ok(()),
            Some(field) => Err(field),
        }
    }

    /// With a session that outlives the connection, which cannot be had without a name [MQTT-3.1.3-7].
    const fn outliving(mut self, durability: Durability) -> Self {
        self.flags &= !connect::CLEAN_SESSION;
        self.durability = durability;
        if let [Some([]), ..] = self.fields {
            return self.checked(invalid::CLIENT_ID, false);
        }
        self
    }

    /// Takes note of whether MQTT can express a field.
    const fn checked(mut self, field: u8, is_valid: bool) -> Self {
        self.invalid = if is_valid { self.invalid & !field } else { self.invalid | field };
        self.first_invalid = match self.invalid {
            0 => None,
            fields if fields & invalid::CLIENT_ID != 0 => Some(InvalidOptions::ClientId),
            fields if fields & invalid::WILL != 0 => Some(InvalidOptions::Will),
            fields if fields & invalid::USER_NAME != 0 => Some(InvalidOptions::UserName),
            _ => Some(InvalidOptions::Password),
        };
        self
    }

    /// A copy made field by field: for a constant that takes less code than a call of `memcpy`, and none of the latter.
    pub(crate) const fn clone_fields(&self) -> Self {
        Self {
            fields: {
                let [client_id, topic, payload, user_name, password] = self.fields;
                [client_id, topic, payload, user_name, password]
            },
            #[cfg(feature = "table")]
            subscriptions: self.subscriptions,
            keep_alive_s: self.keep_alive_s,
            answer_timeout_s: self.answer_timeout_s,
            window: self.window,
            flags: self.flags,
            durability: self.durability,
            acks: self.acks,
            invalid: self.invalid,
            first_invalid: self.first_invalid,
            #[cfg(feature = "large")]
            oversize: self.oversize,
            #[cfg(feature = "large")]
            chunk_align: self.chunk_align,
        }
    }

    pub(crate) const fn clean_session(&self) -> bool {
        self.flags & connect::CLEAN_SESSION != 0
    }

    pub(crate) const fn is_durable(&self) -> bool {
        cfg!(feature = "durable") && matches!(self.durability, Durability::Durable)
    }

    pub(crate) const fn is_manual(&self) -> bool {
        cfg!(feature = "manual") && matches!(self.acks, Acks::Manual)
    }
}

/// Never shows the password.
impl<'s> fmt::Debug for Options<'s> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [client_id, topic, payload, user_name, password] = self.fields;
        let text = |field: Option<&'s [u8]>| field.and_then(|bytes| core::str::from_utf8(bytes).ok());
        f.debug_struct("Options")
            .field("client_id", &text(client_id))
            .field("user_name", &text(user_name))
            .field("password", &password.map(|_| "***"))
            .field("will_topic", &text(topic))
            .field("will_payload_len", &payload.map(<[u8]>::len))
            .field("keep_alive_s", &self.keep_alive_s)
            .field("answer_timeout_s", &self.answer_timeout_s)
            .field("window", &self.window)
            .field("clean_session", &self.clean_session())
            .field("durability", &self.durability)
            .field("acks", &self.acks)
            .finish_non_exhaustive()
    }
}

/// Which option MQTT cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidOptions {
    /// The client identifier is longer than 65,535 bytes, holds U+0000, or is empty without a clean session.
    ClientId,
    /// The topic of the will is no topic name, or its payload is longer than 65,535 bytes.
    Will,
    /// The user name is longer than 65,535 bytes or holds U+0000.
    UserName,
    /// The password is longer than 65,535 bytes.
    Password,
}

/// [MQTT-1.5.3-2] [MQTT-3.1.3-4]
const fn is_text(text: &str) -> bool {
    let mut rest = text.as_bytes();
    if rest.len() > MAX_TEXT {
        return false;
    }
    while let [byte, tail @ ..] = rest {
        if *byte == 0 {
            return false;
        }
        rest = tail;
    }
    true
}

/// A message to publish, or a will.
///
/// ```
/// # use dunlin_core::Publish;
/// let reading = Publish::new("plant/7/pressure", b"4.1").at_least_once().retain();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Publish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

impl<'a> Publish<'a> {
    /// A message at QoS 0 that is not retained.
    #[must_use]
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        Self { topic, payload, qos: QoS::AtMostOnce, retain: false }
    }

    /// At QoS 1: arrives at least once.
    #[must_use]
    pub const fn at_least_once(self) -> Self {
        self.with_qos(QoS::AtLeastOnce)
    }

    /// At QoS 2: arrives exactly once.
    #[must_use]
    pub const fn exactly_once(self) -> Self {
        self.with_qos(QoS::ExactlyOnce)
    }

    /// At a quality of service that is only known at run time.
    #[must_use]
    pub const fn with_qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// To be kept by the server for whoever subscribes later (MQTT 3.3.1.3). With an empty payload, the server
    /// forgets what it kept for the topic.
    #[must_use]
    pub const fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The topic name.
    #[must_use]
    pub const fn topic(&self) -> &'a str {
        self.topic
    }

    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The quality of service.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// Whether the server keeps the message.
    #[must_use]
    pub const fn is_retain(&self) -> bool {
        self.retain
    }
}

/// Shows how long the payload is, not what is in it.
impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}
