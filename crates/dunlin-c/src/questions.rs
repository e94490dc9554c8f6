//! Questions.

use core::ffi::c_char;

use dunlin_core::{Fault, Refusal, Violation};

use crate::guard::with;
use crate::status::{Status, done};
use crate::types::{answer, dunlin_fault_info, dunlin_session};

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_fault(session: *const dunlin_session, fault: *mut dunlin_fault_info) -> Status {
    // SAFETY: what C promises.
    done(unsafe { with(session, |state| answer(fault, in_c(state.session.fault()))) })
}

/// A fault by the numbers of the header.
fn in_c(fault: Option<Fault>) -> dunlin_fault_info {
    let (kind, detail, len) = match fault {
        None => (0, 0, 0),
        Some(Fault::Malformed(violation)) => (1, violation_in_c(violation), 0),
        Some(Fault::Refused(refusal)) => (2, code(refusal), 0),
        Some(Fault::ConnectTimeout) => (3, 0, 0),
        Some(Fault::Silent) => (4, 0, 0),
        Some(Fault::TooLarge { len }) => (5, 0, len),
        // Options are checked by `dunlin_init`, so there is no other.
        Some(_) => (6, 0, 0),
    };
    dunlin_fault_info { len, kind, detail, may_heal: fault.is_none_or(Fault::may_heal) }
}

/// The return code of a CONNACK that refused.
fn code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::ProtocolVersion => 1,
        Refusal::ClientId => 2,
        Refusal::ServerUnavailable => 3,
        Refusal::Credentials => 4,
        Refusal::NotAuthorized => 5,
        Refusal::Reserved(code) => code,
        _ => u8::MAX, // there is no other
    }
}

fn violation_in_c(violation: Violation) -> u8 {
    match violation {
        Violation::PacketType => 1,
        Violation::Flags => 2,
        Violation::Length => 3,
        Violation::Text => 4,
        Violation::Topic => 5,
        Violation::QoS => 6,
        Violation::Duplicate => 7,
        Violation::PacketId => 8,
        Violation::OutOfPlace => 9,
        Violation::SessionPresent => 10,
        Violation::ReturnCodeCount => 11,
        Violation::ReturnCode => 12,
        _ => 0, // there is no other
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn dunlin_fault_text(kind: u8, detail: u8) -> *const c_char {
    crate::text::fault(kind, detail).as_ptr()
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_is_connected(session: *const dunlin_session) -> bool {
    // SAFETY: what C promises.
    unsafe { with(session, |state| Ok(state.session.is_connected())) }.unwrap_or(false)
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_is_idle(session: *const dunlin_session) -> bool {
    // SAFETY: what C promises.
    unsafe { with(session, |state| Ok(state.session.is_idle())) }.unwrap_or(false)
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_outgoing_count(session: *const dunlin_session) -> usize {
    // SAFETY: what C promises.
    unsafe { with(session, |state| Ok(state.session.outgoing_count())) }.unwrap_or(0)
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_ignored_count(session: *const dunlin_session) -> u32 {
    // SAFETY: what C promises.
    unsafe { with(session, |state| Ok(state.session.ignored_count())) }.unwrap_or(0)
}

/// See the header.
#[cfg(feature = "large")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_skipped_count(session: *const dunlin_session) -> u32 {
    // SAFETY: what C promises.
    unsafe { with(session, |state| Ok(state.session.skipped_count())) }.unwrap_or(0)
}
