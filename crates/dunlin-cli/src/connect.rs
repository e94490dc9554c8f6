//! From the command line to a client.

use std::ffi::OsString;
use std::path::Path;

use dunlin::Publish;
use dunlin::blocking::Builder;
use dunlin::reconnect::Backoff;
use dunlin::url::Address;
use percent_encoding::percent_decode_str;

use crate::args::ConnectionArgs;
use crate::exit::Failure;

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
    let (address, topic) = address(args)?;
    let user_name = args.username.clone().or_else(|| address.user_name().map(str::to_owned));
    let password = match password(args)? {
        Some(password) => Some(password),
        None => address.password().map(<[u8]>::to_vec),
    };
    let server = format!("{}:{}", address.host(), address.port());
    let mut builder = Builder::for_address(address, &client_id(args))
        .keep_alive(std::time::Duration::from_secs(args.keepalive.into()))
        .reconnect(Backoff::new(args.reconnect_min, args.reconnect_max.max(args.reconnect_min)));
    if args.disable_clean_session {
        builder = builder.persistent();
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
    let Some(url) = &args.url else {
        let host = args.host.as_deref().unwrap_or("localhost");
        return Ok((Address::tcp(host, args.port.unwrap_or(1883)), None));
    };
    let address: Address = url.parse().map_err(|error| Failure::usage(format!("-L: {error}")))?;
    let path = address.path().strip_prefix('/').unwrap_or_default();
    let topic = percent_decode_str(path).decode_utf8().map_err(|_| Failure::usage("-L: the topic is not UTF-8"))?;
    let topic = if topic.is_empty() { None } else { Some(topic.into_owned()) };
    Ok((address, topic))
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
