//! `Hello`: the first cell each way on a link (docs/protocol.md §2.4).

use core::num::NonZeroU32;

use crate::cell::{Cell, Command};
use crate::ids::NetworkId;
use crate::limits::{BODY_LEN, RELAY_DESCRIPTOR_LEN_MAX, VERSIONS_MAX};
use crate::network::Network;
use crate::time::WallTime;
use crate::violation::Violation;
use crate::wire::{Malformed, Reader};

/// The version of the link protocol that this code speaks.
pub const LINK_VERSION: u16 = 1;

const FIXED_LEN: usize = 1 + NetworkId::LEN + 8 + 4 + 4 + 2;
const _: () = assert!(FIXED_LEN + 2 * VERSIONS_MAX + RELAY_DESCRIPTOR_LEN_MAX <= BODY_LEN);

/// The version of the link protocol that both sides of a link speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkVersion(pub u16);

/// The first cell of each side, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions it speaks, 1 to [`VERSIONS_MAX`] of them.
    pub versions: Vec<u16>,
    /// The network it belongs to.
    pub network: NetworkId,
    /// Its clock.
    pub clock: WallTime,
    /// The mark of its network's parameters ([`crate::network::Params::mark`]). A client says
    /// none (§2.4(8)).
    pub parameters: Option<NonZeroU32>,
    /// One bit for each optional feature it has; unknown bits mean nothing.
    pub features: u32,
    /// A relay's own descriptor, not yet verified; a client has none.
    pub descriptor: Option<Vec<u8>>,
}

impl Hello {
    /// A relay's `Hello` (§2.4(5)); its descriptor is not verified here.
    pub fn of_relay(network: &Network, clock: WallTime, descriptor: Vec<u8>) -> Self {
        Self {
            versions: vec![LINK_VERSION],
            network: network.id,
            clock,
            parameters: Some(network.params.mark()),
            features: 0,
            descriptor: Some(descriptor),
        }
    }

    /// A client's `Hello`: its clock is cut to the hour, since seconds would tell clients apart
    /// (§2.4(5)).
    pub fn of_client(network: NetworkId, clock: WallTime) -> Self {
        Self {
            versions: vec![LINK_VERSION],
            network,
            clock: clock.to_hour(),
            parameters: None,
            features: 0,
            descriptor: None,
        }
    }

    /// The cell that says this.
    ///
    /// # Panics
    /// There is no version or there are too many, or the descriptor is empty or too long: all of
    /// them ours.
    pub fn encode(&self) -> Cell {
        let descriptor = self.descriptor.as_deref().unwrap_or_default();
        assert!(
            (1..=VERSIONS_MAX).contains(&self.versions.len()),
            "there are 1 to VERSIONS_MAX versions"
        );
        assert!(
            self.descriptor.is_none() || !descriptor.is_empty(),
            "no descriptor is written as an empty one"
        );
        assert!(
            descriptor.len() <= RELAY_DESCRIPTOR_LEN_MAX,
            "a descriptor is as long as it may be"
        );
        let count = u8::try_from(self.versions.len())
            .unwrap_or_else(|_| unreachable!("at most VERSIONS_MAX"));
        let len = u16::try_from(descriptor.len())
            .unwrap_or_else(|_| unreachable!("at most RELAY_DESCRIPTOR_LEN_MAX"));

        let mut bytes = Vec::with_capacity(FIXED_LEN + 2 * VERSIONS_MAX + descriptor.len());
        bytes.push(count);
        bytes.extend(
            self.versions
                .iter()
                .flat_map(|version| version.to_be_bytes()),
        );
        bytes.extend_from_slice(self.network.as_bytes());
        bytes.extend_from_slice(&self.clock.as_secs().to_be_bytes());
        let parameters = self.parameters.map_or(0, NonZeroU32::get);
        bytes.extend_from_slice(&parameters.to_be_bytes());
        bytes.extend_from_slice(&self.features.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(descriptor);
        let mut cell = Cell::new(None, Command::Hello);
        let (head, _) = cell.body_mut().split_at_mut(bytes.len());
        head.copy_from_slice(&bytes);
        cell
    }

    /// Reads the first cell of a link.
    ///
    /// # Errors
    /// The cell is not a `Hello`, or not a well-formed one.
    pub fn decode(cell: &Cell) -> Result<Self, Violation> {
        match cell.header()? {
            (None, Command::Hello) => Ok(Self::decode_body(cell.body())?),
            _ => Err(Violation::Hello),
        }
    }

    /// The highest version that both sides speak.
    ///
    /// # Errors
    /// The other side belongs to another network, or there is no such version: the link is closed.
    pub fn negotiate(&self, theirs: &Self) -> Result<LinkVersion, Violation> {
        if self.network != theirs.network {
            return Err(Violation::Network);
        }
        let common = self
            .versions
            .iter()
            .copied()
            .filter(|version| theirs.versions.contains(version));
        common.max().map(LinkVersion).ok_or(Violation::Version)
    }

    /// The peer's `Hello`, from the first cell that came on the link.
    ///
    /// # Errors
    /// As [`decode`](Self::decode) and [`negotiate`](Self::negotiate): the link is closed.
    pub fn accept(&self, first: &Cell) -> Result<Self, Violation> {
        let theirs = Self::decode(first)?; // §2.4(2)
        self.negotiate(&theirs)?;
        Ok(theirs)
    }

    /// Whether the peer says that it runs the network with other parameters than `ours` (§2.4(8)).
    pub fn differs(&self, ours: NonZeroU32) -> bool {
        self.parameters.is_some_and(|theirs| theirs != ours)
    }

    fn decode_body(body: &[u8; BODY_LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let count = usize::from(reader.u8()?);
        if count == 0 {
            return Err(Malformed::Value);
        }
        if count > VERSIONS_MAX {
            return Err(Malformed::TooLong);
        }
        let versions = (0..count).map(|_| reader.u16()).collect::<Result<_, _>>()?;
        let network = NetworkId(reader.array()?);
        let clock = WallTime(reader.u64()?);
        let parameters = NonZeroU32::new(reader.u32()?);
        let features = reader.u32()?;
        let descriptor_len = usize::from(reader.u16()?);
        if descriptor_len > RELAY_DESCRIPTOR_LEN_MAX {
            return Err(Malformed::TooLong);
        }
        let descriptor = reader.bytes(descriptor_len)?;
        reader.finish_zero()?;
        let descriptor = (!descriptor.is_empty()).then(|| descriptor.to_vec());
        Ok(Self {
            versions,
            network,
            clock,
            parameters,
            features,
            descriptor,
        })
    }
}
