//! A network file for people: every parameter with its meaning, default and range, all from the
//! table by which the file is read; and the file as relays hand it on (docs/protocol.md §8.6).

use super::params::{RawParams, Row, rows};
use super::{Network, weak};
use crate::ids::Peer;

const ABOUT: &str = "\
# Everyone in this network uses this file, unchanged: relays from `umbel-relay init --network FILE`,
# users from `umbel init --network FILE`. Nodes with other parameters disagree with the rest about
# who is believed and where inboxes are. §8.6 of Umbel's docs/protocol.md has the rules;
# `umbel-relay network check FILE` says what is weak.
";

const ABOUT_PARAMS: &str = "\
# All parameters, also those that have their default: a network must not depend on the defaults of
# the version that someone runs. A duration is a whole number and its unit: ms, s, min, h or d.
";

impl Network {
    /// Writes a network file that names and explains every parameter.
    pub fn to_explained_toml(&self) -> String {
        let seeds: String = self.seeds.iter().map(seed_line).collect();
        let mut text = format!(
            "{ABOUT}\n\
             # Random. It is in every handshake and signature, so that networks never mix.\n\
             id = \"{}\"\n\n\
             # For people; it has no other meaning.\n\
             name = \"{}\"\n\n\
             # Relays to join through: any relay would do. While the network is young they also vouch\n\
             # for newcomers (seeds_vouch_until).\n\
             seeds = [{}{seeds}]\n\n\
             {ABOUT_PARAMS}[params]\n",
            self.id,
            self.name,
            if seeds.is_empty() { "" } else { "\n" },
        );
        if let Some(list) = self.params.needed_acceptance() {
            text.push_str("\n# The parameters whose values weaken anonymity; this is accepted.\n");
            text.push_str(&format!("danger_accept_weak = {list}\n"));
        }
        // What was a checked parameter always has a TOML form.
        let values = toml::Table::try_from(RawParams::from(&self.params)).unwrap_or_default();
        for row in rows() {
            if let Some(value) = values.get(row.key) {
                text.push_str(&entry(&row, value));
            }
        }
        text.push_str(&self.optional.to_toml());
        text
    }
}

impl Network {
    /// The file as relays hand it on (§8.6(10)): only what differs from the defaults, so that all
    /// versions that can read a network's file write the same bytes.
    pub fn to_shared_toml(&self) -> String {
        let quoted = |seed: &Peer| toml::Value::from(seed.to_string()).to_string();
        let seeds: Vec<String> = self.seeds.iter().map(quoted).collect();
        let mut text = format!(
            "id = \"{}\"\nname = \"{}\"\nseeds = [{}]\n[params]\n",
            self.id,
            self.name,
            seeds.join(", "),
        );
        if let Some(list) = self.params.needed_acceptance() {
            text.push_str(&format!("danger_accept_weak = {list}\n"));
        }
        let values = toml::Table::try_from(RawParams::from(&self.params)).unwrap_or_default();
        for (key, _) in self.params.changed() {
            if let Some(value) = values.get(key) {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text.push_str(&self.optional.to_toml());
        text
    }
}

fn seed_line(seed: &Peer) -> String {
    format!("    {},\n", toml::Value::from(seed.to_string()))
}

/// One parameter with its explanation.
fn entry(row: &Row, value: &toml::Value) -> String {
    let meaning: String = row
        .meaning
        .lines()
        .map(|line| format!("#{line}\n"))
        .collect();
    let weak = weak::values_of(row.key).map_or_else(String::new, |values| {
        format!(" Weakens anonymity: {values}.")
    });
    format!("\n{meaning}# {}{weak}\n{} = {value}\n", range(row), row.key)
}

/// The default and the range of a parameter. What is no number has two values.
fn range(row: &Row) -> String {
    let is_number = row.least.starts_with(|first: char| first.is_ascii_digit());
    let (from, to) = if is_number {
        ("from ", " to ")
    } else {
        ("", " or ")
    };
    format!(
        "Default {}, {from}{}{to}{}.",
        row.default, row.least, row.most
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{AsMap, Params};

    const SEED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@relay.example:7443";

    #[test] // §8.6(3)
    fn an_explained_file_is_read_as_the_network_it_was_written_from() {
        let local = Network::local();
        let strong = Network {
            seeds: vec![SEED.parse().unwrap(), SEED.parse().unwrap()],
            params: Params {
                as_map: AsMap::NEWEST,
                ..Params::DEFAULT
            },
            ..local.clone()
        };
        let growing = format!("{}[optional]\ncontact = {{ a = [1] }}\n", local.to_toml());
        let growing = Network::from_toml(&growing).unwrap();
        for network in [local, strong, growing] {
            let text = network.to_explained_toml();
            assert_eq!(Network::from_toml(&text), Ok(network), "{text}");
        }
    }

    #[test] // appendix A
    fn every_parameter_is_written_under_its_meaning_default_and_range() {
        let network = Network {
            params: Params::DEFAULT,
            ..Network::local()
        };
        let text = network.to_explained_toml();
        for row in rows() {
            assert!(!row.meaning.is_empty(), "{}", row.key);
            let at = text.find(&format!("\n{} = ", row.key)).unwrap();
            let above = text[..at].rsplit("\n\n").next().unwrap();
            assert!(above.contains(&range(&row)), "{above}");
            for line in row.meaning.lines() {
                assert!(above.contains(line), "{above}");
            }
        }
        let receipts = "# Default 3, from 0 to 3. Weakens anonymity: 0.\nreceipts_min = 3\n";
        assert!(text.contains(receipts), "{text}");
        assert!(text.contains("# Default false, false or true.\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
