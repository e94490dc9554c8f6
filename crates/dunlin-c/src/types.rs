//! The structures of the header. `tests/main.rs` compares them with it, field by field.

#![expect(missing_docs, reason = "the header says what they mean")]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::slice;

use dunlin_core::{Inbox, QoS, Received, Session, Slot};

use crate::status::Status;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_bytes {
    pub ptr: *const c_void,
    pub len: usize,
}

/// As many words as the header gives a session.
pub const DUNLIN_SESSION_WORDS: usize = 80;

#[repr(C)]
pub struct dunlin_session {
    pub(crate) opaque: [MaybeUninit<usize>; DUNLIN_SESSION_WORDS],
}

#[repr(C)]
pub struct dunlin_slot {
    pub(crate) opaque: [MaybeUninit<usize>; 3],
}

#[repr(C)]
pub struct dunlin_received {
    pub(crate) opaque: MaybeUninit<u32>,
}

const _: () = {
    assert!(size_of::<Slot>() <= size_of::<dunlin_slot>() && align_of::<Slot>() <= align_of::<dunlin_slot>());
    assert!(size_of::<Received>() == size_of::<dunlin_received>());
    assert!(align_of::<Received>() <= align_of::<dunlin_received>());
};

/// What is behind the first word of a session, which [`guard`](crate::guard) needs.
pub(crate) struct State {
    pub session: Session<'static>,
    pub inbox: Inbox<'static>,
    /// Bytes that there is room for where `dunlin_inbox` has said, as long as that is true.
    pub room: usize,
    /// More of a long packet came since `dunlin_poll`: see [`Inbox::is_amid_packet`].
    pub is_amid_packet: bool,
}

const _: () = {
    assert!(size_of::<State>() <= size_of::<usize>() * (DUNLIN_SESSION_WORDS - 1));
    assert!(align_of::<State>() <= align_of::<usize>());
};

#[repr(C)]
pub struct dunlin_memory {
    pub tx: *mut c_void,
    pub tx_len: usize,
    pub rx: *mut c_void,
    pub rx_len: usize,
    pub slots: *mut dunlin_slot,
    pub slot_count: usize,
    pub received: *mut dunlin_received,
    pub received_count: usize,
    pub filters: *mut c_void,
    pub filters_len: usize,
}

/// A `bool` of a structure that C fills in: any byte may be in it, of which a `bool` of Rust may have two.
type Flag = u8;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_message {
    pub topic: dunlin_bytes,
    pub payload: dunlin_bytes,
    pub qos: u8,
    pub retain: Flag,
    pub dup: Flag,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_filter {
    pub text: dunlin_bytes,
    pub qos: u8,
}

#[repr(C)]
pub struct dunlin_options {
    pub client_id: dunlin_bytes,
    pub user_name: dunlin_bytes,
    pub password: dunlin_bytes,
    pub will: *const dunlin_message,
    pub subscriptions: *const dunlin_filter,
    pub subscription_count: usize,
    pub keep_alive_s: u16,
    pub answer_timeout_s: u16,
    pub window: u16,
    pub chunk_align: u16,
    pub oversize: u8,
    pub persistent: Flag,
    pub durable: Flag,
    pub manual_acks: Flag,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_payload {
    pub key: u32,
    pub offset: usize,
    pub len: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_receipt {
    pub opaque: [u8; 4],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_event {
    pub message: dunlin_message,
    pub codes: dunlin_bytes,
    pub offset: usize,
    pub total: usize,
    pub receipt: dunlin_receipt,
    pub packet_id: u16,
    pub kind: u8,
    pub resumed: bool,
    pub is_last: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_fault_info {
    pub len: usize,
    pub kind: u8,
    pub detail: u8,
    pub may_heal: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct dunlin_mark {
    pub packet_id: u16,
    pub stage: u8,
}

impl dunlin_bytes {
    pub(crate) const NONE: Self = Self { ptr: core::ptr::null(), len: 0 };

    pub(crate) const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr().cast(), len: bytes.len() }
    }

    /// The bytes, as long as C keeps them.
    pub(crate) unsafe fn get<'a>(self) -> Result<&'a [u8], Status> {
        // SAFETY: C promises that the memory is there; it is only read.
        unsafe { array(self.ptr.cast(), self.len) }
    }

    /// The same; `None` where the pointer is NULL.
    pub(crate) unsafe fn get_some<'a>(self) -> Result<Option<&'a [u8]>, Status> {
        // SAFETY: as above.
        if self.ptr.is_null() && self.len == 0 { Ok(None) } else { unsafe { self.get() }.map(Some) }
    }

    /// The same, which must be text. Whether it is a name or a filter is for the session to say.
    pub(crate) unsafe fn text<'a>(self) -> Result<&'a str, Status> {
        // SAFETY: as above.
        let bytes = unsafe { self.get() }?;
        if !dunlin_core::topic::is_text(bytes) {
            return Err(Status::BadText);
        }
        // SAFETY: text is UTF-8.
        Ok(unsafe { str::from_utf8_unchecked(bytes) })
    }
}

/// The quality of service that a number of the header stands for.
pub(crate) fn qos(bits: u8) -> Result<QoS, Status> {
    QoS::from_bits(bits).ok_or(Status::BadArgument)
}

/// Whether an array can have so many items of type `T` there.
fn is_possible<T>(ptr: *const T, len: usize) -> bool {
    let limit = isize::MAX.unsigned_abs();
    !ptr.is_null() && len.checked_mul(size_of::<T>()).is_some_and(|len| len <= limit)
}

/// An array of C; without items, the pointer is not looked at.
pub(crate) unsafe fn array<'a, T>(ptr: *const T, len: usize) -> Result<&'a [T], Status> {
    if len == 0 {
        return Ok(&[]);
    }
    if !is_possible(ptr, len) {
        return Err(Status::BadArgument);
    }
    // SAFETY: C promises that it is there, and does not change while it is read.
    Ok(unsafe { slice::from_raw_parts(ptr, len) })
}

/// As [`array`], to be written.
pub(crate) unsafe fn array_mut<'a, T>(ptr: *mut T, len: usize) -> Result<&'a mut [T], Status> {
    if len == 0 {
        return Ok(&mut []);
    }
    if !is_possible(ptr, len) {
        return Err(Status::BadArgument);
    }
    // SAFETY: C promises that it is there, and that nobody else uses it meanwhile.
    Ok(unsafe { slice::from_raw_parts_mut(ptr, len) })
}

/// As [`array_mut`], each item made `item` first.
pub(crate) unsafe fn array_of<'a, T: Copy>(ptr: *mut T, len: usize, item: T) -> Result<&'a mut [T], Status> {
    if len > 0 && !is_possible(ptr, len) {
        return Err(Status::BadArgument);
    }
    for index in 0..len {
        // SAFETY: as in `array_mut`.
        unsafe { ptr.wrapping_add(index).write(item) };
    }
    // SAFETY: as in `array_mut`, and each item has a value.
    unsafe { array_mut(ptr, len) }
}

/// What a pointer points to.
pub(crate) unsafe fn read<'a, T>(ptr: *const T) -> Result<&'a T, Status> {
    // SAFETY: C promises that a pointer that is not NULL points to what its type says.
    unsafe { ptr.as_ref() }.ok_or(Status::BadArgument)
}

/// Writes to where a pointer must point.
pub(crate) unsafe fn answer<T>(ptr: *mut T, value: T) -> Result<(), Status> {
    if ptr.is_null() {
        return Err(Status::BadArgument);
    }
    // SAFETY: as in `read`.
    unsafe { tell(ptr, value) };
    Ok(())
}

/// Writes to where a pointer points, unless it is NULL.
pub(crate) unsafe fn tell<T>(ptr: *mut T, value: T) {
    if !ptr.is_null() {
        // SAFETY: as in `read`.
        unsafe { ptr.write(value) };
    }
}
