//! Whether a command waits for a list of relays.

use umbel_client::core::io::Notice;

/// What was last heard of the view.
#[derive(Debug, Default)]
pub(super) struct ViewWait {
    is_missing: bool,
}

impl ViewWait {
    /// Hears what a notice says of it.
    pub(super) const fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::WaitingForView { .. } => self.is_missing = true,
            Notice::Ready { .. } => self.is_missing = false,
            _ => {}
        }
    }

    /// Whether nothing can be done yet for want of a list of relays that is not out of date.
    pub(super) const fn is_missing(&self) -> bool {
        self.is_missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_missing_from_when_it_is_waited_for_until_it_is_ready() {
        let mut view = ViewWait::default();
        assert!(!view.is_missing());
        for (notice, is_missing) in [
            (Notice::WaitingForView { last_known: 3 }, true),
            (Notice::Unreachable, true),
            (Notice::Ready { relays: 8 }, false),
            (Notice::Unreachable, false),
        ] {
            view.take(&notice);
            assert_eq!(view.is_missing(), is_missing, "{notice:?}");
        }
    }
}
