//! Whoever traces is told with no lock held.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dunlin::client::Client;
use dunlin::{Publish, QoS};
use dunlin_testkit::Mosquitto;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::client::in_time;
use crate::common::{LONG, within};

/// Asks the client that it is told of, whatever it is told.
#[derive(Clone, Default)]
struct Nosy {
    client: Arc<OnceLock<Client>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Nosy {
    fn ask(&self) {
        let _ = self.client.get().map(Client::stats);
    }
}

impl Subscriber for Nosy {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        self.ask();
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        self.ask();
        event.record(&mut Text(&mut self.told.lock().unwrap()));
    }

    fn enter(&self, _: &Id) {
        self.ask();
    }

    fn exit(&self, _: &Id) {
        self.ask();
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// What an event says.
struct Text<'a>(&'a mut Vec<String>);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.push(format!("{value:?}"));
        }
    }
}

#[test]
fn whoever_traces_may_ask_the_client_that_it_is_told_of() {
    within(LONG, || {
        let broker = Mosquitto::start();
        let nosy = Nosy::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tracing::subscriber::with_default(nosy.clone(), || {
            runtime.block_on(async {
                let (client, mut messages, driver) = Client::builder(&broker.url(), "nosy").build().unwrap();
                assert!(nosy.client.set(client.clone()).is_ok());
                let driver = tokio::spawn(driver.run());
                in_time(client.subscribe("a", QoS::AtLeastOnce)).await.unwrap();
                for len in [1, 20_000] {
                    let _ = client.publish(&Publish::new("a", &vec![7; len]).at_least_once()).await.unwrap();
                    assert_eq!(in_time(messages.next()).await.unwrap().payload().len(), len);
                }
                in_time(client.close(Duration::from_secs(5))).await.unwrap();
                in_time(driver).await.unwrap().unwrap();
            });
        });
        let expected = ["connected", "accepted", "received", "accepted", "received", "ended"];
        assert_eq!(*nosy.told.lock().unwrap(), expected);
    });
}
