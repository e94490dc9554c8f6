//! Clients that keep their session in files.

use std::path::PathBuf;
use std::time::Duration;

use dunlin::blocking::{Client, Error, Outcome, Reason};
use dunlin::store::FileStore;
use dunlin::{Publish, QoS};
use dunlin_testkit::Mosquitto;

use crate::common::{LONG, builder, wait_until};

/// Nobody listens there.
const NOBODY: &str = "mqtt://127.0.0.1:9";

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dunlin-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    /// The store, once nobody else has it: threads of a client that was dropped may hold it for a moment.
    fn open(&self) -> FileStore {
        wait_until("the store is free", || FileStore::open(&self.0).is_ok());
        FileStore::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is in the store goes to a receiver: all of it once and in order, and nothing stays behind.
fn deliver(scratch: &Scratch, expected: &[&str]) {
    let broker = Mosquitto::start();
    let receiver = Client::connect(&broker.url(), "office").unwrap();
    receiver.subscribe("till", QoS::ExactlyOnce).unwrap();
    let till = builder(&broker.url(), "till").store(scratch.open()).connect().unwrap();
    till.close(LONG).unwrap();
    for payload in expected {
        assert_eq!(receiver.next_timeout(LONG).unwrap().expect("a message").payload(), payload.as_bytes());
    }
    assert!(receiver.next_timeout(Duration::from_millis(100)).unwrap().is_none(), "one more");
    drop(till);
    let left = scratch.open().snapshot().unwrap();
    assert!(left.messages.is_empty() && left.released.is_empty(), "{left:?}");
}

#[test]
fn messages_that_were_accepted_without_a_server_arrive_from_the_next_client() {
    let scratch = Scratch::new("blocking");
    let till = builder(NOBODY, "till").store(scratch.open()).linger(Duration::ZERO).start().unwrap();
    for payload in ["one", "two", "three"] {
        let _ = till.publish(&Publish::new("till", payload.as_bytes()).exactly_once()).unwrap();
    }
    // Accepted is stored.
    let stored = FileStore::read_only(&scratch.0).unwrap().snapshot().unwrap();
    assert_eq!(stored.messages.len(), 3);
    drop(till);
    deliver(&scratch, &["one", "two", "three"]);
}

#[test]
fn short_messages_that_are_a_mebibyte_and_more_together_arrive_from_the_next_client() {
    let scratch = Scratch::new("many");
    let till = builder(NOBODY, "till").store(scratch.open()).linger(Duration::ZERO).queue(1_500, 2 << 20);
    let till = till.start().unwrap();
    let payloads: Vec<_> = (0..1_500).map(|n| format!("{n:01000}")).collect();
    for payload in &payloads {
        let _ = till.try_publish(&Publish::new("till", payload.as_bytes()).exactly_once()).unwrap();
    }
    drop(till);
    deliver(&scratch, &payloads.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn what_waits_keeps_its_identifiers_though_the_next_client_subscribes_as_it_starts() {
    let scratch = Scratch::new("identifiers");
    let till = builder(NOBODY, "till").store(scratch.open()).linger(Duration::ZERO).start().unwrap();
    for payload in ["one", "two", "three"] {
        let _ = till.publish(&Publish::new("till", payload.as_bytes()).exactly_once()).unwrap();
    }
    let _ = till.request_subscribe(&[("at/run/time", QoS::AtLeastOnce)]).unwrap();
    till.close(Duration::ZERO).unwrap_err();
    drop(till);
    let broker = Mosquitto::start();
    let receiver = Client::connect(&broker.url(), "office").unwrap();
    receiver.subscribe("till", QoS::ExactlyOnce).unwrap();
    let till = builder(&broker.url(), "till").store(scratch.open()).subscribe("a", QoS::AtMostOnce);
    let till = till.subscribe("b", QoS::AtMostOnce).connect().unwrap();
    till.close(LONG).unwrap();
    for payload in ["one", "two", "three"] {
        assert_eq!(receiver.next_timeout(LONG).unwrap().expect("a message").payload(), payload.as_bytes());
    }
}

#[test]
fn what_was_accepted_without_waiting_is_stored_when_the_client_has_gone() {
    let scratch = Scratch::new("gone");
    for round in 1..=20 {
        let till = builder(NOBODY, "till").store(scratch.open()).linger(Duration::ZERO).queue(10_000, 1 << 20);
        let till = till.start().unwrap();
        for _ in 0..50 {
            let _ = till.try_publish(&Publish::new("till", b"sale").exactly_once()).unwrap();
        }
        match round % 2 {
            0 => drop(till),
            _ => assert!(matches!(till.close(Duration::ZERO), Err(Error::Unfinished(_)))),
        }
        let stored = FileStore::read_only(&scratch.0).unwrap().snapshot().unwrap();
        assert_eq!(stored.messages.len(), 50 * round, "after {round} clients");
    }
}

#[test]
fn a_full_store_is_said_at_publish_and_takes_more_when_messages_are_over() {
    let scratch = Scratch::new("full");
    let broker = Mosquitto::start();
    let store = FileStore::with_limit(&scratch.0, 1000).unwrap();
    let till = builder(&broker.url(), "till").store(store).connect().unwrap();
    let large = [7; 2000];
    assert!(till.publish(&Publish::new("till", &large).exactly_once()).is_err(), "larger than the store");
    for _ in 0..20 {
        let delivery = till.publish(&Publish::new("till", &large[..700]).exactly_once()).unwrap();
        assert_eq!(delivery.wait(LONG).unwrap(), Outcome::Delivered);
    }
    till.close(LONG).unwrap();
}

#[test]
fn filters_that_were_subscribed_to_at_run_time_come_back() {
    let scratch = Scratch::new("filters");
    let broker = Mosquitto::start();
    let office = builder(&broker.url(), "office").store(scratch.open()).connect().unwrap();
    office.subscribe("till", QoS::ExactlyOnce).unwrap();
    office.subscribe("gone", QoS::AtLeastOnce).unwrap();
    office.unsubscribe("gone").unwrap();
    office.close(LONG).unwrap();
    drop(office);
    // Another server, which knows nothing of the session.
    let broker = Mosquitto::start();
    let office = builder(&broker.url(), "office").store(scratch.open()).connect().unwrap();
    wait_until("it subscribes again", || broker.log().contains("Sending SUBACK to office"));
    assert!(!broker.log().contains("gone"));
    let till = Client::connect(&broker.url(), "till").unwrap();
    let _ = till.publish(&Publish::new("till", b"sale").exactly_once()).unwrap();
    assert_eq!(office.next_timeout(LONG).unwrap().expect("a message").payload(), b"sale");
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn the_asynchronous_client_keeps_what_it_accepted_in_the_same_store() {
    let scratch = Scratch::new("tokio");
    let (till, messages, driver) =
        dunlin::client::Client::builder(NOBODY, "till").store(scratch.open()).build().unwrap();
    let driver = tokio::spawn(driver.run());
    for payload in ["one", "two"] {
        let _ = till.publish(&Publish::new("till", payload.as_bytes()).exactly_once()).await.unwrap();
    }
    driver.abort();
    let _ = driver.await;
    drop((till, messages));
    tokio::task::spawn_blocking(move || deliver(&scratch, &["one", "two"])).await.unwrap();
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn what_was_accepted_without_waiting_is_stored_also_when_the_driver_never_ran() {
    let scratch = Scratch::new("never-ran");
    for round in 1..=20 {
        let till = dunlin::client::Client::builder(NOBODY, "till").store(scratch.open()).queue(10_000, 1 << 20);
        let (till, messages, driver) = till.build().unwrap();
        for _ in 0..50 {
            let _ = till.try_publish(&Publish::new("till", b"sale").exactly_once()).unwrap();
        }
        drop((driver, messages, till));
        assert_eq!(scratch.open().snapshot().unwrap().messages.len(), 50 * round, "after {round} clients");
    }
}

/// Publishes until the disk takes no more: this test alone, in a process that may write only a little.
#[test]
#[ignore = "runs in a child of `a_disk_that_takes_no_more_ends_the_client_and_keeps_what_it_accepted`"]
fn child_on_a_full_disk() {
    let directory = std::env::var_os("DUNLIN_STORE").expect("the parent sets it");
    let till = builder(NOBODY, "till").store(FileStore::open(directory).unwrap()).start().unwrap();
    let mut accepted = 0;
    let error = loop {
        assert!(accepted < 1000, "the disk is full long before");
        match till.publish(&Publish::new("till", accepted.to_string().repeat(100).as_bytes()).exactly_once()) {
            Ok(delivery) => drop(delivery),
            Err(error) => break error,
        }
        accepted += 1;
        println!("accepted {accepted}");
    };
    assert!(matches!(error, Error::Ended(Reason::Store(_))), "{error:?}");
    let again = till.publish(&Publish::new("till", b"more").exactly_once());
    assert!(matches!(again, Err(Error::Ended(Reason::Store(_)))), "it is over: {again:?}");
}

#[cfg(unix)]
#[test]
fn a_disk_that_takes_no_more_ends_the_client_and_keeps_what_it_accepted() {
    let scratch = Scratch::new("disk");
    // A file may grow to 32 blocks of 512 or 1,024 bytes; what does not fit is an error, and no signal.
    let child = std::process::Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 32; exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "store::child_on_a_full_disk"])
        .env("DUNLIN_STORE", &scratch.0)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{report}{}", String::from_utf8_lossy(&child.stderr));
    let accepted = report.lines().filter(|line| line.contains("accepted ")).count();
    assert!(accepted > 10, "{report}");
    let stored = scratch.open().snapshot().unwrap();
    let payloads: Vec<_> = stored.messages.iter().map(|message| message.payload.clone()).collect();
    let expected: Vec<_> = (0..accepted).map(|number| number.to_string().repeat(100).into_bytes()).collect();
    assert_eq!(payloads, expected, "all that was accepted, and nothing else");
    assert_eq!(stored.damage, Default::default());
}
