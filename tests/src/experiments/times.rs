//! How long things took: their spread, as rows and lines.

use super::Line;

/// The value that this share of all, 0 to 1, does not exceed.
pub(super) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let is_enough = |&(at, _): &(usize, &f64)| (at + 1) as f64 >= share * sorted.len() as f64;
    let found = sorted.iter().enumerate().find(is_enough);
    found.map(|(_, &value)| value)
}

/// A row of a table: how many there are, and these shares of them.
pub(super) fn row<const N: usize>(name: &str, values: &[f64], shares: [f64; N]) -> Vec<String> {
    let at = shares.map(|share| {
        quantile(values, share).map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
    });
    [name.to_owned(), values.len().to_string()]
        .into_iter()
        .chain(at)
        .collect()
}

/// How many per cent took at most so long. What took less than `least` is drawn there: the axis is
/// logarithmic.
pub(super) fn rising(name: &str, values: &[f64], least: f64) -> Line {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |at: usize| (at + 1) as f64 * 100.0 / sorted.len() as f64;
    let points = sorted.iter().enumerate();
    Line {
        name: name.to_owned(),
        points: points.map(|(at, &x)| (x.max(least), share(at))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_values() {
        let values = [3.0, 1.0, 2.0, 4.0];
        let found = [0.0, 0.25, 0.5, 0.99, 1.0].map(|share| quantile(&values, share));
        assert_eq!(found, [1.0, 1.0, 2.0, 4.0, 4.0].map(Some));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(
            rising("", &[2.0, 0.0], 0.5).points,
            [(0.5, 50.0), (2.0, 100.0)]
        );
    }
}
