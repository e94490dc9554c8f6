//! One binary, one file per subject.

mod link;
mod mosquitto;
