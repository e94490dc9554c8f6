//! dunlin's blocking client: the socket is served by a thread of the client's own.

use std::time::{Duration, Instant};

use dunlin::blocking::{Client, Payload};
use dunlin::tls::Tls;
use dunlin::{Publish, QoS};
use dunlin_bench::{Arguments, Meter, Mode, TOPIC};

fn main() {
    let arguments = Arguments::read();
    let case = &arguments.case;
    let client = connect(&arguments, 0);
    let meter = Meter::start();
    if case.mode == Mode::Idle {
        let _others: Vec<_> = (1..case.count).map(|n| connect(&arguments, n)).collect();
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
                    None => client.publish(&message).expect("room"),
                    Some(payload) => client.publish_shared(&message, payload).expect("room"),
                };
            }
            // The last one to leave is the last one to arrive.
            let last = client.publish(&message.with_qos(qos.max(QoS::AtLeastOnce))).expect("room");
            last.wait(Duration::from_secs(60)).expect("an acknowledgement");
        }
        Mode::Receive => {
            client.subscribe(TOPIC, qos).expect("a subscription");
            let bytes: usize = client.messages().take(case.count).map(|message| message.payload().len()).sum();
            assert_eq!(bytes, case.count * case.payload);
        }
        Mode::Echo => {
            for _ in 0..case.count {
                let begin = Instant::now();
                let _ = client.publish(&message).expect("room");
                let _ = client.next().expect("an echo");
                round_trips.push(begin.elapsed().as_nanos() as u64);
            }
        }
        Mode::Idle => {}
    }
    meter.report(round_trips);
}

fn connect(arguments: &Arguments, n: usize) -> Client {
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
    builder.connect().expect("a sink")
}
