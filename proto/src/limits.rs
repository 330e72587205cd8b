//! The numbers of docs/protocol.md that bind, in the order of its sections and with their units, and
//! checked against each other at compile time.
//!
//! Parameters of a network are in [`Params`](crate::network::Params) (§8.6); labels, kinds and
//! format versions stand where they are encoded. A number that one side may change alone is policy
//! and stays with its user.

use crate::time::Duration;

/// How far the calendar may go from the monotonic clock without a jump (§1.6).
pub const CLOCK_JUMP_MIN: Duration = Duration::from_secs(3600);
/// Running for so long confirms a jump ahead (§1.6).
pub const CLOCK_CONFIRM_AFTER: Duration = Duration::from_secs(24 * 3600);
/// All jumps that wait, together, for a client to confirm them by one peer's clock (§1.6).
pub const CLOCK_CONFIRMED_BY_ONE_MAX: Duration = Duration::from_secs(48 * 3600);
/// Starts nearer to each other, by the calendar, count once (§1.6).
pub const CLOCK_STARTS_APART: Duration = Duration::from_secs(6 * 3600);
/// The start at which a jump of [`CLOCK_CONFIRM_AFTER`] ago is confirmed (§1.6).
pub const CLOCK_STARTS_CONFIRM: u8 = 3;

/// Length of every cell on a link, bytes (§2.1).
pub const CELL_LEN: usize = 2048;
/// Circuit id (4) and command (1) in front of a cell's body, bytes (§2.1).
pub const CELL_HEADER_LEN: usize = 5;
/// Length of a cell's body, bytes (§2.1).
pub const BODY_LEN: usize = CELL_LEN - CELL_HEADER_LEN;
/// Most versions in one `Hello` (§2.4).
pub const VERSIONS_MAX: usize = 8;
/// How long TLS may take, and then the exchange of `Hello`s, each (§2.5).
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A side that has sent no cell for so long sends a `Padding` cell (§2.6).
pub const LINK_KEEPALIVE: Duration = Duration::from_secs(20);
/// A link on which no cell came for so long may be closed (§2.6).
pub const LINK_SILENCE_MIN: Duration = Duration::from_secs(60);
/// A link on which no cell came for so long is closed (§2.6).
pub const LINK_SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long a link that ends may continue to send queued cells (§2.6).
pub const LINK_CLOSING_MAX: Duration = Duration::from_secs(2);
/// A relay closes a link that it dialled and that has carried no circuit for so long (§2.6).
pub const LINK_UNUSED_MAX: Duration = Duration::from_secs(600);

/// Length of an AEAD tag, bytes (§3).
pub const TAG_LEN: usize = 16;
/// Bytes of a forward cell that each hop takes off: hop command (1) and tag (16) (§3.1).
pub const HOP_OVERHEAD_LEN: usize = TAG_LEN + 1;
/// Most cells in the `Early` form on one circuit, counted at each hop (§3.2).
pub const EARLY_CELLS_MAX: u8 = 6;
/// Length prefix in front of a relay message inside its layer, bytes (§3.3).
pub const MSG_LEN_LEN: usize = 2;

/// Room for one relay message in a forward cell delivered by hop number `hops` (1 to [`HOPS_MAX`]),
/// bytes (§3.3).
pub const fn forward_room(hops: usize) -> usize {
    BODY_LEN - HOP_OVERHEAD_LEN - MSG_LEN_LEN - HOP_OVERHEAD_LEN * (hops - 1)
}
/// Room for one relay message in a backward cell, bytes: tag, hop command and length are taken off
/// (§3.4).
pub const BACKWARD_ROOM: usize = BODY_LEN - HOP_OVERHEAD_LEN - MSG_LEN_LEN;

/// Most relay cells of one circuit that wait for one link: the largest window, and cells that no
/// window counts (§4.4).
pub const CIRCUIT_QUEUE_CELLS_MAX: u32 = WINDOW_MAX_CELLS as u32 + 64;

/// Onionskins that a link to a relay of the view may carry, for each that a client's may (§5.4).
pub const RELAY_CREATES_FACTOR: u32 = 64;

/// Most hops a circuit may have: guard, L2, middle, terminal (§6.1).
pub const HOPS_MAX: usize = 4;
/// Most extends that wait for one relay to be dialled (§6.3).
pub const EXTEND_WAITERS_MAX: usize = 1024;
/// Most relays that are dialled for extends at once (§6.3).
pub const EXTEND_DIALS_MAX: usize = 256;

/// A client creates circuits at so much of the rate that a relay admits (§6.4(4)).
pub const CREATES_PACE: f64 = 0.9;
/// A client uses so much of the burst that a relay admits, percent (§6.4(4)).
pub const CREATES_BURST_PERCENT: u32 = 80;
/// Refusals with reason `Busy` in a row that do not count as a failure of the guard (§6.4(4)).
pub const GUARD_REFUSALS_MAX: u32 = 6;
/// A client samples at most one in so many of the relays that may become guards, and these have at
/// least one in so many parts of the weight (§6.4(2), §6.4(17)).
pub const GUARDS_ONE_IN: usize = 5;
/// A dial that hangs for so long has the next guard dialled as well (§6.4(6)).
pub const GUARD_STAGGER: Duration = Duration::from_millis(2500);
/// How long primary guards are tried before others (§6.4(6)).
pub const PRIMARIES_FIRST: Duration = Duration::from_secs(30);
/// While no link is up, a rest is at most this long in the first [`OFFLINE_SHORT`] (§6.4(7)).
pub const OFFLINE_RETRY: Duration = Duration::from_secs(8);
/// The first part of an outage; in the rest of it, a wait is at most as long as it has lasted
/// (§6.4(7)).
pub const OFFLINE_SHORT: Duration = Duration::from_secs(60);
/// The longest rest in an outage, however long it lasts (§6.4(7)).
pub const OFFLINE_RETRY_MAX: Duration = Duration::from_secs(300);
/// A link that lasts less is no end of an outage (§6.4(7)).
pub const LINK_LIFE_MIN: Duration = Duration::from_secs(30);
/// Misses in a row, over a day or more, after which a guard goes to the end of the order (§6.4(7)).
pub const GUARD_MISSES_MAX: u32 = 5;
/// Known relays, besides guards and seeds, that are asked for newer addresses (§6.4(9)).
pub const HELPERS_MAX: usize = 4;
/// How long these stay the same (§6.4(9)).
pub const HELPERS_FOR: Duration = Duration::from_secs(86_400);
/// How long seeds are waited for before another guard is drawn (§6.4(9)).
pub const SEEDS_FIRST: Duration = Duration::from_secs(3);
/// Selectable relays without a common address group that a view must have before paths are chosen: one
/// for each hop (§6.4(1)).
pub const PATH_RELAYS_MIN: usize = 4;
/// Broken circuits in a row before what they have in common is suspected (§6.4(10)).
pub const SUSPECT_BROKEN_MIN: u32 = 3;
/// Circuits in a row that could not be built before the guard is suspected (§6.4(10)).
pub const SUSPECT_UNBUILT_MIN: u32 = 4;
/// L2 over which these circuits must have gone (§6.4(10)).
pub const SUSPECT_UNBUILT_L2_MIN: usize = 3;
/// Relays in a row that a hop says are unreachable before it is suspected itself (§6.4(10)).
pub const SUSPECT_NAMED_MIN: usize = 3;
/// L2 suspected over one guard and no other, before the guard is suspected in their place
/// (§6.4(10)).
pub const SUSPECT_FRAMED_MIN: usize = 2;
/// Failures in a row after which an L2 or L3 may be replaced before its time (§6.4(10), §6.4(18)).
pub const L2_FAILURES_MAX: u32 = 8;
/// Relays that may be pinned at a place behind the guard for each that is wanted, while those pinned
/// can't be used; beyond that, another only while none is in the view (§6.4(2), §6.4(15), §6.4(18)).
pub const PINNED_SPARE_FACTOR: usize = 2;
/// While fewer than half of the pinned relays are in the view, others are pinned after so long
/// (§6.4(2)).
pub const PINNED_WAIT: Duration = Duration::from_secs(3600);
/// Relays that are pinned in the middle's place with full vanguards (§6.4(18)).
pub const L3_COUNT: usize = 8;
/// The least time for which an L3 is pinned (§6.4(18)).
pub const L3_LIFE_MIN: Duration = Duration::from_secs(3600);
/// The greatest time for which an L3 is pinned (§6.4(18)).
pub const L3_LIFE_MAX: Duration = Duration::from_secs(48 * 3600);
/// L2 over which circuits must have failed for their guard to be set aside (§6.4(11)).
pub const GUARD_BLAME_L2: usize = 2;
/// Middles over which they must have failed (§6.4(11)).
pub const GUARD_BLAME_MIDDLES: usize = 3;
/// Terminals to which built ones must have failed (§6.4(11)).
pub const GUARD_BLAME_TERMINALS: usize = 4;
/// Failures to one terminal that count against a guard in one run (§6.4(11)).
pub const GUARD_BLAME_A_TERMINAL: u32 = 3;
/// L2, middles and terminals of failed circuits that are remembered, of each; a failure to one
/// terminal more does not count (§6.4(11)).
pub const GUARD_BLAME_KEPT: usize = 16;
/// Circuits of a guard at which its counts are halved (§6.4(11)).
pub const GUARD_COUNTS_MAX: u32 = 400;
/// Guards that may be set aside in [`SET_ASIDE_WINDOW`], and as many L2 (§6.4(11), §6.4(16)).
pub const SET_ASIDE_MAX: usize = 2;
/// See [`SET_ASIDE_MAX`] (§6.4(11)).
pub const SET_ASIDE_WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// Least time between two reports that no circuit can be built (§6.4(11)).
pub const NO_CIRCUITS_TOLD_EVERY: Duration = Duration::from_secs(5);
/// How long a link that is tested has to carry a cell (§6.4(12)).
pub const LINK_TEST_MAX: Duration = Duration::from_secs(3);
/// A link is tested if no cell came for so long after something was asked over it (§6.4(12)).
pub const LINK_ANSWER_MAX: Duration = Duration::from_secs(5);
/// A peer is quiet once its cell is so late (§6.4(12)).
pub const LINK_LATE_MAX: Duration = Duration::from_secs(2);
/// A machine whose timers are so late, or whose calendar ran so far ahead, has slept (§6.4(12)).
pub const MACHINE_SLEEP_MIN: Duration = Duration::from_secs(10);

/// Kind (1), stream id (2) and flags (1) in front of a stream's bytes in a `Data` message (§7.1).
pub const DATA_HEADER_LEN: usize = 4;
/// Most stream bytes in one forward `Data` message, whatever the hop: the room of the farthest
/// (§7.1).
pub const FORWARD_DATA_MAX: usize = forward_room(HOPS_MAX) - DATA_HEADER_LEN;
/// Most stream bytes in one backward `Data` message (§7.1).
pub const BACKWARD_DATA_MAX: usize = BACKWARD_ROOM - DATA_HEADER_LEN;
/// Most streams open on one circuit (§7.1).
pub const STREAMS_MAX: usize = 32;
/// Finished streams that an end remembers, for a reset of one may have crossed its end (§7.1). No
/// honest reset is for an older one: as many may be open here as at the peer, and all of them may
/// have ended after it.
pub const FINISHED_STREAMS_MAX: usize = 2 * STREAMS_MAX;
/// Longest frame on a stream, bytes (§7.2). A frame is one request, one response or one pushed
/// batch.
pub const FRAME_LEN_MAX: usize = 192 * 1024;
/// Most bytes of half-received frames on one circuit, all streams together (§7.2).
pub const REASSEMBLY_BYTES_MAX: usize = 2 * FRAME_LEN_MAX;
/// Most bytes waiting to be sent on one circuit (§7.3); more is refused to the caller.
pub const OUTGOING_BYTES_MAX: usize = 4 * FRAME_LEN_MAX;

/// `Data` cells a side may send before the first credit (§7.3).
pub const WINDOW_INITIAL_CELLS: u16 = 64;
/// Most `Data` cells that may ever be outstanding (§7.3).
pub const WINDOW_MAX_CELLS: u16 = 512;
/// A receiver sends a credit each time it has taken this many `Data` cells (§7.3).
pub const CREDIT_EVERY_CELLS: u16 = 16;

/// Longest relay descriptor, bytes (§8.1): a `Hello`, which is one cell, has room for it.
pub const RELAY_DESCRIPTOR_LEN_MAX: usize = 1920;
/// Most addresses in a relay descriptor (§8.1).
pub const ADDRESSES_MAX: usize = 4;
/// Most onion keys in a relay descriptor: the current and the previous one (§8.1).
pub const ONION_KEYS_MAX: usize = 2;
/// Most receipts for one address in a relay descriptor (§8.1): some more than a network asks for,
/// since not everybody knows every issuer.
pub const RECEIPTS_AN_ADDRESS_MAX: usize = 5;
/// Most receipts in a relay descriptor (§8.1).
pub const RECEIPTS_MAX: usize = 13;
/// Most receipts that a network may ask for, an address (§8.6): so many fit for every address.
pub const RECEIPTS_MIN_MAX: usize = RECEIPTS_MAX / ADDRESSES_MAX;
/// Dials for receipts that a relay has in flight at most (§8.7).
pub const RECEIPT_DIALS_MAX: usize = 16;
/// So many of them to one group of addresses (§8.7(3)).
pub const RECEIPT_DIALS_A_GROUP_MAX: usize = RECEIPT_DIALS_MAX / 4;
/// Once so many hosts of a group rest because nobody was found there, none of it is dialled
/// (§8.7(3)).
pub const RECEIPT_RESTS_A_GROUP_MAX: usize = 64;
/// How long a dial for a receipt may take (§8.7).
pub const RECEIPT_DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// An issuer gives one address no more than one receipt in this time (§8.7).
pub const RECEIPT_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// An issuer dials an address again only so long after it found nobody there (§8.7).
pub const RECEIPT_RETRY_PAUSE: Duration = Duration::from_secs(60);
/// How long a request for a receipt may take, with the dial at either end (§8.7).
pub const RECEIPT_ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// A relay waits so long before it asks for a receipt again after a refusal; twice as long each
/// time, up to [`RECEIPT_ASK_PAUSE_MAX`] (§8.7).
pub const RECEIPT_ASK_PAUSE: Duration = Duration::from_secs(2);
/// The longest such pause (§8.7).
pub const RECEIPT_ASK_PAUSE_MAX: Duration = Duration::from_secs(600);
/// A relay issues its descriptor anew for further receipts at most this often (§8.7).
pub const RECEIPT_REISSUE_PAUSE: Duration = Duration::from_secs(60);
/// A relay that has the receipts that it needs looks so often for more to ask for (§8.7).
pub const RECEIPT_IDLE_PAUSE: Duration = Duration::from_secs(60);
/// [`RECEIPT_PAUSE`] is at most this part of `receipt_life` (§8.7(3)).
pub const RECEIPT_PAUSE_SHARE: u32 = 4;
/// IPs of one v4 /24 that get receipts of an issuer in that time (§8.7(3)).
pub const RECEIPT_IPS_V4_24_MAX: u32 = 4;
/// IPs of one v4 /16 that get receipts in that time (§8.7(3)).
pub const RECEIPT_IPS_V4_16_MAX: u32 = 16;
/// IPs of one v6 /64 that get receipts in that time (§8.7(3)).
pub const RECEIPT_IPS_V6_64_MAX: u32 = 1;
/// IPs of one v6 /48 that get receipts in that time (§8.7(3)).
pub const RECEIPT_IPS_V6_48_MAX: u32 = 4;
/// IPs of one v6 /32 that get receipts in that time (§8.7(3)).
pub const RECEIPT_IPS_V6_32_MAX: u32 = 16;
/// Ports of one IP that get receipts in that time (§8.7(3)).
pub const RECEIPT_PORTS_MAX: usize = 4;
/// Relays of a view that hold addresses of one host, a v4 address or a v6 /64, before another is not
/// taken there (§8.2(10)).
pub const RELAYS_A_HOST_MAX: usize = 4;
/// Addresses that an issuer remembers at most: those that got a receipt, and hosts where it found
/// nobody (§8.7).
pub const RECEIPT_ADDRESSES_MAX: usize = 4096;
/// One in so many addresses that others vouch for is tried (§8.8).
pub const SPOT_CHECK_ONE_IN: u32 = 20;
/// The first dial of a check comes at least this long, and at most ten times as long, after the
/// descriptor was taken (§8.8).
pub const SPOT_CHECK_FIRST: Duration = Duration::from_secs(60);
/// The second dial comes so long after the first failed (§8.8).
pub const SPOT_CHECK_SECOND: Duration = Duration::from_secs(30 * 60);
/// After a dial failed, a relay waits so long to see whether its links were alive: longer than a
/// silent one lasts (§8.8).
pub const SPOT_CHECK_SETTLE: Duration = Duration::from_secs(120);
const _: () = assert!(SPOT_CHECK_SETTLE.as_secs() > LINK_SILENCE_MAX.as_secs());
/// Most checks that wait at a time (§8.8).
pub const SPOT_CHECKS_MAX: usize = 64;
/// A check ends with a miss if nobody was there at so many dials (§8.8(2)).
pub const SPOT_CHECK_DIALS: u8 = 2;
/// Most dials of checks in flight (§8.8).
pub const SPOT_DIALS_MAX: usize = 4;
/// A relay judges an issuer by so many of its last checks (§8.8).
pub const ISSUER_CHECKS_KEPT: usize = 16;
/// The groups of the newest of them, by which it is judged (§8.8).
pub const ISSUER_GROUPS_JUDGED: usize = 8;
/// An issuer is barred when so many of these, and half of them, found nobody (§8.8).
pub const ISSUER_MISSES_MAX: usize = 2;
/// An issuer whose last checks were so many misses is barred, wherever they were (§8.8).
pub const ISSUER_MISSES_IN_A_ROW: usize = 5;
/// So many issuers may be barred at once in any network (§8.8).
pub const ISSUERS_BARRED_MIN: usize = 3;
/// And this part of all that could issue, percent (§8.8).
pub const ISSUERS_BARRED_PERCENT: usize = 10;
/// For so long the receipts of a barred issuer do not count (§8.8).
pub const ISSUER_BARRED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most issuers of which a relay keeps a record (§8.8).
pub const ISSUERS_ON_RECORD_MAX: usize = 1024;
/// Longest version text in a relay descriptor, bytes (§8.1).
pub const VERSION_LEN_MAX: usize = 32;
/// A relay descriptor is dead this long after it was issued (§8.1).
pub const RELAY_DESCRIPTOR_LIFE: Duration = Duration::from_secs(48 * 3600);
/// How far in the future a descriptor may be issued before it is refused (§8.1).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(3600);
/// Most relay descriptors a node keeps (§8.2).
pub const VIEW_RELAYS_MAX: usize = 50_000;
/// How many more there may be before the surplus leaves (§8.2(9)).
pub const VIEW_SLACK: usize = 500;
/// Relays not known for long that a full view keeps beside the others (§8.2(9)).
pub const VIEW_YOUNG_MAX: usize = VIEW_RELAYS_MAX / 10;
/// Most descriptors that a node remembers because its view had no room for them (§8.2(9)).
pub const TURNED_AWAY_MAX: usize = VIEW_RELAYS_MAX;
/// How many of these a node remembers that came to one address (§8.2(10)).
pub const TURNED_AWAY_AN_ADDRESS_MAX: usize = 3;
/// `receipt_life` divided by this is how young a receipt must be for a relay to hold an address
/// (§8.2(10)).
pub const ADDRESS_HELD_SHARE: u32 = 4;
/// Relays whose addresses a node remembers once their descriptors are dead, to dial only (§8.2).
pub const LAST_KNOWN_MAX: usize = 64;
/// For how long after their descriptors died all other relays are known, so that they come back as old
/// as they were (§8.2(7)).
pub const LAST_KNOWN_LIFE: Duration = Duration::from_secs(14 * 86_400);
/// A node is in touch with the network while one of so many of the issuers that it knows is alive
/// (§8.2(4)).
pub const IN_TOUCH_DIVISOR: usize = 4;
/// Sources of which a node remembers whether they list a relay that is in doubt (§8.2(3), §8.2(11)).
pub const WORDS_KEPT_MAX: usize = 7;
/// How many words it counts for that a relay was in no doubt before (§8.2(11)).
pub const WORDS_BEFORE: usize = 3;
/// For so long after it began, a view takes receipts of any issuer (§8.2(5)).
pub const SETUP_LEN: Duration = Duration::from_secs(3600);
/// Most bytes of a request or reply of a reconciliation, and of a push (§8.3).
pub const SYNC_FRAME_MAX: usize = 64 * 1024;
/// Most bytes of descriptors in one reply, or in one push, of a reconciliation (§8.3).
pub const SYNC_BYTES_MAX: usize = 60 * 1024;
/// Most descriptors in one reply, or in one push: none is shorter than an eighth of a kilobyte
/// (§8.3).
pub const SYNC_DESCRIPTORS_MAX: usize = SYNC_BYTES_MAX / 128;
/// Most ranges in one request of a reconciliation (§8.3).
pub const SYNC_RANGES_MAX: usize = 640;
/// Most parts that the answerer splits one of them into (§8.3).
pub const SYNC_PARTS_MAX: usize = 16;
/// Least relays in each part: a fingerprint costs about half an item (§8.3(8)).
pub const SYNC_PART_MIN: usize = 4;
/// A range with no more relays than this is listed, not split (§8.3(8)).
pub const SYNC_FEW_MAX: usize = 16;
/// Longest form of a range: two bounds, each with its length, bytes (§8.3).
pub const SYNC_RANGE_LEN_MAX: usize = 66;
/// Length of one item of a reconciliation: relay id, time of issue, descriptor hash, bytes (§8.3).
pub const SYNC_ITEM_LEN: usize = 72;
/// Most items in one page of a reconciliation: no more fit into its frame (§8.3).
pub const SYNC_ITEMS_MAX: usize = SYNC_FRAME_MAX / SYNC_ITEM_LEN;
/// Most requests of one reconciliation (§8.3): enough for every relay there may be, each way.
pub const SYNC_ROUNDS_MAX: usize = 8192;
/// A peer of a relay that so many turns in a row brought no answer is replaced (§8.3(9)).
pub const SYNC_PEER_FAILURES_MAX: u32 = 2;
/// And after so many that it answered with `Busy` since it last answered to the end (§8.3(9)).
pub const SYNC_PEER_BUSY_MAX: u32 = 16;
/// How often a relay reconciles with a relay that it has no link to (§8.3(9)).
pub const FEELER_INTERVAL: Duration = Duration::from_secs(120);
/// A relay that has not been met is asked again after this at the earliest (§8.3(9)).
pub const FEELER_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// A relay without a link to another tries to make one at least this often (§8.3).
pub const ALONE_INTERVAL: Duration = Duration::from_secs(5);
/// Relays it knew that it dials then, besides a seed (§8.3).
pub const ALONE_RELAYS: usize = 3;
/// How often a relay may issue its descriptor in the long run (§8.2(8)).
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);
/// How many more it may issue at once (§8.2(8)).
pub const RENEWALS_AT_ONCE: u32 = 12;
/// How often a descriptor that a relay of the view pushes is checked, in the long run, and how often
/// one of all other relays together (§8.4(2)).
pub const PUSH_INTERVAL: Duration = Duration::from_millis(125);
/// How many more are checked at once (§8.4(2)).
pub const PUSHED_AT_ONCE: u32 = 4096;
/// How often one is checked that relays outside the view push from one address group (§8.4(2)).
pub const STRANGER_PUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How many more are checked at once (§8.4(2)).
pub const STRANGER_PUSHED_AT_ONCE: u32 = 64;
/// Relays and address groups whose pushes are counted (§8.4(2)).
pub const PUSH_SOURCES_MAX: usize = 4096;
/// How long one dial may take before the next peer is dialled as well, while there is no view
/// (§8.3(9a)).
pub const ROUND_STAGGER: Duration = Duration::from_secs(1);
/// The longest wait, once no peer could be reached, before all are dialled again (§8.3(9a)).
pub const ROUND_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often [`COMPARE_UNIT`] relays are looked through to compare ranges, for whoever asks over links
/// from one address group, in the long run (§8.4(7)).
pub const COMPARE_INTERVAL: Duration = Duration::from_millis(4);
/// How many more times at once (§8.4(7)).
pub const COMPARED_AT_ONCE: u32 = 4096;
/// The same for all who ask, together (§8.4(7)).
pub const COMPARE_ALL_INTERVAL: Duration = Duration::from_micros(125);
/// How many more times at once for all (§8.4(7)).
pub const COMPARED_ALL_AT_ONCE: u32 = 65_536;
/// The same for one group's part of the reserve, which it has once nothing else is left (§8.4(7)).
pub const COMPARE_PART_INTERVAL: Duration = Duration::from_secs(2);
/// How many more times at once: two views of [`VIEW_RELAYS_MAX`] that differ everywhere are compared
/// with it (§8.4(7)).
pub const COMPARED_PART_AT_ONCE: u32 = 2048;
/// The same for the reserve as a whole (§8.4(7)).
pub const COMPARE_RESERVE_INTERVAL: Duration = Duration::from_micros(500);
/// How many more times at once from the reserve (§8.4(7)).
pub const COMPARED_RESERVE_AT_ONCE: u32 = 65_536;
/// Relays that are looked through as one unit of these budgets (§8.4(7)).
pub const COMPARE_UNIT: usize = 64;
/// A client gives a reconciliation up once it has brought no news for so long (§8.3(6)).
pub const SYNC_NO_NEWS_MAX: Duration = Duration::from_secs(60);
/// And after so long in all (§8.3(6)).
pub const SYNC_LEN_MAX: Duration = Duration::from_secs(600);
/// How long news may take to be known everywhere, clocks that are off by an hour included
/// (§8.3(9b)).
pub const NEWS_SPREAD_MAX: Duration = Duration::from_secs(3 * 3600);
/// Fewest relays that a guard hides for it to be found to (§8.3(9b)).
pub const HIDDEN_MIN: usize = 3;
/// The least part of the view that they are, percent (§8.3(9b)).
pub const HIDDEN_PERCENT: usize = 10;
/// Guards in distinct address groups that must have what it hides (§8.3(9b)).
pub const HIDDEN_SOURCES_MIN: usize = 2;
/// For so long after its first relays came, sources differ since a network is new (§8.3(9c)).
pub const NETWORK_NEW_FOR: Duration = Duration::from_secs(300);
/// Fewest relays that one of two sources lists, and the other not, for them to disagree (§8.3(9c)).
pub const SEEDS_DIFFER_MIN: usize = 5;
/// The part of all that they list which such relays must exceed, percent (§8.3(9c)).
pub const SEEDS_DIFFER_PERCENT: usize = 10;
/// For how long a client that was off waits for another source, once one has answered (§8.3(9c)).
pub const SECOND_SOURCE_WAIT: Duration = Duration::from_secs(10);
/// Sources whose lists are compared (§8.3(9c)).
pub const SEEDS_COMPARED_MAX: usize = 8;
/// One in so many of a client's reconciliations is with a relay drawn at random (§8.3(9)).
pub const SYNC_FAR_IN: u32 = 3;
/// How far apart these are at least (§8.3(9)).
pub const SYNC_FAR_PAUSE: Duration = Duration::from_secs(60);
/// How long after a reconciliation an unknown relay makes the next one due; twice as long each
/// time (§8.3).
pub const UNKNOWN_RELAY_PAUSE: Duration = Duration::from_secs(10);
/// Known relays besides guards and seeds that a client without a view asks first (§8.3).
pub const KNOWN_ASKED_FIRST: usize = 12;
/// How many more it asks with each further round (§8.3).
pub const KNOWN_ASKED_MORE: usize = 4;
/// Linked relays to which a descriptor that is news is pushed on (§8.3).
pub const RUMOUR_FANOUT: usize = 5;
/// A descriptor that is news waits no longer than this to be pushed on (§8.3).
pub const RUMOUR_DELAY_MAX: Duration = Duration::from_secs(5);
/// Most descriptors that wait to be passed on; beyond it the oldest are left to reconciliation
/// (§8.3).
pub const RUMOURS_MAX: usize = 1024;
/// Most seeds in a network file (§8.6).
pub const SEEDS_MAX: usize = 64;
/// Most relays that an invitation names: one that answers is enough (§8.6(9)).
pub const INVITE_SEEDS_MAX: usize = 4;
/// The longest network file that a relay hands on: 64 seeds take a third of it (§8.6(10)).
pub const NETWORK_FILE_LEN_MAX: usize = 65_536;
/// How long a newcomer waits for a network's file, once the link is up (§8.6(10)).
pub const NETWORK_FILE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest name of a network, bytes (§8.6).
pub const NETWORK_NAME_LEN_MAX: usize = 32;
/// Longest name of an optional entry of a network file (§8.6(8)).
pub const OPTIONAL_NAME_LEN_MAX: usize = 32;
/// Longest host and port of a peer, characters (§8.6).
pub const HOST_PORT_LEN_MAX: usize = 260;

/// Length of an epoch (§9.2).
pub const EPOCH_LEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Length of an inbox descriptor, always, bytes (§9.3).
pub const INBOX_DESCRIPTOR_LEN: usize = 8192;
/// Most mailboxes in an inbox descriptor (§9.3): the usual ones and their companions.
pub const MAILBOXES_MAX: usize = 5;
/// Bits of an epoch's first revision, which is random (§9.3).
pub const REVISION_FIRST_BITS: u32 = 62;
/// Bits of the step to the next one at most, which is random and of random length (§9.3).
pub const REVISION_STEP_BITS_MAX: u32 = 40;
/// How often another copy of an inbox is overtaken at most (§9.3).
pub const OVERTAKE_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Relays that keep one inbox descriptor (§9.4).
pub const RING_POSITIONS: usize = 6;
/// A descriptor that is published at once reaches each position within this time (§9.4(3)).
pub const PUBLISH_WITHIN: Duration = Duration::from_secs(2);
/// A start, and what is published or looked up because it was due, are at most so far apart
/// (§9.4(3), §9.4(5)).
pub const PUBLISH_START_WAIT: Duration = Duration::from_secs(3);
/// An epoch's first descriptor is published so long before the epoch, at the latest (§9.4(3)).
pub const PUBLISH_LEAD: Duration = Duration::from_secs(3 * 3600);
/// Readers with fast clocks look for an epoch's descriptor so long before the epoch (§9.4(3)).
pub const PUBLISH_READ_AHEAD: Duration = Duration::from_secs(2 * 3600);
/// A position that was asked so long ago, and answers nothing, counts as done (§9.4(3)).
pub const PUBLISH_PATIENCE: Duration = Duration::from_secs(5);
/// If so many have taken it (§9.4(3)).
pub const PUBLISHED_MIN: usize = 2;
/// `inbox_republish` divided by this and by the number of inboxes is the mean rest after a turn
/// (§9.4(3)).
pub const PUBLISH_REST_SHARE: u32 = 8;
/// Divided by this, the mean wait of the next epoch's descriptor after a change (§9.4(3)).
pub const PUBLISH_CHANGE_SHARE: u32 = 4;
/// Divided by this, the mean wait of a relay that becomes a position (§9.4(3)).
pub const PUBLISH_MOVED_SHARE: u32 = 24;
/// Divided by this, the mean wait of each position otherwise (§9.4(3)).
pub const PUBLISH_PACE_SHARE: u32 = 1440;
/// `inbox_republish` divided by this is the mean wait between an owner's look-ups of one inbox
/// (§9.4(5)).
pub const LOOK_SHARE: u32 = 4;
/// Divided by this and by the number of inboxes, the mean rest after a look-up that was overdue
/// (§9.4(5)).
pub const LOOK_REST_SHARE: u32 = 16;
/// Divided by this, the least wait after a look-up that found nothing (§9.4(5)).
pub const LOOK_MISSED_SHARE: u32 = 96;
/// Divided by this, the mean of the wait that is added, at first (§9.4(5)).
pub const LOOK_MISSED_MEAN_SHARE: u32 = 16;
/// How often that mean is doubled (§9.4(5)).
pub const LOOK_DOUBLINGS_MAX: u32 = 4;
/// Look-ups in a row without success that the user hears of (§9.4(5)).
pub const LOOK_MISSES_TOLD: u32 = 2;

/// Directory relays whose answers a reader waits for, if so many answer (§9.4).
pub const LOOKUP_ANSWERS_MIN: usize = 4;

/// How long a reader waits for them once enough agree (§9.4).
pub const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);

/// The most of all weight that the relays of one AS have together, in percent (§8.5).
pub const AS_SHARE_PERCENT: u64 = 5;
/// Most rounds in which ASes are brought under their share (§8.5).
pub const AS_SHARE_ROUNDS: usize = 16;

/// Most deposits of one record that wait for it to be durable; so do removals (§10.1).
pub const STORE_WAITERS_MAX: usize = 8;
/// Most records removed by one request (§10.2).
pub const REMOVE_MAX: usize = 512;
/// Longest mean of the wait before a push; a longer one is cut to it (§10.2).
pub const PUSH_DELAY_MEAN_MAX: Duration = Duration::from_secs(600);
/// A wait before a push is at most this many times its mean (§10.2).
pub const PUSH_DELAY_CUT: u32 = 5;
/// Most bytes of records that were pushed and not yet removed (§10.2).
pub const PUSH_WINDOW_BYTES: usize = 2 * FRAME_LEN_MAX;
/// How long a queue is polled after a subscription that is not ours ended ours (§10.2).
pub const REPLACED_POLL_FOR: Duration = Duration::from_secs(600);
/// Holders that must report a replaced subscription before another copy of the inbox is assumed
/// (§10.2).
pub const REPLACED_HOLDERS_MIN: usize = 2;
/// Reports within this time count as one other copy of the inbox (§10.2).
pub const REPLACED_WITHIN: Duration = Duration::from_secs(600);

/// Lengths of a sealed record, one per bucket: 1, 4, 16 and 64 forward cells with the deposit that
/// carries it (§10.3).
pub const RECORD_LENS: [usize; 4] = [record_len(1), record_len(4), record_len(16), record_len(64)];
/// Bytes that a deposit adds to its record in a stream: service, frame length, verb, ids,
/// signature, puzzle (§10.2), with room to spare.
pub const DEPOSIT_OVERHEAD_LEN: usize = 192;
/// Length of the sealed record that fills `cells` cells (§10.3).
pub const fn record_len(cells: usize) -> usize {
    cells * FORWARD_DATA_MAX - DEPOSIT_OVERHEAD_LEN
}
/// Longest sealed record, bytes (§10.3).
pub const RECORD_LEN_MAX: usize = record_len(64);
/// How long after a record's life an owner keeps the seal key of an epoch that ended before it: time
/// for clocks that differ, and for what holders keep beyond (§10.3).
pub const SEAL_KEY_KEPT_AFTER: Duration = Duration::from_secs(48 * 3600);
/// Most seal keys of one inbox (§10.3).
pub const SEAL_KEYS_MAX: usize = 16;

/// The greatest effort that a sender solves a puzzle for (§10.4).
pub const PUZZLE_EFFORT_MAX: u32 = 10_000;
/// A wait drawn from an exponential distribution is cut at this many times its mean (§10.5).
pub const WAIT_CUT: u32 = 8;
/// Least wait after an owner last heard of a holder, until it probes its subscription (§10.5).
pub const PROBE_MIN: Duration = Duration::from_secs(30);
/// Most wait until then (§10.5).
pub const PROBE_MAX: Duration = Duration::from_secs(60);
/// Records to be removed that an owner saves up at most (§10.5).
pub const SAVED_REMOVALS_MAX: usize = 12;
/// A subscription that lasted this long works: earlier losses no longer count (§10.5).
pub const SUBSCRIPTION_LASTED_MIN: Duration = Duration::from_secs(600);
/// Mean wait, for each mailbox that waits, before a subscription lost with its link is made again
/// (§10.5).
pub const RESUBSCRIBE_SHARE: Duration = Duration::from_millis(500);
/// The least mean of that wait (§10.5).
pub const RESUBSCRIBE_MEAN_MIN: Duration = Duration::from_secs(1);
/// The greatest mean of that wait (§10.5).
pub const RESUBSCRIBE_MEAN_MAX: Duration = Duration::from_secs(60);
/// Losses farther apart than this do not double it (§10.5).
pub const RESUBSCRIBE_FORGET_AFTER: Duration = Duration::from_secs(300);
/// Most companions of an inbox's mailboxes (§10.5(6)).
pub const COMPANIONS_MAX: usize = 2;
/// A mailbox whose holder is out of reach has a companion by then, at the latest (§10.5(6)).
pub const COMPANION_AFTER_MAX: Duration = Duration::from_secs(3600);
/// That is after so many `retry_max` at the latest (§10.5(6)).
pub const COMPANION_RETRIES: u32 = 2;
/// An outage is long after one in so many parts of that time, at the earliest (§10.5(6)).
pub const OUTAGE_LONG_SHARE: u32 = 2;
/// A mailbox is visited once in one of so many parts of it, so that an outage is long by then
/// (§10.5(6)).
pub const OUTAGE_VISIT_SHARE: u32 = 4;
/// An outage is over once the holder was back for that time, and for one in so many parts of it more
/// at the latest (§10.5(6)).
pub const OUTAGE_BACK_SHARE: u32 = 2;
/// Companions come soon if nobody can write to the inbox, unless a mailbox left the descriptor within
/// this time (§10.5(6)).
pub const COMPANIONS_SOON_EVERY: Duration = Duration::from_secs(24 * 3600);
/// A mailbox is given up once its holder was out of reach for this long, at the earliest (§10.5(6)).
pub const GIVEN_UP_AFTER_MIN: Duration = Duration::from_secs(3 * 24 * 3600);
/// And at the latest (§10.5(6)).
pub const GIVEN_UP_AFTER_MAX: Duration = Duration::from_secs(4 * 24 * 3600);
/// The most that counts of the time between two visits that failed (§10.5(6)).
pub const OUTAGE_SPAN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Mailboxes outside its descriptor that an owner still fetches from (§10.5(6)).
pub const LEFT_MAILBOXES_MAX: usize = 48;

/// Messages of one chain that may be passed over at once (§11.3).
pub const SKIP_MAX: u32 = 256;
/// Keys of messages passed over that are kept (§11.3).
pub const SKIPPED_KEPT_MAX: usize = 1024;
/// How long they are kept (§11.3).
pub const SKIPPED_LIFE: Duration = Duration::from_secs(21 * 24 * 3600);
/// Nonces of opened messages that are kept, to know copies (§11.3).
pub const NONCES_KEPT: usize = 256;
/// Post-quantum epochs whose keys are kept (§11.4).
pub const PQ_EPOCHS_KEPT: usize = 16;
/// Messages after which a share that waits gets a larger one (§11.4).
pub const SHARE_WAIT_MESSAGES: u32 = 50;
/// Time after which it does (§11.4).
pub const SHARE_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Openings that may be passed over before the first one that is read (§11.3).
pub const OPENINGS_SKIP_MAX: u32 = 4096;
/// Sessions of one conversation whose names are kept (§11.6).
pub const SESSIONS_KNOWN_MAX: usize = 64;
/// How far a message's number may be ahead of the first that is still awaited (§11.8).
pub const NUMBERS_AHEAD_MAX: u64 = 4096;
/// Ranges of numbers in one acknowledgement (§11.8).
pub const ACKNOWLEDGED_RANGES_MAX: usize = 16;
/// Things that one message says (§11.8).
pub const MESSAGE_ITEMS_MAX: usize = 16;
/// Queues that one side of a conversation reads (§11.8).
pub const CONTACT_QUEUES_MAX: usize = 3;
/// An owner looks at the strangers of so long (§10.5(7)).
pub const STRANGERS_WINDOW: Duration = Duration::from_secs(600);
/// So many of them are a flood (§10.5(7)): half of what a public queue holds.
pub const STRANGERS_WINDOW_MAX: usize = 32;
/// The effort that the first step asks (§10.5(7)).
pub const EFFORT_STEP_FIRST: u32 = 256;
/// Each further step asks so many times the one before (§10.5(7)).
pub const EFFORT_STEP: u32 = 4;
/// So long senders have to learn of a rise before holders ask for it, and after a fall (§10.5(7)).
pub const EFFORT_HELD_AFTER: Duration = Duration::from_secs(900);
/// The effort falls by half after so long without a flood (§10.5(7)).
pub const EFFORT_FALLS_AFTER: Duration = Duration::from_secs(12 * 3600);
/// An acknowledgement that no message carries goes out after a random while, at least (§11.9(3)).
pub const ACKNOWLEDGED_WITHIN_MIN: Duration = Duration::from_secs(600);
/// And at most.
pub const ACKNOWLEDGED_WITHIN_MAX: Duration = Duration::from_secs(6 * 3600);
/// So long a gap lasts before it is told and asked for (§11.9(4)).
pub const GAP_TOLD_AFTER: Duration = Duration::from_secs(300);
/// While it lasts it is asked for again this often (§11.9(4)).
pub const GAP_ASKED_EVERY: Duration = Duration::from_secs(3600);
/// One of a contact's queues is moved after a random while, at least (§11.9(1)): of two, each lives for
/// twice as long.
pub const QUEUE_MOVED_WITHIN_MIN: Duration = Duration::from_secs(15 * 24 * 3600);
/// And at most.
pub const QUEUE_MOVED_WITHIN_MAX: Duration = Duration::from_secs(45 * 24 * 3600);
/// No new session is begun or asked for sooner after the last (§11.6(2)).
pub const RENEWAL_PAUSE: Duration = Duration::from_secs(3600);

const _: () = assert!(
    LINK_KEEPALIVE.as_secs() < LINK_SILENCE_MIN.as_secs()
        && LINK_SILENCE_MIN.as_secs() <= LINK_SILENCE_MAX.as_secs()
);
const _: () = assert!(forward_room(4) == 1973 && BACKWARD_ROOM == 2024);
const _: () = assert!(RECORD_LEN_MAX + DEPOSIT_OVERHEAD_LEN <= FRAME_LEN_MAX);
const _: () = assert!(INBOX_DESCRIPTOR_LEN < FRAME_LEN_MAX);
const _: () = assert!(PUSH_WINDOW_BYTES < OUTGOING_BYTES_MAX);
const _: () = assert!(SYNC_FRAME_MAX < FRAME_LEN_MAX / 2);
const _: () = assert!(SYNC_RANGES_MAX * (SYNC_RANGE_LEN_MAX + 32) + 4 <= SYNC_FRAME_MAX);
// A reply to a page: lengths of 2 bytes before descriptors, positions of items in 2, and its head.
const _: () =
    assert!(SYNC_BYTES_MAX + 2 * SYNC_DESCRIPTORS_MAX + 2 * SYNC_ITEMS_MAX + 64 <= SYNC_FRAME_MAX);
const _: () = assert!(SYNC_FEW_MAX >= SYNC_PARTS_MAX);
const _: () = assert!(
    VIEW_RELAYS_MAX * RELAY_DESCRIPTOR_LEN_MAX / (SYNC_BYTES_MAX / 2) * 2 < SYNC_ROUNDS_MAX
);
const _: () = assert!(
    WINDOW_INITIAL_CELLS >= 2 * CREDIT_EVERY_CELLS && WINDOW_INITIAL_CELLS <= WINDOW_MAX_CELLS
);
const _: () = assert!(HOPS_MAX - 1 <= EARLY_CELLS_MAX as usize);
