//! Stores under a session, against a model broker and a real one, with the power cut everywhere.

mod backlog;
mod both;
mod file;
mod flash;
mod kill;
mod power;
mod story;
mod tasks;
mod unreadable;
mod wear;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// What a future gives that is never pending.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("pending"),
    }
}
