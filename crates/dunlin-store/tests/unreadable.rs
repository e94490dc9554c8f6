//! A payload that can no longer be read: its message is given up, the others are delivered.

use std::cell::RefCell;
use std::rc::Rc;

use dunlin_core::{Event, Instant, Options, PacketId, Publish, Session, Storage, Transmit};
use dunlin_store::{Blocking, Durable, FlashStore, StoreError};
use dunlin_testkit::Broker;
use dunlin_testkit::flash::{Flash, FlashError};
use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

use crate::file::contents;

const NOW: Instant = Instant::from_millis(1);
const END: u32 = 3 * 2048;

/// Flash that others can get at.
#[derive(Clone)]
struct Open(Rc<RefCell<Flash<4, 2048>>>);

impl ErrorType for Open {
    type Error = FlashError;
}

impl ReadNorFlash for Open {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        self.0.borrow_mut().read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.borrow().capacity()
    }
}

impl NorFlash for Open {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 2048;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        self.0.borrow_mut().erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.0.borrow_mut().write(offset, bytes)
    }
}

fn mount(flash: &Open) -> FlashStore<Blocking<Open>> {
    FlashStore::mount_blocking(flash.clone(), 0..END).unwrap()
}

#[test]
fn a_message_whose_payload_is_not_there_any_more_is_given_up_and_holds_up_no_other() {
    let flash = Open(Rc::new(RefCell::new(Flash::new(3))));
    let mut storage: Box<Storage<512, 256, 4>> = Box::default();
    let (memory, mut inbox) = storage.split();
    let session = Session::new(Options::new("reader").durable(), memory);
    let mut mqtt = Durable::recover(session, mount(&flash)).unwrap();
    let ids: Vec<PacketId> = [
        Publish::new("a", b"first one").at_least_once(),
        Publish::new("b", b"second one").exactly_once(),
        Publish::new("c", b"third one").exactly_once(),
    ]
    .iter()
    .map(|message| mqtt.publish(message).unwrap().unwrap())
    .collect();
    // What the flash held is not there any more.
    let at = flash.0.borrow().bytes().windows(6).position(|bytes| bytes == b"second").expect("the payload, as it is");
    flash.0.borrow_mut().bytes_mut()[at] = 0;

    let mut broker = Broker::new();
    let mut events = Vec::new();
    let mut failures = 0;
    for _ in 0..3 {
        let link = broker.accept(1);
        mqtt.open(NOW, &mut inbox).unwrap();
        loop {
            let mut out = [0; 200];
            match mqtt.transmit(NOW, &mut out) {
                Ok(Transmit::Bytes(n)) => broker.receive(link, &out[..n], 1),
                Ok(Transmit::Idle) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error, StoreError::Unreliable);
                    failures += 1;
                    break;
                }
            }
            let bytes = broker.output(link, inbox.space().len());
            inbox.push(&bytes);
            while let Some(event) = mqtt.poll(NOW, &mut inbox).unwrap() {
                if let Event::Delivered(id) | Event::Forgotten(id) = event {
                    events.push((matches!(event, Event::Delivered(_)), id));
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        broker.hung_up(link, 1);
        mqtt.lost();
    }
    assert_eq!(failures, 1);
    assert_eq!(events, [(false, ids[1]), (true, ids[0]), (true, ids[2])]);
    assert_eq!(mqtt.session().outgoing_count(), 0);
    mqtt.settle().unwrap();
    drop(mqtt);
    assert!(contents(&mut mount(&flash)).is_empty(), "nothing of it comes back");
}
