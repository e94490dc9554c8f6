use std::io::{Read, Write};
use std::net::TcpListener;

use dunlin_testkit::mosquitto::Mosquitto;
use dunlin_testkit::{Proxy, Rng};

use crate::tool::*;

fn message(topic: &str, payload: &str, qos: u8, retain: bool) -> (String, String, u8, bool) {
    (topic.to_owned(), payload.to_owned(), qos, retain)
}

#[test]
fn each_source_gives_the_payload_that_it_should() {
    let broker = Mosquitto::start();
    let observer = observer(&broker, "a/#");
    let file = broker.directory().join("payload");
    std::fs::write(&file, "from a file\n").unwrap();
    let file = file.display();

    succeeds(dunlin_at(&broker, "pub -t a/m -m hello"));
    succeeds(dunlin_at(&broker, "pub -t a/dash -m -1"));
    succeeds(dunlin_at(&broker, &format!("pub -t a/f -f {file}")));
    succeeds(dunlin_at(&broker, "pub -t a/n -n"));
    assert_eq!(Running::with_input(dunlin_at(&broker, "pub -t a/s -s"), "one\ntwo\n").end().0, 0);
    assert_eq!(Running::with_input(dunlin_at(&broker, "pub -t a/l -l"), "one\n\nthree").end().0, 0);

    let expected = [
        ("a/m", "hello"),
        ("a/dash", "-1"),
        ("a/f", "from a file\n"),
        ("a/n", ""),
        ("a/s", "one\ntwo\n"),
        ("a/l", "one"),
        ("a/l", ""),
        ("a/l", "three"),
    ];
    for (topic, payload) in expected {
        assert_eq!(next_text(&observer), message(topic, payload, 0, false));
    }
}

#[test]
fn quality_of_service_retain_and_repeat_are_as_asked_for() {
    let broker = Mosquitto::start();
    let live = observer(&broker, "a/#");
    for qos in 0..3 {
        succeeds(dunlin_at(&broker, &format!("pub -t a/{qos} -m x -q {qos} -r")));
        assert_eq!(next_text(&live), message(&format!("a/{qos}"), "x", qos, false));
    }
    succeeds(dunlin_at(&broker, "pub -t a/1 -q 1 -r -n"));
    succeeds(dunlin_at(&broker, "pub -t a/three -m again -q 1 --repeat 3 --repeat-delay 0.01"));
    let from_input = Running::with_input(dunlin_at(&broker, "pub -t a/three -s -q 1 --repeat 2"), "again");
    assert_eq!(from_input.end().0, 0);
    assert_eq!(next_text(&live).1, "");
    for _ in 0..5 {
        assert_eq!(next_text(&live), message("a/three", "again", 1, false));
    }
    live.close(LIMIT).unwrap();

    let late = observer(&broker, "a/#");
    let mut retained = [next_text(&late), next_text(&late)];
    retained.sort();
    assert_eq!(retained, [message("a/0", "x", 0, true), message("a/2", "x", 2, true)]);
}

#[test]
fn a_line_may_be_empty_or_hold_any_byte_and_the_last_one_needs_no_end() {
    let broker = Mosquitto::start();
    let observer = observer(&broker, "#");
    let input = b"one\n\ntw\0o\xff\r\nlast";
    let (code, _, stderr) = Running::with_input(dunlin_at(&broker, "pub -t lines -l -q 1"), input).end();
    assert_eq!((code, stderr.as_str()), (0, ""));
    for payload in [&b"one"[..], b"", b"tw\0o\xff\r", b"last"] {
        assert_eq!(observer.next().unwrap().payload(), payload);
    }
}

/// Ten thousand lines, and a last one without an end.
fn lines() -> (String, Vec<String>) {
    let lines: Vec<_> = (0..10_000).map(|n| format!("line {n}")).collect();
    (lines.join("\n"), lines)
}

#[test]
fn ten_thousand_lines_arrive_in_order_at_each_quality_of_service() {
    let broker = Mosquitto::start();
    let (input, lines) = lines();
    for qos in 0..3 {
        let observer = observer(&broker, "lines");
        let (code, _, stderr) =
            Running::with_input(dunlin_at(&broker, &format!("pub -t lines -l -q {qos}")), input.clone()).end();
        assert_eq!((code, stderr.as_str()), (0, ""));
        for line in &lines {
            let message = next(&observer);
            assert_eq!((message.text(), message.qos().bits()), (Some(line.as_str()), qos));
        }
        observer.close(LIMIT).unwrap();
    }
}

/// From 200 bytes to 40 kB, sixty times: what carries all lines.
fn lengths(seed: u64) -> impl Iterator<Item = usize> {
    let mut rng = Rng::new(seed);
    (0..60).map(move |_| 200 + rng.below(40_000))
}

#[test]
fn ten_thousand_lines_arrive_at_least_once_over_a_link_that_breaks_again_and_again() {
    let broker = Mosquitto::start();
    let (input, lines) = lines();
    let observer = observer(&broker, "lines");
    let link = BadLink::to(&broker, lengths(1));
    let command =
        dunlin(&format!("pub -h 127.0.0.1 -p {} -t lines -l -q 1 -i p1 -c --quiet --reconnect-max 0.05", link.port));
    let (code, _, stderr) = Running::with_input(command, input).end();
    assert_eq!((code, stderr.as_str()), (0, ""));
    let mut missing: std::collections::BTreeSet<_> = lines.into_iter().collect();
    while !missing.is_empty() {
        missing.remove(next(&observer).text().unwrap());
    }
}

#[test]
fn ten_thousand_lines_arrive_exactly_once_and_in_order_over_a_link_that_breaks_again_and_again() {
    let broker = Mosquitto::start();
    let (input, lines) = lines();
    let observer = observer(&broker, "lines");
    let link = BadLink::to(&broker, lengths(2));
    let command = dunlin(&format!("pub -h 127.0.0.1 -p {} -t lines -l -q 2 -i p2 -c --reconnect-max 0.05", link.port));
    let (code, _, stderr) = Running::with_input(command, input).end();
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.matches("no connection").count() > 10, "the link was too good: {stderr}");
    for line in &lines {
        assert_eq!(next(&observer).text(), Some(line.as_str()));
    }
    succeeds(dunlin_at(&broker, "pub -t lines -m end -q 2"));
    assert_eq!(next(&observer).text(), Some("end"));
}

#[test]
fn lines_at_qos_0_wait_for_the_connection_and_not_for_its_speed() {
    let mut broker = Mosquitto::start();
    broker.kill();
    let command = dunlin_at(&broker, "pub -t lines -l --quiet --reconnect-max 0.05");
    let running = Running::with_input(command, "one\ntwo");
    // Only then is there a broker to see them, and nobody can subscribe before it is there: so they are retained.
    broker.restart();
    logged(&broker, "Received PUBLISH", 2);
    assert_eq!(running.end().0, 0);
}

#[test]
fn a_publisher_gives_up_when_its_time_is_over() {
    let mut broker = Mosquitto::start();
    broker.kill();
    let (code, _, stderr) = run(dunlin_at(&broker, "pub -t a -m x -q 1 -W 0.3 --reconnect-max 0.1"));
    assert_eq!(code, 27);
    assert!(stderr.contains("Connection refused") && stderr.ends_with("dunlin: timed out\n"), "{stderr}");
}

/// What MQTT allows, mosquitto passes on too.
#[test]
fn the_longest_topic_and_payloads_of_any_size_pass() {
    let broker = Mosquitto::start();
    let file = broker.directory().join("payload");
    // Around each length of a length, and more than the library takes unasked.
    for len in [0, 1, 116, 117, 16_371, 16_372, 2_097_139, 2_097_140, 20_000_000] {
        let payload: Vec<_> = (0..len).map(|n| (n % 251) as u8).collect();
        std::fs::write(&file, &payload).unwrap();
        let mut subscriber = dunlin_at(&broker, "sub -t size -C 1 -F %l,%x -q 1 -i size -c");
        succeeds(dunlin_at(&broker, "sub -t size -q 1 -i size -c -E"));
        succeeds(dunlin_at(&broker, &format!("pub -t size -q 1 -f {}", file.display())));
        if len > 3_000_000 {
            // Hexadecimal of it all says no more than its length and end.
            subscriber = dunlin_at(&broker, "sub -t size -C 1 -F %l -q 1 -i size -c");
            assert_eq!(succeeds(subscriber), format!("{len}\n"));
            continue;
        }
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(succeeds(subscriber) == format!("{len},{hex}\n"), "{len}");
    }
    let topic = "x".repeat(65_535);
    let at = |command: &str, topic: &str| {
        let mut command = dunlin_at(&broker, command);
        command.args(["-t", topic]);
        command
    };
    succeeds(at("pub -q 1 -r -m far", &topic));
    assert_eq!(succeeds(at("sub -q 1 -C 1", &topic)), "far\n");
    fails(at("pub -m x", &format!("{topic}x")), 2, "65535");
    fails(at("sub", &format!("{topic}x")), 2, "65535");
}

#[test]
fn the_longest_packet_of_all_is_sent() {
    const LONGEST: u64 = 268_435_455;
    let scratch = Mosquitto::start(); // for its directory
    let file = scratch.directory().join("payload");
    std::fs::File::create(&file).unwrap().set_len(LONGEST - 3).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connect = [0; 4096];
        let _ = stream.read(&mut connect).unwrap();
        stream.write_all(b"\x20\x02\0\0").unwrap();
        let mut head = [0; 8];
        stream.read_exact(&mut head).unwrap();
        let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        (head, rest)
    });
    succeeds(dunlin(&format!("pub -p {port} -t a -f {}", file.display())));
    // Behind it comes DISCONNECT.
    assert_eq!(came.join().unwrap(), (*b"\x30\xff\xff\xff\x7f\0\x01a", LONGEST - 3 + 2));
    std::fs::File::create(&file).unwrap().set_len(LONGEST - 2).unwrap();
    fails(dunlin(&format!("pub -p {port} -t a -f {} -W 1 --quiet", file.display())), 2, "larger");
}

/// Nobody reads while the broker dies: what a subscriber sees of a restart of mosquitto is tested elsewhere.
#[test]
fn ten_thousand_lines_arrive_exactly_once_at_a_broker_that_is_killed_in_the_middle_again_and_again() {
    const KILLS: usize = 10;
    let mut broker = Mosquitto::with("persistence true\nmax_inflight_messages 0\n");
    succeeds(dunlin_at(&broker, "sub -t lines -q 2 -i ledger -c -E"));
    let link = Proxy::to(broker.port());
    let arguments = format!("pub -L {}/lines -l -q 2 -i kill -c --quiet --reconnect-max 0.05", link.url());
    let (running, mut stdin) = Running::with_open_input(dunlin(&arguments));
    let (_, lines) = lines();
    for part in lines.chunks(lines.len() / KILLS) {
        // What is written last stays in the pipe, in the queue and under way.
        stdin.write_all(format!("{}\n", part.join("\n")).as_bytes()).unwrap();
        logged(&broker, "Received PUBLISH from kill", 1);
        link.stall();
        broker.save();
        broker.kill();
        link.cut();
        broker.restart();
        link.flow();
    }
    drop(stdin);
    let (code, _, stderr) = running.end();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(link.accepted() >= KILLS, "fewer connections than kills");
    succeeds(dunlin_at(&broker, "pub -t lines -m end -q 2"));
    let ledger = succeeds(dunlin_at(&broker, &format!("sub -t lines -q 2 -i ledger -c -C {}", lines.len() + 1)));
    let mut received: Vec<_> = ledger.lines().collect();
    received.sort_unstable();
    let mut sent: Vec<_> = lines.iter().map(String::as_str).chain(["end"]).collect();
    sent.sort_unstable();
    assert!(received == sent, "{} lines came", received.len());
}
