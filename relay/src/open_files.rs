//! How many files this process may have open, and how many links that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, LINKS_MAX};

/// Files beside the links that others made: links that this relay dials, the store, logs, threads.
const RESERVE: u64 = 1344;

/// What became of the limit of open files and of `links_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFiles {
    /// The limit held all links already.
    Enough,
    /// The limit was raised to what the links need.
    Raised {
        /// From.
        from: u64,
        /// To.
        to: u64,
    },
    /// The system grants no more: there are fewer links.
    Lowered {
        /// What the system grants.
        limit: u64,
        /// The links that this allows.
        links_max: usize,
        /// Whether nobody asked for more links than the default.
        is_default: bool,
    },
}

impl OpenFiles {
    /// Raises the limit of open files to what `config.links_max` needs, as far as the system allows; else lowers `links_max`.
    pub fn fit(config: &mut Config) -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // None: there is no limit.
        let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
        let wanted = (config.links_max as u64).saturating_add(RESERVE);
        let mut limit = soft;
        let raised = wanted.min(hard);
        if raised > soft && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok() {
            limit = raised;
        }
        let links_max = links_within(limit, config.links_max);
        if links_max < config.links_max {
            let is_default = config.links_max == LINKS_MAX;
            config.links_max = links_max;
            return Self::Lowered { limit, links_max, is_default };
        }
        if limit > soft { Self::Raised { from: soft, to: limit } } else { Self::Enough }
    }
}

/// How many links so many files allow; at least half of the files are for them.
fn links_within(limit: u64, links_max: usize) -> usize {
    let allowed = limit - RESERVE.min(limit / 2);
    links_max.min(usize::try_from(allowed).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_leave_room_for_what_else_is_open() {
        assert_eq!(links_within(u64::MAX, 20_000), 20_000);
        assert_eq!(links_within(20_000 + RESERVE, 20_000), 20_000);
        assert_eq!(links_within(20_000, 20_000), 20_000 - 1344);
        assert_eq!(links_within(1024, 20_000), 512);
        assert_eq!(links_within(0, 20_000), 1);
    }

    #[test]
    fn a_relay_of_few_links_needs_no_more_than_the_system_gives() {
        let mut config = Config { links_max: 1, ..Config::new("") };
        OpenFiles::fit(&mut config);
        assert_eq!(config.links_max, 1);
    }
}
