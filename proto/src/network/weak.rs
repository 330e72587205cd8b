//! Values of parameters that weaken anonymity: a network file must accept each by its key
//! (docs/protocol.md §8.6(5)).

use super::params::Params;
use super::{AddressGroups, NetworkFault, nearest};

/// A parameter that weakens anonymity with some of its values.
#[derive(Debug)]
pub struct Weakness {
    /// Its key.
    pub key: &'static str,
    /// The values that weaken, as Appendix A has them.
    pub values: &'static str,
    /// What follows from such a value.
    pub consequence: &'static str,
    is_in: fn(&Params) -> bool,
}

/// What a file must name in `danger_accept_weak`.
pub(super) const WEAKNESSES: [Weakness; 7] = [
    Weakness {
        key: "danger_address_groups",
        values: "port",
        consequence: "one machine can hold every position of a path",
        is_in: |params| matches!(params.danger_address_groups, AddressGroups::Port),
    },
    Weakness {
        key: "receipts_min",
        values: "0",
        consequence: "relays that nobody reached are believed, so invented ones cost nothing",
        is_in: |params| params.receipts_min == 0,
    },
    Weakness {
        key: "selectable_age",
        values: "0s",
        consequence: "a relay is used the moment it appears, before views agree on it",
        is_in: |params| params.selectable_age.is_zero(),
    },
    Weakness {
        key: "guards_new_a_day",
        values: "over 2",
        consequence: "who blocks a client's guards walks it through the relays sooner",
        is_in: |params| params.guards_new_a_day > 2,
    },
    Weakness {
        key: "second_deposit_delay",
        values: "0s",
        consequence: "all copies of a message leave at once and can be linked",
        is_in: |params| params.second_deposit_delay.is_zero(),
    },
    Weakness {
        key: "push_delay",
        values: "0s",
        consequence: "a sender can time when the owner's circuit carries the message",
        is_in: |params| params.push_delay.is_zero(),
    },
    Weakness {
        key: "link_padding",
        values: "false",
        consequence: "someone who watches the line sees when a client is in use",
        is_in: |params| !params.link_padding,
    },
];

/// The keys that `danger_accept_weak` may name.
fn keys() -> impl Iterator<Item = &'static str> {
    WEAKNESSES.iter().map(|weakness| weakness.key)
}

/// The values of this parameter that weaken, as Appendix A has them.
pub(super) fn values_of(key: &str) -> Option<&'static str> {
    let known = WEAKNESSES.iter().find(|weakness| weakness.key == key);
    known.map(|weakness| weakness.values)
}

/// Accepts everything, which the earlier form of `danger_accept_weak`, `true`, did.
pub(super) fn accept_all() -> toml::Value {
    list(keys())
}

/// An acceptance as it is written.
fn list(keys: impl Iterator<Item = &'static str>) -> toml::Value {
    toml::Value::Array(keys.map(toml::Value::from).collect())
}

impl Params {
    /// The values of these parameters that weaken anonymity.
    pub fn weaknesses(&self) -> impl Iterator<Item = &'static Weakness> {
        WEAKNESSES.iter().filter(|weakness| (weakness.is_in)(self))
    }

    /// What a file with these parameters must say in `danger_accept_weak`, if anything.
    pub(super) fn needed_acceptance(&self) -> Option<toml::Value> {
        let keys: Vec<_> = self.weaknesses().map(|weakness| weakness.key).collect();
        (!keys.is_empty()).then(|| list(keys.into_iter()))
    }

    /// Nothing that weakens anonymity, unless the file accepts it by its key.
    pub(super) fn check_strength(
        &self,
        accepted: Option<&toml::Value>,
    ) -> Result<(), NetworkFault> {
        let needed = || self.needed_acceptance().map(|list| list.to_string());
        let accepted = match accepted {
            None => Vec::new(),
            Some(toml::Value::Array(names)) => names
                .iter()
                .map(accepted_key)
                .collect::<Result<_, NetworkFault>>()?,
            Some(_) => return Err(NetworkFault::Acceptance { needed: needed() }),
        };
        match self
            .weaknesses()
            .find(|weakness| !accepted.contains(&weakness.key))
        {
            Some(weakness) => Err(NetworkFault::Weak {
                key: weakness.key,
                needed: needed().unwrap_or_default(),
            }),
            None => Ok(()),
        }
    }
}

/// One entry of `danger_accept_weak`.
fn accepted_key(written: &toml::Value) -> Result<&'static str, NetworkFault> {
    let name = written.as_str().unwrap_or_default();
    keys()
        .find(|key| *key == name)
        .ok_or_else(|| NetworkFault::Unknown {
            key: format!("params.danger_accept_weak: {written}"),
            nearest: nearest::nearest(name, keys()),
        })
}
