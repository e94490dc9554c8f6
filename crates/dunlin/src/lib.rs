//! An MQTT 3.1.1 client for devices, gateways and services.
//!
//! A message at QoS 1 or 2 that was accepted is delivered over any number of broken connections, at QoS 2 once. What
//! was subscribed to is subscribed to again when the server has lost the session. No line of the application sees to
//! that, whichever of the drivers it uses:
//!
//! # Programs with threads
//! [`blocking::Client`] has a thread of its own for the socket.
//!
#![cfg_attr(feature = "std", doc = "```no_run")]
#![cfg_attr(not(feature = "std"), doc = "```ignore")]
//! use dunlin::blocking::Client;
//! use dunlin::{Publish, QoS};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect("mqtt://localhost:1883", "ten-lines")?;
//!     client.subscribe("greet/+", QoS::AtLeastOnce)?;
//!     let _ = client.publish(&Publish::new("greet/world", b"hello").at_least_once())?;
//!     let message = client.next()?;
//!     println!("{}: {}", message.topic(), String::from_utf8_lossy(message.payload()));
//!     Ok(())
//! }
//! ```
//!
//! # Programs on tokio
//! With the feature `tokio`: `client::Client`. The driver is a future, which the program runs where it likes.
//!
#![cfg_attr(feature = "tokio", doc = "```no_run")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use dunlin::client::Client;
//! use dunlin::{Publish, QoS};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     let (client, mut messages, driver) =
//!         Client::builder("mqtt://localhost:1883", "ten-lines").subscribe("greet/+", QoS::AtLeastOnce).build()?;
//!     tokio::spawn(driver.run());
//!     client.publish(&Publish::new("greet/world", b"hello").at_least_once()).await?.confirmed().await?;
//!     if let Some(message) = messages.next().await {
//!         println!("{}: {}", message.topic(), String::from_utf8_lossy(message.payload()));
//!     }
//!     client.close(std::time::Duration::from_secs(5)).await?;
//!     Ok(())
//! }
//! ```
//!
//! # Devices
//! Without default features nothing here needs a heap or an operating system. [`blocking::Link`] runs a [`Session`] on any
//! stream of `embedded-io`; with the feature `async`, `asynch` shares one among tasks and interrupts; and a
//! [`Session`] alone needs neither: bytes and time go in, bytes and events come out.
//!
//! # Features
//! `std` (on by default): the client with a thread. `tokio`: the asynchronous one. `rustls`, `websocket`, `proxy`: what can
//! lie between either of them and a server. `tracing`, `log`, `defmt`: for whoever listens. `async`: the halves for
//! executors on devices. The others take parts of the session out of a build for a device; see [`dunlin_core`].
#![cfg_attr(not(feature = "std"), no_std)]

pub use dunlin_core::*;

#[cfg(feature = "async")]
pub mod asynch;
pub mod blocking;
#[cfg(feature = "tokio")]
pub mod client;
#[cfg(feature = "std")]
pub mod host;
#[cfg(feature = "std")]
mod limit;
#[cfg(feature = "proxy")]
pub mod proxy;
pub mod reconnect;
#[cfg(feature = "std")]
pub mod router;
#[cfg(feature = "store")]
pub use dunlin_store as store;
#[cfg(feature = "rustls")]
pub mod tls;
#[cfg(feature = "std")]
mod transport;
#[cfg(feature = "std")]
pub mod url;
