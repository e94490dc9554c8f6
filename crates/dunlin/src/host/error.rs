//! What can go wrong, one type per kind of decision.

use std::fmt;
use std::io;
use std::sync::Arc;

use dunlin_core::{Fault, InvalidOptions, PublishError, SubscribeError};

use crate::url::{InvalidUrl, Scheme};

/// A request was not carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The URL names no server that could be reached.
    Url(InvalidUrl),
    /// This build cannot reach servers this way: a feature of the crate is off.
    Unsupported(Scheme),
    /// The options cannot be expressed in MQTT.
    Options(InvalidOptions),
    /// The message was not accepted. [`Full`](PublishError::Full): no room became free in the time that
    /// [`timeout`](super::Builder::timeout) gives.
    Publish(PublishError),
    /// The request was not accepted.
    Subscribe(SubscribeError),
    /// The server answered, and refused this filter.
    SubscriptionRefused(String),
    /// No answer in the time given. What was asked for goes on; only the wait is over.
    Timeout,
    /// The client has ended and will not connect again, for this reason.
    Ended(Reason),
    /// The close came to its time limit with so many messages or requests unfinished. Those at QoS 1 and 2 are lost, unless
    /// there is a store: the next client delivers what is in it.
    Unfinished(usize),
    /// The system refused a thread or a poll.
    System(Arc<io::Error>),
}

/// Why a connection ended, or was not made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The session ended it: see [`Fault`].
    Fault(Fault),
    /// The server closed it.
    ServerClosed,
    /// The stream failed, or could not be opened.
    Io(Arc<io::Error>),
    /// There is no TLS connection.
    #[cfg(feature = "rustls")]
    Tls(crate::tls::TlsError),
    /// There is no WebSocket connection.
    #[cfg(feature = "websocket")]
    WebSocket(WebSocketError),
    /// The proxy made no tunnel.
    #[cfg(feature = "proxy")]
    Proxy(crate::proxy::ProxyError),
    /// The store failed: nothing can be promised any more.
    #[cfg(feature = "store")]
    Store(Arc<dunlin_store::StoreError<io::Error>>),
    /// This side closed it.
    Closed,
}

/// Why a WebSocket cannot carry MQTT.
#[cfg(feature = "websocket")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The server answered with this HTTP status instead of changing to WebSocket.
    Refused(u16),
    /// The server speaks WebSocket, but has not chosen the sub-protocol `mqtt`: see whether the path is right.
    NotMqtt,
    /// The server sent something else than binary frames.
    NotBinary,
    /// The address or the headers cannot be put into an HTTP request.
    InvalidRequest,
    /// Something else.
    Failed(String),
}

impl Reason {
    #[cfg(feature = "store")]
    pub(crate) fn store(error: dunlin_store::StoreError<io::Error>) -> Self {
        Self::Store(Arc::new(error))
    }

    /// Whether another attempt may go better.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        match self {
            Self::Fault(fault) => fault.may_heal(),
            Self::ServerClosed | Self::Io(_) => true,
            // Certificates are renewed, clocks are set, proxies are configured.
            #[cfg(feature = "rustls")]
            Self::Tls(_) => true,
            #[cfg(feature = "websocket")]
            Self::WebSocket(_) => true,
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => true,
            #[cfg(feature = "store")]
            Self::Store(_) => false,
            Self::Closed => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::ServerClosed => f.write_str("the server closed the connection"),
            Self::Io(error) => error.fmt(f),
            #[cfg(feature = "rustls")]
            Self::Tls(error) => error.fmt(f),
            #[cfg(feature = "websocket")]
            Self::WebSocket(error) => error.fmt(f),
            #[cfg(feature = "proxy")]
            Self::Proxy(error) => error.fmt(f),
            #[cfg(feature = "store")]
            Self::Store(error) => error.fmt(f),
            Self::Closed => f.write_str("closed"),
        }
    }
}

#[cfg(feature = "websocket")]
impl fmt::Display for WebSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the server refused the WebSocket with HTTP status {status}"),
            Self::NotMqtt => f.write_str("the server's WebSocket does not speak MQTT at this path"),
            Self::NotBinary => f.write_str("the server sent something else than binary frames"),
            Self::InvalidRequest => f.write_str("the address or the headers do not fit into an HTTP request"),
            Self::Failed(why) => write!(f, "WebSocket: {why}"),
        }
    }
}

#[cfg(feature = "websocket")]
impl std::error::Error for WebSocketError {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Unsupported(scheme) => write!(f, "this build does not support {}://", scheme.name()),
            Self::Options(option) => Fault::Options(*option).fmt(f),
            Self::Publish(error) => error.fmt(f),
            Self::Subscribe(error) => error.fmt(f),
            Self::SubscriptionRefused(filter) => write!(f, "the server refused the subscription to {filter}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Ended(reason) => reason.fmt(f),
            Self::Unfinished(count) => write!(f, "closed with {count} messages or requests unfinished"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
impl std::error::Error for Reason {}

impl From<InvalidUrl> for Error {
    fn from(error: InvalidUrl) -> Self {
        Self::Url(error)
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<SubscribeError> for Error {
    fn from(error: SubscribeError) -> Self {
        Self::Subscribe(error)
    }
}

/// Layers over a socket hand their own errors up in one of the system's; here they come out again.
impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        #[cfg(any(feature = "rustls", feature = "websocket"))]
        if let Some(inner) = error.get_ref() {
            #[cfg(feature = "rustls")]
            if let Some(error) = inner.downcast_ref::<crate::tls::TlsError>() {
                return Self::Tls(error.clone());
            }
            #[cfg(feature = "websocket")]
            if let Some(error) = inner.downcast_ref::<WebSocketError>() {
                return Self::WebSocket(error.clone());
            }
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::ServerClosed;
        }
        Self::Io(Arc::new(error))
    }
}

#[cfg(feature = "rustls")]
impl From<crate::tls::TlsError> for Reason {
    fn from(error: crate::tls::TlsError) -> Self {
        Self::Tls(error)
    }
}

#[cfg(feature = "proxy")]
impl From<crate::proxy::ProxyError> for Reason {
    fn from(error: crate::proxy::ProxyError) -> Self {
        Self::Proxy(error)
    }
}

#[cfg(feature = "websocket")]
impl From<WebSocketError> for Reason {
    fn from(error: WebSocketError) -> Self {
        Self::WebSocket(error)
    }
}

#[cfg(feature = "websocket")]
impl From<WebSocketError> for io::Error {
    fn from(error: WebSocketError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
