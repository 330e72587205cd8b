//! A relay's own descriptor (docs/protocol.md §8.1): issued, issued anew when it ages or its
//! addresses change, and defended against another process with the same identity.

use std::net::SocketAddr;

use rand::{CryptoRng, RngExt};
use umbel_proto::directory::descriptor::{DescriptorFault, RelayDescriptor, Unverified};
use umbel_proto::time::{Duration, Instant, WallTime};

use super::io::News;
use super::keys::OnionKeys;
use super::{Control, ControlConfig, Tuning};

/// How soon this relay outdoes another descriptor of itself once more: two relays that do so tell
/// the whole network each time.
const OUTDO_INTERVAL: Duration = Duration::from_secs(3600);

/// This relay's descriptor, and when it is issued anew.
pub(super) struct OwnDescriptor {
    pub(super) bytes: Vec<u8>,
    pub(super) issued_at: WallTime,
    pub(super) republish_at: WallTime,
}

/// This relay's descriptor, as of now.
pub(super) fn issue_descriptor(
    config: &ControlConfig,
    keys: &OnionKeys,
    wall: WallTime,
    rng: &mut dyn CryptoRng,
) -> OwnDescriptor {
    let descriptor = RelayDescriptor {
        network: config.network.id,
        relay: config.identity.public().into(),
        onion_keys: keys.public(),
        addresses: config.addresses.clone(),
        roles: config.roles,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        issued_at: wall,
        receipts: Vec::new(),
        puzzle: 0,
    };
    let params = &config.network.params;
    let jitter = params.republish_jitter.mul_f64(rng.random_range(0.0..2.0));
    let republish_at = wall + (params.republish + jitter).saturating_sub(params.republish_jitter);
    OwnDescriptor {
        bytes: descriptor.sign(&config.identity),
        issued_at: wall,
        republish_at,
    }
}

/// Descriptors of this relay that come from elsewhere.
#[derive(Debug, Default)]
pub(super) struct Twins {
    outdone_at: Option<Instant>,
}

impl Control {
    /// Takes our own descriptor into our view. One that nobody vouches for yet is not believed by
    /// us either.
    pub(super) fn view_own_descriptor(&mut self, wall: WallTime) {
        if self.config.addresses.is_empty() {
            return; // nobody can dial it yet; whoever looks for its addresses has said so
        }
        if let Err(fault) = self
            .book
            .own(&self.config.network, wall, &self.descriptor.bytes)
        {
            self.out.news.push_back(News::DescriptorRefused(fault));
        }
    }

    /// Issues the descriptor anew and passes it on.
    pub(super) fn reissue(&mut self, wall: WallTime, rng: &mut dyn CryptoRng) {
        self.keys.redate(wall, &mut self.out.store);
        self.descriptor = issue_descriptor(&self.config, &self.keys, wall, rng);
        self.view_own_descriptor(wall);
        let bytes = self.descriptor.bytes.clone();
        self.spread(&bytes);
    }

    /// A descriptor of this relay came from a peer. One that this process did not issue and that is
    /// newer is of the time before its clock was set back, or of another process with the same
    /// identity: it is never taken, and outdone at the next sweep.
    pub(super) fn on_own_descriptor(&mut self, now: Instant, wall: WallTime, came: Unverified) {
        let is_newer = Unverified::decode(&self.descriptor.bytes).is_ok_and(|own| {
            (came.issued_at(), came.hash()) > (own.issued_at(), own.hash()) // as every view judges
        });
        if !is_newer {
            return;
        }
        let Ok(came) = came.verify(&self.config.network, wall) else {
            return;
        };
        if came.addresses != self.config.addresses {
            self.stats.twins += 1;
        }
        let is_early = self
            .twins
            .outdone_at
            .is_some_and(|at| now < at + OUTDO_INTERVAL);
        if !is_early {
            self.twins.outdone_at = Some(now);
            self.descriptor.republish_at = wall.max(came.issued_at + Duration::from_secs(1));
        }
    }

    /// The relay is dialled at other addresses now: its descriptor is issued anew and passed on.
    ///
    /// # Errors
    /// Others would not take a descriptor with these addresses; the one before stays.
    pub fn handle_addresses(
        &mut self,
        wall: WallTime,
        addresses: Vec<SocketAddr>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DescriptorFault> {
        let before = std::mem::replace(&mut self.config.addresses, addresses);
        // Of two from one second neither would count as the newer.
        let at = wall.max(self.descriptor.issued_at + Duration::from_secs(1));
        let issued = issue_descriptor(&self.config, &self.keys, at, rng);
        let verified = Unverified::decode(&issued.bytes)
            .and_then(|own| own.verify(&self.config.network, wall));
        if let Err(fault) = verified
            && matches!(
                fault,
                DescriptorFault::Address
                    | DescriptorFault::AddressPrivate
                    | DescriptorFault::NoAddress
            )
        {
            self.config.addresses = before;
            return Err(fault);
        }
        self.descriptor = issued;
        self.view_own_descriptor(wall);
        let bytes = self.descriptor.bytes.clone();
        self.spread(&bytes);
        Ok(())
    }

    /// How often a descriptor of this relay came that another process issued.
    pub fn twin_count(&self) -> u64 {
        self.stats.twins
    }

    /// The operator changed what may change while the relay runs. What is over a new limit stays;
    /// what is new is refused.
    pub fn handle_tuning(&mut self, tuning: Tuning) {
        let own = self.relay;
        self.config.seeds = tuning
            .seeds
            .into_iter()
            .filter(|seed| seed.id != own)
            .collect();
        self.config.circuits_max = tuning.circuits_max;
        self.config.inbox_descriptors_max = tuning.inbox_descriptors_max;
        self.services.set_holder_limits(tuning.holder);
    }
}
