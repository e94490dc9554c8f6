//! Where the server is and what lies between: everything a connection attempt has to know.

use crate::host::Error;
use crate::url::{Address, Scheme};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub address: Address,
}

impl Target {
    /// Refuses what this build cannot reach.
    pub fn check(&self) -> Result<(), Error> {
        let is_supported = match self.address.scheme() {
            Scheme::Mqtt => true,
            Scheme::Unix => cfg!(unix),
            Scheme::Mqtts | Scheme::Ws | Scheme::Wss => false,
        };
        if is_supported { Ok(()) } else { Err(Error::Unsupported(self.address.scheme())) }
    }

    /// The path of the Unix domain socket, if it is one.
    #[cfg(unix)]
    pub fn socket_path(&self) -> Option<&str> {
        (self.address.scheme() == Scheme::Unix).then_some(self.address.path())
    }

    /// Host and port that the socket is to be connected to.
    pub fn first_hop(&self) -> (&str, u16) {
        (self.address.host(), self.address.port())
    }
}
