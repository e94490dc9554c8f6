use std::process::Command;

use dunlin_testkit::mosquitto::{Mosquitto, free_port};

use crate::tool::*;

/// CONNACK, then PUBACK.
const ACCEPTED: &[&[u8]] = &[b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"];

/// The CONNECT that these arguments lead to.
fn connect(arguments: &str, change: impl FnOnce(&mut Command)) -> Vec<u8> {
    let (port, first) = stub(ACCEPTED);
    let mut command = dunlin(&format!("pub -q 1 {} ", arguments.replace("PORT", &port.to_string())));
    change(&mut command);
    succeeds(command);
    first.join().unwrap()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn each_refusal_has_a_code_of_its_own() {
    for (return_code, exit_code, text) in [
        (1, 6, "protocol version"),
        (2, 6, "client identifier"),
        (4, 4, "bad user name or password"),
        (5, 5, "not authorized"),
    ] {
        let answer: &[&[u8]] = match return_code {
            1 => &[b"\x20\x02\x00\x01"],
            2 => &[b"\x20\x02\x00\x02"],
            4 => &[b"\x20\x02\x00\x04"],
            _ => &[b"\x20\x02\x00\x05"],
        };
        // These end it by themselves: another attempt would not go better.
        let (port, _) = stub(answer);
        fails(dunlin(&format!("pub -h 127.0.0.1 -p {port} -t a -m x -u joe -P secret")), exit_code, text);
    }
    let (port, _) = stub(&[b"\x20\x02\x00\x03"]);
    fails(dunlin(&format!("sub -h 127.0.0.1 -p {port} -t a --no-reconnect")), 3, "unavailable");
    fails(dunlin(&format!("sub -h 127.0.0.1 -p {} -t a --no-reconnect", free_port())), 3, "onnection refused");
}

#[test]
fn what_the_server_did_wrong_is_a_sentence_and_code_7() {
    const CONNACK: &[u8] = b"\x20\x02\x00\x00";
    // CONNECT, then SUBSCRIBE, are answered with these.
    let cases: [(&[&[u8]], &str); 14] = [
        (&[b"HTTP/1.1 400 Bad Request\r\n"], "flag bits that the type of the packet does not allow"),
        (&[b"\xd0\x00"], "it did not begin with CONNACK, or sent a second one"),
        (&[CONNACK, CONNACK], "it did not begin with CONNACK, or sent a second one"),
        (&[b"\x20\x02\x01\x00"], "flags that are reserved, or with a session that cannot be"),
        (&[CONNACK, b"\xf0\x00"], "a packet of a type that no server sends"),
        (&[CONNACK, b"\x41\x02\x00\x01"], "flag bits that the type of the packet does not allow"),
        (&[CONNACK, b"\x40\x03\x00\x01\x00"], "a packet whose length does not fit"),
        (&[CONNACK, b"\x30\x03\x00\x01\xff"], "text that is not UTF-8"),
        (&[CONNACK, b"\x30\x03\x00\x01#"], "a topic that is empty, or has +, # or U+0000 in it"),
        (&[CONNACK, b"\x36\x05\x00\x01a\x00\x01"], "a quality of service that does not exist"),
        (&[CONNACK, b"\x38\x03\x00\x01a"], "it marked a message at QoS 0 as sent again"),
        (&[CONNACK, b"\x32\x05\x00\x01a\x00\x00"], "the packet identifier 0"),
        (&[CONNACK, b"\x90\x04\x00\x01\x00\x00"], "more or fewer return codes than filters"),
        (&[CONNACK, b"\x90\x03\x00\x01\x03"], "a return code that does not exist"),
    ];
    for (answers, sentence) in cases {
        let (port, _) = stub(answers);
        fails(dunlin(&format!("sub -h 127.0.0.1 -p {port} -t a --no-reconnect")), 7, sentence);
    }
}

#[test]
fn a_lost_connection_ends_it_when_it_is_told_not_to_reconnect() {
    let mut broker = Mosquitto::start();
    let running = Running::start(dunlin_at(&broker, "sub -t a --no-reconnect"));
    logged(&broker, "Sending SUBACK", 1);
    broker.kill();
    let (code, _, stderr) = running.end();
    assert_eq!((code, stderr.lines().count()), (3, 1), "{stderr}");
}

#[test]
fn a_password_comes_from_the_most_particular_place() {
    let broker = Mosquitto::start();
    let file = broker.directory().join("password");
    std::fs::write(&file, "of-file\nsecond line\n").unwrap();
    let file = file.display();
    let environment = |command: &mut Command| {
        command.env("DUNLIN_PASSWORD", "of-environment");
    };
    let has = |connect: &[u8], user: &str, password: &str| {
        let credentials = [&[0, user.len() as u8], user.as_bytes(), &[0, password.len() as u8], password.as_bytes()];
        connect.ends_with(&credentials.concat())
    };
    let common = "-h 127.0.0.1 -p PORT -t a -m x -u joe";
    assert!(has(&connect(&format!("{common} -P of-option"), environment), "joe", "of-option"));
    assert!(has(&connect(&format!("{common} --password-file {file}"), environment), "joe", "of-file"));
    assert!(has(&connect(common, environment), "joe", "of-environment"));
    let url = "-L mqtt://ann:of%2Furl@127.0.0.1:PORT/a -m x";
    assert!(has(&connect(url, |_| {}), "ann", "of/url"));
    assert!(has(&connect(url, environment), "ann", "of-environment"));
    assert!(has(&connect(&format!("{url} -u joe"), |_| {}), "joe", "of/url"));
    // Without a user name, the environment is somebody else's.
    assert!(!contains(&connect("-h 127.0.0.1 -p PORT -t a -m x", environment), b"of-environment"));
}

#[test]
fn a_password_is_never_shown() {
    let unreachable = free_port();
    for arguments in [
        "pub -t a -m x -u joe -P hunter2 --no-reconnect -d".to_owned() + &format!(" -p {unreachable}"),
        format!("pub -L mqtt://joe:hunter2@localhost:{unreachable}/a -m x --no-reconnect -d"),
        "pub -L mqtt://joe:hunter2@localhost:99999/a -m x".to_owned(),
        "pub -L mqtt:joe:hunter2@localhost -m x".to_owned(),
        "pub -L xyz://joe:hunter2@localhost/a -m x".to_owned(),
        "pub -P hunter2 -t a -m x".to_owned(),
        "pub --help".to_owned(),
    ] {
        let mut command = dunlin(&arguments);
        command.env("DUNLIN_PASSWORD", "hunter2");
        let (_, stdout, stderr) = run(command);
        assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{arguments}: {stdout}{stderr}");
    }
}

#[test]
fn a_url_says_all_at_once() {
    let broker = Mosquitto::start();
    let observer = observer(&broker, "#");
    succeeds(dunlin(&format!("pub -L {}/plant/7%20b -m x", broker.url())));
    assert_eq!(next_text(&observer).0, "plant/7 b");
    succeeds(dunlin(&format!("pub -L {}/plant -t other -m x", broker.url())));
    assert_eq!(next_text(&observer).0, "other");
    succeeds(dunlin(&format!("pub -L {}/plant/?x=\u{e4}/100% -m x -r -q 1", broker.url())));
    assert_eq!(next_text(&observer).0, "plant/?x=\u{e4}/100%");
    assert_eq!(succeeds(dunlin(&format!("sub -L {}/plant/# -C 1", broker.url()))), "x\n");
    assert_eq!(succeeds(dunlin(&format!("sub -L {}/plant -t b -E", broker.url()))), "");
}

#[test]
fn the_client_identifier_is_the_one_given_or_one_made_up() {
    let id = |connect: &[u8]| String::from_utf8(connect[14..14 + usize::from(connect[13])].to_vec()).unwrap();
    let common = "-h 127.0.0.1 -p PORT -t a -m x";
    assert_eq!(id(&connect(&format!("{common} -i me"), |_| {})), "me");
    assert!(id(&connect(&format!("{common} -I prefix"), |_| {})).starts_with("prefix"));
    for arguments in [common.to_owned(), format!("{common} -k 7")] {
        let connect = connect(&arguments, |_| {});
        let id = id(&connect);
        assert!(id.len() <= 23 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        assert_eq!(connect[9], 0x02, "clean session, and nothing else");
        assert_eq!(connect[11], if arguments.contains("-k 7") { 7 } else { 60 });
    }
}

#[test]
fn what_follows_an_option_is_its_value_also_with_a_dash_before_it() {
    let options = "-t -t -m -m -i -id -u -u -P -P --will-topic -w --will-payload -1";
    let connect = connect(&format!("-h 127.0.0.1 -p PORT {options}"), |_| {});
    let payload = b"\x00\x03-id\x00\x02-w\x00\x02-1\x00\x02-u\x00\x02-P";
    assert!(connect.ends_with(payload), "{connect:?}");
    let broker = Mosquitto::start();
    succeeds(dunlin_at(&broker, "pub -t -a -m x -r -q 1"));
    assert_eq!(succeeds(dunlin_at(&broker, "sub -t -a -T -T -U -U -I -I -F -%p -C 1")), "-x\n");
}

#[test]
fn what_makes_no_sense_is_said_in_one_line() {
    for (arguments, text) in [
        ("pub -m x", "no topic"),
        ("pub -t a", "--message"),
        ("pub -t a -m x -n", "cannot be used with"),
        ("pub -t a/+ -m x", "+ or #"),
        ("pub -t a -m x -q 3", "expected 0, 1 or 2"),
        ("pub -t a -m x -c", "-i"),
        ("pub -t a -m x -c -I pre", "-i"),
        ("pub -t a -m x -P secret", "-u"),
        ("pub -t a -m x -p 0", "--port"),
        ("pub -t a -m x -p 70000", "--port"),
        ("pub -t a -m x -k -1", "-1"),
        ("pub -t a -m x --will-payload y", "--will-topic"),
        ("pub -t a -m x -L mqtt://h -h h", "cannot be used with"),
        ("pub -t a -m x -L mqtt://h --cafile x", "mqtts://"),
        ("pub -t a -m x -L ws://h --tls", "wss://"),
        ("pub -t a -m x --cert x", "--key"),
        ("pub -t a -m x -V mqttv5", "3.1.1"),
        ("pub -t a -m x -M 0", "--max-inflight"),
        ("pub -t a -m x --unix relative", "--unix"),
        ("pub -t a -m x --unix /s -h h", "cannot be used with"),
        ("sub -t a -U a#", "topic filter"),
        ("sub -t a -R --retained-only", "cannot be used with"),
        ("sub -t a -F @!", "strftime"),
        ("pub -t a -m x --proxy ftp://h", "--proxy"),
        ("pub -t a -m x -L ftp://h", "ftp"),
        ("pub -t a -m x -h mqtt://h", "neither a name nor an address"),
        ("pub -t a -m x -h h:1883", "neither a name nor an address"),
        ("pub -t a -m x -h h/a", "neither a name nor an address"),
        ("pub -t a -m x -h joe@h", "neither a name nor an address"),
        ("pub -t a -m x -h [::1]", "neither a name nor an address"),
        ("pub -t a -m x -h fe80::1%", "neither a name nor an address"),
        ("pub -t a -m x --will-topic a/#", "will"),
        ("sub", "no topic"),
        ("sub -t a#", "topic filter"),
        ("sub -t a -T a#", "topic filter"),
        ("sub -t a -F %k", "known are %t"),
        ("sub -t a -C 0", "-C"),
        ("sub -t a -W soon", "seconds"),
        ("sub -t a -W 0", "more than 0"),
        ("pub -t a -m x --repeat 0", "--repeat"),
        ("pub -t a -l --repeat 2", "cannot be used with"),
        ("sub -t a --no-such-option", "--no-such-option"),
        ("dance", "dance"),
    ] {
        fails(dunlin(arguments), 2, text);
    }
    fails(dunlin("pub -t a -f /no/such/file"), 1, "/no/such/file");
    fails(dunlin("pub -t a -m x -u joe --password-file /no/such/file"), 1, "/no/such/file");
}

#[test]
fn help_teaches() {
    for command in ["pub", "sub"] {
        let help = succeeds(dunlin(&format!("{command} --help")));
        for text in ["Examples:", "Exit codes:", "27  the time given with -W", "--password-file", "--reconnect-max"] {
            assert!(help.contains(text), "{command}: {text}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100));
        let at = |text| help.find(text).unwrap();
        for option in ["--will-topic", "--reconnect-max", "--quiet", "--help"] {
            assert!(at("Connection:\n") < at(option) && at(option) < at("TLS:\n"), "{option} under another heading");
        }
    }
    assert!(succeeds(dunlin("--version")).starts_with("dunlin "));
}

#[test]
fn a_host_is_a_name_or_an_address_of_either_version_with_its_zone() {
    let broker = Mosquitto::start();
    for host in ["localhost", "127.0.0.1", "127.1"] {
        succeeds(dunlin(&format!("pub -h {host} -p {} -t a -m x --no-reconnect", broker.port())));
    }
    for host in ["::1", "::1%lo"] {
        let (code, _, error) = run(dunlin(&format!("pub -h {host} -p {} -t a -m x --no-reconnect", free_port())));
        assert_eq!(code, 3, "{error}");
    }
}

#[test]
fn a_unix_domain_socket_is_a_server_too() {
    let directory = Mosquitto::start();
    let path = directory.directory().join("a socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        serve(&mut stream, ACCEPTED)
    });
    let mut command = dunlin("pub -q 1 -t a -m x -V mqttv311 --nodelay -M 5 --unix");
    command.arg(&path);
    succeeds(command);
    assert_eq!(server.join().unwrap()[..1], [0x10]);
}
