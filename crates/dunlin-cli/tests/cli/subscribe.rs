use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Instant;

use dunlin_testkit::mosquitto::Mosquitto;

use crate::tool::*;

/// A subscriber that has its subscription.
fn subscriber(broker: &Mosquitto, arguments: &str) -> Running {
    let path = broker.directory().join("log");
    let before = std::fs::read_to_string(path).unwrap_or_default().matches("Sending SUBACK").count();
    let running = Running::start(dunlin_at(broker, arguments));
    logged(broker, "Sending SUBACK", before + 1);
    running
}

#[test]
fn payloads_are_printed_one_a_line_and_topics_with_v() {
    let broker = Mosquitto::start();
    let plain = subscriber(&broker, "sub -t a/1 -t a/2 -q 1 -C 3");
    let verbose = subscriber(&broker, "sub -t a/# -v -q 1 -C 3");
    succeeds(dunlin_at(&broker, "pub -q 1 -t a/1 -m one"));
    succeeds(dunlin_at(&broker, "pub -q 1 -t a/2 -n"));
    succeeds(dunlin_at(&broker, "pub -q 1 -t a/1 -m three"));
    // As mosquitto_sub does: an empty message counts, and is only seen with -v.
    assert_eq!(plain.end(), (0, "one\nthree\n".into(), String::new()));
    assert_eq!(verbose.end(), (0, "a/1 one\na/2 (null)\na/1 three\n".into(), String::new()));
}

#[test]
fn formats_show_what_they_say() {
    let broker = Mosquitto::start();
    let formatted = |format: &str| {
        let mut command = dunlin_at(&broker, "sub -t a/b -q 2 -C 1");
        command.args(["-F", format]).env("TZ", "UTC");
        succeeds(command)
    };
    succeeds(dunlin_at(&broker, r#"pub -t a/b -q 2 -r -m {"n":1}"#));
    let text = r#"a/b|{"n":1}|7b226e223a317d|7B226E223A317D|7|2|1|1|%"#;
    assert_eq!(formatted(r"%t|%p|%x|%X|%l|%q|%r|%m|%%\t."), format!("{text}\t.\n"));
    let laid_out = "[%6t][%-6t][%.2t][%06l][%.2x][%.4:X][%5C][%12.10I]";
    let time = "2026-11-22".len();
    let line = formatted(laid_out);
    let text = "[   a/b][a/b   ][a/][000007][7b 22 6e 22 3a 31 7d][7B22:6E22:3A31:7D][     ][  20";
    assert!(line.starts_with(text) && line.len() == text.len() + time, "{line}");
    let common = r#""topic":"a/b","qos":2,"retain":1,"payloadlen":7,"mid":1,"payload""#;
    let json = formatted("%j");
    assert!(json.starts_with(r#"{"tst":"20"#) && json.ends_with("}\n") && json.contains("+0000\","), "{json}");
    assert!(json.contains(&format!(r#"{common}:"{{\"n\":1}}"}}"#)), "{json}");
    assert!(formatted("%J").contains(&format!(r#"{common}:{{"n":1}}}}"#)));
    let time = formatted("%I");
    assert!(time.len() == "2026-11-22T10:24:52+0000\n".len() && time.ends_with("+0000\n"), "{time}");
    assert!(formatted("%U").trim().parse::<f64>().unwrap() > 1.7e9);
}

#[test]
fn an_empty_payload_is_null_in_json_and_a_format_has_the_last_word() {
    let broker = Mosquitto::start();
    for format in ["%j", "%J"] {
        let running = subscriber(&broker, &format!("sub -t a -C 1 -v -F {format}"));
        succeeds(dunlin_at(&broker, "pub -t a -n"));
        let (code, stdout, stderr) = running.end();
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(stdout.ends_with("\"payloadlen\":0,\"payload\":null}\n"), "{stdout}");
    }
}

#[test]
fn a_payload_that_is_not_json_is_left_out_where_json_is_asked_for() {
    let broker = Mosquitto::start();
    succeeds(dunlin_at(&broker, "pub -t a -r -m not-json"));
    let (code, stdout, stderr) = run(dunlin_at(&broker, "sub -t a -C 1 -F %J"));
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert!(stderr.contains("not JSON"), "{stderr}");
}

#[test]
fn what_is_not_wanted_is_not_printed_and_does_not_count() {
    let broker = Mosquitto::start();
    succeeds(dunlin_at(&broker, "pub -t a/old -q 1 -r -m old"));
    let running = subscriber(&broker, "sub -t a/# -T a/+/secret -R -N -v -C 2");
    for (topic, payload) in [("a/x/secret", "no"), ("a/x/open", "1,"), ("a/y/secret", "no"), ("a/y/open", "2,")] {
        succeeds(dunlin_at(&broker, &format!("pub -q 1 -t {topic} -m {payload}")));
    }
    assert_eq!(running.end(), (0, "a/x/open 1,a/y/open 2,".into(), String::new()));
}

#[test]
fn a_subscriber_ends_when_its_time_is_over_or_its_subscriptions_are_answered() {
    let broker = Mosquitto::start();
    let begin = Instant::now();
    fails(dunlin_at(&broker, "sub -t a -W 0.5"), 27, "timed out");
    assert!(begin.elapsed().as_secs_f32() >= 0.5);
    assert_eq!(succeeds(dunlin_at(&broker, "sub -t a -t b -E")), "");
}

#[test]
fn messages_are_flushed_at_once() {
    let broker = Mosquitto::start();
    let mut child = dunlin_at(&broker, "sub -t a -N").spawn().unwrap();
    logged(&broker, "Sending SUBACK", 1);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    succeeds(dunlin_at(&broker, "pub -t a -m now"));
    let mut line = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut line).unwrap();
    assert_eq!(&line, b"now");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_kept_session_collects_messages_while_nobody_runs() {
    let broker = Mosquitto::start();
    succeeds(dunlin_at(&broker, "sub -t a -q 2 -i archive -c -E"));
    for n in 0..50 {
        succeeds(dunlin_at(&broker, &format!("pub -t a -q 2 -m {n}")));
    }
    // Two runs share the messages: what the first has not printed is the second's.
    let first = succeeds(dunlin_at(&broker, "sub -t a -q 2 -i archive -c -C 20"));
    let second = succeeds(dunlin_at(&broker, "sub -t a -q 2 -i archive -c -C 30"));
    let printed: Vec<u32> = format!("{first}{second}").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(printed, (0..50).collect::<Vec<_>>());
}

#[test]
fn each_message_at_qos_2_is_printed_once_over_a_link_that_breaks_again_and_again() {
    let broker = Mosquitto::start();
    let link = BadLink::to(&broker, (0..40).map(|n| 300 + n * 37 % 2000));
    succeeds(dunlin_at(&broker, "sub -t a -q 2 -i once -c -E"));
    let command =
        dunlin(&format!("sub -h 127.0.0.1 -p {} -t a -q 2 -i once -c -C 2000 --quiet --reconnect-max 0.05", link.port));
    let running = Running::start(command);
    let input: Vec<_> = (0..2000).map(|n| n.to_string()).collect();
    assert_eq!(Running::with_input(dunlin_at(&broker, "pub -t a -q 2 -l"), input.join("\n")).end().0, 0);
    let (code, stdout, stderr) = running.end();
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout.lines().collect::<Vec<_>>(), input);
}

#[test]
fn a_subscriber_comes_back_after_the_broker_did_and_subscribes_again() {
    let mut broker = Mosquitto::start();
    let running = subscriber(&broker, "sub -t a -C 2 --reconnect-max 0.1");
    succeeds(dunlin_at(&broker, "pub -t a -m before"));
    broker.kill();
    broker.restart();
    logged(&broker, "Sending SUBACK", 1);
    succeeds(dunlin_at(&broker, "pub -t a -m after"));
    let (code, stdout, stderr) = running.end();
    assert_eq!((code, stdout.as_str()), (0, "before\nafter\n"));
    assert!(stderr.contains("next attempt in") && stderr.ends_with("dunlin: connected\n"), "{stderr}");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let broker = Mosquitto::start();
    let mut command = dunlin_at(&broker, "sub -t a -q 1");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    logged(&broker, "Sending SUBACK", 1);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    succeeds(dunlin_at(&broker, "pub -t a -q 1 -m one"));
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    succeeds(dunlin_at(&broker, "pub -t a -q 1 -m two"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    logged(&broker, "Received DISCONNECT from dunlin", 1);
}

#[test]
fn refused_subscriptions_are_reported_and_end_it_when_none_is_left() {
    // CONNACK, then SUBACK: all refused, or one of two.
    let (port, _) = stub(&[b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x80"]);
    fails(dunlin(&format!("sub -h 127.0.0.1 -p {port} -t secret/#")), 5, "secret/#");
    let (port, _) = stub(&[b"\x20\x02\x00\x00", b"\x90\x04\x00\x01\x00\x80"]);
    let (code, _, stderr) = run(dunlin(&format!("sub -h 127.0.0.1 -p {port} -t open -t secret/# -W 1")));
    assert_eq!(code, 27);
    assert!(stderr.starts_with("dunlin: the server refused the subscription to secret/#\n"), "{stderr}");
}

#[test]
fn the_longest_packet_of_all_is_waited_for() {
    // All that ever comes of it is its head.
    let (port, _) = stub(&[b"\x20\x02\0\0", b"\x90\x03\0\x01\0\x30\xff\xff\xff\x7f\0\x01a"]);
    let (code, _, stderr) = run(dunlin(&format!("sub -p {port} -t a -W 1")));
    assert_eq!((code, stderr.as_str()), (27, "dunlin: timed out\n"));
}

#[test]
fn a_kept_session_is_unsubscribed_from_what_it_still_has() {
    let broker = Mosquitto::start();
    succeeds(dunlin_at(&broker, "sub -t old/# -t kept -q 1 -i u -c -E"));
    succeeds(dunlin_at(&broker, "sub -U old/# -i u -c -E"));
    succeeds(dunlin_at(&broker, "pub -t old/1 -q 1 -m no"));
    succeeds(dunlin_at(&broker, "pub -t kept -q 1 -m yes"));
    assert_eq!(succeeds(dunlin_at(&broker, "sub -t kept -q 1 -i u -c -C 1")), "yes\n");
}

#[test]
fn retained_messages_are_shown_alone_and_forgotten_on_request() {
    let broker = Mosquitto::start();
    for topic in ["a/1", "a/2", "a/3"] {
        succeeds(dunlin_at(&broker, &format!("pub -t {topic} -q 1 -r -m of-{topic}")));
    }
    let running = subscriber(&broker, "sub -t a/# --retained-only");
    succeeds(dunlin_at(&broker, "pub -t a/4 -q 1 -m live"));
    assert_eq!(running.end(), (0, "of-a/1\nof-a/2\nof-a/3\n".into(), String::new()));
    // What is filtered out is neither printed nor removed.
    succeeds(dunlin_at(&broker, "sub -t a/# -T a/2 --remove-retained -C 2"));
    assert_eq!(succeeds(dunlin_at(&broker, "sub -t a/# -C 1 -v")), "a/2 of-a/2\n");
}

#[test]
fn formats_tell_the_time_as_strftime_does() {
    let broker = Mosquitto::start();
    succeeds(dunlin_at(&broker, "pub -t a -q 1 -r -m x"));
    let mut command = dunlin_at(&broker, "sub -t a -C 1");
    command.args(["-F", "@Y-@m-@dT@H:@M:@S.@N@z @@ %t"]).env("TZ", "UTC");
    let line = succeeds(command);
    assert_eq!(line.len(), "2026-11-22T10:24:52.123456789+0000 @ a\n".len(), "{line}");
    assert!(line.starts_with("20") && line.ends_with("+0000 @ a\n"), "{line}");
}

/// The next packet of less than 128 bytes.
fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet).expect("a packet");
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..]).expect("all of it");
    packet
}

#[test]
fn two_copies_of_a_message_in_one_segment_are_printed_once_and_answered_twice() {
    // [C18] [MQTT-4.3.3-2]
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let running = Running::start(dunlin(&format!("sub -h 127.0.0.1 -p {port} -t a -q 2 -C 2")));
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    assert_eq!(packet(&mut stream)[0], 0x10);
    stream.write_all(b"\x20\x02\x00\x00").unwrap();
    let subscribe = packet(&mut stream);
    assert_eq!(subscribe[0], 0x82);
    stream.write_all(&[0x90, 3, subscribe[2], subscribe[3], 2]).unwrap();
    stream.write_all(b"\x34\x08\x00\x01a\x00\x05one\x3C\x08\x00\x01a\x00\x05one").unwrap();
    for _ in 0..2 {
        assert_eq!(packet(&mut stream), b"\x50\x02\x00\x05");
    }
    stream.write_all(b"\x62\x02\x00\x05").unwrap();
    assert_eq!(packet(&mut stream), b"\x70\x02\x00\x05");
    stream.write_all(b"\x34\x08\x00\x01a\x00\x05two").unwrap();
    assert_eq!(packet(&mut stream), b"\x50\x02\x00\x05");
    assert_eq!(running.end(), (0, "one\ntwo\n".into(), String::new()));
}
