//! Mbed TLS's heap: a pool that the application hands over, and nothing else.

use core::alloc::Layout;
use core::cell::RefCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};

use critical_section::Mutex;
use rlsf::Tlsf;

/// Blocks of up to 1 MiB, in classes of one sixteenth of a power of two.
type Heap = Tlsf<'static, u32, u32, 16, 16>;

/// What precedes each block: its length, so that the heap's use is known.
const HEADER: usize = 8;

struct Pool {
    heap: Heap,
    used: usize,
    peak: usize,
}

static POOL: Mutex<RefCell<Pool>> = Mutex::new(RefCell::new(Pool { heap: Heap::new(), used: 0, peak: 0 }));

/// Makes `memory` the heap.
pub(super) fn start(memory: &'static mut [MaybeUninit<u8>]) {
    critical_section::with(|cs| {
        // What is too small for a block is left out; the first allocation then fails.
        let _ = POOL.borrow_ref_mut(cs).heap.insert_free_block(memory);
    });
    // SAFETY: both functions are always valid to call, and nothing was allocated with others: Mbed TLS is used from
    // here on only.
    unsafe { mbedtls_rs::sys::mbedtls_platform_set_calloc_free(Some(calloc), Some(free)) };
}

/// Most bytes of the pool that were in use at a time, without the pool's own bookkeeping.
pub(super) fn peak() -> usize {
    critical_section::with(|cs| POOL.borrow_ref(cs).peak)
}

/// Zeroed memory for `count` things of `size` bytes; null if there is none.
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let len = count.checked_mul(size).and_then(|len| len.checked_add(HEADER));
    let layout = len.and_then(|len| Layout::from_size_align(len, HEADER).ok());
    let Some(layout) = layout else { return null_mut() };
    let block = critical_section::with(|cs| {
        let mut pool = POOL.borrow_ref_mut(cs);
        let block = pool.heap.allocate(layout)?;
        pool.used += layout.size();
        pool.peak = pool.peak.max(pool.used);
        Some(block)
    });
    let Some(block) = block else { return null_mut() };
    // SAFETY: the block has `layout.size()` bytes, at least `HEADER`, aligned for a `usize`, and is nobody else's.
    unsafe {
        block.as_ptr().write_bytes(0, layout.size());
        block.cast::<usize>().write(layout.size());
        block.add(HEADER).as_ptr().cast()
    }
}

unsafe extern "C" fn free(memory: *mut c_void) {
    let Some(memory) = NonNull::new(memory.cast::<u8>()) else { return };
    critical_section::with(|cs| {
        let mut pool = POOL.borrow_ref_mut(cs);
        // SAFETY: Mbed TLS frees what `calloc` gave it, once; the header is where `calloc` has put it.
        unsafe {
            let block = memory.sub(HEADER);
            pool.used -= block.cast::<usize>().read();
            pool.heap.deallocate(block, HEADER);
        }
    });
}
