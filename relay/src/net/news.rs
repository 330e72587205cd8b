//! What the control plane has for the operator, in words.

use tracing::Level;
use umbel_proto::time::{ClockJump, Duration, in_words};

use crate::control::io::News;

/// Logs it.
pub(super) fn say(news: News) {
    match words(news) {
        (Level::WARN, text) => tracing::warn!("{text}"),
        (_, text) => tracing::info!("{text}"),
    }
}

fn words(news: News) -> (Level, String) {
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
            format!("this relay's clock is {} behind what it said when the relay last ran: check it", in_words(by)),
        ),
        News::ClockJumped(jump) => {
            let (by, way) = match jump {
                ClockJump::Ahead(by) => (by, "ahead"),
                ClockJump::Back(by) => (by, "back"),
            };
            let by = in_words(by);
            (Level::WARN, format!("this relay's clock jumped {way} by {by}: what it keeps is not deleted by it yet"))
        }
        News::ClockDiffers { ahead, relays } => (
            Level::WARN,
            format!(
                "this relay's clock is {} {} that of {}: they do not believe its descriptor; set the clock right, and see that a \
                 time service keeps it so",
                in_words(Duration::from_secs(ahead.unsigned_abs())),
                if ahead > 0 { "behind" } else { "ahead of" },
                other_relays(relays)
            ),
        ),
        News::ClockAgrees { relays } => {
            (Level::INFO, format!("this relay's clock agrees with that of {} again", other_relays(relays)))
        }
        News::DescriptorRefused(fault) => {
            (Level::WARN, format!("others will not believe this relay's descriptor: {fault:?}"))
        }
    }
}

fn other_relays(count: usize) -> String {
    if count == 1 { "the one relay that it is linked to".to_owned() } else { format!("{count} linked relays") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_said_with_how_far_and_which_way() {
        let said = |ahead, relays| words(News::ClockDiffers { ahead, relays });
        let (level, text) = said(3 * 3600, 4);
        assert_eq!(level, Level::WARN);
        assert!(text.starts_with("this relay's clock is 3 hours behind that of 4 linked relays: "), "{text}");
        let (_, text) = said(-29 * 86_400, 1);
        assert!(text.starts_with("this relay's clock is 29 days ahead of that of the one relay"), "{text}");
    }

    #[test]
    fn to_have_been_switched_off_is_no_warning() {
        let month = Duration::from_secs(30 * 86_400);
        let (level, text) = words(News::ClockSinceLastRun(ClockJump::Ahead(month)));
        assert!(level == Level::INFO && text.contains("last ran 30 days ago"), "{text}");
        assert_eq!(words(News::ClockSinceLastRun(ClockJump::Back(month))).0, Level::WARN);
        let (level, text) = words(News::ClockJumped(ClockJump::Back(month)));
        assert!(level == Level::WARN && text.contains("jumped back by 30 days"), "{text}");
    }
}
