//! The numbers of docs/protocol.md, appendix A, are those of `limits.rs`, and all of them. So are
//! those that its rules repeat.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "reads the document and the source; a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;

use umbel_proto::limits::*;
use umbel_proto::time::Duration;

/// A number as the table is read: without separators, times in microseconds.
trait Number {
    fn text(&self) -> String;
}

macro_rules! plain {
    ($($number:ty),*) => {
        $(impl Number for $number {
            fn text(&self) -> String {
                self.to_string()
            }
        })*
    };
}

plain!(u8, u16, u32, u64, usize, f64);

impl Number for Duration {
    fn text(&self) -> String {
        format!("{} us", self.as_micros())
    }
}

impl Number for [usize; 4] {
    fn text(&self) -> String {
        self.map(|number| number.text()).join(", ")
    }
}

macro_rules! limits {
    ($($name:ident)*) => {
        fn constants() -> BTreeMap<String, String> {
            BTreeMap::from([$((stringify!($name).to_owned(), $name.text())),*])
        }
    };
}

limits! {
    CLOCK_JUMP_MIN CLOCK_CONFIRM_AFTER CLOCK_CONFIRMED_BY_ONE_MAX CLOCK_STARTS_APART
    CLOCK_STARTS_CONFIRM CELL_LEN CELL_HEADER_LEN BODY_LEN VERSIONS_MAX HANDSHAKE_MAX
    LINK_KEEPALIVE LINK_SILENCE_MIN LINK_SILENCE_MAX LINK_CLOSING_MAX LINK_UNUSED_MAX TAG_LEN
    HOP_OVERHEAD_LEN EARLY_CELLS_MAX MSG_LEN_LEN BACKWARD_ROOM CIRCUIT_QUEUE_CELLS_MAX
    RELAY_CREATES_FACTOR HOPS_MAX EXTEND_WAITERS_MAX EXTEND_DIALS_MAX CREATES_PACE
    CREATES_BURST_PERCENT GUARD_REFUSALS_MAX GUARDS_ONE_IN GUARD_STAGGER PRIMARIES_FIRST
    OFFLINE_RETRY OFFLINE_SHORT OFFLINE_RETRY_MAX LINK_LIFE_MIN GUARD_MISSES_MAX
    RENEWAL_INTERVAL RENEWALS_AT_ONCE PUSH_INTERVAL PUSHED_AT_ONCE STRANGER_PUSH_INTERVAL
    STRANGER_PUSHED_AT_ONCE PUSH_SOURCES_MAX NEWS_SPREAD_MAX SYNC_NO_NEWS_MAX SYNC_LEN_MAX
    HIDDEN_MIN HIDDEN_PERCENT HIDDEN_SOURCES_MIN SEEDS_DIFFER_MIN SEEDS_DIFFER_PERCENT NETWORK_NEW_FOR
    SEEDS_COMPARED_MAX SECOND_SOURCE_WAIT SYNC_FAR_IN SYNC_FAR_PAUSE ROUND_STAGGER ROUND_PAUSE_MAX COMPARE_UNIT
    COMPARE_INTERVAL COMPARED_AT_ONCE COMPARE_ALL_INTERVAL COMPARED_ALL_AT_ONCE
    COMPARE_PART_INTERVAL COMPARED_PART_AT_ONCE COMPARE_RESERVE_INTERVAL COMPARED_RESERVE_AT_ONCE
    HELPERS_MAX HELPERS_FOR SEEDS_FIRST PATH_RELAYS_MIN SUSPECT_BROKEN_MIN SUSPECT_UNBUILT_MIN
    SUSPECT_UNBUILT_L2_MIN SUSPECT_NAMED_MIN SUSPECT_FRAMED_MIN L2_FAILURES_MAX L3_COUNT L3_LIFE_MIN L3_LIFE_MAX GUARD_BLAME_L2
    GUARD_BLAME_MIDDLES GUARD_BLAME_TERMINALS GUARD_BLAME_A_TERMINAL GUARD_BLAME_KEPT
    GUARD_COUNTS_MAX SET_ASIDE_MAX SET_ASIDE_WINDOW NO_CIRCUITS_TOLD_EVERY
    LINK_TEST_MAX LINK_ANSWER_MAX LINK_LATE_MAX MACHINE_SLEEP_MIN DATA_HEADER_LEN
    FORWARD_DATA_MAX BACKWARD_DATA_MAX STREAMS_MAX FINISHED_STREAMS_MAX FRAME_LEN_MAX
    REASSEMBLY_BYTES_MAX OUTGOING_BYTES_MAX WINDOW_INITIAL_CELLS WINDOW_MAX_CELLS
    CREDIT_EVERY_CELLS RELAY_DESCRIPTOR_LEN_MAX ADDRESSES_MAX ONION_KEYS_MAX
    RECEIPTS_AN_ADDRESS_MAX RECEIPTS_MAX RECEIPTS_MIN_MAX RECEIPT_DIALS_MAX RECEIPT_DIAL_TIMEOUT
    RECEIPT_DIALS_A_GROUP_MAX RECEIPT_RESTS_A_GROUP_MAX
    RECEIPT_PAUSE RECEIPT_RETRY_PAUSE RECEIPT_ASK_TIMEOUT RECEIPT_ASK_PAUSE
    RECEIPT_ASK_PAUSE_MAX RECEIPT_REISSUE_PAUSE RECEIPT_IDLE_PAUSE RECEIPT_ADDRESSES_MAX
    RECEIPT_PORTS_MAX RELAYS_A_HOST_MAX RECEIPT_PAUSE_SHARE RECEIPT_IPS_V4_24_MAX
    RECEIPT_IPS_V4_16_MAX RECEIPT_IPS_V6_64_MAX RECEIPT_IPS_V6_48_MAX RECEIPT_IPS_V6_32_MAX
    SPOT_CHECK_ONE_IN SPOT_CHECK_DIALS SPOT_CHECK_FIRST SPOT_CHECK_SECOND SPOT_CHECK_SETTLE
    SPOT_CHECKS_MAX SPOT_DIALS_MAX ISSUER_CHECKS_KEPT ISSUER_GROUPS_JUDGED ISSUER_MISSES_MAX
    ISSUER_MISSES_IN_A_ROW ISSUERS_BARRED_MIN ISSUERS_BARRED_PERCENT ISSUER_BARRED_FOR
    ISSUERS_ON_RECORD_MAX
    VERSION_LEN_MAX RELAY_DESCRIPTOR_LIFE CLOCK_SKEW_MAX VIEW_RELAYS_MAX LAST_KNOWN_MAX LAST_KNOWN_LIFE
    IN_TOUCH_DIVISOR
    VIEW_SLACK VIEW_YOUNG_MAX TURNED_AWAY_MAX TURNED_AWAY_AN_ADDRESS_MAX ADDRESS_HELD_SHARE
    SETUP_LEN WORDS_KEPT_MAX WORDS_BEFORE SYNC_FRAME_MAX SYNC_BYTES_MAX SYNC_DESCRIPTORS_MAX SYNC_RANGES_MAX SYNC_PARTS_MAX
    SYNC_PART_MIN
    SYNC_FEW_MAX SYNC_RANGE_LEN_MAX SYNC_ITEM_LEN SYNC_ITEMS_MAX
    SYNC_ROUNDS_MAX SYNC_PEER_FAILURES_MAX SYNC_PEER_BUSY_MAX FEELER_INTERVAL FEELER_AGAIN ALONE_INTERVAL ALONE_RELAYS
    UNKNOWN_RELAY_PAUSE KNOWN_ASKED_FIRST KNOWN_ASKED_MORE RUMOUR_FANOUT RUMOUR_DELAY_MAX
    RUMOURS_MAX SEEDS_MAX INVITE_SEEDS_MAX NETWORK_FILE_LEN_MAX NETWORK_FILE_TIMEOUT
    NETWORK_NAME_LEN_MAX OPTIONAL_NAME_LEN_MAX
    HOST_PORT_LEN_MAX EPOCH_LEN INBOX_DESCRIPTOR_LEN MAILBOXES_MAX REVISION_FIRST_BITS
    REVISION_STEP_BITS_MAX OVERTAKE_EVERY RING_POSITIONS LOOKUP_ANSWERS_MIN LOOKUP_PATIENCE AS_SHARE_PERCENT
    PUBLISH_WITHIN PUBLISH_START_WAIT PUBLISH_LEAD PUBLISH_READ_AHEAD PUBLISH_PATIENCE PUBLISHED_MIN
    PUBLISH_REST_SHARE PUBLISH_CHANGE_SHARE PUBLISH_MOVED_SHARE PUBLISH_PACE_SHARE LOOK_SHARE
    LOOK_REST_SHARE LOOK_MISSED_SHARE LOOK_MISSED_MEAN_SHARE LOOK_DOUBLINGS_MAX LOOK_MISSES_TOLD
    AS_SHARE_ROUNDS STORE_WAITERS_MAX REMOVE_MAX PUSH_DELAY_MEAN_MAX
    PUSH_DELAY_CUT PUSH_WINDOW_BYTES REPLACED_POLL_FOR REPLACED_HOLDERS_MIN REPLACED_WITHIN
    RECORD_LENS DEPOSIT_OVERHEAD_LEN RECORD_LEN_MAX PUZZLE_EFFORT_MAX WAIT_CUT PROBE_MIN
    SEAL_KEYS_MAX SEAL_KEY_KEPT_AFTER
    PROBE_MAX SAVED_REMOVALS_MAX SUBSCRIPTION_LASTED_MIN RESUBSCRIBE_SHARE RESUBSCRIBE_MEAN_MIN
    RESUBSCRIBE_MEAN_MAX RESUBSCRIBE_FORGET_AFTER COMPANIONS_MAX COMPANION_AFTER_MAX
    GIVEN_UP_AFTER_MIN GIVEN_UP_AFTER_MAX OUTAGE_SPAN_MAX LEFT_MAILBOXES_MAX
    COMPANION_RETRIES OUTAGE_LONG_SHARE OUTAGE_VISIT_SHARE OUTAGE_BACK_SHARE COMPANIONS_SOON_EVERY
    PINNED_SPARE_FACTOR PINNED_WAIT
    SKIP_MAX OPENINGS_SKIP_MAX SKIPPED_KEPT_MAX SKIPPED_LIFE NONCES_KEPT PQ_EPOCHS_KEPT SHARE_WAIT_MESSAGES
    SESSIONS_KNOWN_MAX SHARE_WAIT NUMBERS_AHEAD_MAX ACKNOWLEDGED_RANGES_MAX MESSAGE_ITEMS_MAX CONTACT_QUEUES_MAX
    RENEWAL_PAUSE QUEUE_MOVED_WITHIN_MIN QUEUE_MOVED_WITHIN_MAX ACKNOWLEDGED_WITHIN_MIN ACKNOWLEDGED_WITHIN_MAX
    GAP_TOLD_AFTER GAP_ASKED_EVERY STRANGERS_WINDOW STRANGERS_WINDOW_MAX EFFORT_STEP_FIRST EFFORT_STEP EFFORT_HELD_AFTER
    EFFORT_FALLS_AFTER
}

fn in_code() -> BTreeMap<String, String> {
    let rooms = [1, 2, 3, 4].map(forward_room);
    let mut limits = constants();
    limits.insert("forward_room(1..4)".to_owned(), rooms.text());
    limits
}

/// The first table of appendix A.
fn in_document() -> BTreeMap<String, String> {
    let text = fs::read_to_string("../docs/protocol.md").unwrap();
    let (_, appendix) = text.split_once("\n# A Constants\n").unwrap();
    let rows = appendix
        .lines()
        .skip_while(|line| !line.starts_with("|---"));
    let mut limits = BTreeMap::new();
    for row in rows.skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names: Vec<&str> = cells[1]
            .split(", ")
            .map(|name| name.trim_matches('`'))
            .collect();
        let values: Vec<String> = cells[2].split(", ").map(read).collect();
        if let [name] = names[..] {
            limits.insert(name.to_owned(), values.join(", "));
            continue;
        }
        assert_eq!(names.len(), values.len(), "{row}");
        limits.extend(names.into_iter().map(str::to_owned).zip(values));
    }
    limits
}

/// `196,608`, `2.5 s`, `7 d`.
fn read(value: &str) -> String {
    let value = value.replace(',', "");
    let Some((number, unit)) = value.split_once(' ') else {
        return value;
    };
    let secs = match unit {
        "s" => 1,
        "µs" => return format!("{number} us"),
        "ms" => return format!("{} us", number.parse::<u64>().unwrap() * 1000),
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => panic!("{value}: a time has a unit"),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let micros: u64 = format!("{whole}{part:0<6}").parse().unwrap();
    format!("{} us", micros * secs)
}

#[test]
fn the_document_has_every_limit_with_its_value() {
    assert_eq!(in_document(), in_code());
}

#[test]
fn no_limit_is_left_out_here() {
    let source = fs::read_to_string("src/limits.rs").unwrap();
    let names = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "));
    let mut expected: Vec<&str> = names
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| !name.contains('('))
        .collect();
    expected.push("forward_room(1..4)");
    expected.sort_unstable();
    assert_eq!(in_code().into_keys().collect::<Vec<_>>(), expected);
}

/// A section, words of a rule in it with `{}` where a limit stands, and the limit.
type Said = (&'static str, &'static str, String);

fn secs(time: Duration) -> String {
    time.as_secs().to_string()
}

fn mins(time: Duration) -> String {
    (time.as_secs() / 60).to_string()
}

fn hours(time: Duration) -> String {
    (time.as_secs() / 3600).to_string()
}

fn said_of_descriptors() -> Vec<Said> {
    let descriptor = RELAY_DESCRIPTOR_LEN_MAX.text();
    vec![
        ("2.4", "count of versions, 1 to {} |", VERSIONS_MAX.text()),
        ("2.4", "0 = none; at most {} (§8.1) |", descriptor.clone()),
        ("2.4", "count > {};", VERSIONS_MAX.text()),
        ("2.4", "length > {};", descriptor.clone()),
        ("8.1", "At most {} in all.", descriptor.clone()),
        ("8.1", "| 1 to {}, newest first |", ONION_KEYS_MAX.text()),
        ("8.1", "| 1 to {}, to be tried", ADDRESSES_MAX.text()),
        ("8.1", "| ≤ {} bytes, 0x20", VERSION_LEN_MAX.text()),
        ("8.1", "| ≤ {}, and ≤ 5 an address |", RECEIPTS_MAX.text()),
        (
            "8.1",
            "at most {} for one address",
            RECEIPTS_AN_ADDRESS_MAX.text(),
        ),
        ("8.1", "issued_at ≤ now + {} h;", hours(CLOCK_SKEW_MAX)),
        (
            "8.1",
            "now < issued_at + {} h;",
            hours(RELAY_DESCRIPTOR_LIFE),
        ),
        ("8.2", "at most {} h after the view", hours(SETUP_LEN)),
        ("8.2", "place ⌈n/{}⌉", IN_TOUCH_DIVISOR.text()),
        ("8.2", "the last {} words", WORDS_KEPT_MAX.text()),
        ("8.2", "counts as {} words", WORDS_BEFORE.text()),
        (
            "8.2",
            "keeps dead descriptors for {} days",
            (LAST_KNOWN_LIFE.as_secs() / 86_400).to_string(),
        ),
        (
            "8.2",
            "those of {} relays for longer",
            LAST_KNOWN_MAX.text(),
        ),
        (
            "8.3",
            "ranges, 1 to {}, each with the fingerprint",
            SYNC_RANGES_MAX.text(),
        ),
        (
            "8.3",
            "parts, 2 to {} of them, are ranges",
            SYNC_PARTS_MAX.text(),
        ),
        ("8.3", "at most {} relays it lists: as", SYNC_FEW_MAX.text()),
        ("8.3", "of at least {}, and 16", SYNC_PART_MIN.text()),
        ("8.2", "takes {} newer", (RENEWALS_AT_ONCE + 1).text()),
        ("8.2", "interval I: {} h,", hours(RENEWAL_INTERVAL)),
        ("8.2", "issued_at + {} I,", RENEWALS_AT_ONCE.text()),
        ("8.4", "has {} of those that", (PUSHED_AT_ONCE + 1).text()),
        (
            "8.3",
            "together, {} each, 480 of them; c.",
            descriptor.clone(),
        ),
        ("8.3", "together, {} each, 480 of them; their", descriptor),
        (
            "8.3",
            "At most {} requests a reconc",
            SYNC_ROUNDS_MAX.text(),
        ),
    ]
}

fn said_of_spreading() -> Vec<Said> {
    let pushes_a_second = 1_000_000 / PUSH_INTERVAL.as_micros();
    vec![
        ("8.3", "every {} min (± 25 %)", mins(FEELER_INTERVAL)),
        ("8.3", "not met within {} h", hours(FEELER_AGAIN)),
        ("8.3", "at most {} s between tries", secs(ALONE_INTERVAL)),
        (
            "8.3",
            "was so {} times since it last answered",
            SYNC_PEER_BUSY_MAX.text(),
        ),
        ("8.3", "are at least {} min apart", mins(SYNC_FAR_PAUSE)),
        ("8.3", "early: {} s after", secs(UNKNOWN_RELAY_PAUSE)),
        ("8.3", "hides*: {} h is how long", hours(NEWS_SPREAD_MAX)),
        ("8.3", "is in at least {} groups", HIDDEN_MIN.text()),
        (
            "8.3",
            "of them lists at least {} relays",
            SEEDS_DIFFER_MIN.text(),
        ),
        (
            "8.3",
            "more than {} % of those",
            SEEDS_DIFFER_PERCENT.text(),
        ),
        ("8.3", "Of {} sources at most", SEEDS_COMPARED_MAX.text()),
        ("8.3", "issued {} min ago or earlier", mins(NETWORK_NEW_FOR)),
        ("8.3", "on to up to {} linked relays", RUMOUR_FANOUT.text()),
        ("8.3", "/4 and {} s, whichever", secs(RUMOUR_DELAY_MAX)),
        ("8.3", "of more than {} that wait", RUMOURS_MAX.text()),
        ("8.4", "and {} a second", pushes_a_second.to_string()),
        (
            "8.4",
            "reserve, which is {} units at once",
            (COMPARED_PART_AT_ONCE + 1).text(),
        ),
        ("8.4", "more each {} s; from", secs(COMPARE_PART_INTERVAL)),
    ]
}

fn said_of_networks() -> Vec<Said> {
    let few_as = 200 / AS_SHARE_PERCENT;
    vec![
        ("8.5", "Of fewer than {} none has", few_as.text()),
        ("8.6", "at most {} characters", HOST_PORT_LEN_MAX.text()),
        ("8.6", "`seeds` (≤ {} of rule 2", SEEDS_MAX.text()),
        (
            "8.6",
            "names of 1 to {} of a-z",
            OPTIONAL_NAME_LEN_MAX.text(),
        ),
        ("8.6", "1 to {}. `place`", INVITE_SEEDS_MAX.text()),
        ("8.6", "for at most {} s", secs(NETWORK_FILE_TIMEOUT)),
        ("9.4", "waits {} s more", secs(LOOKUP_PATIENCE)),
        ("9.4", "was asked {} s ago", secs(PUBLISH_PATIENCE)),
        ("9.4", "(at most {}) groups", RING_POSITIONS.text()),
    ]
}

fn said_of_receipts() -> Vec<Said> {
    vec![
        ("8.7", "one receipt in {} h,", hours(RECEIPT_PAUSE)),
        (
            "8.7",
            "dialled again after {} min,",
            mins(RECEIPT_RETRY_PAUSE),
        ),
        (
            "8.7",
            "At most {} dials in flight",
            RECEIPT_DIALS_MAX.text(),
        ),
        ("8.7", "and {} to one AS", RECEIPT_DIALS_A_GROUP_MAX.text()),
        ("8.7", "When {} hosts", RECEIPT_RESTS_A_GROUP_MAX.text()),
        (
            "8.7",
            "and {} addresses remembered",
            RECEIPT_ADDRESSES_MAX.text(),
        ),
        ("8.7", "or in `receipt_life`/{}", RECEIPT_PAUSE_SHARE.text()),
        ("8.7", "v4 /24 {}, /16", RECEIPT_IPS_V4_24_MAX.text()),
        ("8.7", "/16 {}; v6", RECEIPT_IPS_V4_16_MAX.text()),
        ("8.7", "v6 /64 {}, /48", RECEIPT_IPS_V6_64_MAX.text()),
        ("8.7", "/48 {}, /32", RECEIPT_IPS_V6_48_MAX.text()),
        ("8.7", "/32 {}; and an IP", RECEIPT_IPS_V6_32_MAX.text()),
        ("8.7", "(§2.5), at most {} s,", secs(RECEIPT_DIAL_TIMEOUT)),
        ("8.7", "shows: {}, or 13", RECEIPTS_AN_ADDRESS_MAX.text()),
        ("8.7", "or {} divided by the number", RECEIPTS_MAX.text()),
        (
            "8.7",
            "in flight at a time, at most {} s:",
            secs(RECEIPT_ASK_TIMEOUT),
        ),
        ("8.7", "the address waits {} s,", secs(RECEIPT_ASK_PAUSE)),
        (
            "8.7",
            "each time, {} min at most",
            mins(RECEIPT_ASK_PAUSE_MAX),
        ),
        ("8.7", "else after {} min.", mins(RECEIPT_IDLE_PAUSE)),
        ("8.7", "more than {} h ahead", hours(CLOCK_SKEW_MAX)),
        ("8.7", "more than {} h behind", hours(CLOCK_SKEW_MAX * 2)),
        (
            "8.7",
            "and {} min after the last",
            mins(RECEIPT_REISSUE_PAUSE),
        ),
    ]
}

fn said_of_spot_checks() -> Vec<Said> {
    vec![
        (
            "8.8",
            "tries one in {} of the addresses",
            SPOT_CHECK_ONE_IN.text(),
        ),
        ("8.8", "at most {} h old", hours(CLOCK_SKEW_MAX * 2)),
        ("8.8", "tried once in {} h,", hours(RECEIPT_PAUSE)),
        ("8.8", "has run for {} h", hours(NEWS_SPREAD_MAX)),
        ("8.8", "At most {} checks wait", SPOT_CHECKS_MAX.text()),
        ("8.8", "and {} dials are in flight", SPOT_DIALS_MAX.text()),
        (
            "8.8",
            "comes {} to",
            (SPOT_CHECK_FIRST.as_secs() / 60).text(),
        ),
        (
            "8.8",
            "to {} min after the descriptor",
            mins(SPOT_CHECK_FIRST * 10),
        ),
        ("8.8", "the second {} min after", mins(SPOT_CHECK_SECOND)),
        ("8.8", "if, {} min after each", mins(SPOT_CHECK_SETTLE)),
        ("8.8", "when {} of the last", ISSUER_MISSES_MAX.text()),
        ("8.8", "of the last {} ASes", ISSUER_GROUPS_JUDGED.text()),
        ("8.8", "at {} sites in a row", ISSUER_MISSES_IN_A_ROW.text()),
        (
            "8.8",
            "is so for {} days",
            (ISSUER_BARRED_FOR.as_secs() / 86_400).text(),
        ),
        ("8.8", "At most {} issuers are", ISSUERS_BARRED_MIN.text()),
        ("8.8", "or {} percent of", ISSUERS_BARRED_PERCENT.text()),
        ("8.8", "Records of {} issuers", ISSUERS_ON_RECORD_MAX.text()),
        (
            "8.2",
            "the surplus over {},000 leaves",
            (VIEW_RELAYS_MAX / 1000).text(),
        ),
        ("8.2", "until {} of them are left", VIEW_YOUNG_MAX.text()),
        (
            "8.3",
            "gives it up {} s after it began",
            SYNC_NO_NEWS_MAX.as_secs().text(),
        ),
        (
            "8.3",
            "and {} s after it began:",
            SYNC_LEN_MAX.as_secs().text(),
        ),
    ]
}

#[test]
fn rules_repeat_the_limits_of_the_code() {
    let text = fs::read_to_string("../docs/protocol.md").unwrap();
    let is_missing = |(section, words): &(&str, String)| {
        let (_, rest) = text.split_once(&format!("\n## {section} ")).unwrap();
        let (rules, _) = rest.split_once("\n## ").unwrap_or((rest, ""));
        let rules: Vec<&str> = rules.split_whitespace().collect();
        !rules.join(" ").contains(words.as_str())
    };
    let said = said_of_descriptors()
        .into_iter()
        .chain(said_of_spreading())
        .chain(said_of_networks())
        .chain(said_of_receipts())
        .chain(said_of_spot_checks())
        .map(|(section, words, number)| (section, words.replace("{}", &number)));
    let missing: Vec<_> = said.filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
