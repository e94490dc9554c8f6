//! WebSocket in front of a real broker: a bridge takes the frames apart, since not every broker speaks WebSocket.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dunlin::client::{Client, Error, Event, Reason};
use dunlin::host::WebSocketError;
use dunlin::{Publish, QoS, blocking};
use dunlin_testkit::Mosquitto;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket, accept_hdr_with_config};

use crate::client::{impatient, in_time};

/// How a bridge behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Proper,
    /// Frames of one byte, and pings in between.
    Chopped,
    /// Does not name the sub-protocol.
    Unnamed,
    /// Names another one.
    Misnamed,
    /// Answers in text frames.
    Text,
    /// Answers with an HTTP status.
    Refusing,
}

/// What the clients asked for.
#[derive(Clone, Debug, Default)]
struct Seen {
    path: String,
    protocols: String,
    authorization: String,
    texts: usize,
}

/// Takes WebSocket connections on a port of its own and hands their bytes to the broker. Gives the port.
fn bridge(broker: u16, manner: Manner, seen: Arc<Mutex<Seen>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let seen = seen.clone();
            thread::spawn(move || {
                let stream = stream.unwrap();
                if let Some(socket) = accept(stream, manner, &seen) {
                    carry(socket, TcpStream::connect(("127.0.0.1", broker)).unwrap(), manner, &seen);
                }
            });
        }
    });
    port
}

#[expect(clippy::result_large_err, reason = "as the crate wants it")]
fn accept(stream: TcpStream, manner: Manner, seen: &Mutex<Seen>) -> Option<WebSocket<TcpStream>> {
    let answer = |request: &Request, mut response: Response| {
        let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let mut seen = seen.lock().unwrap();
        seen.path = request.uri().path_and_query().unwrap().as_str().to_owned();
        seen.protocols = header("sec-websocket-protocol");
        seen.authorization = header("authorization");
        match manner {
            Manner::Unnamed => {}
            Manner::Misnamed => drop(response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap())),
            Manner::Refusing => {
                let mut response = ErrorResponse::new(None);
                *response.status_mut() = "403".parse().unwrap();
                return Err(response);
            }
            _ => drop(response.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap())),
        }
        Ok(response)
    };
    accept_hdr_with_config(stream, answer, Some(WebSocketConfig::default())).ok()
}

/// Carries bytes in both directions until one side ends.
fn carry(mut socket: WebSocket<TcpStream>, mut broker: TcpStream, manner: Manner, seen: &Mutex<Seen>) {
    let pause = Some(Duration::from_millis(1));
    socket.get_ref().set_read_timeout(pause).unwrap();
    broker.set_read_timeout(pause).unwrap();
    let mut buf = [0; 4096];
    let mut is_over = false;
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => broker.write_all(&bytes).unwrap(),
            Ok(Message::Text(_)) => seen.lock().unwrap().texts += 1,
            Ok(Message::Close(_)) => {
                let _ = socket.flush();
                return;
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {}
            Err(_) => return,
        }
        let n = match broker.read(&mut buf) {
            // After DISCONNECT; the goodbye of the WebSocket is still to come.
            Ok(0) if is_over => return,
            Ok(0) => {
                is_over = true;
                socket.get_ref().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                continue;
            }
            Ok(n) => n,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => return,
        };
        let sent = match manner {
            Manner::Chopped => buf[..n].iter().try_for_each(|byte| {
                socket.send(Message::Ping(vec![1].into()))?;
                socket.send(Message::Binary(vec![*byte].into()))
            }),
            Manner::Text => socket.send(Message::Text("not MQTT".into())),
            _ => socket.send(Message::Binary(buf[..n].to_vec().into())),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Sends itself messages with either client.
async fn echo(builder: impl Fn() -> dunlin::client::Builder) {
    let client = builder().connect().unwrap();
    client.subscribe("a", QoS::ExactlyOnce).unwrap();
    let payload = vec![7; 3000];
    let _ = client.publish(&Publish::new("a", &payload).exactly_once()).unwrap();
    assert_eq!(client.next_timeout(Duration::from_secs(20)).unwrap().unwrap().payload(), payload);
    client.close(Duration::from_secs(10)).unwrap();

    let (client, mut messages, driver) = builder().build().unwrap();
    let driver = tokio::spawn(driver.run());
    in_time(client.subscribe("a", QoS::ExactlyOnce)).await.unwrap();
    for n in 0..50_u8 {
        let _ = client.publish(&Publish::new("a", &vec![n; usize::from(n) * 10]).at_least_once()).await.unwrap();
    }
    for n in 0..50_u8 {
        assert_eq!(in_time(messages.next()).await.unwrap().payload(), vec![n; usize::from(n) * 10]);
    }
    in_time(client.close(Duration::from_secs(10))).await.unwrap();
    in_time(driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn mqtt_passes_in_binary_frames_however_they_are_cut() {
    // [MQTT-6.0.0-1] [MQTT-6.0.0-2] [MQTT-6.0.0-3]
    let broker = Mosquitto::start();
    for manner in [Manner::Proper, Manner::Chopped] {
        let seen = Arc::<Mutex<Seen>>::default();
        let port = bridge(broker.port(), manner, seen.clone());
        let url = format!("ws://127.0.0.1:{port}?token=a%20b");
        echo(|| Client::builder(&url, "ws").websocket_header("authorization", "Bearer x")).await;
        let seen = seen.lock().unwrap().clone();
        assert_eq!((seen.path.as_str(), seen.protocols.as_str()), ("/mqtt?token=a%20b", "mqtt"));
        assert_eq!((seen.authorization.as_str(), seen.texts), ("Bearer x", 0));
    }
}

async fn refusal(manner: Manner) -> WebSocketError {
    let broker = Mosquitto::start();
    let port = bridge(broker.port(), manner, Arc::default());
    let url = format!("ws://127.0.0.1:{port}/some/path");
    let name_of = |reason| match reason {
        Reason::WebSocket(error) => error,
        other => panic!("{other:?}"),
    };
    let blocking = match blocking::Client::builder(&url, "ws").connect() {
        Err(Error::Ended(reason)) => name_of(reason),
        other => panic!("{other:?}"),
    };
    let (client, _messages, driver) = Client::builder(&url, "ws").reconnect(impatient()).build().unwrap();
    let driver = tokio::spawn(driver.run());
    match in_time(client.next_event()).await.unwrap() {
        Event::Disconnected { reason, .. } => assert_eq!(name_of(reason), blocking),
        other => panic!("{other:?}"),
    }
    driver.abort();
    blocking
}

#[tokio::test]
async fn servers_that_do_not_speak_mqtt_are_refused_by_name() {
    // [MQTT-6.0.0-4]
    assert_eq!(refusal(Manner::Unnamed).await, WebSocketError::NotMqtt);
    assert_eq!(refusal(Manner::Misnamed).await, WebSocketError::NotMqtt);
    assert_eq!(refusal(Manner::Refusing).await, WebSocketError::Refused(403));
}

#[tokio::test]
async fn a_text_frame_closes_the_connection() {
    // [MQTT-6.0.0-1]
    assert_eq!(refusal(Manner::Text).await, WebSocketError::NotBinary);
}

#[test]
fn frames_without_end_that_carry_nothing_stop_nobody() {
    const PING: [u8; 2] = [0x89, 0];
    const EMPTY: [u8; 2] = [0x82, 0];
    for frame in [PING, EMPTY] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (report, closed) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut socket = accept(listener.accept().unwrap().0, Manner::Proper, &Mutex::default()).unwrap();
            assert!(matches!(socket.read(), Ok(Message::Binary(_))));
            socket.send(Message::Binary(b"\x20\x02\x00\x00".to_vec().into())).unwrap();
            let mut stream = socket.into_inner();
            let mut reader = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            let flood = frame.repeat(500_000);
            while stream.write_all(&flood).is_ok() {}
            report.send(()).unwrap();
        });
        let client = blocking::Client::builder(&url, "ws").connect().unwrap();
        let _ = client.publish(&Publish::new("a", b"").at_least_once()).unwrap();
        assert!(matches!(client.close(Duration::from_millis(100)), Err(Error::Unfinished(1))));
        closed.recv_timeout(Duration::from_secs(30)).expect("the end of the stream");
    }
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn a_secure_websocket_is_one_over_tls() {
    use std::net::Shutdown;

    use dunlin::tls::{Tls, TlsError, rustls};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use crate::pki::{Algorithm, Authority, Validity};

    let broker = Mosquitto::start();
    let authority = Authority::new("authority", Algorithm::P256);
    let server = authority.server(&["localhost"], Validity::Now);
    let bridge = bridge(broker.port(), Manner::Proper, Arc::default());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(server.der.clone())],
            PrivateKeyDer::try_from(server.key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"mqtt".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::<Mutex<Vec<(Option<Vec<u8>>, Option<String>)>>>::default();
    let noted = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, noted) = (config.clone(), noted.clone());
            thread::spawn(move || {
                let stream = stream.unwrap();
                let mut inner = TcpStream::connect(("127.0.0.1", bridge)).unwrap();
                for stream in [&stream, &inner] {
                    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                }
                let tls = rustls::ServerConnection::new(config).unwrap();
                let mut tls = rustls::StreamOwned::new(tls, stream);
                let mut buf = [0; 4096];
                let mut is_noted = false;
                loop {
                    match tls.read(&mut buf) {
                        Ok(0) => break,
                        Ok(n) => inner.write_all(&buf[..n]).unwrap(),
                        Err(error) if is_timeout(&error) => {}
                        Err(_) => break,
                    }
                    if !tls.conn.is_handshaking() && !is_noted {
                        is_noted = true;
                        let alpn = tls.conn.alpn_protocol().map(<[u8]>::to_vec);
                        noted.lock().unwrap().push((alpn, tls.conn.server_name().map(str::to_owned)));
                    }
                    match inner.read(&mut buf) {
                        Ok(0) => break,
                        Ok(n) => tls.write_all(&buf[..n]).unwrap(),
                        Err(error) if is_timeout(&error) => {}
                        Err(_) => break,
                    }
                }
                let _ = tls.sock.shutdown(Shutdown::Both);
            });
        }
    });
    let url = format!("wss://localhost:{port}/mqtt");
    let tls = Tls::authorities(authority.pem.as_bytes()).alpn(&["mqtt"]);
    echo(|| Client::builder(&url, "wss").tls(tls.clone())).await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, vec![(Some(b"mqtt".to_vec()), Some("localhost".to_owned())); 2]);

    let stranger = Authority::new("stranger", Algorithm::P256);
    let refused = blocking::Client::builder(&url, "wss").tls(Tls::authorities(stranger.pem.as_bytes())).connect();
    assert!(matches!(refused, Err(Error::Ended(Reason::Tls(TlsError::UnknownAuthority)))));
}
