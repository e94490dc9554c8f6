//! Tunnels through proxies: SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110, 9.3.6).
//!
//! The crates that speak these protocols belong to one executor or block; this does neither.

use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;

use data_encoding::BASE64;

use super::{Stream, until_ready};
use crate::host::Reason;
use crate::proxy::{Kind, Proxy, ProxyError};

/// Asks the proxy at the other end of the socket for a tunnel to the server, and waits until it is there.
pub(crate) async fn tunnel(socket: &mut Box<dyn Stream>, proxy: &Proxy, host: &str, port: u16) -> Result<(), Reason> {
    match proxy.kind {
        Kind::Socks5 => socks5(socket, proxy, host, port).await,
        Kind::Http => connect(socket, proxy, host, port).await,
    }
}

const VERSION: u8 = 5;
const NO_PASSWORD: u8 = 0;
const PASSWORD: u8 = 2;

async fn socks5(socket: &mut Box<dyn Stream>, proxy: &Proxy, host: &str, port: u16) -> Result<(), Reason> {
    let methods: &[u8] = if proxy.credentials.is_some() { &[NO_PASSWORD, PASSWORD] } else { &[NO_PASSWORD] };
    let mut greeting = vec![VERSION];
    push_short(&mut greeting, methods)?;
    write_all(socket, &greeting).await?;
    let [version, method] = read_exact(socket).await?;
    match (version, method, &proxy.credentials) {
        (VERSION, NO_PASSWORD, _) => {}
        (VERSION, PASSWORD, Some((user_name, password))) => {
            let mut login = vec![1];
            push_short(&mut login, user_name.as_bytes())?;
            push_short(&mut login, password)?;
            write_all(socket, &login).await?;
            let [_, status] = read_exact(socket).await?;
            if status != 0 {
                return Err(ProxyError::CredentialsRefused.into());
            }
        }
        (VERSION, _, None) => return Err(ProxyError::NeedsCredentials.into()),
        (VERSION, _, Some(_)) => return Err(ProxyError::CredentialsRefused.into()),
        _ => return Err(ProxyError::NoProxy.into()),
    }
    let mut request = vec![VERSION, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        // The proxy resolves the name: here it may mean something else, or nothing.
        Err(_) => {
            request.push(3);
            push_short(&mut request, host.as_bytes())?;
        }
    }
    request.extend(port.to_be_bytes());
    write_all(socket, &request).await?;
    let [version, reply, _, kind] = read_exact(socket).await?;
    if version != VERSION {
        return Err(ProxyError::NoProxy.into());
    }
    if reply != 0 {
        return Err(ProxyError::Refused(reply.into()).into());
    }
    // The address that the proxy speaks from is of no interest.
    let len = match kind {
        1 => 4,
        3 => usize::from(read_exact::<1>(socket).await?[0]),
        4 => 16,
        _ => return Err(ProxyError::NoProxy.into()),
    };
    for _ in 0..len + 2 {
        read_exact::<1>(socket).await?;
    }
    Ok(())
}

/// Bytes after their length in one byte.
fn push_short(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ProxyError> {
    out.push(u8::try_from(bytes.len()).map_err(|_| ProxyError::TooLong)?);
    out.extend_from_slice(bytes);
    Ok(())
}

/// Longest answer of an HTTP proxy, up to the empty line.
const HEAD: usize = 8 * 1024;

async fn connect(socket: &mut Box<dyn Stream>, proxy: &Proxy, host: &str, port: u16) -> Result<(), Reason> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some((user_name, password)) = &proxy.credentials {
        let login = [user_name.as_bytes(), b":", password].concat();
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(&login)));
    }
    request.push_str("\r\n");
    write_all(socket, request.as_bytes()).await?;
    // Byte by byte, so that nothing is taken of what comes behind it.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exact::<1>(socket).await?);
        if head.len() > HEAD {
            return Err(ProxyError::NoProxy.into());
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&head).map_err(|_| ProxyError::NoProxy)?;
    match (response.code, &proxy.credentials) {
        (Some(200..=299), _) => Ok(()),
        (Some(407), None) => Err(ProxyError::NeedsCredentials.into()),
        (Some(407), Some(_)) => Err(ProxyError::CredentialsRefused.into()),
        (Some(code), _) => Err(ProxyError::Refused(code).into()),
        (None, _) => Err(ProxyError::NoProxy.into()),
    }
}

async fn write_all(socket: &mut Box<dyn Stream>, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match until_ready(|| socket.write(rest)).await? {
            0 => return Err(ErrorKind::WriteZero.into()),
            n => rest = &rest[n..],
        }
    }
    Ok(())
}

async fn read_exact<const N: usize>(socket: &mut Box<dyn Stream>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        match until_ready(|| socket.read(&mut bytes[at..])).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => at += n,
        }
    }
    Ok(bytes)
}
