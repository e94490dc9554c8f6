//! Every public function of dunlin-core, exported.
//!
//! `cargo xtask panic` links these functions and all that they reach. The panic handler calls a function that
//! nobody defines, so the link succeeds only if no panic can be reached. `cargo xtask stack` bounds the stack below
//! each of them. Both compare the names given here with the functions that rustdoc lists: none may be missing.

#![no_std]

mod roots;

use core::panic::PanicInfo;

unsafe extern "Rust" {
    /// Defined nowhere.
    safe fn dunlin_panic_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    dunlin_panic_reachable()
}

/// What the proof must refuse: an index that may be out of bounds.
#[cfg(feature = "seeded")]
#[unsafe(no_mangle)]
fn seeded(bytes: &[u8], index: usize) -> u8 {
    bytes[index]
}
