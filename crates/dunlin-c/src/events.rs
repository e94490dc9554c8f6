//! What happened.

use core::mem::{MaybeUninit, take};

use dunlin_core::{Event, Instant, Request};

use crate::guard::with;
use crate::status::{Status, done};
use crate::types::{State, dunlin_bytes, dunlin_event, dunlin_message, dunlin_receipt, dunlin_session};

/// Kinds of events, by the numbers of the header.
mod kind {
    pub const NONE: u8 = 0;
    pub const CONNECTED: u8 = 1;
    pub const MESSAGE: u8 = 2;
    #[cfg(feature = "large")]
    pub const CHUNK: u8 = 3;
    #[cfg(feature = "large")]
    pub const SKIPPED: u8 = 4;
    pub const DELIVERED: u8 = 5;
    pub const REPLACED: u8 = 6;
    pub const FORGOTTEN: u8 = 7;
    pub const SUBSCRIBED: u8 = 8;
    pub const UNSUBSCRIBED: u8 = 9;
}

const NOTHING: dunlin_event = dunlin_event {
    message: dunlin_message { topic: dunlin_bytes::NONE, payload: dunlin_bytes::NONE, qos: 0, retain: 0, dup: 0 },
    codes: dunlin_bytes::NONE,
    offset: 0,
    total: 0,
    receipt: dunlin_receipt { opaque: [0; 4] },
    packet_id: 0,
    kind: kind::NONE,
    resumed: false,
    is_last: false,
};

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_poll(session: *mut dunlin_session, now_ms: u64, event: *mut dunlin_event) -> Status {
    // SAFETY: what C promises: nothing else looks at the event meanwhile, and any bytes are an event but for its `bool`s,
    // which are written first.
    let Some(event) = (unsafe { event.cast::<MaybeUninit<dunlin_event>>().as_mut() }) else {
        return Status::BadArgument;
    };
    let event = event.write(NOTHING);
    let poll = |state: &mut State| {
        let State { session, inbox, room, is_amid_packet } = state;
        *room = 0; // what it has is moved when there is need
        let now = Instant::from_millis(now_ms);
        if take(is_amid_packet) {
            session.hold(now);
        }
        let happened = session.poll(now, inbox).map_err(|_| Status::Fault)?;
        if let Some(happened) = happened {
            tell(event, &happened);
        }
        Ok(())
    };
    // SAFETY: what C promises.
    done(unsafe { with(session, poll) })
}

/// Says in C what happened.
fn tell(told: &mut dunlin_event, event: &Event<'_>) {
    let (kind, id) = match event {
        Event::Connected { resumed } => {
            told.resumed = *resumed;
            (kind::CONNECTED, 0)
        }
        Event::Message(message) => {
            told.message.topic = dunlin_bytes::new(message.topic.as_bytes());
            told.message.payload = dunlin_bytes::new(message.payload);
            told.message.qos = message.qos.bits();
            told.message.retain = u8::from(message.retain);
            told.message.dup = u8::from(message.dup);
            #[cfg(feature = "manual")]
            tell_receipt(told, message.receipt());
            (kind::MESSAGE, 0)
        }
        #[cfg(feature = "large")]
        Event::Chunk(chunk) => {
            told.message.topic = chunk.topic.map_or(dunlin_bytes::NONE, |topic| dunlin_bytes::new(topic.as_bytes()));
            told.message.payload = dunlin_bytes::new(chunk.bytes);
            told.message.qos = chunk.qos.bits();
            told.message.retain = u8::from(chunk.retain);
            told.message.dup = u8::from(chunk.dup);
            told.offset = chunk.offset;
            told.total = chunk.total;
            told.is_last = chunk.is_last();
            #[cfg(feature = "manual")]
            tell_receipt(told, chunk.receipt());
            (kind::CHUNK, 0)
        }
        #[cfg(feature = "large")]
        Event::Skipped { qos, len } => {
            told.message.qos = qos.bits();
            told.total = *len;
            (kind::SKIPPED, 0)
        }
        Event::Delivered(id) => (kind::DELIVERED, id.get()),
        Event::Replaced(id) => (kind::REPLACED, id.get()),
        Event::Forgotten(id) => (kind::FORGOTTEN, id.get()),
        Event::Subscribed(answer) => {
            told.codes = dunlin_bytes::new(answer.codes.as_bytes());
            match answer.request {
                Request::Filters(id) => (kind::SUBSCRIBED, id.get()),
                _ => (kind::SUBSCRIBED, 0),
            }
        }
        Event::Unsubscribed(id) => (kind::UNSUBSCRIBED, id.get()),
        _ => (kind::NONE, 0), // there is no other
    };
    told.kind = kind;
    told.packet_id = id;
}

#[cfg(feature = "manual")]
fn tell_receipt(told: &mut dunlin_event, receipt: Option<dunlin_core::Receipt>) {
    if let Some(receipt) = receipt {
        told.receipt.opaque = receipt.to_bytes();
    }
}
