//! Buffers that go from one owner to the next: a connection that sleeps has none, and a long message comes in one.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that nobody has, the newest last. All clients of the process share them.
struct Pool {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { buffers: VecDeque::new(), bytes: 0 });

/// At most so many bytes lie unused.
const UNUSED: usize = 2 << 20;

/// A buffer of this length. What is in it does not matter.
pub(crate) fn take(len: usize) -> Vec<u8> {
    let mut pool = lock();
    let Some(at) = pool.buffers.iter().rposition(|buffer| buffer.len() == len) else {
        drop(pool);
        return vec![0; len];
    };
    pool.bytes -= len;
    pool.buffers.remove(at).unwrap_or_default()
}

/// A buffer that is not needed any more; the oldest unused ones make room for it.
pub(crate) fn give(buffer: Vec<u8>) {
    if buffer.is_empty() || buffer.len() > UNUSED {
        return;
    }
    let mut pool = lock();
    pool.bytes += buffer.len();
    pool.buffers.push_back(buffer);
    while pool.bytes > UNUSED {
        pool.bytes -= pool.buffers.pop_front().map_or(0, |oldest| oldest.len());
    }
}

fn lock() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer that goes back when it is dropped.
#[derive(Clone)]
pub(crate) struct Pooled(Vec<u8>);

impl Pooled {
    pub fn new(buffer: Vec<u8>) -> Self {
        Self(buffer)
    }
}

impl Deref for Pooled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_the_length_that_was_asked_for_and_little_lies_unused() {
        for len in [100, 200, 100, UNUSED / 2, UNUSED, 2 * UNUSED] {
            let buffers: Vec<_> = (0..4).map(|_| take(len)).collect();
            assert!(buffers.iter().all(|buffer| buffer.len() == len));
            buffers.into_iter().for_each(give);
            let pool = lock();
            assert!(pool.bytes <= UNUSED);
            assert_eq!(pool.bytes, pool.buffers.iter().map(Vec::len).sum::<usize>());
        }
    }
}
