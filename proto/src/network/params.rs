//! The numbers a network runs by: one row each, with its default, its value in the local network,
//! its range, and why.

use core::num::NonZeroU32;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{AddressGroups, AsMap, NetworkFault, weak};
use crate::crypto::kdf::sha256;
use crate::limits::{
    COMPANIONS_MAX, MAILBOXES_MAX, RECEIPTS_MIN_MAX, RELAY_DESCRIPTOR_LIFE, RING_POSITIONS,
};
use crate::time::Duration;

/// A parameter as the table has it, in words and in a network file's values.
pub(super) struct Row {
    pub(super) key: &'static str,
    /// Its meaning, in lines.
    pub(super) meaning: &'static str,
    pub(super) default: String,
    pub(super) least: String,
    pub(super) most: String,
}

/// From one table: the checked parameters, what a file says of them, and the way from one to the
/// other. After it, the keys that no code reads yet, each with the value that earlier versions
/// wrote into every copy of a network file.
macro_rules! params {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = $default:expr, local $local:expr, in $least:expr => $most:expr;)*
     @unread { $($unread:ident: $written:literal;)* }) => {
        /// The parameters of a network. In a file, a duration is a whole number and its unit:
        /// `500ms`, `2s`, `10min`, `18h`, `7d`. Fields called `mean` are means of exponential
        /// distributions, so that the time already waited says nothing of the time left.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Params {
            $($(#[doc = $doc])* pub $name: $type,)*
        }

        impl Params {
            /// The defaults of a network.
            pub const DEFAULT: Self = Self { $($name: $default,)* };
            /// The parameters of the local network.
            pub const LOCAL: Self = Self { $($name: $local,)* };
        }

        /// Parameters as they are written; those left out have their default.
        #[derive(Default, Serialize, Deserialize)]
        pub(super) struct RawParams {
            /// The keys whose weak values are accepted; in earlier versions, whether all were.
            #[serde(skip_serializing_if = "Option::is_none")]
            danger_accept_weak: Option<toml::Value>,
            $(#[serde(skip_serializing_if = "Option::is_none")] $name: Option<<$type as Tunable>::Raw>,)*
            $(#[serde(skip_serializing)] $unread: Option<toml::Value>,)*
        }

        impl RawParams {
            /// Every key that a file may have, and those that are reserved.
            pub(super) const KEYS: &[&str] =
                &[$(stringify!($name),)* "danger_accept_weak", $(stringify!($unread),)*];

            /// Refuses keys that nothing would come of.
            pub(super) fn check_read(&self) -> Result<(), NetworkFault> {
                $(if self.$unread.is_some() {
                    return Err(NetworkFault::Unread { key: stringify!($unread) });
                })*
                Ok(())
            }

            /// The keys that nothing comes of, but for those that an earlier version wrote by
            /// itself.
            pub(super) fn unread(&self) -> Vec<&'static str> {
                let is_chosen = |value: &toml::Value, written: &str| value.to_string() != written;
                let mut unread = Vec::new();
                $(if self.$unread.as_ref().is_some_and(|value| is_chosen(value, $written)) {
                    unread.push(stringify!($unread));
                })*
                unread
            }

            /// The parameters, each in its range, none contradicting another.
            pub(super) fn check(self) -> Result<Params, NetworkFault> {
                let params =
                    Params { $($name: in_range(stringify!($name), self.$name, $default, &$least, &$most)?,)* };
                params.check_order()?;
                params.check_strength(self.danger_accept_weak.as_ref())?;
                Ok(params)
            }
        }

        /// Each parameter, in the order of the table.
        pub(super) fn rows() -> Vec<Row> {
            vec![$({
                let [default, least, most]: [$type; 3] = [$default, $least, $most];
                Row {
                    key: stringify!($name),
                    meaning: concat!($($doc, "\n"),*),
                    default: default.to_text(),
                    least: least.to_text(),
                    most: most.to_text(),
                }
            },)*]
        }

        impl Params {
            /// Each parameter's value as a network file has it, in the order of the table.
            fn texts(&self) -> Vec<String> {
                vec![$(self.$name.to_text(),)*]
            }
        }

        impl From<&Params> for RawParams {
            fn from(params: &Params) -> Self {
                Self {
                    $($name: Some(params.$name.to_raw()),)*
                    danger_accept_weak: params.needed_acceptance(),
                    ..Self::default()
                }
            }
        }
    };
}

params! {
    /// How addresses are grouped. By prefix, since a network of one's own costs more than many
    /// addresses in one.
    danger_address_groups: AddressGroups =
        AddressGroups::Prefix, local AddressGroups::Port, in AddressGroups::Port => AddressGroups::Prefix;
    /// The SHA-256 of the AS map by which relays count as one operator's, beside their addresses; or
    /// `none`. Prefixes are cheap to rent in one network, so a network without a map is easier to
    /// take over.
    as_map: AsMap = AsMap::None, local AsMap::None, in AsMap::None => AsMap::NEWEST;
    /// Whether relays may have private and loopback addresses. No: a descriptor must not make
    /// others dial into their own network.
    danger_allow_private_addresses: bool = false, local true, in false => true;

    /// Receipts that each address of a descriptor needs. Three, from relays in distinct groups:
    /// addresses nobody dialled cost nothing to claim.
    receipts_min: usize = 3, local 0, in 0 => RECEIPTS_MIN_MAX;
    /// How long a receipt's issuer must have been known. A week, so that an attacker who floods the
    /// network can't vouch for its own relays.
    receipt_issuer_age: Duration = days(7), local secs(0), in secs(0) => days(60);
    /// Seeds of the network file vouch, and need no receipts, while relays in fewer ASes than this are
    /// known for `receipt_issuer_age`; of address groups, where no AS is known. Fifty: a network must
    /// begin, and must not depend on its founders after that.
    seeds_vouch_until: usize = 50, local 50, in 0 => 1000;
    /// How old a receipt may be when the descriptor is issued. A week: a relay is dialled far more
    /// often. Four hours at least: a receipt names the hour, and is renewed at half its life.
    receipt_life: Duration = days(7), local days(7), in hours(4) => days(60);
    /// How long a relay must have been known before anyone draws it. A day, so that views agree on
    /// it by then.
    selectable_age: Duration = hours(24), local secs(0), in secs(0) => days(30);
    /// How long a descriptor must still live to be drawn. Six hours, so that views agree that it is
    /// still there.
    selectable_left: Duration = hours(6), local hours(6), in secs(0) => hours(24);
    /// How often a relay issues its descriptor anew: well within the 48 h that one lives.
    republish: Duration = hours(18), local hours(18), in secs(60) => hours(36);
    /// By how much `republish` varies, either way, so that times don't line up.
    republish_jitter: Duration = hours(3), local hours(3), in secs(0) => hours(6);
    /// How often a relay makes a new onion key: weekly; the one before is honoured for as long
    /// again.
    onion_key_life: Duration = days(7), local days(7), in hours(1) => days(30);

    /// How often relays reconcile their views with a peer. Ten minutes: at 10,000 relays that is
    /// some KB/s.
    sync_interval: Duration = mins(10), local secs(2), in millis(100) => hours(12);
    /// Relays that a relay reconciles with in turn. Eight, each in an address group of its own: who
    /// is to hide news from it needs all of them.
    sync_peers: usize = 8, local 8, in 1 => 32;
    /// Those of them that it asks again after a restart.
    sync_anchors: usize = 2, local 2, in 0 => 8;
    /// How often clients reconcile their views with their primary guards. Two hours: a relay is
    /// selectable only after a day.
    client_sync_interval: Duration = hours(2), local secs(2), in millis(100) => hours(24);

    /// Guards in use are taken from this many primaries: with one in use, two to fall back on.
    guards_primary: usize = 3, local 3, in 1 => 16;
    /// Fewest guards in the persisted sample.
    guards_sample_min: usize = 20, local 20, in 1 => 200;
    /// Most guards in the persisted sample: an attacker who makes guards fail can't make a client
    /// try more than these.
    guards_sample_max: usize = 60, local 60, in 1 => 200;
    /// Guards that a client may try for the first time in any 24 hours, beside the primaries. Two:
    /// who blocks its guards must not walk it through the relays.
    guards_new_a_day: usize = 2, local 8, in 1 => 8;
    /// How long a relay must have been at its address before a client takes it for a new guard. Thirty
    /// days are sound: whoever floods the network pays for a month first. 0s asks for no age.
    guard_age_min: Duration = secs(0), local secs(0), in secs(0) => days(120);
    /// How long a guard stays in the sample unless confirmed. Long: each change is another draw for
    /// the adversary.
    guard_life: Duration = days(120), local days(120), in days(1) => days(400);
    /// How long a guard stays once confirmed.
    guard_life_confirmed: Duration = days(60), local days(60), in days(1) => days(400);
    /// How long a guard that is in no view stays in the sample, so that a short absence doesn't
    /// cost a new draw.
    guard_life_unlisted: Duration = days(20), local days(20), in hours(1) => days(400);
    /// Percent of circuits through one guard that may fail before it is set aside and the user is
    /// warned.
    guard_failures_percent: u32 = 30, local 30, in 1 => 100;
    /// Circuits through a guard before its failures are judged.
    guard_circuits_min: u32 = 20, local 20, in 1 => 1000;
    /// Pinned relays behind the guard. Four: fewer are worn out by load, more are more draws.
    l2_count: usize = 4, local 4, in 1 => 16;
    /// Least life of a pinned relay. Each lives the greater of two uniform draws between the two.
    l2_life_min: Duration = days(1), local days(1), in hours(1) => days(60);
    /// Most life of a pinned relay.
    l2_life_max: Duration = days(12), local days(12), in hours(1) => days(60);

    /// Clean three-hop circuits kept ready, so that a send costs one extend and a round trip.
    circuits_ready: usize = 2, local 2, in 0 => 8;
    /// Circuits one attempt may use up. Three: failing circuits that it can't win is how an
    /// adversary gets more draws.
    circuits_per_attempt: usize = 3, local 3, in 1 => 16;
    /// How long dialling a relay may take, TLS included. A client waits as long again for `Hello`,
    /// and never longer than §2.5(8) says for either.
    dial_timeout: Duration = secs(10), local secs(5), in millis(100) => mins(2);
    /// How long building a circuit may take.
    build_timeout: Duration = secs(10), local secs(10), in millis(100) => mins(2);
    /// How long a request on a built circuit may take. Longer than building: a deposit waits for
    /// the holder's disk.
    request_timeout: Duration = secs(30), local secs(30), in millis(100) => mins(5);
    /// How long after its first use a circuit takes new requests. Ten minutes, as in Tor.
    circuit_dirty: Duration = mins(10), local mins(10), in secs(10) => hours(24);
    /// How long an unused circuit is kept.
    circuit_idle: Duration = mins(30), local mins(30), in secs(10) => hours(24);
    /// Least life of a subscription's circuit. Each lives a uniform draw between the two.
    subscription_life_min: Duration = hours(18), local hours(18), in mins(1) => days(7);
    /// Most life of a subscription's circuit.
    subscription_life_max: Duration = hours(24), local hours(24), in mins(1) => days(7);
    /// How long a link without circuits is kept.
    link_idle: Duration = mins(3), local mins(3), in secs(1) => hours(24);
    /// First wait after a failed attempt; doubles each time, with jitter.
    retry_base: Duration = secs(10), local millis(500), in millis(10) => hours(1);
    /// Longest wait after a failed attempt. An hour: retries must not become a pattern or a load.
    retry_max: Duration = hours(1), local secs(5), in millis(10) => days(1);

    /// Directory relays that keep an inbox's descriptor: all six there may be.
    ring_positions: usize = RING_POSITIONS, local RING_POSITIONS, in 1 => RING_POSITIONS;
    /// Directory relays that must agree on the highest revision of an inbox's descriptor before a
    /// reader believes it (or all, if fewer answer). A reader also waits for four answers, for 3 s
    /// at most once so many agree.
    lookups_agree: usize = 2, local 2, in 1 => RING_POSITIONS;
    /// How often an owner that is online publishes its descriptor again.
    inbox_republish: Duration = hours(24), local hours(24), in mins(1) => days(3);
    /// Mailboxes of an inbox. Three, so that one may be gone and mail still gets two holders. No
    /// more: the descriptor has room for their companions.
    mailboxes: usize = 3, local 3, in 1 => MAILBOXES_MAX - COMPANIONS_MAX;
    /// Holders that must have a message before it leaves the outbox.
    holders_wanted: usize = 2, local 2, in 1 => MAILBOXES_MAX - COMPANIONS_MAX;
    /// Mean wait before the deposit at the second holder: two at once would give a sender away
    /// twice over.
    second_deposit_delay: Duration = secs(30), local secs(0), in secs(0) => hours(1);
    /// Mean time between fetches while in use.
    fetch_interval: Duration = secs(60), local secs(2), in millis(100) => hours(1);
    /// Mean time between fetches in the background.
    fetch_interval_background: Duration = mins(10), local secs(2), in millis(100) => hours(12);
    /// Mean wait before a holder pushes on a subscription, so that a sender can't time the owner's
    /// circuit.
    push_delay: Duration = secs(2), local secs(0), in secs(0) => mins(10);
    /// Records in one contact's queue: a holder keeps their index in sorted lists.
    queue_records_max: usize = 128, local 4096, in 1 => 4096;
    /// Bytes in one contact's queue.
    queue_bytes_max: u64 = 2 * MIB, local 128 * MIB, in MIB / 8 => 1024 * MIB;
    /// Records in one public queue, which takes first messages only.
    public_records_max: usize = 64, local 4096, in 1 => 4096;
    /// Bytes in one public queue.
    public_bytes_max: u64 = MIB / 8, local 128 * MIB, in MIB / 8 => 1024 * MIB;
    /// How long a record is held.
    record_life: Duration = days(14), local days(14), in hours(1) => days(60);
    /// How long a queue is held that nobody fetches from: twice the life of a record.
    queue_life: Duration = days(28), local days(28), in hours(1) => days(400);
    /// Queues one holder keeps.
    queues_max: usize = 65_536, local 65_536, in 1 => 1_000_000;

    /// Handshakes a second that one link is granted; more would let one peer use up a relay's
    /// processors.
    creates_per_second: u32 = 3, local 50, in 1 => 10_000;
    /// Handshakes that one link may save up.
    creates_burst: u32 = 90, local 200, in 1 => 100_000;
    /// Tries, on average, that a stranger's deposit costs unless the owner asks for something else:
    /// some tenths of a second.
    puzzle_effort: u32 = 64, local 0, in 0 => 10_000;
    /// Whether links between client and guard carry padding.
    link_padding: bool = true, local false, in false => true;
    /// Least wait before a padding cell. As Tor has it: each wait is the greater of two uniform
    /// draws between the two.
    padding_min: Duration = millis(1500), local millis(1500), in millis(100) => mins(1);
    /// Most wait before a padding cell.
    padding_max: Duration = millis(9500), local millis(9500), in millis(100) => mins(1);
    /// By how much this clock and the linked relays' may differ before the user is warned: what
    /// epochs need. Within it a client also confirms jumps of its clock, and lets messages expire.
    clock_warn: Duration = hours(1), local hours(1), in secs(1) => hours(24);

    @unread {
        digest_check_interval: "\"1d\"";
        digest_check_relays: "3";
        digest_mismatch_percent: "5";
        clock_jump_max: "\"1d\"";
    }
}

impl RawParams {
    /// Reads `danger_accept_weak` as the version did that took `true` or `false`: `true` accepted
    /// every weakness, and let a client try eight new guards a day.
    pub(super) fn accept_earlier_form(&mut self) {
        let Some(toml::Value::Boolean(is_accepted)) = self.danger_accept_weak else {
            return;
        };
        self.danger_accept_weak = is_accepted.then(weak::accept_all);
        if is_accepted {
            self.guards_new_a_day
                .get_or_insert(Params::LOCAL.guards_new_a_day);
        }
    }
}

/// What is hashed before the parameters.
const MARK_LABEL: &[u8] = b"umbel network parameters 1";

const MIB: u64 = 1024 * 1024;

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn mins(count: u64) -> Duration {
    secs(count * 60)
}

const fn hours(count: u64) -> Duration {
    mins(count * 60)
}

const fn days(count: u64) -> Duration {
    hours(count * 24)
}

impl Params {
    /// What a new network should have. Defaults never change, so that networks without a parameter run
    /// as before it (§8.6(8)).
    pub const NEW: Self = Self {
        as_map: AsMap::NEWEST,
        guard_age_min: days(30),
        ..Self::DEFAULT
    };

    /// Four bytes of a hash of the parameters, by which nodes notice that they run one network by
    /// other numbers (§2.4(8)). Those that have their default are left out: a later version's new
    /// parameter does not change it.
    pub fn mark(&self) -> NonZeroU32 {
        let changed = self.changed().into_iter();
        let lines: Vec<String> = changed
            .map(|(key, text)| format!("{key}={text}\n"))
            .collect();
        let [a, b, c, d, ..] = sha256(&[MARK_LABEL, lines.concat().as_bytes()]);
        NonZeroU32::new(u32::from_be_bytes([a, b, c, d])).unwrap_or(NonZeroU32::MIN)
    }

    /// The parameters that don't have their default, and their values, in order of names as bytes.
    pub(super) fn changed(&self) -> Vec<(&'static str, String)> {
        let all = rows().into_iter().zip(self.texts());
        let mut changed: Vec<_> = all
            .filter(|(row, text)| row.default != *text)
            .map(|(row, text)| (row.key, text))
            .collect();
        changed.sort_unstable();
        changed
    }

    /// How long one hop of a circuit may take: half of what the whole circuit may (§6.4(4)).
    pub fn hop_timeout(&self) -> Duration {
        self.build_timeout / 2
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// From one list: the check of bounds, and what the document is compared with.
macro_rules! orders {
    ($($lower:ident <= $upper:ident;)*) => {
        impl Params {
            /// No lower bound above its upper one.
            fn check_order(&self) -> Result<(), NetworkFault> {
                $(in_order(stringify!($lower), &self.$lower, stringify!($upper), &self.$upper)?;)*
                Ok(())
            }
        }

        #[cfg(test)]
        const ORDERS: &[(&str, &str)] = &[$((stringify!($lower), stringify!($upper)),)*];
    };
}

orders! {
    guards_primary <= guards_sample_min;
    guards_sample_min <= guards_sample_max;
    sync_anchors <= sync_peers;
    l2_life_min <= l2_life_max;
    subscription_life_min <= subscription_life_max;
    retry_base <= retry_max;
    holders_wanted <= mailboxes;
    lookups_agree <= ring_positions;
    creates_per_second <= creates_burst;
    padding_min <= padding_max;
    record_life <= queue_life;
    republish_jitter <= republish;
}

const _: () = assert!(
    hours(36 + 6).as_secs() < RELAY_DESCRIPTOR_LIFE.as_secs(),
    "the rarest republishing there may be, as late as it may be, comes before the descriptor dies"
);

/// A value that a network file can name.
trait Tunable: Sized + PartialOrd {
    /// How it is written.
    type Raw: Serialize + DeserializeOwned;
    /// The expected value, where [`Tunable::from_raw`] finds another.
    const EXPECTED: &'static str;

    fn from_raw(raw: Self::Raw) -> Option<Self>;
    fn to_raw(&self) -> Self::Raw;
    fn to_text(&self) -> String;
}

macro_rules! tunable_as_written {
    ($($type:ty),*) => {$(
        impl Tunable for $type {
            type Raw = Self;
            const EXPECTED: &'static str = stringify!($type);

            fn from_raw(raw: Self) -> Option<Self> {
                Some(raw)
            }

            fn to_raw(&self) -> Self {
                *self
            }

            fn to_text(&self) -> String {
                format!("{self:?}").to_ascii_lowercase()
            }
        }
    )*};
}

tunable_as_written!(bool, u32, u64, usize, AddressGroups);

impl Tunable for AsMap {
    type Raw = String;
    const EXPECTED: &'static str = "none, or the SHA-256 of an AS map that this version ships";

    fn from_raw(raw: String) -> Option<Self> {
        Self::from_name(&raw)
    }

    fn to_raw(&self) -> String {
        self.to_text()
    }

    fn to_text(&self) -> String {
        self.name().to_owned()
    }
}

/// The units of a duration (§8.6(4)).
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl Tunable for Duration {
    type Raw = String;
    const EXPECTED: &'static str =
        "a whole number and its unit, such as 500ms, 2s, 10min, 18h or 7d";

    fn from_raw(raw: String) -> Option<Self> {
        let digits = raw.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = raw.split_at_checked(digits)?;
        let (_, unit_millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        count
            .parse::<u64>()
            .ok()?
            .checked_mul(*unit_millis)
            .map(Self::from_millis)
    }

    fn to_raw(&self) -> String {
        self.to_text()
    }

    fn to_text(&self) -> String {
        let millis = self.as_millis();
        let is_whole =
            |unit_millis: u64| millis != 0 && millis.is_multiple_of(u128::from(unit_millis));
        let unit = UNITS
            .iter()
            .rev()
            .find(|(_, unit_millis)| is_whole(*unit_millis));
        match unit {
            Some((name, unit_millis)) => format!("{}{name}", millis / u128::from(*unit_millis)),
            None => "0s".to_owned(),
        }
    }
}

fn in_range<T: Tunable>(
    key: &'static str,
    raw: Option<T::Raw>,
    default: T,
    least: &T,
    most: &T,
) -> Result<T, NetworkFault> {
    let Some(raw) = raw else { return Ok(default) };
    let value = T::from_raw(raw).ok_or(NetworkFault::Value {
        key,
        expected: T::EXPECTED,
    })?;
    if value < *least || value > *most {
        return Err(NetworkFault::Range {
            key,
            least: least.to_text(),
            most: most.to_text(),
        });
    }
    Ok(value)
}

fn in_order<T: Tunable>(
    key: &'static str,
    lower: &T,
    bound: &'static str,
    upper: &T,
) -> Result<(), NetworkFault> {
    if lower <= upper {
        Ok(())
    } else {
        Err(NetworkFault::Order { key, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_parameters_pass_their_own_checks() {
        for params in [Params::DEFAULT, Params::LOCAL] {
            assert_eq!(RawParams::from(&params).check(), Ok(params));
        }
    }

    const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

    /// The rows of the document's table of parameters, their cells without what marks code.
    fn documented() -> Vec<Vec<String>> {
        let (_, table) = PROTOCOL
            .split_once("| parameter | default | local | least | most | weak |\n")
            .unwrap();
        let rows = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        let cells = |line: &str| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        };
        rows.map(cells).collect()
    }

    #[test] // appendix A
    fn the_document_has_every_parameter_with_its_values_and_no_other() {
        let (documented, rows) = (documented(), rows());
        let local = Params::LOCAL.texts();
        let names = |rows: &mut dyn Iterator<Item = String>| rows.collect::<Vec<_>>();
        assert_eq!(
            names(&mut documented.iter().map(|row| row[0].clone())),
            names(&mut rows.iter().map(|row| row.key.to_owned()))
        );
        for ((documented, row), local) in documented.iter().zip(&rows).zip(&local) {
            let values = [&row.default, local, &row.least, &row.most];
            assert!(documented[1..5].iter().eq(values), "{}", row.key);
        }
    }

    #[test] // appendix A
    fn the_document_has_the_bounds_that_may_not_cross() {
        let (_, list) = PROTOCOL.split_once("Bounds that must not cross: ").unwrap();
        let (list, _) = list.split_once('.').unwrap();
        let pair = |text: &str| {
            let (lower, upper) = text.split_once('≤').unwrap();
            let name = |text: &str| text.trim().trim_matches('`').to_owned();
            (name(lower), name(upper))
        };
        let documented: Vec<_> = list.split(',').map(pair).collect();
        let ours: Vec<_> = ORDERS
            .iter()
            .map(|&(lower, upper)| (lower.to_owned(), upper.to_owned()))
            .collect();
        assert_eq!(documented, ours);
    }

    #[test] // appendix A
    fn the_document_has_the_values_that_weaken() {
        assert_eq!(
            Params::LOCAL.weaknesses().count(),
            weak::WEAKNESSES.len(),
            "the local network has each of them"
        );
        assert_eq!(Params::DEFAULT.weaknesses().count(), 0);
        for row in documented() {
            let values = weak::values_of(&row[0]).unwrap_or_default();
            assert_eq!(row[5], values, "{}", row[0]);
        }
    }

    #[test] // §2.4(8)
    fn the_mark_is_of_what_differs_from_the_defaults_in_order_of_names() {
        let mark = |lines: &[u8]| {
            let hash = sha256(&[b"umbel network parameters 1", lines]);
            u32::from_be_bytes(hash[..4].try_into().unwrap())
        };
        assert_eq!(Params::DEFAULT.mark().get(), mark(b""));
        let other = Params {
            receipts_min: 2,
            clock_warn: mins(90),
            danger_address_groups: AddressGroups::Port,
            ..Params::DEFAULT
        };
        let lines = b"clock_warn=90min\ndanger_address_groups=port\nreceipts_min=2\n";
        assert_eq!(other.mark().get(), mark(lines));
    }

    #[test] // §8.6(4)
    fn durations_are_written_in_their_largest_whole_unit() {
        let texts = [
            (millis(1500), "1500ms"),
            (secs(90), "90s"),
            (mins(60), "1h"),
            (days(14), "14d"),
            (secs(0), "0s"),
        ];
        for (duration, text) in texts {
            assert_eq!(duration.to_text(), text);
            assert_eq!(Duration::from_raw(text.to_owned()), Some(duration));
        }
    }
}
