//! One binary, one file per subject.

mod common;
mod link;
mod mosquitto;
