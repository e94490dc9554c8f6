//! Each backend against real TLS servers and against peers that are none. What must be refused is refused by name, and
//! the server has then not seen one byte of the application's.

mod peer;
mod pki;

#[cfg(feature = "embedded-tls")]
mod embedded;
#[cfg(feature = "mbedtls")]
mod mbedtls;

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_tls::{Config, Identity};
use pki::{Issued, Pki};

static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

/// Random bytes for keys, from the system.
fn entropy(to: &mut [u8]) {
    use std::io::Read;
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(to)).expect("entropy");
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a date after 1970").as_secs()
}

/// Expects the right server, and presents a certificate.
fn mutual() -> Config<'static> {
    anonymous().identity(identity(&PKI.client))
}

/// Expects the right server.
fn anonymous() -> Config<'static> {
    Config::new(pki::SERVER, &PKI.authority, now())
}

fn identity(issued: &'static Issued) -> Identity<'static> {
    Identity::new(&issued.chain[0], &issued.key)
}
