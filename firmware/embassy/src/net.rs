//! TCP/IP for an executor: embassy-net over the board's Ethernet chip, with a fixed address.

use board::embassy::Ethernet;
use embassy_net::{Config, Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use static_cell::StaticCell;

/// Runs the stack, for ever.
#[embassy_executor::task]
pub async fn network(mut runner: Runner<'static, Ethernet<'static>>) {
    runner.run().await;
}

/// The stack, and what runs it.
pub fn stack(ethernet: Ethernet<'static>) -> (Stack<'static>, Runner<'static, Ethernet<'static>>) {
    static RESOURCES: StaticCell<StackResources<2>> = StaticCell::new();
    let config = Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(address(board::ADDRESS), 24),
        gateway: None,
        dns_servers: Default::default(),
    });
    embassy_net::new(ethernet, config, RESOURCES.init(StackResources::new()), board::host::seed())
}

/// This port of the host, or another one if it names none.
pub fn host_port(otherwise: u16) -> (Ipv4Address, u16) {
    (address(board::HOST), board::host::number(1).map_or(otherwise, |port| port as u16))
}

fn address([a, b, c, d]: [u8; 4]) -> Ipv4Address {
    Ipv4Address::new(a, b, c, d)
}
