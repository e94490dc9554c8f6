//! The session through its public API, against the model broker in virtual time. One file per subject, one story per
//! test. Every run is watched by the testkit's referee, which fails it when the client breaks a rule of the standard.

mod connect;
mod every_cut;
mod keep_alive;
mod large;
mod limits;
mod malformed;
mod manual;
mod marks;
mod offline;
mod power;
mod qos0;
mod qos1;
mod qos2;
mod refused;
mod resume;
mod short_way;
mod subscribe;
mod suspend;

use dunlin_core::PacketId;

/// A packet identifier.
fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}
