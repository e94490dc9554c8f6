//! Where the server is and what lies between: everything a connection attempt has to know.

use std::sync::Arc;

use crate::host::{Error, Reason};
use crate::url::{Address, Scheme};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub address: Address,
    #[cfg(feature = "rustls")]
    pub tls: crate::tls::Tls,
    #[cfg(feature = "proxy")]
    pub proxy: Option<crate::proxy::Proxy>,
    /// Headers of the WebSocket's handshake.
    #[cfg(feature = "websocket")]
    pub headers: Vec<(String, String)>,
    /// The longest packet.
    #[cfg(feature = "websocket")]
    pub max_packet: usize,
}

/// A target with all that had to be read from files for one connection.
pub(crate) struct Plan {
    #[cfg(any(feature = "proxy", feature = "websocket"))]
    pub target: Arc<Target>,
    #[cfg(feature = "rustls")]
    pub handshake: Option<crate::tls::Handshake>,
}

impl Target {
    pub fn new(address: Address) -> Self {
        Self {
            address,
            #[cfg(feature = "rustls")]
            tls: crate::tls::Tls::default(),
            #[cfg(feature = "proxy")]
            proxy: None,
            #[cfg(feature = "websocket")]
            headers: Vec::new(),
            #[cfg(feature = "websocket")]
            max_packet: 0,
        }
    }

    /// Refuses what this build cannot reach.
    pub fn check(&self) -> Result<(), Error> {
        let is_supported = match self.address.scheme() {
            Scheme::Mqtt => true,
            Scheme::Unix => cfg!(unix),
            Scheme::Mqtts => cfg!(feature = "rustls"),
            Scheme::Ws => cfg!(feature = "websocket"),
            Scheme::Wss => cfg!(all(feature = "rustls", feature = "websocket")),
        };
        if is_supported { Ok(()) } else { Err(Error::Unsupported(self.address.scheme())) }
    }

    /// Reads what has to be read. May block for as long as files take.
    pub fn plan(self: &Arc<Self>) -> Result<Plan, Reason> {
        Ok(Plan {
            #[cfg(any(feature = "proxy", feature = "websocket"))]
            target: self.clone(),
            #[cfg(feature = "rustls")]
            handshake: match self.address.scheme() {
                Scheme::Mqtts | Scheme::Wss => Some(self.tls.prepare(self.address.host())?),
                Scheme::Mqtt | Scheme::Ws | Scheme::Unix => None,
            },
        })
    }

    /// Whether [`plan`](Self::plan) reads files.
    #[cfg(feature = "tokio")]
    pub fn reads_files(&self) -> bool {
        matches!(self.address.scheme(), Scheme::Mqtts | Scheme::Wss)
    }

    #[cfg(feature = "websocket")]
    pub fn is_websocket(&self) -> bool {
        matches!(self.address.scheme(), Scheme::Ws | Scheme::Wss)
    }

    /// The path of the Unix domain socket, if it is one.
    #[cfg(unix)]
    pub fn socket_path(&self) -> Option<&str> {
        (self.address.scheme() == Scheme::Unix).then_some(self.address.path())
    }

    /// Host and port that the socket is to be connected to.
    pub fn first_hop(&self) -> (&str, u16) {
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            return proxy.address();
        }
        (self.address.host(), self.address.port())
    }
}
