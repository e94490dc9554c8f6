//! A proxy between client and server.

use std::fmt;
use std::str::FromStr;

use crate::url::{InvalidUrl, Parts};

/// A SOCKS5 or HTTP proxy that makes a tunnel to the server. It resolves the server's name.
///
/// ```
/// # use dunlin::proxy::Proxy;
/// let proxy: Proxy = "socks5://user:secret@gate.example:1080".parse()?;
/// assert_eq!(proxy.to_string(), "socks5://gate.example:1080"); // never the credentials
/// let proxy: Proxy = "http://gate.example".parse()?; // CONNECT, port 8080 unless it says otherwise
/// # Ok::<(), dunlin::url::InvalidUrl>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) kind: Kind,
    host: String,
    port: u16,
    pub(crate) credentials: Option<(String, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Socks5,
    Http,
}

/// Why a proxy makes no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// It wants a user name and a password.
    NeedsCredentials,
    /// It refused the user name and password, or takes none.
    CredentialsRefused,
    /// It cannot or will not reach the server: its reply code (SOCKS5, 1 to 8) or status (HTTP, 100 and above).
    Refused(u16),
    /// Whoever answers there is no such proxy.
    NoProxy,
    /// The server's name, or user name or password, has more than 255 bytes.
    TooLong,
}

impl Proxy {
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl FromStr for Proxy {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        let parts = Parts::parse(url)?;
        let (kind, port) = match parts.scheme.as_str() {
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            "http" => (Kind::Http, 8080),
            _ => return Err(InvalidUrl::Scheme(parts.scheme)),
        };
        let password = parts.password.unwrap_or_default();
        let credentials = parts.user_name.map(|user_name| (user_name, password));
        Ok(Self { kind, host: parts.host, port: parts.port.unwrap_or(port), credentials })
    }
}

/// Without the credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Socks5 => "socks5",
            Kind::Http => "http",
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// As [`Display`](fmt::Display), so that no password reaches a log.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsCredentials => f.write_str("the proxy wants a user name and a password"),
            Self::CredentialsRefused => f.write_str("the proxy refused the user name and password"),
            Self::Refused(2) => f.write_str("the proxy does not allow this server"),
            Self::Refused(3 | 4) => f.write_str("the proxy cannot reach the server"),
            Self::Refused(5) => f.write_str("the server refused the proxy's connection"),
            Self::Refused(code) => write!(f, "the proxy makes no tunnel: {code}"),
            Self::NoProxy => f.write_str("there is no such proxy at its address"),
            Self::TooLong => f.write_str("a name of more than 255 bytes cannot be told to the proxy"),
        }
    }
}

impl std::error::Error for ProxyError {}
