//! The asynchronous client against a real broker.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dunlin::client::{Client, Driver, Error, Event, Message, Messages, Outcome, Reason};
use dunlin::reconnect::Backoff;
use dunlin::{Fault, Publish, PublishError, QoS};
use dunlin_testkit::Mosquitto;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing in these tests may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Attempts to connect follow each other fast.
pub fn impatient() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_millis(100))
}

/// The future comes to its end in time.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().unwrap()
}

/// A client that is connected, and its driver in a task.
async fn connected(
    built: Result<(Client, Messages, Driver), Error>,
) -> (Client, Messages, JoinHandle<Result<(), Error>>) {
    let (client, messages, driver) = built.unwrap();
    let driver = tokio::spawn(driver.run());
    in_time(client.connected()).await.unwrap();
    (client, messages, driver)
}

#[test]
fn ten_lines_connect_subscribe_publish_and_receive_on_either_runtime() {
    let broker = Mosquitto::start();
    for threads in [1, 2] {
        runtime(threads).block_on(async {
            let builder = Client::builder(&broker.url(), "ten-lines").subscribe("greet/+", QoS::AtLeastOnce);
            let (client, mut messages, driver) = connected(builder.build()).await;
            let message = Publish::new("greet/world", b"hello").at_least_once();
            let delivery = client.publish(&message).await.unwrap();
            assert_eq!(in_time(delivery.confirmed()).await.unwrap(), Outcome::Delivered);
            let message = in_time(messages.next()).await.unwrap();
            assert_eq!((message.topic(), message.payload()), ("greet/world", &b"hello"[..]));
            in_time(client.close(LIMIT)).await.unwrap();
            in_time(driver).await.unwrap().unwrap();
            assert!(in_time(messages.next()).await.is_none());
        });
    }
}

#[tokio::test]
async fn a_unix_socket_carries_mqtt_too() {
    let path = std::env::temp_dir().join(format!("dunlin-{}.sock", std::process::id()));
    let _broker = Mosquitto::with(&format!("listener 0 {}", path.display()));
    let builder = Client::builder(&format!("unix://{}", path.display()), "local").subscribe("a", QoS::AtMostOnce);
    let (client, mut messages, _driver) = connected(builder.build()).await;
    in_time(client.publish(&Publish::new("a", b"1"))).await.unwrap().outcome().unwrap();
    assert_eq!(in_time(messages.next()).await.unwrap().payload(), b"1");
    in_time(client.close(LIMIT)).await.unwrap();
    let _ = std::fs::remove_file(path);
}

#[test]
fn a_loop_that_receives_may_publish_and_wait_for_acknowledgements_with_all_queues_full() {
    let broker = Mosquitto::with("max_inflight_messages 0\n");
    for threads in [1, 2] {
        runtime(threads).block_on(async {
            let count = 2000_u64;
            let builder = Client::builder(&broker.url(), "echo").queue(4, 1 << 20).receive_queue(4, 1 << 20);
            let builder = builder.subscribe("in", QoS::ExactlyOnce).receive_window(5000);
            let (echo, mut messages, _driver) = connected(builder.build()).await;
            let (asking, _none, _asking_driver) = connected(Client::builder(&broker.url(), "ask").build()).await;
            in_time(echo.subscribe("more", QoS::AtMostOnce)).await.unwrap();
            let asking = tokio::spawn(async move {
                for n in 0..count {
                    let message = n.to_string();
                    let _ = asking.publish(&Publish::new("in", message.as_bytes()).at_least_once()).await.unwrap();
                }
                asking.close(LIMIT).await.unwrap();
            });
            for n in 0..count {
                let message = in_time(messages.next()).await.unwrap();
                assert_eq!(message.payload(), n.to_string().as_bytes());
                let answer = Publish::new("out", message.payload()).exactly_once();
                let delivery = in_time(echo.publish(&answer)).await.unwrap();
                if n % 50 == 0 {
                    in_time(delivery.confirmed()).await.unwrap();
                }
            }
            asking.await.unwrap();
            in_time(echo.close(LIMIT)).await.unwrap();
            assert_eq!(echo.stats().delivered, count);
        });
    }
}

#[test]
fn a_thousand_tasks_publish_through_a_queue_of_eight_while_the_link_breaks() {
    let mut broker = Mosquitto::persistent();
    let url = broker.url();
    let rt = runtime(2);
    rt.block_on(async {
        let builder = Client::builder(&url, "many").persistent().reconnect(impatient()).queue(8, 1 << 20);
        let (client, _messages, driver) = connected(builder.build()).await;
        // The ledger is away while the broker restarts: mosquitto repeats PUBLISH to a client to which it had sent PUBREL,
        // and which may have forgotten the message by then [MQTT-4.3.3-1].
        let ledger = || Client::builder(&url, "ledger").persistent().subscribe("many/+", QoS::ExactlyOnce);
        let (reader, _, reading) = connected(ledger().build()).await;
        in_time(reader.subscribe("many/+", QoS::ExactlyOnce)).await.unwrap();
        in_time(reader.close(LIMIT)).await.unwrap();
        in_time(reading).await.unwrap().unwrap();
        let tasks: Vec<_> = (0..1000)
            .map(|n: u32| {
                let client = client.clone();
                tokio::spawn(async move {
                    let topic = format!("many/{n}");
                    let delivery = client.publish(&Publish::new(&topic, b"x").exactly_once()).await.unwrap();
                    delivery.confirmed().await.unwrap()
                })
            })
            .collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            broker.stop();
            broker.restart();
        }
        for task in tasks {
            assert_eq!(in_time(task).await.unwrap(), Outcome::Delivered);
        }
        let (_reader, mut arrived, _reading) = connected(ledger().build()).await;
        let mut counts = BTreeMap::<String, u32>::new();
        for _ in 0..1000 {
            *counts.entry(in_time(arrived.next()).await.unwrap().topic().to_owned()).or_default() += 1;
        }
        counts.retain(|_, count| *count != 1);
        assert_eq!(counts, BTreeMap::new(), "each once; those that did not come are not named");
        in_time(client.close(LIMIT)).await.unwrap();
        in_time(driver).await.unwrap().unwrap();
        assert!(arrived.try_next().is_none());
    });
}

/// Polls the future `polls` times, letting everything else run in between, and drops it. Gives its value if it was
/// ready before.
async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(value) = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(value);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    None
}

#[tokio::test]
async fn futures_dropped_at_any_point_lose_nothing_and_send_nothing_that_was_not_accepted() {
    let broker = Mosquitto::start();
    let (client, _none, _driver) =
        connected(Client::builder(&broker.url(), "dropping").queue(2, 1 << 20).receive_queue(8, 1 << 20).build()).await;
    let (ledger, mut arrived, _ledger_driver) = connected(Client::builder(&broker.url(), "ledger").build()).await;
    in_time(ledger.subscribe("drop/#", QoS::ExactlyOnce)).await.unwrap();
    let mut accepted = Vec::new();
    for round in 0..200_usize {
        let payload = round.to_string();
        let message = Publish::new("drop/message", payload.as_bytes()).exactly_once();
        if let Some(delivery) = drop_after(round % 4, client.publish(&message)).await {
            accepted.push(payload.clone());
            let delivery = delivery.unwrap();
            let _ = drop_after(round % 3, delivery.confirmed()).await;
        }
        let _ = drop_after(round % 3, client.subscribe("own/+", QoS::AtLeastOnce)).await;
        let _ = drop_after(round % 3, client.unsubscribe("own/+")).await;
        let ask = Publish::new("drop/ask", b"?").at_least_once();
        let _ = drop_after(round % 4, client.request(&ask, "own/answer/1")).await;
        let _ = drop_after(round % 2, client.next_event()).await;
        let _ = drop_after(round % 2, client.connected()).await;
    }
    in_time(client.subscribe("end", QoS::AtMostOnce)).await.unwrap();
    // Dropped as well, and closes all the same.
    let _ = drop_after(1, client.close(LIMIT)).await;
    in_time(client.close(LIMIT)).await.unwrap();
    let mut payloads = Vec::new();
    while payloads.len() < accepted.len() {
        let message = in_time(arrived.next()).await.unwrap();
        if message.topic() == "drop/message" {
            payloads.push(message.text().unwrap().to_owned());
        }
    }
    assert_eq!(payloads, accepted);
    assert!(timeout(Duration::from_millis(100), arrived.next()).await.is_err());
    assert!(accepted.len() > 50);
}

#[tokio::test]
async fn messages_survive_a_dropped_next() {
    let broker = Mosquitto::start();
    let builder = Client::builder(&broker.url(), "next").subscribe("a", QoS::AtLeastOnce);
    let (client, mut messages, _driver) = connected(builder.build()).await;
    for n in 0..100_u32 {
        let _ = client.publish(&Publish::new("a", n.to_string().as_bytes()).at_least_once()).await.unwrap();
    }
    let mut payloads = Vec::new();
    for round in 0..2000 {
        payloads.extend(drop_after(round % 3, messages.next()).await.flatten());
        if payloads.len() == 100 {
            break;
        }
    }
    let payloads: Vec<_> = payloads.iter().map(|message| message.text().unwrap().parse::<u32>().unwrap()).collect();
    assert_eq!(payloads, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dropped_driver_leaves_nobody_waiting() {
    let broker = Mosquitto::start();
    for polls in 0..12 {
        let builder = Client::builder(&broker.url(), "dropped").queue(1, 1 << 20);
        let (client, mut messages, driver) = builder.build().unwrap();
        let delivery = client.publish(&Publish::new("a", b"1").at_least_once()).await.unwrap();
        let waiting = {
            let client = client.clone();
            tokio::spawn(async move { client.publish(&Publish::new("a", b"2").at_least_once()).await.map(|_| ()) })
        };
        tokio::task::yield_now().await;
        let _ = drop_after(polls, driver.run()).await;
        let ended = |result: Result<(), Error>| matches!(result, Ok(()) | Err(Error::Ended(Reason::Closed)));
        assert!(ended(in_time(waiting).await.unwrap()));
        assert!(ended(in_time(delivery.confirmed()).await.map(|_| ())));
        assert!(in_time(messages.next()).await.is_none());
        assert!(matches!(in_time(client.subscribe("a", QoS::AtMostOnce)).await, Err(Error::Ended(_))));
        assert!(matches!(in_time(client.close(LIMIT)).await, Ok(()) | Err(Error::Unfinished(_))));
    }
}

#[tokio::test]
async fn a_request_gets_its_answer_and_answers_do_not_mix() {
    let broker = Mosquitto::start();
    let (server, mut asked, _server_driver) =
        connected(Client::builder(&broker.url(), "server").subscribe("ask/+", QoS::AtLeastOnce).build()).await;
    in_time(server.subscribe("ask/+", QoS::AtLeastOnce)).await.unwrap();
    let service = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let topic = message.topic().replace("ask", "answer");
            let answer = [message.payload(), b"!"].concat();
            let _ = server.publish(&Publish::new(&topic, &answer).at_least_once()).await.unwrap();
        }
    });
    let (client, mut messages, _driver) = connected(Client::builder(&broker.url(), "client").build()).await;
    let asking: Vec<_> = (0..50)
        .map(|n: u32| {
            let client = client.clone();
            tokio::spawn(async move {
                let (ask, answer) = (format!("ask/{n}"), format!("answer/{n}"));
                let payload = n.to_string();
                let request = Publish::new(&ask, payload.as_bytes()).at_least_once();
                let answer = in_time(client.request(&request, &answer)).await.unwrap();
                assert_eq!(answer.text(), Some(format!("{n}!").as_str()));
            })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
    // Under a standing subscription, and two at once on one topic.
    in_time(client.subscribe("answer/#", QoS::AtLeastOnce)).await.unwrap();
    let request = Publish::new("ask/x", b"x").at_least_once();
    let (first, second) =
        in_time(async { tokio::join!(client.request(&request, "answer/x"), client.request(&request, "answer/x")) })
            .await;
    assert_eq!((first.unwrap().payload(), second.unwrap().payload()), (&b"x!"[..], &b"x!"[..]));
    // What nobody asked for arrives as any message.
    let _ = client.publish(&Publish::new("answer/other", b"").at_least_once()).await.unwrap();
    assert_eq!(in_time(messages.next()).await.unwrap().topic(), "answer/other");
    assert!(messages.try_next().is_none());
    service.abort();
}

#[tokio::test]
async fn who_wants_no_messages_still_gets_acknowledgements() {
    let broker = Mosquitto::start();
    let builder = Client::builder(&broker.url(), "deaf").subscribe("#", QoS::AtLeastOnce).receive_queue(2, 1 << 20);
    let (client, messages, _driver) = connected(builder.build()).await;
    drop(messages);
    for n in 0..500_u32 {
        let message = Publish::new("echo", &[0; 500]).at_least_once();
        in_time(in_time(client.publish(&message)).await.unwrap().confirmed()).await.unwrap();
        assert!(client.stats().waiting == 0, "{n}");
    }
    in_time(client.close(LIMIT)).await.unwrap();
}

#[tokio::test]
async fn the_client_says_goodbye_when_all_handles_are_gone() {
    let broker = Mosquitto::start();
    let watching = Client::builder(&broker.url(), "watching").subscribe("will", QoS::AtLeastOnce);
    let (watching, mut wills, _watching_driver) = connected(watching.build()).await;
    in_time(watching.subscribe("will", QoS::AtLeastOnce)).await.unwrap();
    let builder = Client::builder(&broker.url(), "gone").will(&Publish::new("will", b"died"));
    let (client, messages, driver) = connected(builder.build()).await;
    let delivery = client.publish(&Publish::new("a", b"last words").exactly_once()).await.unwrap();
    drop((client, messages));
    in_time(driver).await.unwrap().unwrap();
    assert_eq!(in_time(delivery.confirmed()).await.unwrap(), Outcome::Delivered);
    assert!(timeout(Duration::from_millis(200), wills.next()).await.is_err());
}

#[tokio::test]
async fn a_close_waits_for_what_is_in_flight_and_not_longer_than_its_limit() {
    let broker = Mosquitto::start();
    let (client, _messages, driver) = connected(Client::builder(&broker.url(), "close").build()).await;
    for _ in 0..500 {
        let _ = client.publish(&Publish::new("a", b"x").exactly_once()).await.unwrap();
    }
    in_time(client.close(LIMIT)).await.unwrap();
    in_time(driver).await.unwrap().unwrap();
    assert_eq!(client.stats().delivered, 500);
    assert!(matches!(client.publish(&Publish::new("a", b"")).await, Err(Error::Ended(Reason::Closed))));

    let (client, _messages, driver) = connected(Client::builder(&broker.url(), "frozen").build()).await;
    broker.freeze();
    let _ = client.publish(&Publish::new("a", b"x").exactly_once()).await.unwrap();
    assert!(matches!(in_time(client.close(Duration::from_millis(300))).await, Err(Error::Unfinished(1))));
    assert!(matches!(in_time(driver).await.unwrap(), Err(Error::Unfinished(1))));
}

#[tokio::test]
async fn a_close_tries_once_more_before_its_time_whatever_the_back_off() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut broker = Mosquitto::start();
    broker.kill();
    let builder = Client::builder(&broker.url(), "hurried").reconnect(Backoff::new(DAY, DAY));
    let (client, _messages, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver.run());
    let lost = in_time(client.next_event()).await.unwrap();
    assert!(matches!(lost, Event::Disconnected { retry_in: Some(_), .. }));
    let delivery = client.publish(&Publish::new("a", b"x").exactly_once()).await.unwrap();
    broker.restart();
    in_time(client.close(LIMIT)).await.unwrap();
    assert_eq!(delivery.outcome(), Some(Outcome::Delivered));
    in_time(driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn for_ever_is_a_limit_of_a_close_like_any_other() {
    let broker = Mosquitto::start();
    let (client, _messages, driver) = connected(Client::builder(&broker.url(), "patient").build()).await;
    let last = client.publish(&Publish::new("a", b"x").exactly_once()).await.unwrap();
    in_time(client.close(Duration::MAX)).await.unwrap();
    assert_eq!(last.outcome(), Some(Outcome::Delivered));
    in_time(driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn offline_messages_wait_at_qos_1_and_2_and_are_refused_at_qos_0() {
    let mut broker = Mosquitto::start();
    let builder = Client::builder(&broker.url(), "offline").reconnect(impatient()).subscribe("a", QoS::ExactlyOnce);
    let (client, mut messages, _driver) = connected(builder.build()).await;
    broker.kill();
    while client.is_connected() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let offline = client.publish(&Publish::new("a", b"0")).await;
    assert!(matches!(offline, Err(Error::Publish(PublishError::Offline))));
    let delivery = client.publish(&Publish::new("a", b"2").exactly_once()).await.unwrap();
    broker.restart();
    in_time(delivery.confirmed()).await.unwrap();
    // The broker forgot everything; the subscription was made again before the message left.
    let _ = client.publish(&Publish::new("a", b"3").exactly_once()).await.unwrap();
    let mut last = in_time(messages.next()).await.unwrap();
    if last.payload() == b"2" {
        last = in_time(messages.next()).await.unwrap();
    }
    assert_eq!(last.payload(), b"3");
    assert_eq!(client.stats().reconnects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_found_out_by_the_clock_of_the_runtime() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let (client, _messages, driver) =
        Client::builder(&url, "patient").keep_alive(Duration::from_secs(600)).build().unwrap();
    let driver = tokio::spawn(driver.run());
    let (stream, _) = listener.accept().await.unwrap();
    stream.writable().await.unwrap();
    assert_eq!(stream.try_write(b"\x20\x02\x00\x00").unwrap(), 4); // CONNACK
    let start = tokio::time::Instant::now();
    loop {
        match client.next_event().await.unwrap() {
            Event::Disconnected { reason: Reason::Fault(Fault::Silent), .. } => break,
            Event::Disconnected { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
    assert!(start.elapsed() >= Duration::from_secs(525), "{:?}", start.elapsed());
    driver.abort();
}

#[tokio::test]
async fn pings_are_timed() {
    let broker = Mosquitto::start();
    let builder = Client::builder(&broker.url(), "pings").keep_alive(Duration::from_secs(1));
    let (client, _messages, _driver) = connected(builder.build()).await;
    assert_eq!(client.stats().ping_round_trip, None);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let time = client.stats().ping_round_trip.expect("a ping after seven eighths of a second");
    assert!(time < Duration::from_secs(1));
    in_time(client.close(LIMIT)).await.unwrap();
}

#[test]
fn nothing_needs_to_be_known_of_the_waker() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Client>();
    fn is_send<T: Send>(_: &T) {}
    let (client, mut messages, driver) = Client::builder("mqtt://localhost", "x").build().unwrap();
    is_send(&client.publish(&Publish::new("a", b"")));
    is_send(&client.request(&Publish::new("a", b""), "b"));
    is_send(&messages.next());
    let mut next = pin!(messages.next());
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    is_send(&driver.run());
    let _: Option<Message> = None;
}
