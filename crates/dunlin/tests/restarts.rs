//! A service that publishes from a hundred tasks at QoS 2, and a broker that is restarted under it: the ledgers of both
//! ends agree.
//!
//! The archive is away meanwhile and the broker keeps its messages. Were it there, mosquitto 2.0.11 would send it some of
//! them twice: restarted between PUBREL and PUBCOMP, it sends the PUBLISH again, against [MQTT-4.3.3-1], which no
//! receiver can tell from a new message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin::client::{Client, Outcome};
use dunlin::{Publish, QoS};
use dunlin_testkit::Mosquitto;

use crate::client::{impatient, in_time};

const TASKS: usize = 100;

/// Restarts the broker so many times. It saves its state each time: what a broker forgets no client can know.
async fn ledgers_agree(restarts: usize) {
    let mut broker = Mosquitto::persistent();
    let url = broker.url();
    let builder = |name| Client::builder(&url, name).persistent().reconnect(impatient());
    let (archive, arriving, archive_driver) = builder("archive").build().unwrap();
    let archive_driver = tokio::spawn(archive_driver.run());
    in_time(archive.subscribe("service/+", QoS::ExactlyOnce)).await.unwrap();
    in_time(archive.close(Duration::from_secs(30))).await.unwrap();
    in_time(archive_driver).await.unwrap().unwrap();
    drop(arriving);
    let (service, _none, service_driver) = builder("service").queue(64, 1 << 20).build().unwrap();
    let service_driver = tokio::spawn(service_driver.run());
    in_time(service.connected()).await.unwrap();

    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (service, is_over) = (service.clone(), is_over.clone());
            tokio::spawn(async move {
                let topic = format!("service/{task}");
                let mut count = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    let payload = count.to_string();
                    let message = Publish::new(&topic, payload.as_bytes()).exactly_once();
                    let delivery = service.publish(&message).await.unwrap();
                    // Some wait for the server, some do not.
                    if task % 2 == 0 {
                        assert_eq!(delivery.confirmed().await.unwrap(), Outcome::Delivered);
                    }
                    count += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                count
            })
        })
        .collect();
    for _ in 0..restarts {
        tokio::time::sleep(Duration::from_millis(100)).await;
        broker.stop();
        broker.restart();
    }
    in_time(service.connected()).await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    let mut sent = BTreeMap::new();
    for (task, running) in tasks.into_iter().enumerate() {
        sent.insert(format!("service/{task}"), in_time(running).await.unwrap());
    }
    in_time(service.close(Duration::from_secs(30))).await.unwrap();
    in_time(service_driver).await.unwrap().unwrap();
    let total: u64 = sent.values().sum();
    assert_eq!(service.stats().delivered, total);
    let (archive, mut arriving, archive_driver) = builder("archive").build().unwrap();
    let archive_driver = tokio::spawn(archive_driver.run());
    let ledger = tokio::spawn(async move {
        let mut ledger = BTreeMap::<String, Vec<u64>>::new();
        while let Some(message) = arriving.next().await {
            let number = message.text().unwrap().parse().unwrap();
            ledger.entry(message.topic().to_owned()).or_default().push(number);
        }
        ledger
    });
    in_time(async {
        while archive.stats().received < total {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    in_time(archive.close(Duration::from_secs(30))).await.unwrap();
    in_time(archive_driver).await.unwrap().unwrap();
    let ledger = in_time(ledger).await.unwrap();
    for (topic, count) in &sent {
        // Exactly once, and in order.
        assert_eq!(ledger[topic], (0..*count).collect::<Vec<_>>(), "{topic}");
    }
    println!("{restarts} restarts, {} reconnects, {total} messages at QoS 2, none lost, none doubled", {
        service.stats().reconnects()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledgers_agree_over_eight_restarts_with_threads() {
    ledgers_agree(8).await;
}

#[tokio::test]
async fn ledgers_agree_over_eight_restarts_without_threads() {
    ledgers_agree(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: a stage of `cargo xtask verify`"]
async fn ledgers_agree_over_a_hundred_restarts() {
    ledgers_agree(100).await;
}
