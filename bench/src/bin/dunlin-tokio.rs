//! dunlin's asynchronous client, on a runtime of one thread.

use std::time::Instant;

use dunlin::client::{Client, Messages, Payload};
use dunlin::tls::Tls;
use dunlin::{Publish, QoS};
use dunlin_bench::{Arguments, Meter, Mode, TOPIC};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let arguments = Arguments::read();
    let case = &arguments.case;
    let (client, mut messages) = connect(&arguments, 0).await;
    let meter = Meter::start();
    if case.mode == Mode::Idle {
        let mut others = Vec::new();
        for n in 1..case.count {
            others.push(connect(&arguments, n).await);
        }
        return meter.report(Vec::new());
    }
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(case.qos)];
    let body = case.body();
    let message = Publish::new(TOPIC, &body).with_qos(qos);
    let mut round_trips = Vec::new();
    match case.mode {
        Mode::Publish => {
            let shared = (case.payload > 16_384).then(|| Payload::from(body.clone()));
            for _ in 0..case.count {
                let _ = match &shared {
                    None => client.publish(&message).await.expect("room"),
                    Some(payload) => client.publish_shared(&message, payload).await.expect("room"),
                };
            }
            let last = client.publish(&message.with_qos(qos.max(QoS::AtLeastOnce))).await.expect("room");
            last.confirmed().await.expect("an acknowledgement");
        }
        Mode::Receive => {
            client.subscribe(TOPIC, qos).await.expect("a subscription");
            let mut bytes = 0;
            for _ in 0..case.count {
                bytes += messages.next().await.expect("a message").payload().len();
            }
            assert_eq!(bytes, case.count * case.payload);
        }
        Mode::Echo => {
            for _ in 0..case.count {
                let begin = Instant::now();
                let _ = client.publish(&message).await.expect("room");
                let _ = messages.next().await.expect("an echo");
                round_trips.push(begin.elapsed().as_nanos() as u64);
            }
        }
        Mode::Idle => {}
    }
    meter.report(round_trips);
}

async fn connect(arguments: &Arguments, n: usize) -> (Client, Messages) {
    let scheme = if arguments.ca_file.is_some() { "mqtts" } else { "mqtt" };
    let url = format!("{scheme}://{}:{}", arguments.host, arguments.port);
    let mut builder = Client::builder(&url, &arguments.case.client_id(n)).window(arguments.case.window);
    builder = match arguments.case.mode {
        Mode::Idle => builder,
        _ => builder.queue(4_096, 16 << 20),
    };
    if let Some(ca_file) = &arguments.ca_file {
        builder = builder.tls(Tls::authorities_file(ca_file));
    }
    let (client, messages, driver) = builder.build().expect("options");
    tokio::spawn(driver.run());
    client.connected().await.expect("a sink");
    (client, messages)
}
