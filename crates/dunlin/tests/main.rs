//! One binary, one file per subject.

mod common;
mod hostile;
mod link;
mod mosquitto;
