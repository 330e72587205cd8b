//! What one customer of a provider has at least.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The least of addresses that one customer has: a v4 address, or a v6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host(IpAddr);

impl From<SocketAddr> for Host {
    fn from(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => Self(v4),
            IpAddr::V6(v6) => {
                Self(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into())
            }
        }
    }
}

impl Host {
    /// Its first and its last address.
    pub(crate) fn bounds(self) -> (SocketAddr, SocketAddr) {
        let last = match self.0 {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(u64::MAX)).into(),
        };
        (SocketAddr::new(self.0, 0), SocketAddr::new(last, u16::MAX))
    }
}
