//! Experiments: what Umbel's promises come to, measured with the production code in virtual time.
//!
//! Each is a function of its scale and a seed, and gives a [`Page`]: how it was measured, figures,
//! and what was expected beside what came out. The program `experiment` writes the pages to
//! docs/experiments/; a small form of each runs as a test.

mod addresses;
mod censor;
pub mod choices;
mod churn;
mod clock;
mod discovery;
mod eclipse;
mod ghosts;
mod hostile_peers;
mod page;
mod plot;
#[expect(clippy::disallowed_methods, reason = "measures CPU time")]
mod reconciling;
mod relays;
#[expect(clippy::disallowed_methods, reason = "measures memory")]
mod scale;
mod spread;
mod sybil;
mod times;
mod year;

pub use page::{Finding, Page, Table};
pub use plot::{Line, Plot};

/// A question about Umbel, and how it is answered.
#[derive(Debug)]
pub struct Experiment {
    /// Its name: of the command, and of its page.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// Answers it.
    pub run: fn(Scale, u64) -> Page,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Enough that a fault shows, in seconds: for tests.
    Small,
    /// Enough for the figures of the page, in minutes.
    Whole,
}

/// All experiments.
pub const ALL: &[Experiment] = &[
    censor::EXPERIMENT,
    churn::EXPERIMENT,
    clock::EXPERIMENT,
    discovery::EXPERIMENT,
    eclipse::EXPERIMENT,
    ghosts::EXPERIMENT,
    hostile_peers::EXPERIMENT,
    scale::EXPERIMENT,
    sybil::EXPERIMENT,
    year::EXPERIMENT,
];

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
