//! rumqttc's asynchronous client, on a runtime of one thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_bench::{Arguments, Meter, Mode, TOPIC};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS, TlsConfiguration, Transport};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let arguments = Arguments::read();
    let case = &arguments.case;
    let (client, mut events) = connect(&arguments, 0).await;
    let meter = Meter::start();
    if case.mode == Mode::Idle {
        let mut others = Vec::new();
        for n in 1..case.count {
            others.push(connect(&arguments, n).await);
        }
        return meter.report(Vec::new());
    }
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(case.qos)];
    let body = Bytes::from(case.body());
    let mut round_trips = Vec::new();
    match case.mode {
        Mode::Publish => {
            let count = case.count;
            tokio::spawn(async move {
                for _ in 0..count {
                    client.publish_bytes(TOPIC, qos, false, body.clone()).await.expect("an event loop");
                }
                if qos == QoS::AtMostOnce {
                    client.publish_bytes(TOPIC, QoS::AtLeastOnce, false, body).await.expect("an event loop");
                }
            });
            let mut left = if qos == QoS::AtMostOnce { 1 } else { count };
            while left > 0 {
                if let Event::Incoming(Incoming::PubAck(_) | Incoming::PubComp(_)) = next(&mut events).await {
                    left -= 1;
                }
            }
        }
        Mode::Receive => {
            client.subscribe(TOPIC, qos).await.expect("an event loop");
            let mut bytes = 0;
            let mut left = case.count;
            while left > 0 {
                if let Event::Incoming(Incoming::Publish(message)) = next(&mut events).await {
                    bytes += message.payload.len();
                    left -= 1;
                }
            }
            assert_eq!(bytes, case.count * case.payload);
        }
        Mode::Echo => {
            for _ in 0..case.count {
                let begin = Instant::now();
                client.publish_bytes(TOPIC, qos, false, body.clone()).await.expect("an event loop");
                while !matches!(next(&mut events).await, Event::Incoming(Incoming::Publish(_))) {}
                round_trips.push(begin.elapsed().as_nanos() as u64);
            }
        }
        Mode::Idle => {}
    }
    meter.report(round_trips);
}

async fn next(events: &mut EventLoop) -> Event {
    events.poll().await.expect("a connection")
}

async fn connect(arguments: &Arguments, n: usize) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(arguments.case.client_id(n), &arguments.host, arguments.port);
    options.set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(1 << 20, 1 << 20);
    options.set_inflight(arguments.case.window);
    if let Some(ca_file) = &arguments.ca_file {
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls(ca_file))));
    }
    let (client, mut events) = AsyncClient::new(options, usize::from(arguments.case.window));
    events.network_options.set_tcp_nodelay(true);
    while !matches!(next(&mut events).await, Event::Incoming(Incoming::ConnAck(_))) {}
    (client, events)
}

fn tls(ca_file: &str) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(ca_file).expect("a certificate");
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
}
