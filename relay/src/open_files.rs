//! How many files this process may have open, and how many links that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, LINKS_MAX};

/// Links that this relay dials: to every relay of a large network that circuits or comparisons lead
/// to.
const DIALLED_LINKS: u64 = 1024;
/// Dials in progress.
const DIALS: u64 = 256;
/// The store, the log, the listener, timers, the runtime.
const OTHER_FILES: u64 = 64;
/// Files beside the links that others made.
const RESERVE: u64 = DIALLED_LINKS + DIALS + OTHER_FILES;

/// The outcome for the limit of open files and for `links_max`.
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
    /// The system grants no more, so there are fewer links.
    Lowered {
        /// The limit that the system grants.
        limit: u64,
        /// The links that this allows.
        links_max: usize,
        /// Whether nobody asked for more links than the default.
        is_default: bool,
    },
}

impl OpenFiles {
    /// Raises the limit of open files to what `config.links_max` needs, as far as the system
    /// allows; else lowers `links_max`.
    pub fn fit(config: &mut Config) -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // None: there is no limit.
        let limits = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
        Self::fit_within(config, limits, |raised| {
            setrlimit(
                Resource::Nofile,
                Rlimit {
                    current: Some(raised),
                    maximum,
                },
            )
            .is_ok()
        })
    }

    fn fit_within(
        config: &mut Config,
        (soft, hard): (u64, u64),
        raise: impl FnOnce(u64) -> bool,
    ) -> Self {
        let wanted = (config.links_max as u64).saturating_add(RESERVE);
        let mut limit = soft;
        let raised = wanted.min(hard);
        if raised > soft && raise(raised) {
            limit = raised;
        }
        let links_max = links_within(limit, config.links_max);
        if links_max < config.links_max {
            let is_default = config.links_max == LINKS_MAX;
            config.links_max = links_max;
            return Self::Lowered {
                limit,
                links_max,
                is_default,
            };
        }
        if limit > soft {
            Self::Raised {
                from: soft,
                to: limit,
            }
        } else {
            Self::Enough
        }
    }
}

/// How many links this limit of open files allows; at least half of the files are for them.
fn links_within(limit: u64, links_max: usize) -> usize {
    let allowed = limit - RESERVE.min(limit / 2);
    links_max
        .min(usize::try_from(allowed).unwrap_or(usize::MAX))
        .max(1)
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

    /// The outcome: the limit it was raised to, and how many links there may be.
    fn fit(
        links_max: usize,
        limits: (u64, u64),
        may_raise: bool,
    ) -> (OpenFiles, Option<u64>, usize) {
        let mut config = Config {
            links_max,
            ..Config::new("")
        };
        let mut asked = None;
        let files = OpenFiles::fit_within(&mut config, limits, |raised| {
            asked = Some(raised);
            may_raise
        });
        (files, asked, config.links_max)
    }

    #[test]
    fn the_limit_is_raised_no_farther_than_the_links_need() {
        assert_eq!(fit(1, (2000, 4000), true), (OpenFiles::Enough, None, 1));
        let needed = 1000 + RESERVE;
        assert_eq!(
            fit(1000, (1024, 4000), true),
            (
                OpenFiles::Raised {
                    from: 1024,
                    to: needed
                },
                Some(needed),
                1000
            )
        );
    }

    #[test]
    fn where_the_system_grants_no_more_there_are_fewer_links() {
        let lowered = |limit, links_max, is_default| OpenFiles::Lowered {
            limit,
            links_max,
            is_default,
        };
        assert_eq!(
            fit(1000, (1024, 1800), true),
            (lowered(1800, 900, false), Some(1800), 900)
        );
        assert_eq!(
            fit(1000, (1024, 4000), false),
            (lowered(1024, 512, false), Some(1000 + RESERVE), 512)
        );
        assert_eq!(
            fit(LINKS_MAX, (48, 48), true),
            (lowered(48, 24, true), None, 24)
        );
    }
}
