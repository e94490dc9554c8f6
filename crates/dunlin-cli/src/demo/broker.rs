//! The broker of the demo: `mqtt5`, in memory, on loopback, with users of its own. Nothing else uses it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::config::{StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerConfig, MqttBroker};
use mqtt5::error::{MqttError, Result};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use tokio::runtime::{Builder, Runtime};

/// The only user.
pub const USER: (&str, &str) = ("demo", "correct horse");

/// A broker that runs until it is dropped. Its sessions go with it.
pub struct Broker {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Broker {
    /// Starts one, on a port of its own.
    ///
    /// # Errors
    /// No port, or no thread.
    pub fn start() -> Result<Self> {
        let io = |error: std::io::Error| MqttError::Io(error.to_string());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(io)?;
        let storage = StorageConfig { backend: StorageBackend::Memory, ..StorageConfig::default() };
        let config = BrokerConfig::new()
            .with_bind_address((Ipv4Addr::LOCALHOST, 0))
            .with_storage(storage)
            .with_sys_topics_enabled(false);
        let mut broker = runtime.block_on(MqttBroker::with_config(config))?.with_auth_provider(Arc::new(OneUser));
        let address = broker.local_addr().ok_or_else(|| MqttError::Io("no address".to_owned()))?;
        runtime.spawn(async move { broker.run().await });
        Ok(Self { runtime: Some(runtime), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets [`USER`] in, who may do everything.
struct OneUser;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for OneUser {
    fn authenticate<'a>(&'a self, connect: &'a ConnectPacket, _: SocketAddr) -> Answer<'a, Result<AuthResult>> {
        let is_user = connect.username.as_deref() == Some(USER.0);
        let is_password = connect.password.as_deref() == Some(USER.1.as_bytes());
        Box::pin(async move {
            Ok(match is_user && is_password {
                true => AuthResult::success_with_user(USER.0),
                false => AuthResult::fail(ReasonCode::BadUsernameOrPassword),
            })
        })
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }
}
