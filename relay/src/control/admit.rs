//! Admission of handshakes: a rate limit on each link, before any public-key work
//! (docs/protocol.md §5.4(1)).

use umbel_proto::limits::RELAY_CREATES_FACTOR;
use umbel_proto::network::Params;
use umbel_proto::time::{Duration, Instant, Rate};

/// At what rate a link to a client, or to a relay of the view, may create circuits.
pub(super) fn create_rate(params: &Params, is_known_relay: bool, now: Instant) -> Rate {
    let factor = if is_known_relay {
        RELAY_CREATES_FACTOR
    } else {
        1
    };
    let interval = Duration::from_secs(1) / params.creates_per_second.saturating_mul(factor).max(1);
    Rate::new(interval, params.creates_burst.saturating_mul(factor), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // §5.4(1)
    fn a_relay_of_the_view_is_admitted_more_often_than_a_client() {
        let now = Instant::from_micros(5);
        let admitted = |is_known_relay| {
            let mut rate = create_rate(&Params::DEFAULT, is_known_relay, now);
            (0..100_000).take_while(|_| rate.try_take(now)).count()
        };
        assert_eq!((admitted(false), admitted(true)), (91, 90 * 64 + 1));
    }
}
