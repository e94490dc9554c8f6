//! Faults in sentences for people.

use core::ffi::CStr;

/// A fault by the numbers of the header.
pub(crate) fn fault(kind: u8, detail: u8) -> &'static CStr {
    match (kind, detail) {
        (0, _) => c"no fault",
        (1, 1) => c"the server broke the protocol: it sent a packet of a type that no server sends",
        (1, 2) => c"the server broke the protocol: it set flag bits that the type of the packet does not allow",
        (1, 3) => c"the server broke the protocol: it sent a packet whose length does not fit what is in it",
        (1, 4) => c"the server broke the protocol: it sent text that is not UTF-8",
        (1, 5) => {
            c"the server broke the protocol: it sent a message to a topic that is empty, or has +, # or U+0000 in it"
        }
        (1, 6) => c"the server broke the protocol: it sent a message at a quality of service that does not exist here",
        (1, 7) => c"the server broke the protocol: it marked a message at QoS 0 as sent again",
        (1, 8) => c"the server broke the protocol: it sent a packet with the packet identifier 0",
        (1, 9) => c"the server broke the protocol: it did not begin with CONNACK, or sent a second one",
        (1, 10) => {
            c"the server broke the protocol: it accepted with flags that are reserved, or with a session that cannot be"
        }
        (1, 11) => {
            c"the server broke the protocol: it answered a subscription with more or fewer return codes than filters"
        }
        (1, 12) => c"the server broke the protocol: it answered a subscription with a return code that does not exist",
        (2, 1) => c"connection refused: protocol version not supported",
        (2, 2) => c"connection refused: client identifier rejected",
        (2, 3) => c"connection refused: server unavailable",
        (2, 4) => c"connection refused: bad user name or password",
        (2, 5) => c"connection refused: not authorized",
        (2, _) => c"connection refused: reserved return code",
        (3, _) => c"no CONNACK in time",
        (4, _) => c"the server does not answer pings",
        (5, _) => c"a packet is larger than the inbox",
        (6, _) => c"the server has too many QoS 2 messages under way",
        _ => c"unknown fault",
    }
}
