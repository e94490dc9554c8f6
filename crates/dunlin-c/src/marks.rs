//! Sessions that survive a power cut: what must be stored, and what is given back.

use dunlin_core::{Mark, PacketId, Restored, Stage, Topic};

use crate::guard::with;
use crate::session::publish;
use crate::status::{Status, done};
use crate::types::{State, answer, dunlin_filter, dunlin_mark, dunlin_message, dunlin_session, read};

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_next_mark(session: *mut dunlin_session, mark: *mut dunlin_mark) -> Status {
    let next_mark = |state: &mut State| {
        let next = state.session.next_mark().ok_or(Status::Unknown)?;
        // SAFETY: what C promises.
        unsafe { answer(mark, in_c(next)) }
    };
    // SAFETY: what C promises.
    done(unsafe { with(session, next_mark) })
}

/// A mark by the numbers of the header.
fn in_c(mark: Mark) -> dunlin_mark {
    let stage = match mark.stage {
        Stage::Accepted => 1,
        Stage::Refused => 2,
        Stage::Released => 3,
        Stage::Done => 4,
        Stage::Received => 5,
        _ => 6,
    };
    dunlin_mark { packet_id: mark.id.get(), stage }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_mark_stored(session: *mut dunlin_session, mark: dunlin_mark) -> Status {
    let mark_stored = |state: &mut State| {
        let stage = match mark.stage {
            1 => Stage::Accepted,
            2 => Stage::Refused,
            3 => Stage::Released,
            4 => Stage::Done,
            5 => Stage::Received,
            6 => Stage::Forgotten,
            _ => return Err(Status::BadArgument),
        };
        state.session.mark_stored(Mark { id: named(mark.packet_id)?, stage });
        Ok(())
    };
    // SAFETY: what C promises.
    done(unsafe { with(session, mark_stored) })
}

fn named(packet_id: u16) -> Result<PacketId, Status> {
    PacketId::new(packet_id).ok_or(Status::BadArgument)
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_next_id(session: *const dunlin_session) -> u16 {
    // SAFETY: what C promises.
    let id = unsafe { with(session, |state| Ok(state.session.next_id())) };
    id.ok().flatten().map_or(0, PacketId::get)
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_restore_released(session: *mut dunlin_session, packet_id: u16) -> Status {
    // SAFETY: what C promises.
    unsafe { restore(session, || Ok(Restored::Released(named(packet_id)?))) }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_restore_message(
    session: *mut dunlin_session,
    packet_id: u16,
    message: *const dunlin_message,
) -> Status {
    // SAFETY: what C promises.
    unsafe { restore(session, || Ok(Restored::Message { id: named(packet_id)?, publish: publish(message)? })) }
}

/// See the header.
#[cfg(feature = "large")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_restore_external(
    session: *mut dunlin_session,
    packet_id: u16,
    message: *const dunlin_message,
    key: u32,
    len: u32,
) -> Status {
    // SAFETY: what C promises.
    unsafe {
        restore(session, || {
            let head = crate::session::head(message)?;
            Ok(Restored::External {
                id: named(packet_id)?,
                topic: Topic::from_store(head.topic().as_bytes()),
                qos: head.qos(),
                retain: head.is_retain(),
                payload: dunlin_core::External { key, len },
            })
        })
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_restore_received(session: *mut dunlin_session, packet_id: u16) -> Status {
    // SAFETY: what C promises.
    unsafe { restore(session, || Ok(Restored::Received(named(packet_id)?))) }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_restore_filter(session: *mut dunlin_session, filter: *const dunlin_filter) -> Status {
    // SAFETY: what C promises.
    unsafe {
        restore(session, || {
            let filter = crate::requests::checked(read(filter)?)?;
            Ok(Restored::Subscription { filter: Topic::from_store(filter.text().as_bytes()), qos: filter.qos() })
        })
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_restore_next_id(session: *mut dunlin_session, packet_id: u16) -> Status {
    // SAFETY: what C promises.
    unsafe { restore(session, || Ok(Restored::NextId(named(packet_id)?))) }
}

unsafe fn restore<'a>(session: *mut dunlin_session, entry: impl FnOnce() -> Result<Restored<'a>, Status>) -> Status {
    // SAFETY: what C promises.
    done(unsafe { with(session, |state| Ok(state.session.restore(entry()?)?)) })
}
