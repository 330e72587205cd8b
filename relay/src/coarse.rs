//! Sums of what users make, told so coarsely that one user more or less does not show
//! (docs/threat-model.md).

use std::fmt;

/// Numbers below this are all alike.
const LEAST: usize = 16;
/// Sizes are rounded up to a multiple of this, MiB.
const MIB_STEP: u64 = 16;

/// A number of things that users made: the range between two powers of two that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coarse(pub(crate) usize);

impl Coarse {
    /// The least number of the range; 0 in the first, which is under 16.
    pub(crate) const fn least(self) -> usize {
        match self.0.checked_ilog2() {
            Some(bits) if self.0 >= LEAST => 1 << bits,
            _ => 0,
        }
    }
}

impl fmt::Display for Coarse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least() {
            0 => write!(f, "under {LEAST}"),
            least => write!(f, "{least} to {}", (least - 1) * 2 + 1),
        }
    }
}

/// A size, rounded up to 16 MiB.
pub(crate) fn mib(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(MIB_STEP << 20) * MIB_STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_told_as_the_range_between_powers_of_two() {
        for (number, least, text) in [
            (0, 0, "under 16"),
            (15, 0, "under 16"),
            (16, 16, "16 to 31"),
            (31, 16, "16 to 31"),
            (100, 64, "64 to 127"),
        ] {
            assert_eq!(Coarse(number).least(), least);
            assert_eq!(Coarse(number).to_string(), text);
        }
        assert_eq!((mib(0), mib(16 << 20), mib((16 << 20) + 1)), (16, 16, 32));
    }
}
