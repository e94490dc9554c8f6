//! What an image over TLS is told: where to connect, as whom, and whether it is to be let in.

use core::fmt::Write as _;

use board::{host, say};
use dunlin_tls::{Config, Error, Identity};
use heapless::String;
use static_cell::ConstStaticCell;

use crate::teller::Outcome;

/// The arguments: the broker's port on the host; milliseconds of the idle chapter; the server's name; a directory with
/// `authority.der`, `client.der` and `client.key`; `mutual` or `anonymous`; and `pass`, or the error that must come.
pub struct Orders {
    pub port: u16,
    pub idle_ms: u64,
    server: String<128>,
    authority: &'static [u8],
    identity: Identity<'static>,
    is_mutual: bool,
    goal: String<128>,
}

impl Orders {
    /// Reads them, and the files. To be called once.
    pub fn read() -> Result<Self, &'static str> {
        static AUTHORITY: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
        static CERTIFICATE: ConstStaticCell<[u8; 1024]> = ConstStaticCell::new([0; 1024]);
        static KEY: ConstStaticCell<[u8; 256]> = ConstStaticCell::new([0; 256]);
        Ok(Self {
            port: host::number(1).unwrap_or(8883) as u16,
            idle_ms: u64::from(host::number(2).unwrap_or(0)),
            server: host::argument(3).ok_or("no server name")?,
            authority: file("authority.der", AUTHORITY.take())?,
            identity: Identity::new(file("client.der", CERTIFICATE.take())?, file("client.key", KEY.take())?),
            is_mutual: host::argument(5).is_some_and(|text| text == "mutual"),
            goal: host::argument(6).unwrap_or_default(),
        })
    }

    /// Whom to trust, and who this is, now.
    pub fn config(&self) -> Config<'_> {
        let config = Config::new(&self.server, self.authority, host::unix_time());
        if self.is_mutual { config.identity(self.identity) } else { config }
    }

    /// Whether there is a story to tell. If not, the connection must be refused.
    pub fn has_story(&self) -> bool {
        self.goal == "pass"
    }

    /// Whether the connection was refused as it must be.
    pub fn judge(&self, error: Option<Error>) -> Result<(), &'static str> {
        let mut name: String<64> = String::new();
        let _ = write!(name, "{error:?}"); // a name that is cut off is not the expected one
        say!("refused: {name}");
        match name.strip_prefix("Some(").and_then(|name| name.strip_suffix(")")) == Some(self.goal.as_str()) {
            true => Ok(()),
            false => Err("not refused as it must be"),
        }
    }
}

/// What a handshake that failed in the middle of a story comes to.
pub fn lost(error: Error) -> Result<Outcome, &'static str> {
    match error {
        // While the broker restarts; anything else would come again and again.
        Error::Closed | Error::Io(_) => Ok(Outcome::Lost),
        error => {
            say!("{error}");
            Err("the handshake failed")
        }
    }
}

fn file(name: &str, buffer: &'static mut [u8]) -> Result<&'static [u8], &'static str> {
    let mut path = host::argument(4).ok_or("no directory")?;
    path.push('/').and_then(|()| path.push_str(name)).map_err(|_| "a path that is too long")?;
    host::file(&path, buffer).ok_or("a file is missing")
}
