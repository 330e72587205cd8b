//! What a relay says of itself, when that changes from outside: new addresses, new limits, another relay with its identity.

use std::net::SocketAddr;

use rand::CryptoRng;
use umbel_proto::directory::descriptor::{DescriptorFault, Unverified};
use umbel_proto::time::{Duration, WallTime};

use super::upkeep::issue_descriptor;
use super::{Control, Tuning};

impl Control {
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
        let at = Unverified::decode(&self.descriptor.bytes)
            .map_or(wall, |own| wall.max(own.issued_at() + Duration::from_secs(1)));
        let issued = issue_descriptor(&self.config, &self.keys, at, rng);
        let verified = Unverified::decode(&issued.bytes).and_then(|own| own.verify(&self.config.network, wall));
        if let Err(fault) = verified
            && matches!(fault, DescriptorFault::Address | DescriptorFault::AddressPrivate | DescriptorFault::NoAddress)
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

    /// The operator changed what may change while the relay runs. What is over a new limit stays; what is new is refused.
    pub fn handle_tuning(&mut self, tuning: Tuning) {
        let own = self.relay;
        self.config.seeds = tuning.seeds.into_iter().filter(|seed| seed.id != own).collect();
        self.config.circuits_max = tuning.circuits_max;
        self.config.inbox_descriptors_max = tuning.inbox_descriptors_max;
        self.services.set_holder_limits(tuning.holder);
    }
}
