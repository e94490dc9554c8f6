//! Runs a future to its end on the spot.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

/// Stores over blocking flash are never pending; others are asked again until they are ready.
#[inline(always)] // of what is always ready, nothing is left
pub(crate) fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let waker = waker();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        wait();
    }
}

/// Runs a future that is never pending, since all that it waits for waits itself: it is asked once. What it would need
/// to go on later is not compiled.
#[allow(clippy::empty_loop, reason = "never reached; anything else in it takes ninety bytes of flash")]
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => loop {},
    }
}

#[cfg(feature = "std")]
fn waker() -> Waker {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    std::sync::Arc::new(Unpark(std::thread::current())).into()
}

#[cfg(feature = "std")]
fn wait() {
    std::thread::park();
}

#[cfg(not(feature = "std"))]
fn waker() -> Waker {
    Waker::noop().clone()
}

#[cfg(not(feature = "std"))]
fn wait() {
    core::hint::spin_loop();
}
