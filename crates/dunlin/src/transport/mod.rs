//! Streams of bytes to a server: what lies between a socket and the session.
//!
//! Everything here is non-blocking and knows no executor. A [`Stream`] reads and writes what it can and says
//! `WouldBlock` otherwise; that holds for sockets, and for TLS, WebSocket and proxies, which lie over one another. So
//! the blocking and the asynchronous client share all of it, and differ only in how they sleep:
//! [`Connection`](connection::Connection) is what both of them drive.

pub(crate) mod connection;
#[cfg(feature = "proxy")]
pub(crate) mod proxy;
pub(crate) mod target;
pub(crate) mod tcp;
#[cfg(feature = "rustls")]
pub(crate) mod tls;
#[cfg(feature = "websocket")]
pub(crate) mod websocket;

use std::io::{self, Read, Write};
#[cfg(any(feature = "proxy", feature = "rustls", feature = "websocket"))]
use std::pin::Pin;

use crate::host::Reason;
use target::Plan;

/// A stream that never blocks. When it has said `WouldBlock`, whoever drives it is woken as soon as it can go on; it says
/// `Interrupted` when something came that carries no bytes, so that nobody can keep its driver from all else. What
/// `write` has taken may wait inside for room below, until `flush` says `Ok`.
pub(crate) trait Stream: Read + Write + Send + 'static {
    /// Tells the other side that nothing more comes from here.
    fn finish(&mut self) -> io::Result<()>;
}

/// Makes a stream that carries MQTT out of a connected socket: goes through the handshakes of all layers.
pub(crate) async fn open(socket: Box<dyn Stream>, plan: Plan) -> Result<Box<dyn Stream>, Reason> {
    #[cfg_attr(not(any(feature = "proxy", feature = "rustls", feature = "websocket")), expect(unused_mut))]
    let mut stream = socket;
    // Which layers there are is known here; in a build without any, there is nothing to know.
    #[cfg(not(any(feature = "proxy", feature = "rustls", feature = "websocket")))]
    let Plan {} = plan;
    #[cfg(feature = "proxy")]
    if let Some(proxy) = &plan.target.proxy {
        apart(proxy::tunnel(&mut stream, proxy, plan.target.address.host(), plan.target.address.port())).await?;
    }
    #[cfg(feature = "rustls")]
    if let Some(handshake) = plan.handshake {
        stream = Box::new(apart(tls::TlsStream::open(stream, handshake)).await?);
    }
    #[cfg(feature = "websocket")]
    if plan.target.is_websocket() {
        stream = Box::new(apart(websocket::WsStream::open(stream, &plan.target)).await?);
    }
    Ok(stream)
}

/// The handshake of a layer, apart from the others: a connection needs stack only for the layers that it has.
#[cfg(any(feature = "proxy", feature = "rustls", feature = "websocket"))]
fn apart<'a, T>(handshake: impl Future<Output = T> + Send + 'a) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(handshake)
}

impl Stream for Box<dyn Stream> {
    fn finish(&mut self) -> io::Result<()> {
        (**self).finish()
    }
}

/// Turns `WouldBlock` into `Pending`, so that a handshake can be written as a sequence.
///
/// Nothing is registered here: the socket has seen to that, and whoever drives it polls again when it can go on.
#[cfg(any(feature = "rustls", feature = "proxy"))]
pub(crate) async fn until_ready<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    use std::task::Poll;
    std::future::poll_fn(|_| {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    })
    .await
}
