//! From the command line to a client.

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::Path;

use dunlin::Publish;
use dunlin::blocking::Builder;
use dunlin::proxy::Proxy;
use dunlin::reconnect::Backoff;
use dunlin::tls::{Tls, TlsError};
use dunlin::url::{Address, Scheme};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::args::{ConnectionArgs, TlsArgs, TlsVersion};
use crate::exit::Failure;

/// Whatever MQTT can carry is published and received; memory follows what there is, and not this. The longest packet is
/// what four digits announce, behind a header of five bytes; the queue counts an identifier of two at any quality of service.
const LARGEST: usize = 5 + 268_435_455 + 2;

/// Messages on their way out.
const WAITING: usize = 1024;

/// What a path in a URL has to escape.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// What the command line says about the connection.
pub struct Connection {
    /// The client, not started.
    pub builder: Builder,
    /// The server, for messages; without the password.
    pub server: String,
    /// The topic in the URL of `-L`.
    pub topic: Option<String>,
}

/// The client that was asked for.
///
/// # Errors
/// What does not fit together, or a password file that cannot be read.
pub fn connection(args: &ConnectionArgs) -> Result<Connection, Failure> {
    if args.disable_clean_session && args.id.as_deref().is_none_or(str::is_empty) {
        return Err(Failure::usage("-c keeps a session for a client identifier: give one with -i"));
    }
    if args.store.is_some() && args.id.as_deref().is_none_or(str::is_empty) {
        return Err(Failure::usage("--store keeps a session for a client identifier: give one with -i"));
    }
    let (address, topic) = address(args)?;
    let user_name = args.username.clone().or_else(|| address.user_name().map(str::to_owned));
    let password = match password(args)? {
        Some(password) => Some(password),
        None => address.password().map(<[u8]>::to_vec),
    };
    let server = match address.scheme() {
        Scheme::Unix => address.path().to_owned(),
        _ => format!("{}:{}", address.host(), address.port()),
    };
    let tls = tls(&args.tls, address.scheme())?;
    let mut builder = Builder::for_address(address, &client_id(args))
        .keep_alive(std::time::Duration::from_secs(args.keepalive.into()))
        .reconnect(Backoff::new(args.reconnect_min, args.reconnect_max.max(args.reconnect_min)))
        .max_packet(LARGEST)
        .queue(WAITING, LARGEST);
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    if let Some(proxy) = &args.proxy {
        let proxy: Proxy = proxy.parse().map_err(|error| Failure::usage(format!("--proxy: {error}")))?;
        builder = builder.proxy(proxy);
    }
    if args.disable_clean_session {
        builder = builder.persistent();
    }
    if let Some(directory) = &args.store {
        builder = builder.store(crate::store::open(directory)?);
    }
    builder = match (user_name, password) {
        (Some(user_name), Some(password)) => builder.credentials(&user_name, &password),
        (Some(user_name), None) => builder.user_name(&user_name),
        (None, Some(_)) if args.password.is_some() || args.password_file.is_some() => {
            return Err(Failure::usage("a password needs a user name: give one with -u"));
        }
        (None, _) => builder,
    };
    if let Some(will_topic) = &args.will_topic {
        if !dunlin::topic::is_name(will_topic) {
            return Err(Failure::usage("--will-topic: it is empty, or has + or # in it"));
        }
        let will = Publish::new(will_topic, args.will_payload.as_bytes()).with_qos(args.will_qos);
        builder = builder.will(&if args.will_retain { will.retain() } else { will });
    }
    Ok(Connection { builder, server, topic })
}

fn address(args: &ConnectionArgs) -> Result<(Address, Option<String>), Failure> {
    if let Some(path) = &args.unix {
        let path = utf8_percent_encode(path, PATH);
        let address = format!("unix://{path}").parse();
        return address
            .map(|address| (address, None))
            .map_err(|_| Failure::usage("--unix: give the whole path, from /"));
    }
    let Some(url) = &args.url else {
        let host = args.host.as_deref().unwrap_or("localhost");
        if !may_be_host(host) {
            return Err(Failure::usage(format!("-h: {host:?} is neither a name nor an address of a host")));
        }
        let (scheme, of_host): (_, fn(&str, u16) -> Address) = match args.tls.is_on() {
            true => (Scheme::Mqtts, Address::tls),
            false => (Scheme::Mqtt, Address::tcp),
        };
        return Ok((of_host(host, args.port.unwrap_or(scheme.default_port())), None));
    };
    let parse = |url: &str| url.parse::<Address>().map_err(|error| Failure::usage(format!("-L: {error}")));
    // All that follows the host is the topic: `#` and `?` mean there what they mean in topics.
    let (server, topic) = server_and_rest(url);
    match parse(server) {
        Ok(address) if matches!(address.scheme(), Scheme::Mqtt | Scheme::Mqtts) => {
            let topic = percent_decode_str(topic).decode_utf8();
            let topic = topic.map_err(|_| Failure::usage("-L: the topic is not UTF-8"))?;
            Ok((address, if topic.is_empty() { None } else { Some(topic.into_owned()) }))
        }
        // Elsewhere the path belongs to the way there.
        _ => Ok((parse(url)?, None)),
    }
}

/// Whether to look for a host of this name: what is a URL, or a part of one, is none. An IPv6 address may have a zone.
fn may_be_host(host: &str) -> bool {
    if host.contains(':') {
        let (address, zone) = host.split_once('%').unwrap_or((host, "zone"));
        return address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty();
    }
    !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@#?%[]".contains(c))
}

/// What stands before the first `/` after the scheme, and what stands behind it.
fn server_and_rest(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(url.len(), |at| at + "://".len());
    match url[host..].find('/') {
        Some(len) => (&url[..host + len], &url[host + len + 1..]),
        None => (url, ""),
    }
}

/// What the command line says about TLS, if that is used; its files are read once, to see whether they are good.
fn tls(args: &TlsArgs, scheme: Scheme) -> Result<Option<Tls>, Failure> {
    match (args.is_on(), scheme) {
        (false, Scheme::Mqtt | Scheme::Ws | Scheme::Unix) => return Ok(None),
        (true, Scheme::Mqtt) => return Err(Failure::usage("-L: with TLS it begins with mqtts://")),
        (true, Scheme::Ws) => return Err(Failure::usage("-L: with TLS it begins with wss://")),
        (true, Scheme::Unix) => return Err(Failure::usage("-L: there is no TLS on a Unix socket")),
        _ => {}
    }
    let mut tls = match (&args.cafile, &args.pin) {
        _ if args.insecure => Tls::insecure_without_verification(),
        (Some(path), _) => Tls::authorities_file(path),
        (None, Some(path)) => Tls::pinned_file(path),
        (None, None) => Tls::system_roots(),
    };
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        tls = tls.identity_files(cert, key);
    }
    if let Some(path) = &args.crl {
        tls = tls.revocation_file(path);
    }
    if let Some(name) = &args.server_name {
        tls = tls.server_name(name);
    }
    tls = match args.tls_version {
        Some(TlsVersion::Tls12) => tls.only_tls12(),
        Some(TlsVersion::Tls13) => tls.only_tls13(),
        None => tls,
    };
    let protocols: Vec<_> = args.tls_alpn.iter().map(String::as_str).collect();
    let tls = tls.alpn(&protocols);
    match tls.check() {
        Ok(()) => Ok(Some(tls)),
        Err(error @ TlsError::InvalidServerName(_)) => Err(Failure::usage(error.to_string())),
        Err(error) => Err(Failure::local(error.to_string())),
    }
}

impl TlsArgs {
    /// Whether anything asks for TLS.
    fn is_on(&self) -> bool {
        let Self { tls, cafile, pin, cert, key, crl, tls_version, tls_alpn, server_name, insecure } = self;
        let names_file = [cafile, pin, cert, key, crl].iter().any(|file| file.is_some());
        let names_server = server_name.is_some() || tls_version.is_some() || !tls_alpn.is_empty();
        *tls || *insecure || names_file || names_server
    }
}

/// 18 characters that every server accepts.
fn client_id(args: &ConnectionArgs) -> String {
    match (args.id.as_deref(), &args.id_prefix) {
        (Some(id), _) if !id.is_empty() => id.to_owned(),
        (_, Some(prefix)) => format!("{prefix}{}", std::process::id()),
        _ => format!("dunlin{:012x}", fastrand::u64(..1 << 48)),
    }
}

/// The most particular source wins. The environment may hold a password for other commands: alone it is no reason to
/// send one.
fn password(args: &ConnectionArgs) -> Result<Option<Vec<u8>>, Failure> {
    match (&args.password, &args.password_file) {
        (Some(password), _) => Ok(Some(password.clone().into_bytes())),
        (None, Some(path)) => first_line(path).map(Some),
        (None, None) => Ok(std::env::var_os("DUNLIN_PASSWORD").map(OsString::into_encoded_bytes)),
    }
}

fn first_line(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::local(format!("{}: {error}", path.display())))?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}
