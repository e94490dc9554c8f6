//! Through proxies that are a page of code each.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use dunlin::client::{Client, Error, Reason};
use dunlin::proxy::{Proxy, ProxyError};
use dunlin::{Publish, QoS};
use dunlin_testkit::Mosquitto;

use crate::client::in_time;

/// Serves each connection with `serve`, which says where the tunnel leads. Gives the port.
fn listen(serve: impl Fn(&mut TcpStream) -> Option<u16> + Send + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || {
                let mut client = stream.unwrap();
                let Some(port) = serve(&mut client) else { return };
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let there = thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let _ = std::io::copy(&mut &server, &mut client);
                let _ = client.shutdown(Shutdown::Write);
                let _ = there.join();
            });
        }
    });
    port
}

fn bytes<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn short(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(bytes::<1>(stream)[0])];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A SOCKS5 proxy that wants `user` and `secret`, or nothing; its answers come byte by byte.
fn socks5(needs_password: bool, reply: u8) -> u16 {
    listen(move |stream| {
        let answer = |stream: &mut TcpStream, bytes: &[u8]| {
            for byte in bytes {
                stream.write_all(&[*byte]).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        };
        assert_eq!(bytes::<1>(stream), [5]);
        let methods = short(stream);
        let method = match needs_password {
            true if methods.contains(&2) => 2,
            true => 0xFF,
            false => 0,
        };
        answer(stream, &[5, method]);
        if method == 2 {
            assert_eq!(bytes::<1>(stream), [1]);
            let (user_name, password) = (short(stream), short(stream));
            let is_good = (user_name.as_slice(), password.as_slice()) == (b"user", b"secret");
            answer(stream, &[1, u8::from(!is_good)]);
            if !is_good {
                return None;
            }
        }
        let [5, 1, 0, kind] = bytes(stream) else { return None };
        match kind {
            1 => assert_eq!(bytes(stream), [127, 0, 0, 1]),
            3 => assert_eq!(short(stream), b"broker.invalid"),
            _ => panic!("{kind}"),
        }
        let port = u16::from_be_bytes(bytes(stream));
        answer(stream, &[5, reply, 0, 3, 2, b'm', b'e', 0, 1]);
        (reply == 0).then_some(port)
    })
}

/// An HTTP proxy that wants `user` and `secret`, or nothing.
fn http(needs_password: bool, status: u16) -> u16 {
    listen(move |stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(bytes::<1>(stream));
        }
        let head = String::from_utf8(head).unwrap();
        let port = head.split([':', ' ']).nth(2).unwrap().parse().unwrap();
        let is_allowed = !needs_password || head.contains("\r\nProxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n");
        let status = if is_allowed { status } else { 407 };
        stream.write_all(format!("HTTP/1.1 {status} Whatever\r\nVia: test\r\n\r\n").as_bytes()).unwrap();
        (status == 200).then_some(port)
    })
}

fn through(proxy: &str) -> Proxy {
    proxy.parse().unwrap()
}

#[tokio::test]
async fn both_clients_reach_the_broker_through_both_kinds_of_proxies() {
    let broker = Mosquitto::start();
    let proxies = [
        format!("socks5://127.0.0.1:{}", socks5(false, 0)),
        format!("socks5h://user:secret@127.0.0.1:{}", socks5(true, 0)),
        format!("http://127.0.0.1:{}", http(false, 200)),
        format!("http://user:secret@127.0.0.1:{}", http(true, 200)),
    ];
    for proxy in &proxies {
        // A name that only the proxy knows, and an address.
        for host in ["broker.invalid", "127.0.0.1"] {
            let url = format!("mqtt://{host}:{}", broker.port());
            let client = Client::builder(&url, "blocking").proxy(through(proxy)).connect().unwrap();
            client.subscribe("a", QoS::AtLeastOnce).unwrap();
            client.close(Duration::from_secs(5)).unwrap();
            let (client, mut messages, driver) = Client::builder(&url, "tokio").proxy(through(proxy)).build().unwrap();
            let _driver = tokio::spawn(driver.run());
            in_time(client.subscribe("a", QoS::AtLeastOnce)).await.unwrap();
            let _ = client.publish(&Publish::new("a", b"1").at_least_once()).await.unwrap();
            assert_eq!(in_time(messages.next()).await.unwrap().payload(), b"1");
        }
    }
}

#[test]
fn what_a_proxy_does_not_like_has_its_name() {
    let refusal = |proxy: String| match Client::builder("mqtt://127.0.0.1:1", "x").proxy(through(&proxy)).connect() {
        Err(Error::Ended(Reason::Proxy(error))) => error,
        other => panic!("{other:?}"),
    };
    let nonsense = listen(|stream| {
        stream.write_all(&[b'x'; 10_000]).unwrap();
        None
    });
    assert_eq!(refusal(format!("socks5://127.0.0.1:{}", socks5(false, 5))), ProxyError::Refused(5));
    assert_eq!(refusal(format!("socks5://127.0.0.1:{}", socks5(true, 0))), ProxyError::NeedsCredentials);
    assert_eq!(refusal(format!("socks5://user:x@127.0.0.1:{}", socks5(true, 0))), ProxyError::CredentialsRefused);
    assert_eq!(refusal(format!("http://127.0.0.1:{}", http(false, 502))), ProxyError::Refused(502));
    assert_eq!(refusal(format!("http://127.0.0.1:{}", http(true, 200))), ProxyError::NeedsCredentials);
    assert_eq!(refusal(format!("http://user:x@127.0.0.1:{}", http(true, 200))), ProxyError::CredentialsRefused);
    assert_eq!(refusal(format!("socks5://127.0.0.1:{nonsense}")), ProxyError::NoProxy);
    assert_eq!(refusal(format!("http://127.0.0.1:{nonsense}")), ProxyError::NoProxy);
}
