//! One binary, one file per subject.

mod mosquitto;
