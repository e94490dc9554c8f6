//! An MQTT client for devices, gateways and services.
#![cfg_attr(not(feature = "std"), no_std)]

pub use dunlin_core::*;

#[cfg(feature = "async")]
pub mod asynch;
pub mod blocking;
#[cfg(feature = "tokio")]
pub mod client;
#[cfg(feature = "std")]
pub mod host;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod reconnect;
#[cfg(feature = "std")]
pub mod router;
#[cfg(feature = "rustls")]
pub mod tls;
#[cfg(feature = "std")]
mod transport;
#[cfg(feature = "std")]
pub mod url;
