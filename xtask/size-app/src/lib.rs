//! The application that is measured: one MQTT client as a device would have it.
//!
//! CONNECT with a session that outlives the connection, user name, password, a retained will at QoS 1 and a keep alive of
//! 60 seconds; SUBSCRIBE at QoS 2; PUBLISH at QoS 0, 1 and 2; a hundred seconds of receiving; UNSUBSCRIBE; DISCONNECT. When
//! the connection breaks it makes another, on which the session resumes and subscribes again by itself.
//!
//! Transport, clock and the receiver of messages are symbols that the linker finds elsewhere, so that the compiler
//! can assume nothing about them and nothing of the client is folded away.

#![no_std]

mod outside;

use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::ptr::addr_of_mut;

use dunlin_core::{Event, Inbox, Instant, Memory, Options, Publish, Session, Storage, Transmit};
#[cfg(feature = "subscribe")]
use dunlin_core::{Filter, QoS};

const OPTIONS: Options = Options::new("pump-3").persistent().keep_alive(60).credentials("pump", b"secret").will(WILL);

#[cfg(feature = "qos1")]
const WILL: Publish = Publish::new("pump/3/status", b"offline").at_least_once().retain();
#[cfg(not(feature = "qos1"))]
const WILL: Publish = Publish::new("pump/3/status", b"offline").retain();

#[cfg(feature = "qos2")]
const COMMANDS: Filter = Filter::literal("pump/3/set/#", QoS::ExactlyOnce);
#[cfg(all(feature = "subscribe", not(feature = "qos2")))]
const COMMANDS: Filter = Filter::literal("pump/3/set/#", QoS::AtLeastOnce);

/// How long the application receives before it says goodbye.
const SHIFT_MS: u64 = 100_000;

/// A kilobyte in each direction, as the peers have in the published table.
static mut STORAGE: Storage<1024, 1024, 8> = Storage::new();
static mut CLIENT: MaybeUninit<Client> = MaybeUninit::uninit();

/// The session first, whatever its size, where short instructions reach its fields.
#[repr(C)]
struct Client {
    session: Session<'static>,
    inbox: Inbox<'static>,
}

/// Runs the application once; the only thing that is called from outside.
#[unsafe(export_name = "application")]
extern "C" fn application() {
    // SAFETY: called once, by nobody but the reset handler.
    let (memory, inbox): (Memory<'static>, Inbox<'static>) = unsafe { (*addr_of_mut!(STORAGE)).split() };
    // SAFETY: as above.
    let client = unsafe { (*addr_of_mut!(CLIENT)).write(Client { session: Session::new(OPTIONS, memory), inbox }) };
    #[cfg(feature = "subscribe")]
    let _ = client.session.subscribe(&[COMMANDS]);
    #[cfg(feature = "qos1")]
    let _ = client.session.publish(&Publish::new("pump/3/speed", b"1200").at_least_once());
    #[cfg(feature = "qos2")]
    let _ = client.session.publish(&Publish::new("pump/3/energy", b"17").exactly_once());

    let end = now().after_millis(SHIFT_MS);
    loop {
        if outside::connect() {
            client.session.open(now(), &mut client.inbox);
            let is_done = client.serve(end);
            client.session.lost();
            outside::close();
            if is_done {
                return;
            }
        }
        outside::back_off();
    }
}

impl Client {
    /// Serves one connection. `true` when the application is at its end, not only the connection.
    fn serve(&mut self, end: Instant) -> bool {
        let mut is_leaving = false;
        loop {
            let now = now();
            if now >= end && !is_leaving {
                is_leaving = true;
                #[cfg(feature = "subscribe")]
                let _ = self.session.unsubscribe(&[COMMANDS.text()]);
                self.session.close();
            }
            while let Ok(Some(event)) = self.session.poll(now, &mut self.inbox) {
                match event {
                    Event::Connected { .. } => {
                        let _ = self.session.publish(&Publish::new("pump/3/status", b"online").retain());
                    }
                    Event::Message(message) => outside::on_message(message.topic, message.payload),
                    _ => {}
                }
            }
            match self.session.transmit(now, outside::window()) {
                Transmit::Bytes(n) => outside::commit(n),
                Transmit::Idle => {
                    let Some(n) = outside::receive(self.inbox.space(), self.session.deadline()) else {
                        return is_leaving;
                    };
                    self.inbox.filled(n);
                }
                _ => return is_leaving,
            }
        }
    }
}

fn now() -> Instant {
    outside::clock()
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Figures that only the compiler for the target knows: the size of each symbol is the figure.
mod figures {
    use super::*;

    #[used]
    #[unsafe(export_name = "figure:session")]
    #[unsafe(link_section = ".figures")]
    static SESSION: [u8; size_of::<Session>()] = [0; size_of::<Session>()];
}
