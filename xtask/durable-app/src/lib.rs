//! The application that is measured: a device that reports at QoS 1 and 2 and takes commands at QoS 2, three times. Its
//! session is in RAM, or the same with marks, or it is durable; and the session in RAM beside a map on flash. What each
//! of these adds is the difference of two images.
//!
//! Transport, clock, flash and the receiver of messages are symbols that the linker finds elsewhere.

#![no_std]

#[cfg(any(feature = "map", feature = "store"))]
mod flash;
#[path = "../../size-app/src/outside.rs"]
mod outside;

use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::ptr::addr_of_mut;

use dunlin_core::{Event, Filter, Inbox, Memory, Options, Publish, QoS, Session, Storage, Transmit};

#[cfg(feature = "store")]
use flash::Client as Durable;

const OPTIONS: Options = Options::new("pump-3").persistent().keep_alive(60);
const COMMANDS: Filter = Filter::literal("pump/3/set/#", QoS::ExactlyOnce);
const REPORTS: [Publish; 2] =
    [Publish::new("pump/3/speed", b"1200").at_least_once(), Publish::new("pump/3/energy", b"17").exactly_once()];

static mut STORAGE: Storage<1024, 1024, 8> = Storage::new();
static mut CLIENT: MaybeUninit<Client> = MaybeUninit::uninit();

#[cfg(not(feature = "store"))]
type Client = Session<'static>;
#[cfg(feature = "store")]
type Client = Durable;

/// Runs the application once; the only thing that is called from outside.
#[unsafe(export_name = "application")]
extern "C" fn application() {
    // SAFETY: called once, by nobody but the reset handler.
    let (memory, mut inbox): (Memory<'static>, Inbox<'static>) = unsafe { (*addr_of_mut!(STORAGE)).split() };
    let options = if cfg!(feature = "marks") { durable(OPTIONS) } else { OPTIONS };
    let session = Session::new(options, memory);
    #[cfg(not(feature = "store"))]
    let client = session;
    #[cfg(feature = "store")]
    let Some(client) = flash::recover(session) else { return };
    // SAFETY: as above.
    let client = unsafe { (*addr_of_mut!(CLIENT)).write(client) };
    #[cfg(feature = "map")]
    flash::use_map();
    let _ = subscribe(client);
    loop {
        if outside::connect() {
            open(client, &mut inbox);
            serve(client, &mut inbox);
            client.lost();
            outside::close();
        }
        outside::back_off();
    }
}

#[cfg(feature = "marks")]
const fn durable(options: Options<'_>) -> Options<'_> {
    options.durable()
}

#[cfg(not(feature = "marks"))]
const fn durable(options: Options<'_>) -> Options<'_> {
    options
}

/// Serves one connection.
fn serve(client: &mut Client, inbox: &mut Inbox<'static>) {
    loop {
        let now = outside::clock();
        while let Ok(Some(event)) = client.poll(now, inbox) {
            match event {
                Event::Connected { .. } => {
                    for report in &REPORTS {
                        publish(client, report);
                    }
                }
                Event::Message(message) => outside::on_message(message.topic, message.payload),
                _ => {}
            }
        }
        match transmit(client) {
            Some(Transmit::Bytes(n)) => outside::commit(n),
            Some(Transmit::Idle) => {
                let Some(n) = outside::receive(inbox.space(), client.deadline()) else { return };
                inbox.filled(n);
            }
            _ => return,
        }
    }
}

#[cfg(not(feature = "store"))]
mod in_ram {
    use super::*;

    pub fn open(client: &mut Client, inbox: &mut Inbox<'static>) {
        client.open(outside::clock(), inbox);
    }

    pub fn subscribe(client: &mut Client) -> bool {
        client.subscribe(&[COMMANDS]).is_ok()
    }

    pub fn publish(client: &mut Client, message: &Publish<'_>) {
        #[cfg(not(feature = "marks"))]
        let _ = client.publish(message);
        #[cfg(feature = "marks")]
        let _ = client.publish_external(message, dunlin_core::External { key: 1, len: 4 });
    }

    pub fn transmit(client: &mut Client) -> Option<Transmit> {
        #[cfg(feature = "marks")]
        while let Some(mark) = client.next_mark() {
            unsafe extern "C" {
                safe fn mark_stored(id: u16, stage: u8);
            }
            mark_stored(mark.id.get(), mark.stage as u8);
            client.mark_stored(mark);
        }
        Some(client.transmit(outside::clock(), outside::window()))
    }
}

#[cfg(feature = "store")]
mod in_flash {
    use super::*;

    pub fn open(client: &mut Client, inbox: &mut Inbox<'static>) {
        let _ = client.open(outside::clock(), inbox);
    }

    pub fn subscribe(client: &mut Client) -> bool {
        client.subscribe(&COMMANDS).is_ok()
    }

    pub fn publish(client: &mut Client, message: &Publish<'_>) {
        let _ = client.publish(message);
    }

    pub fn transmit(client: &mut Client) -> Option<Transmit> {
        client.transmit(outside::clock(), outside::window()).ok()
    }
}

#[cfg(feature = "store")]
use in_flash::{open, publish, subscribe, transmit};
#[cfg(not(feature = "store"))]
use in_ram::{open, publish, subscribe, transmit};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Figures that only the compiler for the target knows: the size of each symbol is the figure.
mod figures {
    use super::*;

    #[used]
    #[unsafe(export_name = "figure:client")]
    #[unsafe(link_section = ".figures")]
    static CLIENT: [u8; size_of::<Client>()] = [0; size_of::<Client>()];
}
