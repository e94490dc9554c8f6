//! What calls answer, by the numbers of the header.

use dunlin_core::{InvalidOptions, PublishError, SubscribeError};

/// `dunlin_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[expect(missing_docs, reason = "the header says what they mean")]
pub enum Status {
    Ok = 0,
    Bytes = 1,
    Payload = 2,
    Close = 3,
    Full = -1,
    TooLarge = -2,
    BadText = -3,
    Offline = -4,
    NotSupported = -5,
    Unknown = -6,
    IdInUse = -7,
    Connected = -8,
    BadClientId = -20,
    BadWill = -21,
    BadUserName = -22,
    BadPassword = -23,
    BadMemory = -24,
    Fault = -30,
    BadArgument = -40,
    NotReady = -41,
    Busy = -42,
}

/// What a call that has only one good answer says.
pub(crate) fn done(outcome: Result<(), Status>) -> Status {
    outcome.err().unwrap_or(Status::Ok)
}

impl From<PublishError> for Status {
    fn from(refused: PublishError) -> Self {
        match refused {
            PublishError::Full => Self::Full,
            PublishError::TooLarge => Self::TooLarge,
            PublishError::InvalidTopic => Self::BadText,
            PublishError::Offline => Self::Offline,
            _ => Self::NotSupported,
        }
    }
}

impl From<SubscribeError> for Status {
    fn from(refused: SubscribeError) -> Self {
        match refused {
            SubscribeError::Full => Self::Full,
            SubscribeError::Empty => Self::BadArgument,
            _ => Self::BadText,
        }
    }
}

impl From<InvalidOptions> for Status {
    fn from(invalid: InvalidOptions) -> Self {
        match invalid {
            InvalidOptions::ClientId => Self::BadClientId,
            InvalidOptions::Will => Self::BadWill,
            InvalidOptions::UserName => Self::BadUserName,
            _ => Self::BadPassword,
        }
    }
}

#[cfg(feature = "durable")]
impl From<dunlin_core::RestoreError> for Status {
    fn from(refused: dunlin_core::RestoreError) -> Self {
        use dunlin_core::RestoreError;
        match refused {
            RestoreError::Full => Self::Full,
            RestoreError::PacketIdInUse => Self::IdInUse,
            RestoreError::Connected => Self::Connected,
            _ => Self::BadText,
        }
    }
}
