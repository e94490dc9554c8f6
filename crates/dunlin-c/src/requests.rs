//! Requests: a refusal changes nothing.

use dunlin_core::PacketId;
#[cfg(feature = "subscribe")]
use dunlin_core::{Filter, Session, topic};

#[cfg(feature = "large")]
use crate::guard::change;
use crate::guard::with;
use crate::session::publish;
use crate::status::{Status, done};
#[cfg(feature = "subscribe")]
use crate::types::{array, dunlin_bytes, dunlin_filter, qos};
use crate::types::{dunlin_message, dunlin_session, tell};

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_publish(
    session: *mut dunlin_session,
    message: *const dunlin_message,
    packet_id: *mut u16,
) -> Status {
    // SAFETY: what C promises.
    unsafe { named(packet_id, with(session, |state| Ok(state.session.publish(&publish(message)?)?))) }
}

/// See the header.
#[cfg(feature = "replace")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_publish_replacing(
    session: *mut dunlin_session,
    message: *const dunlin_message,
    policy: u8,
    packet_id: *mut u16,
) -> Status {
    let policy = match policy {
        1 => dunlin_core::Replace::SameTopic,
        2 => dunlin_core::Replace::Oldest,
        _ => return Status::BadArgument,
    };
    // SAFETY: what C promises.
    unsafe {
        let id = with(session, |state| Ok(state.session.publish_replacing(&publish(message)?, policy)?));
        named(packet_id, id)
    }
}

/// See the header.
#[cfg(feature = "large")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_publish_external(
    session: *mut dunlin_session,
    message: *const dunlin_message,
    key: u32,
    len: u32,
    packet_id: *mut u16,
) -> Status {
    let payload = dunlin_core::External { key, len };
    // SAFETY: what C promises.
    unsafe {
        let id = with(session, |state| {
            let head = crate::session::head(message)?;
            Ok(state.session.publish_external(&head, payload)?)
        });
        named(packet_id, id)
    }
}

/// See the header.
#[cfg(feature = "large")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_supplied(session: *mut dunlin_session, count: usize) -> Status {
    if count > isize::MAX.unsigned_abs() {
        return Status::BadArgument; // a number below zero, as functions return that fail
    }
    // SAFETY: what C promises.
    unsafe { change(session, |state| state.session.supplied(count)) }
}

/// See the header.
#[cfg(feature = "large")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_give_up(session: *mut dunlin_session, key: u32) -> Status {
    // SAFETY: what C promises.
    done(unsafe { with(session, |state| known(state.session.give_up(key))) })
}

/// See the header.
#[cfg(feature = "qos1")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_withdraw(session: *mut dunlin_session, packet_id: u16) -> Status {
    let withdraw =
        |state: &mut crate::types::State| known(PacketId::new(packet_id).is_some_and(|id| state.session.withdraw(id)));
    // SAFETY: what C promises.
    done(unsafe { with(session, withdraw) })
}

/// See the header.
#[cfg(feature = "subscribe")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_subscribe(
    session: *mut dunlin_session,
    filters: *const dunlin_filter,
    count: usize,
    packet_id: *mut u16,
) -> Status {
    // SAFETY: what C promises.
    unsafe { named(packet_id, with(session, |state| subscribe(&mut state.session, filters, count))) }
}

/// Subscribes to filters of C.
#[cfg(feature = "subscribe")]
pub(crate) unsafe fn subscribe(
    session: &mut Session<'_>,
    filters: *const dunlin_filter,
    count: usize,
) -> Result<Option<PacketId>, Status> {
    // SAFETY: what C promises.
    let filters = unsafe { array(filters, count) }?;
    for filter in filters {
        // SAFETY: as above.
        unsafe { checked(filter) }?;
    }
    // SAFETY: as above; all of them have passed just now.
    Ok(Some(session.subscribe_each(filters.iter().filter_map(|filter| unsafe { checked(filter) }.ok()))?))
}

/// A filter of C.
#[cfg(feature = "subscribe")]
pub(crate) unsafe fn checked<'a>(filter: &dunlin_filter) -> Result<Filter<'a>, Status> {
    // SAFETY: what C promises.
    Filter::new(unsafe { filter.text.text() }?, qos(filter.qos)?).map_err(|_| Status::BadText)
}

/// See the header.
#[cfg(feature = "subscribe")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_unsubscribe(
    session: *mut dunlin_session,
    filters: *const dunlin_bytes,
    count: usize,
    packet_id: *mut u16,
) -> Status {
    // SAFETY: what C promises.
    let unsubscribe = |state: &mut crate::types::State| unsafe {
        let filters = array(filters, count)?;
        for filter in filters {
            filter.text()?;
        }
        Ok(Some(state.session.unsubscribe_each(filters.iter().filter_map(|filter| filter.text().ok()))?))
    };
    // SAFETY: what C promises.
    unsafe { named(packet_id, with(session, unsubscribe)) }
}

/// See the header.
#[cfg(feature = "manual")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_acknowledge(
    session: *mut dunlin_session,
    receipt: crate::types::dunlin_receipt,
) -> Status {
    let receipt = dunlin_core::Receipt::from_bytes(receipt.opaque);
    // SAFETY: what C promises.
    done(unsafe { with(session, |state| known(receipt.is_some_and(|receipt| state.session.acknowledge(receipt)))) })
}

/// See the header.
#[cfg(feature = "subscribe")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_matches(filter: dunlin_bytes, name: dunlin_bytes) -> bool {
    // SAFETY: what C promises.
    let (filter, name) = unsafe { (filter.text(), name.text()) };
    match (filter, name) {
        (Ok(filter), Ok(name)) => topic::is_filter(filter) && topic::is_name(name) && topic::matches(filter, name),
        _ => false,
    }
}

/// Tells the packet identifier of what was accepted: zero at QoS 0.
unsafe fn named(packet_id: *mut u16, accepted: Result<Option<PacketId>, Status>) -> Status {
    done(accepted.map(|id| {
        // SAFETY: what C promises.
        unsafe { tell(packet_id, id.map_or(0, PacketId::get)) };
    }))
}

#[cfg(any(feature = "qos1", feature = "large", feature = "manual"))]
fn known(is_known: bool) -> Result<(), Status> {
    if is_known { Ok(()) } else { Err(Status::Unknown) }
}
