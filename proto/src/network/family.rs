//! The two families of addresses, each of which is vouched for over itself (docs/protocol.md §8.7).

use core::net::SocketAddr;

/// What an address is dialled over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4, however the address is written.
    V4,
    /// IPv6.
    V6,
}

impl From<SocketAddr> for Family {
    /// A v4 address written as v6 is v4.
    fn from(address: SocketAddr) -> Self {
        if address.ip().to_canonical().is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v4_address_written_as_v6_is_v4() {
        for (address, family) in [
            ("20.1.1.1:9000", Family::V4),
            ("[::ffff:20.1.1.1]:9000", Family::V4),
            ("[2a01::1]:9000", Family::V6),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Family::from(address), family, "{address}");
        }
    }
}
