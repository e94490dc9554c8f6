//! One call at a time: the first word of a session says whether it can be used.
//!
//! It is read and written whole, so an interrupt that comes in the middle of a call finds `BUSY`. Where two processors run at
//! the same time it is a help to find the mistake, and no lock.

use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

use crate::status::{Status, done};
use crate::types::{State, dunlin_session};

/// `dunlin_init` has been called, and no other call is under way. Any other value, as that of zeroed memory, says that
/// `dunlin_init` has not been called.
const READY: usize = 0x00D2_00D2; // takes one instruction, and no memory is filled with it
const BUSY: usize = 0x696E_2E2E;

/// Does `f` with a session, unless another call does something with it.
pub(crate) unsafe fn with<T>(
    session: *const dunlin_session,
    f: impl FnOnce(&mut State) -> Result<T, Status>,
) -> Result<T, Status> {
    let session = session.cast_mut();
    // SAFETY: C promises that the memory of a session is there.
    match unsafe { enter(session) } {
        Status::Ok => {}
        refused => return Err(refused),
    }
    // SAFETY: `make` put it there, and `enter` lets one in at a time.
    let outcome = f(unsafe { &mut *state(session) });
    // SAFETY: as for `enter`.
    unsafe { leave(session) };
    outcome
}

/// As [`with`], for what cannot fail.
pub(crate) unsafe fn change(session: *const dunlin_session, f: impl FnOnce(&mut State)) -> Status {
    let change = |state: &mut State| {
        f(state);
        Ok(())
    };
    // SAFETY: as in `with`.
    done(unsafe { with(session, change) })
}

/// Whatever was there is no session from here on.
pub(crate) unsafe fn unmake(session: *mut dunlin_session) -> Result<(), Status> {
    if session.is_null() {
        return Err(Status::BadArgument);
    }
    // SAFETY: as in `make`.
    unsafe { word(session).write(AtomicUsize::new(0)) };
    compiler_fence(Ordering::SeqCst);
    Ok(())
}

/// After [`unmake`]: puts a session there, and does `f` with it before others may enter.
pub(crate) unsafe fn make(
    session: *mut dunlin_session,
    new: State,
    f: impl FnOnce(&mut State) -> Result<(), Status>,
) -> Result<(), Status> {
    // SAFETY: C promises that the memory of a session is there, and that no other call uses it. What was in it before owns
    // nothing.
    unsafe {
        state(session).write(new);
        f(&mut *state(session))?;
        leave(session);
    }
    Ok(())
}

/// From here on, others may not enter.
#[inline(never)] // from every function of the header
unsafe fn enter(session: *mut dunlin_session) -> Status {
    if session.is_null() {
        return Status::BadArgument;
    }
    // SAFETY: the first word is used as this type alone.
    let word = unsafe { &*word(session) };
    match word.load(Ordering::Relaxed) {
        READY => {}
        BUSY => return Status::Busy,
        _ => return Status::NotReady,
    }
    word.store(BUSY, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    Status::Ok
}

/// From here on, others may.
unsafe fn leave(session: *mut dunlin_session) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as in `enter`.
    unsafe { &*word(session) }.store(READY, Ordering::Relaxed);
}

fn word(session: *mut dunlin_session) -> *mut AtomicUsize {
    session.cast()
}

/// Where the state is: see the assertions in `types`.
fn state(session: *mut dunlin_session) -> *mut State {
    session.cast::<usize>().wrapping_add(1).cast()
}
