//! The blocking client against a real broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dunlin::blocking::{Client, Error, Event, Outcome, Reason};
use dunlin::reconnect::Backoff;
use dunlin::{Fault, Publish, PublishError, QoS, Refusal, Replace};
use dunlin_testkit::{Mosquitto, Proxy};

use crate::common::{LONG, await_event, builder, wait_until, within};

const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Mosquitto keeps the order of messages only with a window of one, or with none: with any other, a new message
/// overtakes those that wait in its queue, for a client that has just come back, and now and then for a slow one.
const IN_ORDER: &str = "max_inflight_messages 0\n";

/// The next message, as topic, payload, quality of service and RETAIN.
fn next(client: &Client) -> Option<(String, Vec<u8>, QoS, bool)> {
    let message = client.next_timeout(LONG).unwrap()?;
    Some((message.topic().to_owned(), message.payload().to_vec(), message.qos(), message.is_retain()))
}

/// All that has come when a message to `marker` has made the way to the broker and back.
fn all_until_marker(client: &Client, marker: &str) -> Vec<(Vec<u8>, QoS, bool)> {
    client.subscribe(marker, QoS::AtLeastOnce).unwrap();
    let _ = client.publish(&Publish::new(marker, b"").at_least_once()).unwrap();
    let mut all = Vec::new();
    loop {
        match next(client) {
            Some((topic, ..)) if topic == marker => return all,
            Some((_, payload, qos, retain)) => all.push((payload, qos, retain)),
            None => panic!("the marker did not come back"),
        }
    }
}

#[test]
fn ten_lines_connect_subscribe_publish_and_receive() {
    let broker = Mosquitto::start();
    let client = Client::connect(&broker.url(), "ten-lines").unwrap();
    assert_eq!(client.subscribe("greet/+", QoS::AtLeastOnce).unwrap(), QoS::AtLeastOnce);
    let _ = client.publish(&Publish::new("greet/world", b"hello").at_least_once()).unwrap();
    let message = client.next_timeout(LONG).unwrap().unwrap();
    assert_eq!((message.topic(), message.payload()), ("greet/world", &b"hello"[..]));
    client.unsubscribe("greet/+").unwrap();
    client.close(LONG).unwrap();
}

#[test]
fn every_qos_with_and_without_retain_reaches_clean_and_persistent_subscribers() {
    let broker = Mosquitto::start();
    let publisher = Client::connect(&broker.url(), "matrix-publisher").unwrap();
    let mut count = 0;
    for (published, subscribed) in ALL.into_iter().flat_map(|p| ALL.map(|s| (p, s))) {
        for (retain, is_persistent) in [(false, false), (false, true), (true, false), (true, true)] {
            count += 1;
            let (topic, id) = (format!("matrix/{count}"), format!("matrix-{count}"));
            let case = format!("published {published:?}, subscribed {subscribed:?}, {retain}, {is_persistent}");
            let connect = || {
                let builder = builder(&broker.url(), &id);
                if is_persistent { builder.persistent() } else { builder }.connect().unwrap()
            };
            let publish = |payload: &[u8]| {
                let message = Publish::new(&topic, payload).with_qos(published);
                let message = if retain { message.retain() } else { message };
                assert_eq!(publisher.publish(&message).unwrap().wait(LONG).unwrap(), Outcome::Delivered);
            };
            let granted = published.min(subscribed);
            // At QoS 0 nothing says when it has arrived at the broker; a second message behind it does.
            let barrier = Publish::new("matrix/barrier", b"").at_least_once();
            publish(b"early");
            publisher.publish(&barrier).unwrap().wait(LONG).unwrap();
            let subscriber = connect();
            assert_eq!(subscriber.subscribe(&topic, subscribed).unwrap(), subscribed, "{case}");
            publish(b"live");
            let mut expected = vec![(b"early".to_vec(), granted, true); usize::from(retain)];
            expected.push((b"live".to_vec(), granted, false));
            publisher.publish(&barrier).unwrap().wait(LONG).unwrap();
            assert_eq!(all_until_marker(&subscriber, &format!("marker/{count}")), expected, "{case}");
            subscriber.close(LONG).unwrap();
            publish(b"away");
            publisher.publish(&barrier).unwrap().wait(LONG).unwrap();
            let subscriber = connect();
            let came: Vec<_> = all_until_marker(&subscriber, &format!("marker/{count}"));
            let is_kept = is_persistent && granted > QoS::AtMostOnce;
            assert_eq!(came, vec![(b"away".to_vec(), granted, false); usize::from(is_kept)], "{case}");
        }
    }
}

/// What is promised, and what not: mosquitto 2.0 writes its state as a whole, from time to time, and a SIGKILL takes it
/// back to the last time. So a broker that is killed at any moment can lose what it has acknowledged, and no client can
/// help that. Here the publisher's network stops passing bytes on, at any moment and in the middle of exchanges and of
/// packets; mosquitto saves what it then knows, is killed, and starts again from there. What was on its way is lost. For
/// the publisher that is a broker that dies in the middle of everything and keeps what it acknowledged.
///
/// The subscriber's exchanges come to their end before, and it is back before the publisher is: mosquitto 2.0.11,
/// restarted, repeats the PUBLISH of messages for which it had PUBREC, which every client would take for new ones, and
/// confuses the order of those that wait for a client. Cuts in the middle of those exchanges are the business of the
/// next test.
#[test]
fn a_broker_killed_in_the_middle_of_thousands_of_qos2_messages_gets_and_gives_each_once_and_in_order() {
    const COUNT: usize = 10_000;
    within(Duration::from_secs(180), || {
        let mut broker = Mosquitto::with(&format!("persistence true\n{IN_ORDER}"));
        let proxy = Proxy::to(broker.port());
        let behind = Proxy::to(broker.port());
        let subscriber = builder(&behind.url(), "kill-subscriber").persistent().receive_window(u16::MAX);
        let subscriber = subscriber.receive_queue(COUNT, 1 << 24).connect().unwrap();
        subscriber.subscribe("kill/#", QoS::ExactlyOnce).unwrap();
        let publisher = builder(&proxy.url(), "kill-publisher").persistent().window(100).connect().unwrap();
        let reached = Arc::new(AtomicUsize::new(0));
        let (for_thread, got_so_far) = (publisher.clone(), reached.clone());
        let publishing = thread::spawn(move || {
            for n in 0..COUNT {
                // Not too far ahead, so that there is something left for each kill.
                while n > got_so_far.load(Ordering::SeqCst) + 400 {
                    thread::sleep(Duration::from_millis(1));
                }
                let topic = format!("kill/{}", n % 7);
                let _ = for_thread.publish(&Publish::new(&topic, n.to_string().as_bytes()).exactly_once()).unwrap();
            }
        });
        let (mut got, mut kills, mut in_flight) = (0, 0, 0);
        while got < COUNT {
            // As long as messages come; then the broker is killed, as long as there are enough left.
            while let Some(message) = subscriber.next_timeout(Duration::from_millis(50)).unwrap() {
                assert_eq!(message.text(), Some(got.to_string().as_str()), "after {kills} kills");
                assert_eq!(message.topic(), format!("kill/{}", got % 7));
                got += 1;
                reached.store(got, Ordering::SeqCst);
                if got > (kills as usize + 1) * 600 && got < COUNT - 500 {
                    // A little later each time, so that it falls into another part of the exchange.
                    thread::sleep(Duration::from_micros(kills * 97));
                    proxy.stall();
                }
            }
            if got < COUNT {
                kills += 1;
                assert!(kills < 40, "{got} messages came");
                in_flight += publisher.stats().in_flight.min(100);
                // From here on nobody sees what the broker does.
                wait_until("the subscriber's exchanges are over", || {
                    behind.stall();
                    thread::sleep(Duration::from_millis(60)); // what has been passed on is read
                    let log = broker.log();
                    let count = |line: &str| log.matches(line).count();
                    let given = count("Sending PUBLISH to kill-subscriber");
                    let is_over = given == count("Received PUBCOMP from kill-subscriber");
                    if !is_over {
                        behind.flow();
                        thread::sleep(Duration::from_millis(20));
                    }
                    is_over
                });
                broker.save();
                broker.kill();
                [&proxy, &behind].into_iter().for_each(Proxy::cut);
                let connections = subscriber.stats().connections;
                broker.restart();
                behind.flow();
                wait_until("the subscriber is back", || subscriber.stats().connections > connections);
                proxy.flow();
            }
        }
        publishing.join().unwrap();
        publisher.close(LONG).unwrap();
        assert_eq!(subscriber.next_timeout(Duration::from_millis(300)).unwrap(), None);
        assert!(kills >= 10 && in_flight as u64 > 50 * kills, "{kills} kills with {in_flight} messages in flight");
        eprintln!("{COUNT} messages at QoS 2, {kills} times SIGKILL with {} in flight", in_flight as u64 / kills);
    });
}

#[test]
fn links_cut_without_warning_lose_and_double_nothing_at_qos_2_and_lose_nothing_at_qos_1() {
    within(Duration::from_secs(120), || {
        let broker = Mosquitto::with(IN_ORDER);
        let proxy = Proxy::to(broker.port());
        let subscriber = builder(&proxy.url(), "cut-subscriber").persistent().receive_window(u16::MAX);
        let subscriber = subscriber.connect().unwrap();
        subscriber.subscribe("cut/#", QoS::ExactlyOnce).unwrap();
        let publisher = builder(&proxy.url(), "cut-publisher").persistent().window(100).connect().unwrap();
        let for_thread = publisher.clone();
        let publishing = thread::spawn(move || {
            for n in 0..2_000 {
                let payload = n.to_string();
                let twice = Publish::new("cut/2", payload.as_bytes()).exactly_once();
                let _ = for_thread.publish(&twice).unwrap();
                let once = Publish::new("cut/1", payload.as_bytes()).at_least_once();
                let _ = for_thread.publish(&once).unwrap();
            }
        });
        let (mut exactly, mut at_least) = (0, std::collections::BTreeSet::new());
        let mut cuts = 0;
        while exactly < 2_000 || at_least.len() < 2_000 {
            let message = subscriber.next_timeout(LONG).unwrap().expect("a message that never came");
            let n: usize = message.text().unwrap().parse().unwrap();
            if message.topic() == "cut/2" {
                assert_eq!(n, exactly);
                exactly += 1;
            } else {
                at_least.insert(n);
            }
            if exactly % 150 == 100 && cuts <= exactly / 150 {
                cuts += 1;
                proxy.cut();
            }
        }
        publishing.join().unwrap();
        assert!(cuts > 10 && subscriber.stats().connections > 5);
    });
}

#[test]
fn tiny_slow_and_stalling_sockets_only_take_longer() {
    within(Duration::from_secs(120), || {
        let broker = Mosquitto::start();
        let proxy = Proxy::to(broker.port());
        let client = builder(&proxy.url(), "slow").connect().unwrap();
        client.subscribe("slow/#", QoS::ExactlyOnce).unwrap();
        for (piece, pause, payload, count) in [(1, 0, 20, 30), (7, 100, 300, 30), (1000, 1000, 200_000, 3)] {
            proxy.crawl(piece, Duration::from_micros(pause));
            let payload = vec![7; payload];
            for _ in 0..count {
                let _ = client.publish(&Publish::new("slow/x", &payload).exactly_once()).unwrap();
            }
            for n in 0..count {
                assert_eq!(client.next_timeout(LONG).unwrap().unwrap().payload(), payload);
                if n == count / 2 {
                    proxy.stall();
                    thread::sleep(Duration::from_millis(200));
                    proxy.flow();
                }
            }
        }
        assert_eq!(client.stats().connections, 1);
    });
}

#[test]
fn publishing_from_the_receive_loop_with_every_queue_full_comes_to_its_end() {
    within(Duration::from_secs(120), || {
        let broker = Mosquitto::start();
        let echo = builder(&broker.url(), "echo").queue(2, 1 << 20).receive_queue(3, 1 << 20).connect().unwrap();
        echo.subscribe("ask/#", QoS::AtLeastOnce).unwrap();
        let asker = builder(&broker.url(), "asker").queue(2_000, 1 << 24).receive_queue(10_000, 1 << 24);
        let asker = asker.connect().unwrap();
        asker.subscribe("answer/#", QoS::ExactlyOnce).unwrap();
        const COUNT: usize = 1_500;
        for n in 0..COUNT {
            let qos = ALL[n % 3];
            let _ = asker.publish(&Publish::new("ask/x", n.to_string().as_bytes()).with_qos(qos)).unwrap();
        }
        for n in 0..COUNT {
            let question = echo.next_timeout(LONG).unwrap().expect("a question");
            // Three answers each through a queue of two, and every now and then a wait for one, all from the loop.
            for part in 0..3 {
                let answer = Publish::new("answer/x", question.payload()).exactly_once();
                let delivery = echo.publish(&answer).unwrap();
                if n % 100 == 0 && part == 2 {
                    delivery.wait(LONG).unwrap();
                }
            }
            if n == 700 {
                echo.subscribe("more/#", QoS::AtMostOnce).unwrap();
            }
        }
        for _ in 0..3 * COUNT {
            asker.next_timeout(LONG).unwrap().expect("an answer");
        }
    });
}

#[test]
fn a_hundred_threads_publish_at_once_through_a_small_queue_and_nothing_is_lost() {
    within(Duration::from_secs(120), || {
        let broker = Mosquitto::with(IN_ORDER);
        let subscriber = builder(&broker.url(), "many-subscriber").connect().unwrap();
        subscriber.subscribe("many/#", QoS::ExactlyOnce).unwrap();
        let publisher = builder(&broker.url(), "many-publisher").queue(10, 1 << 20).connect().unwrap();
        let delivered = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..100)
            .map(|thread| {
                let (publisher, delivered) = (publisher.clone(), delivered.clone());
                thread::spawn(move || {
                    let topic = format!("many/{thread}");
                    for n in 0..40_usize {
                        let payload = [n as u8];
                        // The order of messages is that of their quality of service.
                        let message = Publish::new(&topic, &payload).with_qos(ALL[1 + thread % 2]);
                        let delivery = publisher.publish(&message).unwrap();
                        if n % 3 == 0 {
                            assert_eq!(delivery.wait(LONG).unwrap(), Outcome::Delivered);
                            delivered.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        let mut next = [0_u8; 100];
        for _ in 0..4_000 {
            let message = subscriber.next_timeout(LONG).unwrap().expect("a message that never came");
            let thread: usize = message.topic()[5..].parse().unwrap();
            assert_eq!(message.payload(), [next[thread]]);
            next[thread] += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(delivered.load(Ordering::SeqCst), 100 * 14);
        publisher.close(LONG).unwrap();
        assert_eq!(publisher.stats().delivered, 4_000);
    });
}

#[test]
fn offline_messages_wait_at_qos_1_and_2_and_are_refused_at_qos_0() {
    let mut broker = Mosquitto::start();
    broker.kill();
    let client = builder(&broker.url(), "offline").queue(3, 1 << 20).timeout(Duration::from_millis(50));
    let client = client.subscribe("offline/#", QoS::ExactlyOnce).start().unwrap();
    let offline = client.publish(&Publish::new("offline/0", b"")).unwrap_err();
    assert!(matches!(offline, Error::Publish(PublishError::Offline)));
    let deliveries: Vec<_> = (0..3)
        .map(|n| client.publish(&Publish::new("offline/x", &[n]).with_qos(ALL[1 + n as usize % 2])).unwrap())
        .collect();
    let more = Publish::new("offline/x", b"more").at_least_once();
    for full in [client.try_publish(&more), client.publish(&more)] {
        assert!(matches!(full, Err(Error::Publish(PublishError::Full))), "{full:?}");
    }
    assert!(matches!(deliveries[0].wait(Duration::from_millis(10)), Err(Error::Timeout)));
    broker.restart();
    client.wait_connected(LONG).unwrap();
    for delivery in deliveries {
        assert_eq!(delivery.wait(LONG).unwrap(), Outcome::Delivered);
    }
    let mut came: Vec<_> = (0..3).map(|_| next(&client).unwrap().1[0]).collect();
    came.sort_unstable(); // the order of messages is that of their quality of service
    assert_eq!(came, [0, 1, 2]);
}

#[test]
fn newer_messages_push_out_older_ones_only_where_both_allow_it() {
    let mut broker = Mosquitto::start();
    broker.kill();
    let client = builder(&broker.url(), "replace").queue(4, 1 << 20).timeout(Duration::from_millis(20));
    let client = client.subscribe("r/#", QoS::AtLeastOnce).start().unwrap();
    let message = |topic, payload| Publish::new(topic, payload).at_least_once();
    let kept = client.publish(&message("r/kept", b"k")).unwrap();
    let old = client.publish_replacing(&message("r/state", b"old"), Replace::SameTopic).unwrap();
    let first = client.publish_replacing(&message("r/log", b"1"), Replace::Oldest).unwrap();
    let second = client.publish_replacing(&message("r/log", b"2"), Replace::Oldest).unwrap();
    let new = client.publish_replacing(&message("r/state", b"new"), Replace::SameTopic).unwrap();
    let other = client.publish_replacing(&message("r/state/2", b"x"), Replace::SameTopic);
    assert!(matches!(other, Err(Error::Publish(PublishError::Full))));
    let third = client.publish_replacing(&message("r/log", b"3"), Replace::Oldest).unwrap();
    assert_eq!(old.outcome(), Some(Outcome::Replaced));
    assert_eq!(first.outcome(), Some(Outcome::Replaced));
    assert_eq!([&kept, &second, &new, &third].map(|delivery| delivery.outcome()), [None; 4]);
    broker.restart();
    let mut came: Vec<_> = (0..4).map(|_| next(&client).unwrap().1).collect();
    came.sort();
    assert_eq!(came, [&b"2"[..], b"3", b"k", b"new"]);
    for number in [old.number(), first.number()] {
        await_event(&client, |event| matches!(event, Event::Replaced(replaced) if *replaced == number));
    }
    assert_eq!(new.wait(LONG).unwrap(), Outcome::Delivered);
}

#[test]
fn a_refusal_that_cannot_heal_ends_the_client_and_says_why() {
    let broker = Mosquitto::with_files("allow_anonymous false\npassword_file passwords\n", &[("passwords", "")]);
    let url = broker.url().replace("mqtt://", "mqtt://me:wrong@");
    let refused = |error: &Error| {
        matches!(error, Error::Ended(Reason::Fault(Fault::Refused(Refusal::NotAuthorized | Refusal::Credentials))))
    };
    let error = Client::connect(&url, "refused").unwrap_err();
    assert!(refused(&error), "{error:?}");
    let client = builder(&url, "refused").start().unwrap();
    let gone = await_event(&client, |event| matches!(event, Event::Disconnected { .. }));
    assert!(matches!(gone, Event::Disconnected { retry_in: None, .. }));
    assert!(refused(&client.next().unwrap_err()));
    assert!(refused(&client.next_event().unwrap_err()));
    assert!(refused(&client.publish(&Publish::new("a", b"").at_least_once()).unwrap_err()));
    assert!(refused(&client.subscribe("a", QoS::AtMostOnce).unwrap_err()));
    assert!(refused(&client.wait_connected(LONG).unwrap_err()));
    assert!(refused(&client.close(LONG).unwrap_err()));
}

#[test]
fn a_refused_filter_is_an_error_for_who_waits_and_an_event_for_all() {
    let acl = "topic readwrite open/#\n";
    let broker = Mosquitto::with_files("acl_file acl\n", &[("acl", acl)]);
    let client = builder(&broker.url(), "acl").subscribe("closed/static", QoS::AtMostOnce).connect().unwrap();
    let granted = client.request_subscribe(&[("open/1", QoS::AtLeastOnce), ("closed/2", QoS::AtLeastOnce)]);
    // Mosquitto 2.0 answers 0x80 only to filters that it denies as such; what it grants depends on its version.
    let granted = granted.unwrap().wait(LONG).unwrap();
    assert_eq!(granted[0], Some(QoS::AtLeastOnce));
    if granted[1].is_none() {
        assert!(matches!(client.subscribe("closed/3", QoS::AtMostOnce), Err(Error::SubscriptionRefused(_))));
        for refused in ["closed/static", "closed/2", "closed/3"] {
            await_event(&client, |event| matches!(event, Event::SubscriptionRefused { filter } if filter == refused));
        }
    }
}

#[test]
fn a_message_that_is_not_acknowledged_comes_again() {
    let broker = Mosquitto::start();
    let connect = || builder(&broker.url(), "manual").persistent().manual_acks().connect().unwrap();
    let client = connect();
    client.subscribe("manual/#", QoS::ExactlyOnce).unwrap();
    for (topic, qos) in [("manual/1", QoS::AtLeastOnce), ("manual/2", QoS::ExactlyOnce)] {
        let _ = client.publish(&Publish::new(topic, b"x").with_qos(qos)).unwrap();
    }
    let first = client.next_timeout(LONG).unwrap().unwrap();
    let second = client.next_timeout(LONG).unwrap().unwrap();
    assert!(client.acknowledge(&first) && !client.acknowledge(&first));
    drop(client);
    let client = connect();
    let again = client.next_timeout(LONG).unwrap().unwrap();
    assert_eq!((again.topic(), again.is_dup()), (second.topic(), true));
    assert!(!client.acknowledge(&second) && client.acknowledge(&again));
    drop(client);
    assert_eq!(connect().next_timeout(Duration::from_millis(200)).unwrap(), None);
}

#[test]
fn dropping_the_last_handle_delivers_what_is_on_its_way_and_says_goodbye() {
    let broker = Mosquitto::start();
    let watcher = Client::connect(&broker.url(), "watcher").unwrap();
    watcher.subscribe("drop/#", QoS::ExactlyOnce).unwrap();
    let will = Publish::new("drop/will", b"gone").at_least_once();
    for round in 0..10_usize {
        let client = builder(&broker.url(), "dropped").will(&will).connect().unwrap();
        let other = client.clone();
        drop(client);
        for n in 0..50_usize {
            let _ = other.publish(&Publish::new("drop/x", &[n as u8]).with_qos(ALL[round % 3])).unwrap();
        }
        drop(other);
        let came: Vec<_> = (0..50).map(|_| watcher.next_timeout(LONG).unwrap().unwrap().payload()[0]).collect();
        assert_eq!(came, (0..50).collect::<Vec<u8>>());
    }
    assert_eq!(
        watcher.next_timeout(Duration::from_millis(200)).unwrap(),
        None,
        "the will of a client that said goodbye"
    );
}

#[test]
fn a_close_that_comes_to_its_limit_says_what_is_unfinished() {
    let broker = Mosquitto::start();
    let proxy = Proxy::to(broker.port());
    let client = builder(&proxy.url(), "unfinished").connect().unwrap();
    proxy.stall();
    for _ in 0..3 {
        let _ = client.publish(&Publish::new("a", b"x").at_least_once()).unwrap();
    }
    let error = client.close(Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, Error::Unfinished(3)), "{error:?}");
    assert!(matches!(client.try_publish(&Publish::new("a", b"x").at_least_once()), Err(Error::Ended(Reason::Closed))));
}

#[test]
fn a_close_tries_once_more_before_its_time_whatever_the_back_off() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut broker = Mosquitto::start();
    broker.kill();
    let client = Client::builder(&broker.url(), "hurried").reconnect(Backoff::new(DAY, DAY)).start().unwrap();
    await_event(&client, |event| matches!(event, Event::Disconnected { retry_in: Some(_), .. }));
    let delivery = client.publish(&Publish::new("a", b"x").exactly_once()).unwrap();
    broker.restart();
    client.close(LONG).unwrap();
    assert_eq!(delivery.outcome(), Some(Outcome::Delivered));
}

#[test]
fn a_server_that_lost_the_session_is_subscribed_to_again_without_a_line_of_the_application() {
    let mut broker = Mosquitto::start();
    let client = builder(&broker.url(), "again").persistent().subscribe("static/#", QoS::AtLeastOnce);
    let client = client.connect().unwrap();
    client.subscribe("run/time/#", QoS::ExactlyOnce).unwrap();
    client.subscribe("not/any/more", QoS::AtMostOnce).unwrap();
    client.unsubscribe("not/any/more").unwrap();
    broker.kill();
    broker.restart();
    await_event(&client, |event| matches!(event, Event::Disconnected { retry_in: Some(_), .. }));
    await_event(&client, |event| matches!(event, Event::Connected { resumed: false }));
    for topic in ["static/1", "run/time/2", "not/any/more", "run/time/3"] {
        let _ = client.publish(&Publish::new(topic, b"").exactly_once()).unwrap();
    }
    for topic in ["static/1", "run/time/2", "run/time/3"] {
        assert_eq!(next(&client).unwrap().0, topic);
    }
}

#[test]
fn payloads_of_many_megabytes_pass_both_ways() {
    let broker = Mosquitto::start();
    let client = builder(&broker.url(), "large").max_packet(20 << 20).queue(10, 64 << 20).connect().unwrap();
    client.subscribe("large", QoS::ExactlyOnce).unwrap();
    for (len, qos) in [(100_000, QoS::AtMostOnce), (16 << 20, QoS::AtMostOnce), (9_999_999, QoS::ExactlyOnce)] {
        let payload: Vec<u8> = (0..len).map(|n| (n / 251) as u8).collect();
        let delivery = client.publish(&Publish::new("large", &payload).with_qos(qos)).unwrap();
        let message = client.next_timeout(LONG).unwrap().expect("a large message");
        assert!(message.payload() == payload, "{len} bytes came otherwise");
        assert_eq!(delivery.wait(LONG).unwrap(), Outcome::Delivered);
    }
}

#[test]
fn many_clients_live_in_one_program() {
    let broker = Mosquitto::start();
    let clients: Vec<_> = (0..20).map(|n| Client::connect(&broker.url(), &format!("one-of-{n}")).unwrap()).collect();
    for (n, client) in clients.iter().enumerate() {
        client.subscribe(&format!("to/{n}"), QoS::AtLeastOnce).unwrap();
        let to = format!("to/{}", (n + clients.len() - 1) % clients.len());
        let _ = client.publish(&Publish::new(&to, b"x").at_least_once()).unwrap();
    }
    for client in &clients[..19] {
        assert_eq!(next(client).unwrap().1, b"x");
    }
    wait_until("all is delivered", || clients.iter().all(|client| client.stats().in_flight == 0));
}

#[test]
fn a_backlog_arrives_once_and_in_order_with_room_for_a_part_of_it() {
    let broker = Mosquitto::start();
    let office = || builder(&broker.url(), "office").persistent().receive_window(20);
    let client = office().connect().unwrap();
    client.subscribe("till", QoS::ExactlyOnce).unwrap();
    client.close(LONG).unwrap();
    let till = Client::connect(&broker.url(), "till").unwrap();
    let deliveries: Vec<_> = (0..300_u32)
        .map(|number| till.publish(&Publish::new("till", number.to_string().as_bytes()).exactly_once()).unwrap())
        .collect();
    assert!(deliveries.iter().all(|delivery| delivery.wait(LONG).unwrap() == Outcome::Delivered));
    // mosquitto has more exchanges open than its own limit while its queue is not empty, each time.
    let client = office().subscribe("till", QoS::ExactlyOnce).connect().unwrap();
    for number in 0..300_u32 {
        let (_, payload, ..) = next(&client).expect("a message");
        assert_eq!(payload, number.to_string().as_bytes());
    }
    client.close(LONG).unwrap();
}

#[test]
fn for_ever_is_a_limit_like_any_other() {
    const FOREVER: Duration = Duration::MAX;
    let broker = Mosquitto::start();
    let client = builder(&broker.url(), "patient").timeout(FOREVER).connect_timeout(FOREVER).linger(FOREVER);
    let client = client.subscribe("a", QoS::AtLeastOnce).connect().unwrap();
    client.wait_connected(FOREVER).unwrap();
    assert!(client.next_event_timeout(FOREVER).unwrap().is_some());
    assert_eq!(client.subscribe("b", QoS::AtLeastOnce).unwrap(), QoS::AtLeastOnce);
    let delivery = client.publish(&Publish::new("a", b"x").at_least_once()).unwrap();
    assert_eq!(delivery.wait(FOREVER).unwrap(), Outcome::Delivered);
    assert_eq!(client.next_timeout(FOREVER).unwrap().unwrap().payload(), b"x");
    let last = client.publish(&Publish::new("b", b"").exactly_once()).unwrap();
    client.close(FOREVER).unwrap();
    assert_eq!(last.outcome(), Some(Outcome::Delivered));
}
