//! What a client is told before it starts.

use std::sync::Arc;
use std::time::Duration;

use dunlin_core::{Options, Oversize, Publish, QoS};

use super::error::Error;
use crate::reconnect::Backoff;
use crate::router::Router;
use crate::transport::target::Target;
use crate::url::{Address, InvalidUrl};

/// Options of a client. The same for the blocking client and the asynchronous one; what starts it differs.
///
/// ```
/// use std::time::Duration;
/// use dunlin::blocking::Client;
/// use dunlin::{Publish, QoS};
///
/// let builder = Client::builder("mqtt://localhost:1883", "till-12")
///     .persistent()
///     .keep_alive(Duration::from_secs(20))
///     .credentials("till", b"secret")
///     .will(&Publish::new("till/12/status", b"gone").at_least_once().retain())
///     .subscribe("till/12/#", QoS::ExactlyOnce);
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    target: Result<Target, InvalidUrl>,
    settings: Settings,
}

/// What the parts of a client read.
#[derive(Clone)]
pub(crate) struct Settings {
    client_id: String,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    will: Option<Will>,
    is_persistent: bool,
    pub is_manual: bool,
    skips_oversize: bool,
    pub keep_alive_s: u16,
    pub answer_timeout_s: u16,
    pub window: u16,
    pub subscriptions: Vec<(String, QoS)>,
    pub backoff: Backoff,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub linger: Duration,
    /// Most messages on their way out, and most bytes of them.
    pub queue: (usize, usize),
    /// Most messages that wait for the application, and most bytes of them.
    pub receive_queue: (usize, usize),
    pub receive_window: usize,
    pub filter_bytes: usize,
    pub max_packet: usize,
    #[cfg(feature = "store")]
    pub store: Option<dunlin_store::FileStore>,
}

#[derive(Clone)]
struct Will {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

impl Builder {
    /// A client with this identifier for the server at `url`; what is wrong with the URL is said when it starts.
    pub(crate) fn new(url: &str, client_id: &str) -> Self {
        Self::from_address(url.parse(), client_id)
    }

    /// A client for a server whose address is known in parts.
    #[must_use]
    pub fn for_address(address: Address, client_id: &str) -> Self {
        Self::from_address(Ok(address), client_id)
    }

    fn from_address(address: Result<Address, InvalidUrl>, client_id: &str) -> Self {
        let user_name = address.as_ref().ok().and_then(|address| address.user_name().map(str::to_owned));
        let password = address.as_ref().ok().and_then(|address| address.password().map(<[u8]>::to_vec));
        let settings = Settings {
            client_id: client_id.to_owned(),
            user_name,
            password,
            will: None,
            is_persistent: false,
            is_manual: false,
            skips_oversize: false,
            keep_alive_s: 60,
            answer_timeout_s: 10,
            window: 20,
            subscriptions: Vec::new(),
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            queue: (1024, 16 << 20),
            receive_queue: (1024, 16 << 20),
            receive_window: usize::from(u16::MAX),
            filter_bytes: 64 << 10,
            max_packet: 16 << 20,
            #[cfg(feature = "store")]
            store: None,
        };
        Self { target: address.map(Target::new), settings }
    }

    /// Clean session off: server and client go on after a reconnect where they stopped, and the server keeps messages
    /// at QoS 1 and 2 for the absent client. Needs a client identifier that is the same each time.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.settings.is_persistent = true;
        self
    }

    /// Keeps the session in this store, so that it survives the process, whatever ends it: [`persistent`](Self::persistent),
    /// and messages at QoS 1 and 2 that were accepted arrive, at QoS 2 exactly once; incoming messages at QoS 2 whose
    /// acknowledgement was stored are not shown again; filters that were subscribed to at run time are subscribed to
    /// again. One store belongs to one client identifier and one server.
    ///
    /// Publishing returns when the message is on the disk; what is published at the same time shares one
    /// synchronisation, and so do all messages of `try_publish`, which does not wait for it. A full store is
    /// [`PublishError::Full`](dunlin_core::PublishError::Full); a disk that fails ends the client. With
    /// [`manual_acks`](Self::manual_acks), only what the application has acknowledged counts as shown: a message that
    /// comes again after a restart has [`is_dup`](super::Message::is_dup).
    #[cfg(feature = "store")]
    #[must_use]
    pub fn store(mut self, store: dunlin_store::FileStore) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// User name and password; they replace those in the URL.
    #[must_use]
    pub fn credentials(mut self, user_name: &str, password: &[u8]) -> Self {
        self.settings.user_name = Some(user_name.to_owned());
        self.settings.password = Some(password.to_vec());
        self
    }

    /// A user name without a password.
    #[must_use]
    pub fn user_name(mut self, user_name: &str) -> Self {
        self.settings.user_name = Some(user_name.to_owned());
        self.settings.password = None;
        self
    }

    /// What the server publishes when this client disappears without a goodbye.
    #[must_use]
    pub fn will(mut self, will: &Publish<'_>) -> Self {
        self.settings.will = Some(Will {
            topic: will.topic().to_owned(),
            payload: will.payload().to_vec(),
            qos: will.qos(),
            retain: will.is_retain(),
        });
        self
    }

    /// Subscribes as soon as there is a connection, and again whenever the server has lost the session. One call per
    /// filter. The server's refusal is an [`Event`](super::Event).
    #[must_use]
    pub fn subscribe(mut self, filter: &str, qos: QoS) -> Self {
        self.settings.subscriptions.push((filter.to_owned(), qos));
        self
    }

    /// Subscribes to all filters of a table: see [`subscribe`](Self::subscribe).
    #[must_use]
    pub fn subscribe_all<H>(mut self, router: &Router<H>) -> Self {
        self.settings.subscriptions.extend(router.filters().map(|(filter, qos)| (filter.to_owned(), qos)));
        self
    }

    /// The longest silence towards the server, in whole seconds, 60 by default; zero turns keep alive off, and with it
    /// the discovery of dead links.
    ///
    /// A server from which nothing has come for so long is asked whether it is there, also while messages leave that it
    /// need not answer, and is left when it says nothing for as long again.
    #[must_use]
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.settings.keep_alive_s = seconds(time);
        self
    }

    /// How long the answers to CONNECT and to a ping may take, in whole seconds, 10 by default. What a long message before
    /// them takes to arrive does not count.
    #[must_use]
    pub fn answer_timeout(mut self, time: Duration) -> Self {
        self.settings.answer_timeout_s = seconds(time).max(1);
        self
    }

    /// How long one attempt to open a stream may take, over all addresses of the name, 10 seconds by default.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.settings.connect_timeout = time;
        self
    }

    /// How long blocking calls wait: `publish` for room, `subscribe` and `unsubscribe` for the answer; 10 seconds by
    /// default.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.settings.timeout = time;
        self
    }

    /// How long the drop of the last handle waits for what is on its way, if there is a connection; 2 seconds by
    /// default.
    #[must_use]
    pub fn linger(mut self, time: Duration) -> Self {
        self.settings.linger = time;
        self
    }

    /// How long to wait between attempts to connect; from 1 to 60 seconds by default.
    #[must_use]
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Most messages at QoS 1 and 2 that are sent and not yet acknowledged, 20 by default. More wait in the queue.
    ///
    /// MQTT 3.1.1 gives a server no way to say how many it takes, so some end the connection above their limit:
    /// mosquitto does above 20 at QoS 2, unless it is told otherwise. A larger window is faster over long distances.
    #[must_use]
    pub fn window(mut self, messages: u16) -> Self {
        self.settings.window = messages.max(1);
        self
    }

    /// Most messages on their way out at a time, from `publish` to the acknowledgement, and most bytes of them; 1,024
    /// and 16 MiB by default. There are never more than 32,000 messages.
    ///
    /// While there is a connection, payloads of up to 16 KiB wait for room when messages on their way take 1 MiB: more of
    /// them would make nothing faster.
    #[must_use]
    pub fn queue(mut self, messages: usize, bytes: usize) -> Self {
        self.settings.queue = (messages.clamp(1, 32_000), bytes.max(64));
        self
    }

    /// Most received messages that wait for the application, and most bytes of them; 1,024 and 16 MiB by default. When
    /// they are reached, the socket is read no more, and the server's messages wait on its side.
    ///
    /// While a call of this client waits for an acknowledgement, which may stand behind messages in the stream, any
    /// number is taken, up to four times these bytes. So publishing from the loop that receives gets its room, as long
    /// as there is memory for what comes in between.
    #[must_use]
    pub fn receive_queue(mut self, messages: usize, bytes: usize) -> Self {
        self.settings.receive_queue = (messages.max(1), bytes.max(1));
        self
    }

    /// Most incoming messages at QoS 1 and 2 whose exchange is open: what the server may have in flight at QoS 2. By
    /// default as many as there are packet identifiers, so that there are never more. Memory, four bytes each, follows
    /// what there are.
    ///
    /// With fewer, more end the connection with [`Fault::TooMany`](dunlin_core::Fault::TooMany). A persistent session goes
    /// on from there: nothing is lost or doubled, it takes a connection for each so many messages. A clean session
    /// loses what the server had for it. Servers need not keep to their own limit: mosquitto 2.0.11 answers each PUBCOMP
    /// with two messages as long as its queue is not empty; and what releases a message stands behind all
    /// messages that wait in the stream for a slow application.
    #[must_use]
    pub fn receive_window(mut self, messages: u16) -> Self {
        self.settings.receive_window = usize::from(messages.max(1));
        self
    }

    /// Most bytes of memory for filters subscribed to, 64 KiB by default; each takes five more than its length.
    #[must_use]
    pub fn filter_memory(mut self, bytes: usize) -> Self {
        self.settings.filter_bytes = bytes;
        self
    }

    /// The longest packet that is received, 16 MiB by default. Memory follows what comes, not what is announced.
    #[must_use]
    pub fn max_packet(mut self, bytes: usize) -> Self {
        self.settings.max_packet = bytes.max(1024);
        self
    }

    /// Lets messages above [`max_packet`](Self::max_packet) pass by, acknowledged and reported as
    /// [`Event::Skipped`](super::Event::Skipped), instead of ending the connection.
    #[must_use]
    pub fn skip_oversize(mut self) -> Self {
        self.settings.skips_oversize = true;
        self
    }

    /// Acknowledge received messages when `acknowledge` is called, instead of when they have reached the queue of
    /// received messages. A message that was not acknowledged comes again after a restart.
    #[must_use]
    pub fn manual_acks(mut self) -> Self {
        self.settings.is_manual = true;
        self
    }

    /// How to trust the server, and who this client is, for `mqtts://` and `wss://`; by default the certificate
    /// authorities of the system are trusted, and nothing is shown.
    #[cfg(feature = "rustls")]
    #[must_use]
    pub fn tls(self, tls: crate::tls::Tls) -> Self {
        self.with_target(|target| target.tls = tls)
    }

    /// Connects through this proxy. Not for Unix domain sockets.
    #[cfg(feature = "proxy")]
    #[must_use]
    pub fn proxy(self, proxy: crate::proxy::Proxy) -> Self {
        self.with_target(|target| target.proxy = Some(proxy))
    }

    /// Adds a header to the handshake of a WebSocket, such as `Authorization`.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket_header(self, name: &str, value: &str) -> Self {
        self.with_target(|target| target.headers.push((name.to_owned(), value.to_owned())))
    }

    #[cfg(any(feature = "rustls", feature = "proxy", feature = "websocket"))]
    fn with_target(mut self, change: impl FnOnce(&mut Target)) -> Self {
        if let Ok(target) = &mut self.target {
            change(target);
        }
        self
    }

    /// Where to connect, and the settings, checked.
    #[cfg_attr(not(feature = "websocket"), allow(unused_mut))]
    pub(crate) fn finish(self) -> Result<(Arc<Target>, Arc<Settings>), Error> {
        let mut target = self.target?;
        target.check()?;
        self.settings.options().check().map_err(Error::Options)?;
        #[cfg(feature = "websocket")]
        {
            target.max_packet = self.settings.max_packet;
        }
        Ok((Arc::new(target), Arc::new(self.settings)))
    }
}

impl Settings {
    /// The client identifier, by which logs and threads name the client.
    pub fn name(&self) -> &str {
        &self.client_id
    }

    /// What the session is told.
    pub fn options(&self) -> Options<'_> {
        let mut options =
            Options::new(&self.client_id).keep_alive(self.keep_alive_s).answer_timeout(self.answer_timeout_s);
        options = options.window(self.window);
        if self.is_persistent {
            options = options.persistent();
        }
        #[cfg(feature = "store")]
        if self.store.is_some() {
            options = options.durable();
        }
        if self.is_manual {
            options = options.manual_acks();
        }
        if self.skips_oversize {
            options = options.oversize(Oversize::Skip);
        }
        if let Some(Will { topic, payload, qos, retain }) = &self.will {
            let will = Publish::new(topic, payload).with_qos(*qos);
            options = options.will(if *retain { will.retain() } else { will });
        }
        match (&self.user_name, &self.password) {
            (Some(user_name), Some(password)) => options.credentials(user_name, password),
            (Some(user_name), None) => options.user_name(user_name),
            (None, _) => options,
        }
    }
}

/// Never shows the password.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options().fmt(f)
    }
}

/// Rounded up: a part of a second is not zero, which would mean off.
fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u16::MAX)
}
