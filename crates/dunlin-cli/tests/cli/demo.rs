use dunlin_testkit::mosquitto::Mosquitto;

use crate::tool::*;

#[test]
fn the_demo_keeps_every_promise() {
    let story = succeeds(dunlin("demo"));
    assert!(story.ends_with("Every promise was kept.\n"), "{story}");
    assert!(!story.contains('\x1b'), "colour in a pipe");
    for part in [
        "user demo, password ***",
        "will plant/valve/status \"gone\"",
        "QoS 1 plant/valve/status \"online\", retained",
        "PUBREC     #4  lost: the link is cut",
        "QoS 2 plant/pump/flow \"7\", DUP",
        "accepted, session present",
        "is replaced by one that knows nothing",
        "has 4 messages waiting",
        "has plant/valve/status \"gone\"",
        "  QoS 2    12        12           0     0   exactly once",
    ] {
        assert!(story.contains(part), "{part} is missing in {story}");
    }
    // Broken in four places, and seen: once only.
    assert_eq!(story.matches("lost: the link is cut").count(), 4);
    assert_eq!(story.matches("has order/pump/speed \"9\"").count(), 1);
    assert!(!story.contains("correct horse"));
}

#[test]
fn a_lost_message_and_a_doubled_one_fail_the_demo() {
    let (code, story, stderr) = run(dunlin("demo --sabotage lose"));
    assert_eq!(code, 1);
    assert!(story.contains("at QoS 1 never came") && stderr.contains("never came"), "{story}{stderr}");
    let (code, story, stderr) = run(dunlin("demo --sabotage double"));
    assert_eq!(code, 1);
    assert!(story.contains("at QoS 2 came more than once") && stderr.contains("more than once"), "{story}{stderr}");
}

#[test]
fn the_demo_runs_on_the_users_broker_and_leaves_nothing_there() {
    let broker = Mosquitto::start();
    let story = succeeds(dunlin(&format!("demo --broker {}", broker.url())));
    assert!(
        story.contains("Left out: user name and password") && story.ends_with("Every promise was kept.\n"),
        "{story}"
    );
    fails(dunlin_at(&broker, "sub -t dunlin-demo/# -t # -W 0.5"), 27, "timed out");
    let (port, _) = stub(&[b"\x20\x02\x00\x05"]);
    fails(dunlin(&format!("demo --broker mqtt://joe:secret@127.0.0.1:{port}")), 5, "not authorized");
    fails(dunlin("demo --broker mqtts://localhost"), 2, "mqtt://");
}

#[test]
fn over_mutual_tls_the_story_says_who_was_verified_and_lets_nobody_else_in() {
    let story = succeeds(dunlin("demo --tls"));
    assert!(story.ends_with("Every promise was kept.\n"), "{story}");
    for part in [
        "pump • has no connection: the server's certificate comes from an unknown authority",
        "visitor • has no connection: the server asks for a client certificate",
        "visitor • has no connection: the server refused the client certificate: UnknownCA",
        "door • TLS 1.3, TLS13_AES_256_GCM_SHA384; broker.demo and pump have verified each other's certificate",
        "broker.demo and valve have verified each other's certificate",
        "resumed: broker.demo and pump have verified each other before",
        "QoS 2 plant/pump/flow \"7\", DUP",
        "  QoS 2    12        12           0     0   exactly once",
    ] {
        assert!(story.contains(part), "{part} is missing in {story}");
    }
    // Of the three who were refused, none has got as far as MQTT.
    let (refusals, rest) = story.split_once("\n2. ").expect("a second scene");
    assert_eq!(refusals.matches("broker • has seen no CONNECT").count(), 3, "{refusals}");
    assert!(!refusals.contains("──▶ broker"), "{refusals}");
    assert!(rest.contains("──▶ broker  CONNECT"), "{rest}");
    let handshakes = rest.lines().find(|line| line.contains("TLS handshakes")).expect("a count");
    assert!(handshakes.contains("4 TLS handshakes with both certificates verified"), "{handshakes}");
    fails(dunlin("demo --tls --broker mqtt://localhost"), 2, "cannot be used with");
}
