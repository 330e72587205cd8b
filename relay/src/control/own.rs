//! What a relay says of itself, when that changes from outside: new addresses, new limits, another
//! relay with its identity.

use std::net::SocketAddr;

use rand::CryptoRng;
use umbel_proto::directory::descriptor::{DescriptorFault, Unverified};
use umbel_proto::time::{Duration, Instant, WallTime};

use super::upkeep::issue_descriptor;
use super::{Control, Tuning};

/// How soon this relay outdoes another descriptor of itself once more: two relays that do so tell
/// the whole network each time.
const OUTDO_INTERVAL: Duration = Duration::from_secs(3600);

/// Descriptors of this relay that come from elsewhere.
#[derive(Debug, Default)]
pub(super) struct Twins {
    outdone_at: Option<Instant>,
}

impl Control {
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
