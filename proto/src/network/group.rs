//! Which addresses count as one place: the groups that a path and the ring must not repeat, and the
//! finer ones whose weight is capped when a relay is drawn (docs/protocol.md §8.5).

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{AsNumber, Network};
use crate::limits::{
    RECEIPT_IPS_V4_16_MAX, RECEIPT_IPS_V4_24_MAX, RECEIPT_IPS_V6_32_MAX, RECEIPT_IPS_V6_48_MAX,
    RECEIPT_IPS_V6_64_MAX,
};

/// How addresses are put into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressGroups {
    /// Each address and port is a group of its own: anyone with one machine can be everywhere. For
    /// one-machine networks.
    Port,
    /// v4 by /16, v6 by /32: blocks of which it costs money or standing to have many.
    Prefix,
}

/// Addresses that count as one place. Ordered and compared by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group([u8; Group::LEN]);

impl Group {
    /// Length of a group's bytes.
    pub const LEN: usize = 20;

    /// Family (4 or 6), prefix length in bits, address (16 bytes, zero behind the prefix; a v4
    /// address comes first in them), port (big-endian; zero unless groups are by port). Of an AS: 1,
    /// 32, its number (big-endian), zeros.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    fn of_as(number: AsNumber) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..2].copy_from_slice(&[1, 32]);
        bytes[2..6].copy_from_slice(&number.0.to_be_bytes());
        Self(bytes)
    }

    fn new(address: IpAddr, bits: u8, port: u16) -> Self {
        let mut bytes = [0; Self::LEN];
        let octets = match address {
            IpAddr::V4(v4) => {
                bytes[0] = 4;
                let [a, b, c, d] = v4.octets();
                u128::from_be_bytes([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(v6) => {
                bytes[0] = 6;
                u128::from_be_bytes(v6.octets())
            }
        };
        bytes[1] = bits;
        let mask = u128::MAX
            .checked_shl(128_u32.saturating_sub(u32::from(bits)))
            .unwrap_or(0);
        bytes[2..18].copy_from_slice(&(octets & mask).to_be_bytes());
        bytes[18..].copy_from_slice(&port.to_be_bytes());
        Self(bytes)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [1, _, a, b, c, d, ..] = self.0 {
            return write!(f, "Group(AS{})", u32::from_be_bytes([a, b, c, d]));
        }
        write!(f, "Group(v{}/{})", self.0[0], self.0[1])
    }
}

/// The prefix, such as `192.0.0.0/16`, or the AS, such as `AS64496`; where groups are by port, the
/// address.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [family, bits, address @ .., high, low] = self.0;
        let [a, b, c, d, ..] = address;
        let ip: IpAddr = match family {
            1 => return write!(f, "AS{}", u32::from_be_bytes([a, b, c, d])),
            4 => [a, b, c, d].into(),
            _ => address.into(),
        };
        match u16::from_be_bytes([high, low]) {
            0 => write!(f, "{ip}/{bits}"),
            port => write!(f, "{}", SocketAddr::new(ip, port)),
        }
    }
}

/// A limit on what the relays of one group have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// The group.
    pub group: Group,
    /// The most that its relays may have: weight in a draw, in relays, or receipts a day.
    pub most: u32,
}

/// How many capped groups, one inside the next, an address is in.
pub const CAP_LEVELS: usize = 3;

impl Network {
    /// The group of an address by its prefix (§8.5(1)): no two of guard, L2 and middle share one,
    /// nor do two ring positions. A v4 address written as v6 counts as v4.
    pub fn group_of(&self, address: SocketAddr) -> Group {
        let ip = address.ip().to_canonical();
        match (self.params.danger_address_groups, ip) {
            (AddressGroups::Prefix, IpAddr::V4(_)) => Group::new(ip, 16, 0),
            (AddressGroups::Prefix, IpAddr::V6(_)) => Group::new(ip, 32, 0),
            (AddressGroups::Port, IpAddr::V4(_)) => Group::new(ip, 32, address.port()),
            (AddressGroups::Port, IpAddr::V6(_)) => Group::new(ip, 128, address.port()),
        }
    }

    /// The AS that announces an address, by the network's map (§8.5(4)).
    pub fn as_of(&self, address: SocketAddr) -> Option<AsNumber> {
        self.params.as_map.look_up(address.ip())
    }

    /// The groups of an address that no two relays of a path share: by its prefix and, where the
    /// network's map has one, its AS.
    pub fn groups_of(&self, address: SocketAddr) -> impl Iterator<Item = Group> {
        let by_as = self.as_of(address).map(Group::of_as);
        by_as.into_iter().chain([self.group_of(address)])
    }

    /// The AS of an address as a group, or where none is known, the group of its prefix.
    pub fn widest_group_of(&self, address: SocketAddr) -> Group {
        let by_as = self.as_of(address).map(Group::of_as);
        by_as.unwrap_or_else(|| self.group_of(address))
    }

    /// The groups whose weight is capped, the narrowest first: a v4 address at 1, its /24 at 4 and
    /// its /16 at 8; v6 /64 at 1, /48 at 4 and /32 at 8. By port, the one group of the address, at 1.
    pub fn caps_of(&self, address: SocketAddr) -> [Option<Cap>; CAP_LEVELS] {
        let v4 = [Some((32, 1)), Some((24, 4)), Some((16, 8))];
        self.limits_of(address, v4, [(64, 1), (48, 4), (32, 8)])
    }

    /// The groups that have so many receipts a day from one issuer (§8.7), the narrowest first: v4
    /// /24 has 4 and /16 has 16; v6 /64 has 1, /48 has 4 and /32 has 16. By port, the one group of
    /// the address has 1.
    pub fn receipt_limits_of(&self, address: SocketAddr) -> [Option<Cap>; CAP_LEVELS] {
        let v4 = [
            None,
            Some((24, RECEIPT_IPS_V4_24_MAX)),
            Some((16, RECEIPT_IPS_V4_16_MAX)),
        ];
        let v6 = [
            (64, RECEIPT_IPS_V6_64_MAX),
            (48, RECEIPT_IPS_V6_48_MAX),
            (32, RECEIPT_IPS_V6_32_MAX),
        ];
        self.limits_of(address, v4, v6)
    }

    fn limits_of(
        &self,
        address: SocketAddr,
        v4: [Option<(u8, u32)>; CAP_LEVELS],
        v6: [(u8, u32); 3],
    ) -> [Option<Cap>; CAP_LEVELS] {
        let ip = address.ip().to_canonical();
        let cap = |(bits, most)| {
            Some(Cap {
                group: Group::new(ip, bits, 0),
                most,
            })
        };
        match (self.params.danger_address_groups, ip) {
            (AddressGroups::Prefix, IpAddr::V4(_)) => v4.map(|level| level.and_then(cap)),
            (AddressGroups::Prefix, IpAddr::V6(_)) => v6.map(cap),
            (AddressGroups::Port, _) => [
                Some(Cap {
                    group: self.group_of(address),
                    most: 1,
                }),
                None,
                None,
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Params;

    fn network() -> Network {
        Network {
            params: Params::DEFAULT,
            ..Network::local()
        }
    }

    fn group(text: &str) -> Group {
        network().group_of(text.parse().unwrap())
    }

    #[test] // §8.5(1)
    fn v4_groups_are_slash_16() {
        assert_eq!(group("198.51.100.1:1"), group("198.51.7.9:2"));
        assert_ne!(group("198.51.100.1:1"), group("198.52.100.1:1"));
    }

    #[test] // §8.5(1)
    fn v6_groups_are_slash_32_and_mapped_v4_is_v4() {
        assert_eq!(group("[2001:db8:1::1]:1"), group("[2001:db8:2::9]:2"));
        assert_ne!(group("[2001:db8::1]:1"), group("[2001:db9::1]:1"));
        assert_eq!(group("[::ffff:198.51.100.1]:1"), group("198.51.0.0:5"));
    }

    #[test] // §8.5(1)
    fn by_port_each_address_and_port_is_a_group() {
        let local = Network::local();
        let of = |text: &str| local.group_of(text.parse().unwrap());
        assert_eq!(of("127.0.0.1:1"), of("127.0.0.1:1"));
        assert_ne!(of("127.0.0.1:1"), of("127.0.0.1:2"));
        assert_ne!(of("127.0.0.1:1"), of("127.0.0.2:1"));
        assert_ne!(of("[::1]:1"), of("[::2]:1"));
    }

    #[test] // §8.5(2)
    fn caps_go_from_narrow_to_wide() {
        let bits = |text: &str| -> Vec<(u8, u32)> {
            let caps = network().caps_of(text.parse().unwrap());
            caps.into_iter()
                .flatten()
                .map(|cap| (cap.group.as_bytes()[1], cap.most))
                .collect()
        };
        assert_eq!(bits("198.51.100.1:1"), [(32, 1), (24, 4), (16, 8)]);
        assert_eq!(bits("[2001:db8::1]:1"), [(64, 1), (48, 4), (32, 8)]);
    }

    #[test]
    fn groups_are_written_as_prefixes_or_addresses() {
        assert_eq!(group("198.51.100.1:80").to_string(), "198.51.0.0/16");
        assert_eq!(group("[2001:db8:1::1]:80").to_string(), "2001:db8::/32");
        let local = Network::local();
        let of = |text: &str| local.group_of(text.parse().unwrap()).to_string();
        assert_eq!(of("127.0.0.1:7443"), "127.0.0.1:7443");
        assert_eq!(of("[::1]:7443"), "[::1]:7443");
        assert_eq!(Group::of_as(AsNumber(64_496)).to_string(), "AS64496");
    }

    #[test] // §8.5(1)
    fn bytes_are_as_specified() {
        let mut expected = [0; Group::LEN];
        expected[..4].copy_from_slice(&[4, 16, 198, 51]);
        assert_eq!(group("198.51.100.1:80").as_bytes(), &expected);
    }
}
