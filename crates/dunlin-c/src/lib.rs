//! The session of `dunlin-core` for programs in C.
//!
//! `include/dunlin.h` is the interface and its documentation; this crate is what stands behind it: each function is a few
//! lines that check what C cannot promise, and call the session. `docs/c.md` shows how to build and link it.
//!
//! What C has to promise is what the header says: pointers that are not NULL point to what their type says, lengths are
//! those of the memory that they come with, and memory and texts given to `dunlin_init` stay as long as the session is
//! used. Everything else is checked.

#![no_std]
#![expect(unsafe_code, reason = "pointers come from C")]
#![allow(non_camel_case_types, reason = "types have the names that they have in the header")]
#![allow(clippy::missing_safety_doc, reason = "what C has to promise is the same for all: see above")]

// On hosts, the standard library brings what Rust wants to have for panics.
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod events;
mod guard;
#[cfg(feature = "durable")]
pub mod marks;
pub mod questions;
pub mod requests;
pub mod session;
pub mod status;
mod text;
pub mod types;

/// No panic can be reached (`cargo xtask c`), but Rust wants to have this.
#[cfg(all(target_os = "none", feature = "panic-handler"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
