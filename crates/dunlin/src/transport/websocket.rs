//! WebSocket as a stream of bytes (MQTT 6).

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::task::Poll;

use tungstenite::client::{ClientRequestBuilder, client_with_config};
use tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Message, WebSocket};

use super::Stream;
use super::target::Target;
use crate::host::{Reason, WebSocketError};

/// See the module.
pub(crate) struct WsStream {
    socket: WebSocket<Box<dyn Stream>>,
    /// What came and has not been read. A frame may hold any part of any number of packets [MQTT-6.0.0-2].
    rest: Bytes,
}

/// A path for URLs without one: what brokers expect unless they are told otherwise.
const PATH: &str = "/mqtt";

impl WsStream {
    /// Goes through the handshake.
    pub async fn open(stream: Box<dyn Stream>, target: &Target) -> Result<Self, Reason> {
        let address = &target.address;
        let path = if address.path().is_empty() { PATH } else { "" };
        let query = address.query().map_or(String::new(), |query| format!("?{query}"));
        let uri = format!("{address}{path}{query}").parse().map_err(|_| WebSocketError::InvalidRequest)?;
        // [MQTT-6.0.0-3] The client offers the sub-protocol `mqtt`.
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol("mqtt");
        for (name, value) in &target.headers {
            request = request.with_header(name, value);
        }
        let most = Some(target.max_packet.max(1 << 20));
        let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
        let mut state = Some(client_with_config(request, stream, Some(config)));
        let shaken = poll_fn(|_| {
            loop {
                match state.take() {
                    Some(Err(HandshakeError::Interrupted(unfinished))) => match unfinished.handshake() {
                        Err(HandshakeError::Interrupted(unfinished)) => {
                            state = Some(Err(HandshakeError::Interrupted(unfinished)));
                            return Poll::Pending;
                        }
                        result => state = Some(result),
                    },
                    Some(Err(HandshakeError::Failure(error))) => return Poll::Ready(Err(named(error))),
                    Some(Ok((socket, _))) => return Poll::Ready(Ok(socket)),
                    None => return Poll::Pending,
                }
            }
        });
        Ok(Self { socket: shaken.await?, rest: Bytes::new() })
    }
}

impl Read for WsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.rest = bytes,
                // [MQTT-6.0.0-1] Anything but binary frames ends the connection.
                Ok(Message::Text(_)) => {
                    let frame =
                        CloseFrame { code: CloseCode::Unsupported, reason: "MQTT comes in binary frames".into() };
                    let _ = self.socket.close(Some(frame));
                    let _ = self.socket.flush();
                    return Err(WebSocketError::NotBinary.into());
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => return Ok(0),
                Err(error) if is_end(&error) => return Ok(0),
                Err(error) => return Err(named(error)),
            }
        }
        if self.rest.is_empty() {
            return Err(ErrorKind::Interrupted.into());
        }
        let n = self.rest.len().min(buf.len());
        buf[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

impl Write for WsStream {
    /// One frame per call: each carries as much as the session had to say. [MQTT-6.0.0-1] It is a binary one.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        match self.socket.write(Message::Binary(Bytes::copy_from_slice(bytes))) {
            Ok(()) => Ok(bytes.len()),
            // It waits inside.
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(bytes.len()),
            Err(error) => Err(named(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(named)
    }
}

impl Stream for WsStream {
    /// The server closes the connection, after it has answered this.
    fn finish(&mut self) -> io::Result<()> {
        self.socket.close(None).map_err(named)?;
        self.flush()
    }
}

fn is_end(error: &Error) -> bool {
    use ProtocolError::ResetWithoutClosingHandshake;
    matches!(error, Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ResetWithoutClosingHandshake))
}

fn named(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Http(response) => WebSocketError::Refused(response.status().as_u16()).into(),
        // [MQTT-6.0.0-4] The server has chosen `mqtt`.
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol | SubProtocolError::InvalidSubProtocol,
        )) => WebSocketError::NotMqtt.into(),
        Error::HttpFormat(_) | Error::Url(_) => WebSocketError::InvalidRequest.into(),
        other => WebSocketError::Failed(other.to_string()).into(),
    }
}
