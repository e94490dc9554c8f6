//! A service on tokio: many tasks publish, one receives, all through one connection:
//! `cargo run --features tokio --example service [URL]`, with a broker on this machine by default.

use std::time::Duration;

use dunlin::client::{Client, Error};
use dunlin::router::Router;
use dunlin::{Publish, QoS};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://localhost:1883".to_owned());
    let router = Router::<fn(&str)>::new()
        .route("gateway/1/+/level", QoS::AtLeastOnce, |text| println!("level {text}"))
        .route("gateway/1/#", QoS::AtLeastOnce, |text| println!("something else: {text}"));
    let (client, mut messages, driver) =
        Client::builder(&url, "gateway-1").keep_alive(Duration::from_secs(20)).subscribe_all(&router).build()?;
    let driver = tokio::spawn(driver.run()); // connects, and connects again
    client.connected().await?;

    let publishing: Vec<_> = (0..8)
        .map(|channel| {
            let client = client.clone();
            tokio::spawn(async move {
                let topic = format!("gateway/1/{channel}/level");
                let sample = channel.to_string();
                // Resolves when the session holds a copy: that is the back-pressure.
                let delivery = client.publish(&Publish::new(&topic, sample.as_bytes()).exactly_once()).await?;
                // Resolves when the server has taken it. Dropping it loses nothing.
                delivery.confirmed().await
            })
        })
        .collect();
    for _ in 0..8 {
        let Some(message) = messages.next().await else { break };
        if let Some((_, handle)) = router.find(message.topic()) {
            handle(message.text().unwrap_or("no text"));
        }
    }
    for publishing in publishing {
        publishing.await??;
    }
    match client.close(Duration::from_secs(5)).await {
        Err(Error::Unfinished(count)) => println!("{count} messages did not get through"),
        result => result?,
    }
    driver.await??;
    Ok(())
}
