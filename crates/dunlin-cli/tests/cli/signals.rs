use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use dunlin_testkit::mosquitto::{Mosquitto, free_port};

use crate::tool::*;

#[test]
fn a_subscriber_says_goodbye_when_it_is_told_to_end() {
    let broker = Mosquitto::start();
    for signal in ["INT", "TERM"] {
        let id = format!("id{signal}");
        let running =
            Running::start(dunlin_at(&broker, &format!("sub -t a -i {id} --will-topic will --will-payload gone")));
        logged(&broker, &format!("Sending SUBACK to {id}"), 1);
        running.signal(signal);
        assert_eq!(running.end(), (0, String::new(), String::new()));
        logged(&broker, &format!("Received DISCONNECT from {id}"), 1);
    }
}

#[test]
fn a_publisher_that_waits_for_lines_says_goodbye_when_it_is_told_to_end() {
    let broker = Mosquitto::start();
    let observer = observer(&broker, "a");
    let mut command = dunlin_at(&broker, "pub -t a -l -q 2 -i lines");
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"one\ntwo\nthr").unwrap();
    assert_eq!((next_text(&observer).1, next_text(&observer).1), ("one".into(), "two".into()));
    logged(&broker, "Sending PUBCOMP to lines", 2);
    let stdin = child.stdin.take();
    let running = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(running.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    logged(&broker, "Received DISCONNECT from lines", 1);
    drop(stdin);
}

#[test]
fn a_publisher_says_when_a_signal_left_messages_undelivered() {
    let broker = Mosquitto::start();
    broker.freeze();
    for arguments in ["pub -t a -m x -q 1 --quiet", "pub -t a -m x --quiet"] {
        let running = Running::start(dunlin_at(&broker, arguments));
        std::thread::sleep(Duration::from_millis(300));
        running.signal("INT");
        let (code, _, stderr) = running.end();
        assert_eq!((code, stderr.as_str()), (8, "dunlin: ended with 1 message undelivered\n"), "{arguments}");
    }
}

#[test]
fn a_subscriber_without_a_connection_ends_without_complaint() {
    // A server that accepts and says nothing: to MQTT, to TLS, to WebSocket, as a proxy.
    for way in [
        "-h 127.0.0.1 -p PORT",
        "-h localhost -p PORT --tls",
        "-L ws://127.0.0.1:PORT/",
        "-h broker.example --proxy socks5://127.0.0.1:PORT",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let running = Running::start(dunlin(&format!("sub -t a {way}").replace("PORT", &port.to_string())));
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1]).unwrap() > 0, "{way}");
        running.signal("TERM");
        assert_eq!(running.end(), (0, String::new(), String::new()), "{way}");
    }
    // And one that is not there.
    let mut child = dunlin(&format!("sub -t a -p {}", free_port())).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("next attempt in"), "{line}");
    let status = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rest: Vec<_> = stderr.lines().map_while(Result::ok).collect();
    assert!(rest.iter().all(|line| line.contains("next attempt in")), "{rest:?}");
}

#[test]
fn a_will_is_carried_out_when_the_process_is_killed_and_not_when_it_ends() {
    let broker = Mosquitto::start();
    let observer = observer(&broker, "will/#");
    succeeds(dunlin_at(&broker, "sub -t a -E --will-topic will/quiet --will-payload no"));
    let arguments = "sub -t a -i killed --will-topic will/killed --will-payload gone --will-qos 2 --will-retain";
    let running = Running::start(dunlin_at(&broker, arguments));
    logged(&broker, "Sending SUBACK to killed", 1);
    running.signal("KILL");
    assert_eq!(running.end().0, -1);
    assert_eq!(next_text(&observer), ("will/killed".into(), "gone".into(), 2, false));
    assert_eq!(succeeds(dunlin_at(&broker, "sub -t will/# -C 1 -F %p%r")), "gone1\n");
}
