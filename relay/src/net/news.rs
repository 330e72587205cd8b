//! The control plane's news for the operator, in words.

use std::net::SocketAddr;

use tracing::Level;
use umbel_proto::directory::descriptor::DescriptorFault;
use umbel_proto::directory::receipts::ReceiptRefusal;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::ADDRESS_HELD_SHARE;
use umbel_proto::network::Network;
use umbel_proto::time::{ClockJump, Duration, in_words};

use crate::control::io::News;

/// The consequences of clocks that differ, whichever is wrong.
const UNBELIEVED: &str = "until they agree, descriptors are not believed, this relay's by the others or theirs by this relay, and \
    circuits through this relay fail. A restart is not needed";

/// Who counts among those who vouch for an address.
pub(crate) const WHO_VOUCHES: &str = "relays that share an address group neither with it nor with each other, and that are seeds of \
    the network file, or have been known for long and were reached where they say they are";
/// Who has no IPv6 can't dial an IPv6 address. That of another relay is known only once three have
/// vouched for it: without as many seeds that have one, none ever is.
pub(crate) fn family_of_issuers(address: SocketAddr) -> &'static str {
    if address.ip().to_canonical().is_ipv6() {
        ", and that have an IPv6 address themselves: of the seeds, as many must"
    } else {
        ""
    }
}

/// The remedy for an address where nobody is found.
pub(crate) const OPEN_PORT: &str = "Open that port to the Internet in the firewall and the router, or set `advertise` to an address \
    that others can dial";
/// The remedy for a clock that is wrong.
pub(crate) const SET_CLOCK: &str = "set it right, and run a time service that keeps it so";

/// What to do where another relay is known at this relay's address: that one holds it for as long as
/// its newest receipts are young (§8.2(10)).
pub(crate) fn restore_or_move(network: &Network) -> String {
    format!(
        "If this relay ran there under another identity, restore that one, or wait up to {} after that one was last there; else \
         advertise another port, or where four relays run at that IP, another IP",
        in_words(network.params.receipt_life / ADDRESS_HELD_SHARE)
    )
}

/// What to set where links come from elsewhere than this address.
pub(crate) fn one_address(address: SocketAddr) -> String {
    format!(
        "`advertise` to an address with the IP that links come from, or `listen` to the IP of {address}"
    )
}

/// Logs it.
pub(super) fn say(news: News, network: &Network) {
    match words(news, network) {
        (Level::WARN, text) => tracing::warn!("{text}"),
        (_, text) => tracing::info!("{text}"),
    }
}

fn words(news: News, network: &Network) -> (Level, String) {
    match news {
        News::ClockSinceLastRun(ClockJump::Ahead(by)) => (
            Level::INFO,
            format!(
                "this relay last ran {} ago by its clock: nothing it keeps for others is deleted before it has run for a day",
                in_words(by)
            ),
        ),
        News::ClockSinceLastRun(ClockJump::Back(by)) => (
            Level::WARN,
            format!(
                "this relay's clock is {} behind what it said when the relay last ran: check it",
                in_words(by)
            ),
        ),
        News::ClockJumped(jump) => {
            let (by, way) = match jump {
                ClockJump::Ahead(by) => (by, "ahead"),
                ClockJump::Back(by) => (by, "back"),
            };
            let by = in_words(by);
            (
                Level::WARN,
                format!(
                    "this relay's clock jumped {way} by {by}: what it keeps is not deleted by it yet"
                ),
            )
        }
        News::ClockDiffers {
            ahead,
            relays,
            is_sure,
        } => clock_differs(ahead, relays, is_sure),
        News::ClockAgrees { relays } => (
            Level::INFO,
            format!(
                "this relay's clock agrees with that of {} again",
                other_relays(relays)
            ),
        ),
        News::DescriptorRefused(fault) => (
            Level::WARN,
            format!(
                "others will not believe this relay's descriptor: {fault}; {}",
                remedy(fault)
            ),
        ),
        News::Reachable {
            address,
            receipt_count,
        } => (
            Level::INFO,
            format!(
                "other relays reach this one at {address}: {receipt_count} of them vouch for that"
            ),
        ),
        News::Unvouched {
            address,
            receipt_count,
            wanted,
        } => unvouched(address, receipt_count, wanted),
        News::ReceiptRefused {
            address,
            issuer,
            refusal,
        } => refused_receipt(network, address, issuer, refusal),
    }
}

/// What to do about a descriptor of this relay that breaks a rule.
const fn remedy(fault: DescriptorFault) -> &'static str {
    match fault {
        DescriptorFault::AddressPrivate => {
            "set `advertise` to a public address by which others can dial this relay"
        }
        DescriptorFault::Address
        | DescriptorFault::NoAddress
        | DescriptorFault::AddressRepeated => {
            "correct `advertise`: up to four addresses by which others can dial this relay, each once"
        }
        DescriptorFault::Future | DescriptorFault::Dead | DescriptorFault::ReceiptTime => {
            "check this machine's clock"
        }
        _ => "this is a fault of Umbel: report it",
    }
}

/// Others have another time: whose clock may be wrong, and what to do.
fn clock_differs(ahead: i64, relays: usize, is_sure: bool) -> (Level, String) {
    let (off_by, whom) = (clock_off_by(ahead), other_relays(relays));
    let doubt = if is_sure {
        ""
    } else {
        "others may be wrong, so compare it with a source that you trust; if it is this one, "
    };
    (
        Level::WARN,
        format!("this relay's clock is {off_by} that of {whom}: {doubt}{SET_CLOCK}; {UNBELIEVED}"),
    )
}

/// Too few relays vouch for this address: who would count.
fn unvouched(address: SocketAddr, receipt_count: usize, wanted: usize) -> (Level, String) {
    (
        Level::WARN,
        format!(
            "{receipt_count} of {wanted} relays that must vouch for {address} do, so nobody uses this relay there yet: they must be \
             {WHO_VOUCHES}{}. The lines before say who refused, and why; this relay asks again",
            family_of_issuers(address)
        ),
    )
}

/// Why a relay does not vouch for this address, and what to do about it.
fn refused_receipt(
    network: &Network,
    address: SocketAddr,
    issuer: RelayId,
    refusal: ReceiptRefusal,
) -> (Level, String) {
    match refusal {
        ReceiptRefusal::Unreachable => (
            Level::WARN,
            format!(
                "unreachable: the relay {issuer} did not reach this one at {address}, so it does not vouch for it. {OPEN_PORT}"
            ),
        ),
        ReceiptRefusal::Elsewhere { from } => (
            Level::WARN,
            format!(
                "elsewhere: this relay's link to the relay {issuer} came from {}, but it advertises {address}, so it does not \
                 vouch for it. If another says the same, set {}",
                from.ip(),
                one_address(address)
            ),
        ),
        ReceiptRefusal::Limit => (
            Level::INFO,
            format!(
                "limit: the relay {issuer} vouches for no more addresses near {address} for now; others are asked"
            ),
        ),
        ReceiptRefusal::Busy => (
            Level::INFO,
            format!("busy: the relay {issuer} can't look after {address} now; others are asked"),
        ),
        ReceiptRefusal::Taken => (
            Level::WARN,
            format!(
                "taken: the relay {issuer} knows another relay at {address}, or four at its IP, so it does not vouch for this one. {}",
                restore_or_move(network)
            ),
        ),
    }
}

/// How far this clock is from others that are `ahead` seconds ahead of it, in words that go before
/// `that of`.
pub(crate) fn clock_off_by(ahead: i64) -> String {
    let way = if ahead > 0 { "behind" } else { "ahead of" };
    format!(
        "{} {way}",
        in_words(Duration::from_secs(ahead.unsigned_abs()))
    )
}

fn other_relays(count: usize) -> String {
    if count == 1 {
        "the one relay that it is linked to".to_owned()
    } else {
        format!("{count} linked relays")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(news: News) -> (Level, String) {
        super::words(news, &Network::local())
    }

    #[test] // §8.2(10)
    fn an_address_that_is_taken_is_free_again_by_the_networks_receipts() {
        let mut network = Network::local();
        for (hours, held) in [(168, "42 hours"), (12, "3 hours")] {
            network.params.receipt_life = Duration::from_secs(hours * 3600);
            let refused = News::ReceiptRefused {
                address: ([127, 0, 0, 1], 7443).into(),
                issuer: RelayId([1; RelayId::LEN]),
                refusal: ReceiptRefusal::Taken,
            };
            let (_, text) = super::words(refused, &network);
            assert!(text.contains(held), "{text}");
        }
    }

    #[test]
    fn a_clock_that_differs_is_reported_with_how_far_and_which_way() {
        let said = |ahead, relays, is_sure| {
            words(News::ClockDiffers {
                ahead,
                relays,
                is_sure,
            })
        };
        let (level, text) = said(3 * 3600, 4, true);
        assert_eq!(level, Level::WARN);
        assert!(
            text.starts_with("this relay's clock is 3 hours behind that of 4 linked relays: "),
            "{text}"
        );
        assert!(
            text.contains(": set it right") && text.contains("descriptors are not believed"),
            "{text}"
        );
        let (_, text) = said(-29 * 86_400, 1, false);
        assert!(
            text.starts_with("this relay's clock is 29 days ahead of that of the one relay"),
            "{text}"
        );
        assert!(
            text.contains("compare it with a source") && text.contains("not believed"),
            "nobody breaks a right clock for it: {text}"
        );
    }

    #[test]
    fn a_descriptor_that_others_refuse_is_said_with_what_to_do() {
        let (level, text) = words(News::DescriptorRefused(DescriptorFault::AddressPrivate));
        assert_eq!(level, Level::WARN);
        assert!(
            text.contains("is private; set `advertise` to a public address"),
            "{text}"
        );
    }

    #[test]
    fn to_have_been_switched_off_is_no_warning() {
        let month = Duration::from_secs(30 * 86_400);
        let (level, text) = words(News::ClockSinceLastRun(ClockJump::Ahead(month)));
        assert!(
            level == Level::INFO && text.contains("last ran 30 days ago"),
            "{text}"
        );
        assert_eq!(
            words(News::ClockSinceLastRun(ClockJump::Back(month))).0,
            Level::WARN
        );
        let (level, text) = words(News::ClockJumped(ClockJump::Back(month)));
        assert!(
            level == Level::WARN && text.contains("jumped back by 30 days"),
            "{text}"
        );
    }
}
