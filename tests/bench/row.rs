//! One figure and its spread.

use std::fmt;

use serde::Serialize;
use umbel_proto::time::Duration;

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// How many times as much.
    #[serde(rename = "ratio")]
    Ratio,
    /// How many in each second.
    #[serde(rename = "1/s")]
    PerSecond,
    /// 10^6 bytes in each second.
    #[serde(rename = "MB/s")]
    MegabytesPerSecond,
    /// Seconds of a core for 10^9 bytes.
    #[serde(rename = "s/GB")]
    SecondsPerGigabyte,
    /// 1024 bytes.
    #[serde(rename = "KiB")]
    Kibibytes,
    /// Cells.
    #[serde(rename = "cells")]
    Cells,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The goal of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    /// At most this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Goal {
    /// Whether this value meets the goal.
    pub(super) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// A figure: its values, their spread, and their meaning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// Names it; stays the same between versions.
    pub(super) name: &'static str,
    /// Its unit.
    pub(super) unit: Unit,
    /// The median, or the only value; `None` where this machine can't measure it.
    pub(super) value: Option<f64>,
    /// The least.
    pub(super) min: Option<f64>,
    /// The median.
    pub(super) p50: Option<f64>,
    /// Nine in ten are at most this.
    pub(super) p90: Option<f64>,
    /// Ninety-nine in a hundred are at most this.
    pub(super) p99: Option<f64>,
    /// Of how many values.
    pub(super) samples: usize,
    /// Its goal, if anything was promised.
    pub(super) goal: Option<Goal>,
    /// Its meaning, in one line.
    pub(super) note: String,
}

impl Row {
    /// The figure that these values give; without any it was not measured.
    pub(super) fn of(
        name: &'static str,
        unit: Unit,
        mut values: Vec<f64>,
        note: impl Into<String>,
    ) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |quantile| at_quantile(&values, quantile);
        let p50 = at(50);
        Self {
            name,
            unit,
            value: p50,
            min: values.first().copied(),
            p50,
            p90: at(90),
            p99: at(99),
            samples: values.len(),
            goal: None,
            note: note.into(),
        }
    }

    /// The same figure, with a goal.
    pub(super) fn with_goal(self, goal: Goal) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }

    /// This figure's p99 as a figure of its own: a goal is judged by the value.
    pub(super) fn p99_alone(&self, name: &'static str, note: impl Into<String>) -> Self {
        Self {
            samples: self.samples,
            ..Self::single(name, self.unit, self.p99, note)
        }
    }

    /// A figure without spread: one difference, divided by how many made it.
    pub(super) fn single(
        name: &'static str,
        unit: Unit,
        value: Option<f64>,
        note: impl Into<String>,
    ) -> Self {
        let samples = usize::from(value.is_some());
        Self {
            name,
            unit,
            value,
            min: None,
            p50: None,
            p90: None,
            p99: None,
            samples,
            goal: None,
            note: note.into(),
        }
    }
}

/// The least of these values that at least `percent` in a hundred do not exceed.
fn at_quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// In milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let row = Row::of(
            "x",
            Unit::Milliseconds,
            (1..=200).rev().map(f64::from).collect(),
            "",
        );
        assert_eq!(
            (row.min, row.p50, row.p90, row.p99),
            (Some(1.0), Some(100.0), Some(180.0), Some(198.0))
        );
        assert_eq!((row.value, row.samples), (Some(100.0), 200));
        let p99 = row.p99_alone("y", "");
        assert_eq!(
            (p99.name, p99.value, p99.p50, p99.samples),
            ("y", Some(198.0), None, 200)
        );
        let one = Row::of("x", Unit::Milliseconds, vec![7.0], "");
        assert_eq!((one.min, one.p99), (Some(7.0), Some(7.0)));
    }

    #[test]
    fn what_was_not_measured_has_no_value() {
        let row = Row::of("x", Unit::Ratio, Vec::new(), "");
        assert_eq!((row.value, row.p99, row.samples), (None, None, 0));
        assert_eq!(Row::single("x", Unit::Ratio, None, "").samples, 0);
    }

    #[test]
    fn a_goal_is_met_at_its_bound() {
        assert!(Goal::AtMost(2.0).is_met(2.0) && !Goal::AtMost(2.0).is_met(2.1));
        assert!(Goal::AtLeast(2.0).is_met(2.0) && !Goal::AtLeast(2.0).is_met(1.9));
    }
}
