//! Faults put in on purpose: what a wrong driver, a wrong store or a wrong wire would do. The model must find each.

use std::fmt;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `publish` says yes before the message is stored.
    AcceptedBeforeStored,
    /// The store says that it kept a message and did not.
    AcceptedNotStored,
    /// The store says that it kept "released" and did not: PUBREL leaves before its mark.
    ReleasedNotStored,
    /// The same for "done".
    DoneNotStored,
    /// The same for "received": PUBREC leaves before its mark.
    ReceivedNotStored,
    /// The same for "forgotten": PUBCOMP leaves before its mark.
    ForgottenNotStored,
    /// Messages come back in another order than they were published.
    RestoredInReverse,
    /// Released messages come back in another order than their PUBRECs.
    ReleasedInReverse,
    /// Released messages come back as messages.
    ReleasedRestoredAsMessage,
    /// Received identifiers do not come back.
    ReceivedNotRestored,
    /// Nothing comes back.
    NothingRestored,
    /// The store drops a payload at PUBLISH, not at PUBREC.
    PayloadDroppedEarly,
    /// A refused store is reported and the message is not withdrawn.
    RefusedNotWithdrawn,
    /// DUP is cleared on the wire.
    DupCleared,
    /// DUP is set on the wire where nothing is repeated.
    DupInvented,
    /// DUP is set on the wire on what the broker sends for the first time.
    DupFromBrokerInvented,
    /// The wire swallows PUBREL while the stream lives.
    PubrelSwallowed,
    /// The wire swallows PUBCOMP from the client while the stream lives.
    PubcompSwallowed,
    /// Two acknowledgements of the client change places.
    AcksSwapped,
    /// An acknowledgement names the identifier behind its own.
    AckMisnamed,
    /// The driver does not say that the stream was lost and goes on with another one.
    LostNotTold,
}

impl Fault {
    /// Those that this build of the model can do.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_store = if cfg!(feature = "whole") { Self::OF_STORE } else { &[] };
        of_store.iter().chain(Self::OF_WIRE).copied()
    }

    /// What is wrong with a store, or with who uses it.
    const OF_STORE: &[Self] = &[
        Self::AcceptedBeforeStored,
        Self::AcceptedNotStored,
        Self::ReleasedNotStored,
        Self::DoneNotStored,
        Self::ReceivedNotStored,
        Self::ForgottenNotStored,
        Self::RestoredInReverse,
        Self::ReleasedInReverse,
        Self::ReleasedRestoredAsMessage,
        Self::ReceivedNotRestored,
        Self::NothingRestored,
        Self::PayloadDroppedEarly,
        Self::RefusedNotWithdrawn,
    ];

    /// What is wrong with a wire, or with who tells the session about it.
    const OF_WIRE: &[Self] = &[
        Self::DupCleared,
        Self::DupInvented,
        Self::DupFromBrokerInvented,
        Self::PubrelSwallowed,
        Self::PubcompSwallowed,
        Self::AcksSwapped,
        Self::AckMisnamed,
        Self::LostNotTold,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
