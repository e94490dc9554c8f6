//! Runs a future to its end on the spot.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// Stores over blocking flash are never pending; others are asked again until they are ready.
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
