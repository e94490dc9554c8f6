//! A session and its connections.

use core::ffi::c_void;
use core::ptr;

#[cfg(feature = "large")]
use dunlin_core::Oversize;
use dunlin_core::{Client, Inbox, Instant, Memory, Options, Publish, Received, Session, Slot, Transmit};

use crate::guard::{change, make, unmake, with};
#[cfg(feature = "subscribe")]
use crate::requests::subscribe;
use crate::status::{Status, done};
use crate::types::{
    State, array_mut, array_of, dunlin_memory, dunlin_message, dunlin_options, dunlin_payload, dunlin_session, qos,
    read, tell,
};

/// No wait is longer: 65,535 seconds.
const LONGEST_WAIT_MS: u32 = 65_535_000;

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_init(
    session: *mut dunlin_session,
    options: *const dunlin_options,
    memory: *const dunlin_memory,
) -> Status {
    // SAFETY: what C promises.
    done(unsafe { init(session, options, memory) })
}

unsafe fn init(
    session: *mut dunlin_session,
    options: *const dunlin_options,
    memory: *const dunlin_memory,
) -> Result<(), Status> {
    // SAFETY: what C promises; memory and texts stay as long as the session is used.
    let (given, memory) = unsafe {
        unmake(session)?;
        (read(options)?, read(memory)?)
    };
    // SAFETY: as above.
    let options = unsafe { options_of(given) }?;
    if memory.rx_len < 16 || memory.received_count < 2 {
        return Err(Status::BadMemory);
    }
    // SAFETY: as above; slots and entries are no larger than the header's, and need no more alignment.
    let (memory, inbox) = unsafe {
        let parts = Memory {
            tx: array_of(memory.tx.cast(), memory.tx_len, 0)?,
            slots: array_of(memory.slots.cast::<Slot>(), memory.slot_count, Slot::FREE)?,
            received: array_of(memory.received.cast::<Received>(), memory.received_count, Received::FREE)?,
            filters: array_of(memory.filters.cast(), memory.filters_len, 0)?,
        };
        (parts, Inbox::new(array_of(memory.rx.cast(), memory.rx_len, 0)?))
    };
    let state = State { session: Session::new(options, memory), inbox, room: 0, is_amid_packet: false };
    // SAFETY: as above.
    unsafe { make(session, state, |state| subscribed(state, given)) }
}

/// Subscribes to what the options ask for.
#[cfg(feature = "subscribe")]
unsafe fn subscribed(state: &mut State, given: &dunlin_options) -> Result<(), Status> {
    if given.subscription_count > 0 {
        // SAFETY: what C promises.
        unsafe { subscribe(&mut state.session, given.subscriptions, given.subscription_count) }?;
    }
    Ok(())
}

#[cfg(not(feature = "subscribe"))]
unsafe fn subscribed(_: &mut State, _: &dunlin_options) -> Result<(), Status> {
    Ok(())
}

unsafe fn options_of(given: &dunlin_options) -> Result<Options<'static>, Status> {
    // SAFETY: the texts stay as long as the session is used.
    let client = unsafe {
        let will = if given.will.is_null() { Ok(None) } else { publish(given.will).map(Some) };
        Client {
            id: given.client_id.get().map_err(|_| Status::BadClientId)?,
            is_persistent: given.persistent != 0,
            will: will.map_err(|_| Status::BadWill)?,
            user_name: given.user_name.get_some().map_err(|_| Status::BadUserName)?,
            password: given.password.get_some().map_err(|_| Status::BadPassword)?,
        }
    };
    let is_supported = (cfg!(feature = "durable") || given.durable == 0)
        && (cfg!(feature = "manual") || given.manual_acks == 0)
        && (cfg!(feature = "large") || (given.chunk_align == 0 && given.oversize == 0))
        && (cfg!(feature = "subscribe") || given.subscription_count == 0);
    if !is_supported {
        return Err(Status::NotSupported);
    }
    let mut options = Options::new("").keep_alive(given.keep_alive_s);
    if given.answer_timeout_s > 0 {
        options = options.answer_timeout(given.answer_timeout_s);
    }
    if given.window > 0 {
        options = options.window(given.window);
    }
    options.set_client(client)?;
    #[cfg(feature = "durable")]
    if given.durable != 0 {
        options = options.durable();
    }
    #[cfg(feature = "manual")]
    if given.manual_acks != 0 {
        options = options.manual_acks();
    }
    #[cfg(feature = "large")]
    {
        let oversize = match given.oversize {
            0 => Oversize::Close,
            1 => Oversize::Skip,
            _ => return Err(Status::BadArgument),
        };
        options = options.oversize(oversize);
        if given.chunk_align > 0 {
            options = options.stream_large(given.chunk_align);
        }
    }
    options.check()?;
    Ok(options)
}

/// A message of C. Read field by field: what is not looked at may be uninitialised.
pub(crate) unsafe fn publish<'a>(message: *const dunlin_message) -> Result<Publish<'a>, Status> {
    if message.is_null() {
        return Err(Status::BadArgument);
    }
    // SAFETY: what C promises.
    unsafe { with_payload(message, (*message).payload.get()?) }
}

/// The same without its payload, which is not looked at.
#[cfg(feature = "large")]
pub(crate) unsafe fn head<'a>(message: *const dunlin_message) -> Result<Publish<'a>, Status> {
    if message.is_null() {
        return Err(Status::BadArgument);
    }
    // SAFETY: what C promises.
    unsafe { with_payload(message, &[]) }
}

unsafe fn with_payload<'a>(message: *const dunlin_message, payload: &'a [u8]) -> Result<Publish<'a>, Status> {
    // SAFETY: what C promises, and it is not NULL.
    let (topic, qos_bits, retain) = unsafe { ((*message).topic.text()?, (*message).qos, (*message).retain) };
    let publish = Publish::new(topic, payload).with_qos(qos(qos_bits)?);
    Ok(if retain == 0 { publish } else { publish.retain() })
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_open(session: *mut dunlin_session, now_ms: u64) -> Status {
    let open = |state: &mut State| {
        state.room = 0;
        state.session.open(Instant::from_millis(now_ms), &mut state.inbox);
    };
    // SAFETY: what C promises.
    unsafe { change(session, open) }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_lost(session: *mut dunlin_session) -> Status {
    // SAFETY: what C promises.
    unsafe { change(session, |state| state.session.lost()) }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_close(session: *mut dunlin_session) -> Status {
    // SAFETY: what C promises.
    unsafe { change(session, |state| state.session.close()) }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_inbox(session: *mut dunlin_session, room: *mut usize) -> *mut c_void {
    let space = |state: &mut State| {
        let space = state.inbox.space();
        state.room = space.len();
        Ok((space.as_mut_ptr().cast(), space.len()))
    };
    if room.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: what C promises.
    let (ptr, len) = unsafe { with(session, space) }.unwrap_or((ptr::null_mut(), 0));
    // SAFETY: what C promises.
    unsafe { tell(room, len) };
    ptr
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_filled(session: *mut dunlin_session, count: usize) -> Status {
    let filled = |state: &mut State| {
        state.room = state.room.checked_sub(count).ok_or(Status::BadArgument)?;
        state.is_amid_packet |= count > 0 && state.inbox.is_amid_packet();
        state.inbox.filled(count);
        Ok(())
    };
    // SAFETY: what C promises.
    done(unsafe { with(session, filled) })
}

/// See the header.
#[cfg_attr(not(feature = "large"), expect(unused_variables, reason = "there are no external payloads"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_transmit(
    session: *mut dunlin_session,
    now_ms: u64,
    out: *mut c_void,
    len: *mut usize,
    payload: *mut dunlin_payload,
) -> Status {
    if len.is_null() {
        return Status::BadArgument;
    }
    // SAFETY: what C promises. Whatever is answered, C is not to take what was in `out` for something to send.
    let room = unsafe { len.replace(0) };
    // SAFETY: what C promises. The session only writes to `out`: what C left in it does not matter.
    let transmit = |state: &mut State| unsafe {
        let out = array_mut(out.cast::<u8>(), room)?;
        Ok(match state.session.transmit(Instant::from_millis(now_ms), out) {
            Transmit::Idle => Status::Ok,
            Transmit::Bytes(written) => {
                len.write(written);
                Status::Bytes
            }
            #[cfg(feature = "large")]
            Transmit::Payload { key, offset, len } => {
                tell(payload, dunlin_payload { key, offset, len });
                Status::Payload
            }
            _ => Status::Close,
        })
    };
    // SAFETY: what C promises.
    unsafe { with(session, transmit) }.unwrap_or_else(|refused| refused)
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_wait_ms(session: *const dunlin_session, now_ms: u64) -> u32 {
    // SAFETY: what C promises.
    let deadline = match unsafe { with(session, |state| Ok(state.session.deadline())) } {
        Ok(Some(deadline)) => deadline,
        Ok(None) => return u32::MAX,
        Err(_) => return 0, // whoever sleeps for ever would never find out
    };
    match u32::try_from(deadline.millis_since(Instant::from_millis(now_ms))) {
        Ok(left) if left <= LONGEST_WAIT_MS => left,
        _ => 0, // the clock has wrapped since the last call: the next one will see to it
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dunlin_hold(session: *mut dunlin_session, now_ms: u64) -> Status {
    // SAFETY: what C promises.
    unsafe { change(session, |state| state.session.hold(Instant::from_millis(now_ms))) }
}
