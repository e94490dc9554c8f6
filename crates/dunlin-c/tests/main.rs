//! The header says what the library does: structures, prototypes and numbers, and how calls behave that C gets wrong.

#![expect(unsafe_code, reason = "calls what C calls")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod header;
