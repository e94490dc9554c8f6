//! One binary, one file per subject.

#[cfg(feature = "tokio")]
mod client;
mod common;
mod hostile;
mod link;
mod mosquitto;
#[cfg(feature = "rustls")]
mod pki;
#[cfg(all(feature = "proxy", feature = "tokio"))]
mod proxy;
#[cfg(feature = "tokio")]
mod restarts;
#[cfg(feature = "store")]
mod store;
#[cfg(all(feature = "rustls", feature = "tokio"))]
mod tls;
#[cfg(all(feature = "tracing", feature = "tokio"))]
mod tracing;
#[cfg(all(feature = "websocket", feature = "tokio"))]
mod websocket;
