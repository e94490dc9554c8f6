//! The C library of mosquitto, without its thread: `mosquitto_publish` writes at once, `mosquitto_loop` does the rest.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::time::Instant;

use dunlin_bench::{Arguments, Case, Meter, Mode, TOPIC};

/// A part of mosquitto.h.
mod c {
    use super::{c_char, c_int, c_void};

    #[repr(C)]
    pub struct Message {
        pub mid: c_int,
        pub topic: *mut c_char,
        pub payload: *mut c_void,
        pub payload_len: c_int,
        pub qos: c_int,
        pub retain: bool,
    }

    pub type OnResult = extern "C" fn(*mut c_void, *mut c_void, c_int);
    pub type OnMessage = extern "C" fn(*mut c_void, *mut c_void, *const Message);

    pub const TCP_NODELAY: c_int = 11;
    pub const RECEIVE_MAXIMUM: c_int = 4;
    pub const SEND_MAXIMUM: c_int = 5;

    #[link(name = "mosquitto")]
    unsafe extern "C" {
        pub fn mosquitto_lib_init() -> c_int;
        pub fn mosquitto_new(id: *const c_char, clean: bool, object: *mut c_void) -> *mut c_void;
        pub fn mosquitto_connect(m: *mut c_void, host: *const c_char, port: c_int, keep_alive: c_int) -> c_int;
        pub fn mosquitto_int_option(m: *mut c_void, option: c_int, value: c_int) -> c_int;
        pub fn mosquitto_connect_callback_set(m: *mut c_void, f: OnResult);
        pub fn mosquitto_publish_callback_set(m: *mut c_void, f: OnResult);
        pub fn mosquitto_message_callback_set(m: *mut c_void, f: OnMessage);
        pub fn mosquitto_publish(
            m: *mut c_void,
            mid: *mut c_int,
            topic: *const c_char,
            len: c_int,
            payload: *const c_void,
            qos: c_int,
            retain: bool,
        ) -> c_int;
        pub fn mosquitto_subscribe(m: *mut c_void, mid: *mut c_int, filter: *const c_char, qos: c_int) -> c_int;
        pub fn mosquitto_loop(m: *mut c_void, timeout: c_int, unused: c_int) -> c_int;
        pub fn mosquitto_want_write(m: *mut c_void) -> bool;
        pub fn mosquitto_strerror(error: c_int) -> *const c_char;
    }
}

/// What the callbacks have seen.
#[derive(Default)]
struct Seen {
    is_connected: bool,
    published: usize,
    received: usize,
    bytes: usize,
}

extern "C" fn on_connect(_: *mut c_void, seen: *mut c_void, _: c_int) {
    seen_at(seen).is_connected = true;
}

extern "C" fn on_publish(_: *mut c_void, seen: *mut c_void, _: c_int) {
    seen_at(seen).published += 1;
}

extern "C" fn on_message(_: *mut c_void, seen: *mut c_void, message: *const c::Message) {
    let seen = seen_at(seen);
    seen.received += 1;
    // SAFETY: the library hands over a message for the time of the call.
    seen.bytes += unsafe { (*message).payload_len } as usize;
}

fn seen_at(seen: *mut c_void) -> &'static mut Seen {
    // SAFETY: `Client::connect` leaked it for this one user, on this one thread.
    unsafe { &mut *seen.cast() }
}

struct Client {
    m: *mut c_void,
    seen: *mut Seen,
    topic: CString,
}

impl Client {
    fn connect(arguments: &Arguments, n: usize) -> Self {
        let Case { window, .. } = arguments.case;
        let id = CString::new(arguments.case.client_id(n)).expect("no zero");
        let host = CString::new(&arguments.host[..]).expect("no zero");
        let seen = Box::into_raw(Box::<Seen>::default());
        // SAFETY: all pointers are valid for the calls, and `seen` for ever.
        let m = unsafe {
            let m = c::mosquitto_new(id.as_ptr(), true, seen.cast());
            c::mosquitto_connect_callback_set(m, on_connect);
            c::mosquitto_publish_callback_set(m, on_publish);
            c::mosquitto_message_callback_set(m, on_message);
            for option in [c::RECEIVE_MAXIMUM, c::SEND_MAXIMUM] {
                check(c::mosquitto_int_option(m, option, window.into()));
            }
            check(c::mosquitto_int_option(m, c::TCP_NODELAY, 1));
            check(c::mosquitto_connect(m, host.as_ptr(), arguments.port.into(), 60));
            m
        };
        let mut client = Self { m, seen, topic: CString::new(TOPIC).expect("no zero") };
        while !client.seen().is_connected {
            client.turn();
        }
        client
    }

    fn seen(&self) -> &Seen {
        // SAFETY: written only inside of `mosquitto_` calls, which this thread makes.
        unsafe { &*self.seen }
    }

    fn publish(&mut self, qos: u8, body: &[u8]) {
        let (topic, len, payload) = (self.topic.as_ptr(), body.len() as c_int, body.as_ptr().cast());
        // SAFETY: topic and payload are valid for the call, which copies what it keeps.
        check(unsafe { c::mosquitto_publish(self.m, ptr::null_mut(), topic, len, payload, qos.into(), false) });
    }

    fn turn(&mut self) {
        // SAFETY: a client of this thread.
        check(unsafe { c::mosquitto_loop(self.m, 1000, 1) });
    }

    fn is_full(&self) -> bool {
        // SAFETY: a client of this thread.
        unsafe { c::mosquitto_want_write(self.m) }
    }
}

fn check(error: c_int) {
    // SAFETY: the library's own texts live for ever.
    assert!(error == 0, "{:?}", unsafe { CStr::from_ptr(c::mosquitto_strerror(error)) });
}

fn main() {
    let arguments = Arguments::read();
    let case = &arguments.case;
    // SAFETY: once, before all other calls.
    check(unsafe { c::mosquitto_lib_init() });
    let mut client = Client::connect(&arguments, 0);
    let meter = Meter::start();
    if case.mode == Mode::Idle {
        let _others: Vec<_> = (1..case.count).map(|n| Client::connect(&arguments, n)).collect();
        return meter.report(Vec::new());
    }
    let body = case.body();
    let mut round_trips = Vec::new();
    match case.mode {
        Mode::Publish => {
            let window = if case.qos == 0 { usize::MAX } else { case.window.into() };
            let mut sent = 0;
            while sent < case.count {
                while sent < case.count && sent - client.seen().published < window && !client.is_full() {
                    client.publish(case.qos, &body);
                    sent += 1;
                }
                if sent < case.count {
                    client.turn();
                }
            }
            if case.qos == 0 {
                client.publish(1, &body);
                sent += 1;
            }
            while client.seen().published < sent {
                client.turn();
            }
        }
        Mode::Receive => {
            // SAFETY: the filter is valid for the call.
            let subscribed =
                unsafe { c::mosquitto_subscribe(client.m, ptr::null_mut(), client.topic.as_ptr(), case.qos.into()) };
            check(subscribed);
            while client.seen().received < case.count {
                client.turn();
            }
            assert_eq!(client.seen().bytes, case.count * case.payload);
        }
        Mode::Echo => {
            for n in 0..case.count {
                let begin = Instant::now();
                client.publish(case.qos, &body);
                while client.seen().received <= n {
                    client.turn();
                }
                round_trips.push(begin.elapsed().as_nanos() as u64);
            }
        }
        Mode::Idle => {}
    }
    meter.report(round_trips);
}
