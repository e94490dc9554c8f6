//! Connect, subscribe, publish, receive: `cargo run --example hello [URL]`, with a broker on this machine by default.

use dunlin::blocking::Client;
use dunlin::{Publish, QoS};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://localhost:1883".to_owned());
    let client = Client::connect(&url, "ten-lines")?;
    client.subscribe("greet/+", QoS::AtLeastOnce)?;
    let _ = client.publish(&Publish::new("greet/world", b"hello").at_least_once())?;
    let message = client.next()?;
    println!("{}: {}", message.topic(), String::from_utf8_lossy(message.payload()));
    Ok(())
}
