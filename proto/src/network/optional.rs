//! What a network file says beyond what nodes must agree on: a node may ignore it, so later versions
//! add to it without locking out earlier ones (docs/protocol.md §8.6(8)).

use serde::{Deserialize, Serialize};

use super::NetworkFault;
use crate::limits::OPTIONAL_NAME_LEN_MAX;

/// The table `[optional]` of a network file. This version knows no entry of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Optional(toml::Table);

impl Optional {
    /// The names of its entries, all of which this version ignores.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether the file has none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table as it is written at the end of a file.
    pub(super) fn to_toml(&self) -> String {
        let lines = self
            .0
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"));
        if self.is_empty() {
            String::new()
        } else {
            format!("\n[optional]\n{}", lines.collect::<String>())
        }
    }

    /// Refuses names that could not be shown as they are.
    pub(super) fn check(self) -> Result<Self, NetworkFault> {
        let is_name_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = |name: &str| {
            (1..=OPTIONAL_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_name_byte)
        };
        if self.names().all(is_name) {
            Ok(self)
        } else {
            Err(NetworkFault::Optional)
        }
    }
}
