//! Over TLS with a certificate of this client's own:
//! `cargo run --features rustls --example tls mqtts://localhost:8883 ca.pem cert.pem key.pem`.
//! The files are read again for each connection, so that renewed ones count without a restart.

use dunlin::blocking::{Client, Error, Reason};
use dunlin::tls::{Tls, TlsError};
use dunlin::{Publish, QoS};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [url, ca, cert, key] = arguments.as_slice() else {
        return Err("expected a URL, and files with the authority, the certificate and its key".into());
    };
    let tls = Tls::authorities_file(ca).identity_files(cert, key);
    let client = match Client::builder(url, "tls-example").tls(tls).connect() {
        Err(Error::Ended(Reason::Tls(TlsError::WrongName { expected, presented }))) => {
            return Err(format!("this is not {expected} but {}", presented.join(" or ")).into());
        }
        result => result?,
    };
    client.subscribe("greet/+", QoS::AtLeastOnce)?;
    let _ = client.publish(&Publish::new("greet/world", b"hello").at_least_once())?;
    let message = client.next()?;
    println!("{}: {}", message.topic(), String::from_utf8_lossy(message.payload()));
    Ok(())
}
