//! Against a real broker.

use std::time::Duration;

use dunlin::blocking::Client;
use dunlin::{Publish, QoS};
use dunlin_testkit::Mosquitto;

#[test]
fn ten_lines_connect_subscribe_publish_and_receive() {
    let broker = Mosquitto::start();
    let client = Client::connect(&broker.url(), "ten-lines").unwrap();
    assert_eq!(client.subscribe("greet/+", QoS::AtLeastOnce).unwrap(), QoS::AtLeastOnce);
    let _ = client.publish(&Publish::new("greet/world", b"hello").at_least_once()).unwrap();
    let message = client.next_timeout(Duration::from_secs(10)).unwrap().unwrap();
    assert_eq!((message.topic(), message.payload()), ("greet/world", &b"hello"[..]));
}
