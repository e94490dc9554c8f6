//! Where the server is: `mqtt://user:password@host:port`.

use std::fmt;
use std::str::FromStr;

use fluent_uri::Uri;
use fluent_uri::component::Host;

/// The address of a server, and the credentials that stood in its URL.
///
/// ```
/// # use dunlin::url::{Address, Scheme};
/// let address: Address = "mqtt://pump:s%40fe@[::1]".parse()?;
/// assert_eq!((address.scheme(), address.host(), address.port()), (Scheme::Mqtt, "::1", 1883));
/// assert_eq!((address.user_name(), address.password()), (Some("pump"), Some(&b"s@fe"[..])));
/// assert_eq!(address.to_string(), "mqtt://[::1]:1883"); // never the credentials
/// # Ok::<(), dunlin::url::InvalidUrl>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
    query: Option<String>,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
}

/// How the server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `mqtt://`, also `tcp://`: plain TCP, port 1883.
    Mqtt,
    /// `mqtts://`, also `ssl://` and `tls://`: TLS, port 8883.
    Mqtts,
    /// `ws://`: WebSocket, port 80.
    Ws,
    /// `wss://`: WebSocket over TLS, port 443.
    Wss,
    /// `unix:///path`: a Unix domain socket.
    Unix,
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// It is no URL of the form `scheme://user:password@host:port/path`. A host alone needs `mqtt://` before it; `@`,
    /// `:`, `/` and the like in a user name or password are written as `%40`, `%3A`, `%2F`.
    Syntax,
    /// The scheme is not one of [`Scheme`].
    Scheme(String),
    /// There is no host in it, or no path where a path is what it takes.
    NoHost,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The user name is not UTF-8 after percent-decoding.
    UserName,
}

impl Address {
    /// Plain TCP to this host (a name, or an IP address of either version without brackets) and port.
    #[must_use]
    pub fn tcp(host: &str, port: u16) -> Self {
        Self::of_host(Scheme::Mqtt, host, port)
    }

    /// As [`tcp`](Self::tcp), over TLS.
    #[must_use]
    pub fn tls(host: &str, port: u16) -> Self {
        Self::of_host(Scheme::Mqtts, host, port)
    }

    fn of_host(scheme: Scheme, host: &str, port: u16) -> Self {
        let (host, path) = (host.to_owned(), String::new());
        Self { scheme, host, port, path, query: None, user_name: None, password: None }
    }

    /// How it is reached.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or IP address, without brackets; empty for a Unix domain socket.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, or the default one of the scheme; 0 for a Unix domain socket.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What follows the authority up to the query, percent-encoded as it came; for a Unix domain socket its path, decoded.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows `?`, percent-encoded as it came. Servers of WebSockets get it with the path; since it may hold a token,
    /// it is never shown.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The user name in the URL.
    #[must_use]
    pub fn user_name(&self) -> Option<&str> {
        self.user_name.as_deref()
    }

    /// The password in the URL.
    #[must_use]
    pub fn password(&self) -> Option<&[u8]> {
        self.password.as_deref()
    }
}

impl FromStr for Address {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        let uri = Uri::parse(url.trim()).map_err(|_| InvalidUrl::Syntax)?;
        let scheme = Scheme::from_name(uri.scheme().as_str())?;
        if scheme == Scheme::Unix {
            let authority = uri.authority().ok_or(InvalidUrl::Syntax)?;
            let path = uri.path().decode().to_string().map_err(|_| InvalidUrl::Syntax)?.into_owned();
            let is_usable = authority.as_str().is_empty() && path.len() > 1;
            let (host, query) = (String::new(), None);
            return match is_usable {
                true => Ok(Self { scheme, host, port: 0, path, query, user_name: None, password: None }),
                false => Err(InvalidUrl::NoHost),
            };
        }
        let Parts { host, port, user_name, password, .. } = Parts::of(&uri)?;
        let port = port.unwrap_or(scheme.default_port());
        let (path, query) = (uri.path().as_str().to_owned(), uri.query().map(|query| query.as_str().to_owned()));
        Ok(Self { scheme, host, port, path, query, user_name, password })
    }
}

/// A URL taken apart.
pub(crate) struct Parts {
    /// In lower case.
    #[cfg_attr(not(feature = "proxy"), expect(dead_code))]
    pub scheme: String,
    pub host: String,
    pub port: Option<u16>,
    pub user_name: Option<String>,
    pub password: Option<Vec<u8>>,
}

impl Parts {
    #[cfg(feature = "proxy")]
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        Self::of(&Uri::parse(url.trim()).map_err(|_| InvalidUrl::Syntax)?)
    }

    fn of(uri: &Uri<&str>) -> Result<Self, InvalidUrl> {
        let authority = uri.authority().ok_or(InvalidUrl::Syntax)?;
        let host = match authority.host_parsed() {
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
            Host::RegName(name) => name.decode().to_string().map_err(|_| InvalidUrl::Syntax)?.into_owned(),
            _ => return Err(InvalidUrl::Syntax),
        };
        if host.is_empty() {
            return Err(InvalidUrl::NoHost);
        }
        let port = match authority.port_to_u16() {
            Ok(Some(0)) | Err(_) => return Err(InvalidUrl::Port),
            Ok(port) => port,
        };
        let (user_name, password) = match authority.userinfo() {
            None => (None, None),
            Some(info) => {
                let (user_name, password) = match info.split_once(':') {
                    Some((user_name, password)) => (user_name, Some(password)),
                    None => (info, None),
                };
                let user_name = user_name.decode().to_string().map_err(|_| InvalidUrl::UserName)?.into_owned();
                (Some(user_name), password.map(|password| password.decode().to_bytes().into_owned()))
            }
        };
        let scheme = uri.scheme().as_str().to_ascii_lowercase();
        Ok(Self { scheme, host, port, user_name, password })
    }
}

impl Scheme {
    fn from_name(name: &str) -> Result<Self, InvalidUrl> {
        match name.to_ascii_lowercase().as_str() {
            "mqtt" | "tcp" => Ok(Self::Mqtt),
            "mqtts" | "ssl" | "tls" => Ok(Self::Mqtts),
            "ws" => Ok(Self::Ws),
            "wss" => Ok(Self::Wss),
            "unix" => Ok(Self::Unix),
            other => Err(InvalidUrl::Scheme(other.to_owned())),
        }
    }

    /// The name in a URL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
        }
    }

    /// The port that is meant when the URL names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
            Self::Ws => 80,
            Self::Wss => 443,
            Self::Unix => 0,
        }
    }
}

/// Without the credentials and the query.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path, .. } = self;
        write!(f, "{}://", self.scheme.name())?;
        match self.scheme {
            Scheme::Unix => write!(f, "{path}"),
            _ if host.contains(':') => write!(f, "[{host}]:{port}{path}"),
            _ => write!(f, "{host}:{port}{path}"),
        }
    }
}

/// As [`Display`](fmt::Display), so that no password reaches a log.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("not a URL of the form mqtt://user:password@host:port"),
            Self::Scheme(scheme) => write!(f, "unknown scheme {scheme}://, expected mqtt:// or the like"),
            Self::NoHost => f.write_str("the URL names no server"),
            Self::Port => f.write_str("the port in the URL is not a number from 1 to 65535"),
            Self::UserName => f.write_str("the user name in the URL is not UTF-8"),
        }
    }
}

impl std::error::Error for InvalidUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, InvalidUrl> {
        url.parse()
    }

    #[test]
    fn each_scheme_has_its_port() {
        for (url, scheme, port) in [
            ("mqtt://h", Scheme::Mqtt, 1883),
            ("MQTT://h", Scheme::Mqtt, 1883),
            ("tcp://h:1", Scheme::Mqtt, 1),
            ("mqtts://h", Scheme::Mqtts, 8883),
            ("ssl://h", Scheme::Mqtts, 8883),
            ("ws://h/mqtt", Scheme::Ws, 80),
            ("wss://h/", Scheme::Wss, 443),
            ("mqtt://h:65535", Scheme::Mqtt, 65_535),
        ] {
            let address = parse(url).unwrap();
            assert_eq!((address.scheme(), address.host(), address.port()), (scheme, "h", port), "{url}");
        }
        assert_eq!(parse("ws://h/a%20b").unwrap().path(), "/a%20b");
        assert_eq!(parse("ws://h/a").unwrap().query(), None);
    }

    #[test]
    fn hosts_are_names_and_addresses_of_both_versions() {
        for (url, host) in [
            ("mqtt://localhost", "localhost"),
            ("mqtt://192.0.2.7:1", "192.0.2.7"),
            ("mqtt://[2001:db8::7]", "2001:db8::7"),
            ("mqtt://[::1]:1884", "::1"),
        ] {
            assert_eq!(parse(url).unwrap().host(), host);
        }
    }

    #[test]
    fn an_address_can_be_given_in_parts() {
        assert_eq!(Address::tcp("h", 1883), parse("mqtt://h").unwrap());
        assert_eq!(Address::tls("::1", 8883), parse("mqtts://[::1]").unwrap());
        assert_eq!(Address::tcp("fe80::1%eth0", 1).host(), "fe80::1%eth0");
    }

    #[test]
    fn credentials_are_percent_decoded_and_never_shown() {
        let address = parse("mqtt://us%3Aer:p%40ss%2F%00%FF@h:2").unwrap();
        assert_eq!(address.user_name(), Some("us:er"));
        assert_eq!(address.password(), Some(&b"p@ss/\x00\xFF"[..]));
        assert_eq!(format!("{address} {address:?}"), "mqtt://h:2 Address(mqtt://h:2)");
        assert_eq!(parse("mqtt://me@h").unwrap().password(), None);
        assert_eq!(parse("mqtt://me:@h").unwrap().password(), Some(&b""[..]));
        assert_eq!(parse("mqtt://a:b:c@h").unwrap().password(), Some(&b"b:c"[..]));
        let address = parse("wss://h/mqtt?signature=s%3Decret&x").unwrap();
        assert_eq!((address.path(), address.query()), ("/mqtt", Some("signature=s%3Decret&x")));
        assert_eq!(format!("{address} {address:?}"), "wss://h:443/mqtt Address(wss://h:443/mqtt)");
    }

    #[test]
    fn a_unix_socket_is_a_path() {
        let address = parse("unix:///run/my%20broker.sock").unwrap();
        assert_eq!((address.scheme(), address.path()), (Scheme::Unix, "/run/my broker.sock"));
        assert_eq!(address.to_string(), "unix:///run/my broker.sock");
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for (url, error) in [
            ("", InvalidUrl::Syntax),
            ("localhost", InvalidUrl::Syntax),
            ("localhost:1883", InvalidUrl::Scheme("localhost".to_owned())),
            ("mqtt:localhost", InvalidUrl::Syntax),
            ("http://h", InvalidUrl::Scheme("http".to_owned())),
            ("mqtt://", InvalidUrl::NoHost),
            ("mqtt://:1883", InvalidUrl::NoHost),
            ("mqtt://h:0", InvalidUrl::Port),
            ("mqtt://h:65536", InvalidUrl::Port),
            ("mqtt://h:port", InvalidUrl::Syntax),
            ("mqtt://p@ss@h", InvalidUrl::Syntax),
            ("mqtt://%FF@h", InvalidUrl::UserName),
            ("unix://host/path", InvalidUrl::NoHost),
            ("unix:///", InvalidUrl::NoHost),
        ] {
            assert_eq!(parse(url), Err(error), "{url}");
        }
    }
}
