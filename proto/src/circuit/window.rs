//! How many `Data` cells may be on their way, and the credits that let more follow
//! (docs/protocol.md §7.3).
//!
//! Each direction of a circuit has a window of its own: a [`SendWindow`] at the end that speaks, a
//! [`ReceiveWindow`] at the end that listens. Only `Data` messages are counted. A credit proves
//! that the cells it speaks of were read: it carries the tag of the last of them, which only a
//! receiver of that cell knows.

use std::collections::VecDeque;

use crate::Violation;
use crate::crypto::is_equal;
use crate::limits::{CREDIT_EVERY_CELLS, TAG_LEN, WINDOW_INITIAL_CELLS, WINDOW_MAX_CELLS};
use crate::message::Credit;

/// Tag of a cell as the terminal sees it. It names the cell in a credit (§7.3(2)).
pub(super) type Tag = [u8; TAG_LEN];

/// The most a credit grants: what it acknowledges, and one step of growth.
const GRANT_MAX_CELLS: u16 = 2 * CREDIT_EVERY_CELLS;

const _: () = assert!(WINDOW_INITIAL_CELLS.is_multiple_of(CREDIT_EVERY_CELLS));
const _: () = assert!(WINDOW_MAX_CELLS.is_multiple_of(CREDIT_EVERY_CELLS));

/// How many `Data` cells this end may still send.
pub(super) struct SendWindow {
    /// Cells that may be sent now.
    left_cells: u16,
    /// Those, and the ones sent that no credit has spoken of.
    window_cells: u16,
    /// Cells sent since a tag was last remembered.
    since_tag_cells: u16,
    /// Tags the peer's next credits have to carry, oldest first; at most
    /// `window_cells / CREDIT_EVERY_CELLS`.
    awaited: VecDeque<Tag>,
}

impl SendWindow {
    pub(super) const fn new() -> Self {
        Self {
            left_cells: WINDOW_INITIAL_CELLS,
            window_cells: WINDOW_INITIAL_CELLS,
            since_tag_cells: 0,
            awaited: VecDeque::new(),
        }
    }

    /// Whether another `Data` cell may be sent.
    pub(super) const fn is_open(&self) -> bool {
        self.left_cells > 0
    }

    /// A `Data` cell went out under this tag; each takes one of the window (§7.3(1)).
    pub(super) fn on_sent(&mut self, tag: Tag) {
        assert!(
            self.left_cells > 0,
            "a cell is only made while the window is open"
        );
        self.left_cells -= 1;
        self.since_tag_cells += 1;
        if self.since_tag_cells == CREDIT_EVERY_CELLS {
            self.since_tag_cells = 0;
            self.awaited.push_back(tag);
        }
        assert!(self.awaited.len() <= usize::from(WINDOW_MAX_CELLS / CREDIT_EVERY_CELLS));
    }

    /// Takes a credit: it must carry the oldest tag not yet credited, and grant as much as it
    /// acknowledges, or one step more while the window stays within [`WINDOW_MAX_CELLS`] (§7.3(5)).
    pub(super) fn handle_credit(&mut self, credit: &Credit) -> Result<(), Violation> {
        let awaited = self.awaited.front().ok_or(Violation::Window)?;
        if !is_equal(awaited, &credit.tag) {
            return Err(Violation::Window);
        }
        if credit.cells != CREDIT_EVERY_CELLS && credit.cells != GRANT_MAX_CELLS {
            return Err(Violation::Window);
        }
        let window_cells = self.window_cells - CREDIT_EVERY_CELLS + credit.cells;
        if window_cells > WINDOW_MAX_CELLS {
            return Err(Violation::Window);
        }
        self.awaited.pop_front();
        self.window_cells = window_cells;
        self.left_cells += credit.cells;
        assert!(self.left_cells <= self.window_cells);
        Ok(())
    }
}

/// How many `Data` cells the peer may still send.
pub(super) struct ReceiveWindow {
    /// Cells that may still come before a credit is sent.
    left_cells: u16,
    /// Those, and the ones that came and no credit has spoken of.
    window_cells: u16,
    /// Cells that came since a credit was last due.
    since_due_cells: u16,
    /// Tags of credits that are due but not sent, oldest first; at most
    /// `window_cells / CREDIT_EVERY_CELLS`, for nothing is granted before its credit is sent.
    due: VecDeque<Tag>,
    /// Whether credits may grant more than they acknowledge.
    may_grow: bool,
}

impl ReceiveWindow {
    pub(super) const fn new(may_grow: bool) -> Self {
        Self {
            left_cells: WINDOW_INITIAL_CELLS,
            window_cells: WINDOW_INITIAL_CELLS,
            since_due_cells: 0,
            due: VecDeque::new(),
            may_grow,
        }
    }

    /// Whether credits may let the window grow: no, while memory is short. It never shrinks.
    pub(super) const fn set_growth(&mut self, may_grow: bool) {
        self.may_grow = may_grow;
    }

    /// A `Data` cell came under this tag: within the window, or the peer broke §7.3(3).
    pub(super) fn handle_cell(&mut self, tag: Tag) -> Result<(), Violation> {
        self.left_cells = self.left_cells.checked_sub(1).ok_or(Violation::Window)?;
        self.since_due_cells += 1;
        if self.since_due_cells == CREDIT_EVERY_CELLS {
            self.since_due_cells = 0;
            self.due.push_back(tag);
        }
        assert!(self.due.len() <= usize::from(WINDOW_MAX_CELLS / CREDIT_EVERY_CELLS));
        Ok(())
    }

    /// The next credit to send, granted by being taken (§7.3(4)).
    pub(super) fn poll_credit(&mut self) -> Option<Credit> {
        let tag = self.due.pop_front()?;
        let grows = self.may_grow && self.window_cells + CREDIT_EVERY_CELLS <= WINDOW_MAX_CELLS;
        let cells = if grows {
            GRANT_MAX_CELLS
        } else {
            CREDIT_EVERY_CELLS
        };
        self.window_cells += cells - CREDIT_EVERY_CELLS;
        self.left_cells += cells;
        assert!(self.left_cells <= self.window_cells && self.window_cells <= WINDOW_MAX_CELLS);
        Some(Credit { tag, cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u32) -> Tag {
        let mut tag = [7; TAG_LEN];
        tag[..4].copy_from_slice(&number.to_be_bytes());
        tag
    }

    /// Sends `cells` cells, numbered from `first`.
    fn send(window: &mut SendWindow, first: u32, cells: u32) {
        (first..first + cells).for_each(|number| window.on_sent(tag(number)));
    }

    fn credit(number: u32, cells: u16) -> Credit {
        Credit {
            tag: tag(number),
            cells,
        }
    }

    #[test] // §7.3(1)
    fn sends_the_initial_window_and_no_more() {
        let mut window = SendWindow::new();
        send(&mut window, 1, 64);
        assert!(!window.is_open());
        window.handle_credit(&credit(16, 16)).unwrap();
        assert_eq!(window.left_cells, 16);
    }

    #[test] // §7.3(5)
    fn a_credit_carries_the_oldest_awaited_tag() {
        for wrong in [15, 17, 32] {
            let mut window = SendWindow::new();
            send(&mut window, 1, 32);
            assert_eq!(
                window.handle_credit(&credit(wrong, 16)),
                Err(Violation::Window)
            );
        }
        let mut window = SendWindow::new();
        send(&mut window, 1, 32);
        window.handle_credit(&credit(16, 16)).unwrap();
        window.handle_credit(&credit(32, 16)).unwrap();
    }

    #[test] // §7.3(5)
    fn a_credit_counts_once() {
        let mut window = SendWindow::new();
        send(&mut window, 1, 40);
        window.handle_credit(&credit(16, 16)).unwrap();
        assert_eq!(
            window.handle_credit(&credit(16, 16)),
            Err(Violation::Window)
        );
    }

    #[test] // §7.3(5)
    fn a_credit_before_its_cells_is_refused() {
        let mut window = SendWindow::new();
        send(&mut window, 1, 15);
        assert_eq!(
            window.handle_credit(&credit(15, 16)),
            Err(Violation::Window)
        );
    }

    #[test] // §7.3(4)
    fn a_credit_grants_one_step_or_two() {
        for cells in [0, 1, 15, 17, 33, 48, u16::MAX] {
            let mut window = SendWindow::new();
            send(&mut window, 1, 16);
            assert_eq!(
                window.handle_credit(&credit(16, cells)),
                Err(Violation::Window),
                "{cells}"
            );
        }
    }

    #[test] // §7.3(4)
    fn the_window_grows_to_its_limit_and_not_beyond() {
        let mut window = SendWindow::new();
        let mut sent = 0;
        for _ in 0..(512 - 64) / 16 {
            send(&mut window, sent + 1, 16);
            sent += 16;
            window.handle_credit(&credit(sent, 32)).unwrap();
        }
        assert_eq!(window.left_cells, 512);
        send(&mut window, sent + 1, 16);
        assert_eq!(
            window.handle_credit(&credit(sent + 16, 32)),
            Err(Violation::Window)
        );
        window.handle_credit(&credit(sent + 16, 16)).unwrap();
    }

    #[test] // §7.3(3)
    fn an_overrun_is_refused() {
        let mut window = ReceiveWindow::new(true);
        (1..=64).for_each(|number| window.handle_cell(tag(number)).unwrap());
        assert_eq!(window.handle_cell(tag(65)), Err(Violation::Window));
    }

    #[test] // §7.3(3): a credit that is due but not sent grants nothing
    fn credits_come_every_16_cells_and_grow_when_allowed() {
        let mut window = ReceiveWindow::new(false);
        (1..=15).for_each(|number| window.handle_cell(tag(number)).unwrap());
        assert_eq!(window.poll_credit(), None);
        window.handle_cell(tag(16)).unwrap();
        assert_eq!(window.poll_credit(), Some(credit(16, 16)));
        window.set_growth(true);
        (17..=32).for_each(|number| window.handle_cell(tag(number)).unwrap());
        assert_eq!(window.poll_credit(), Some(credit(32, 32)));
    }

    #[test] // §7.3(5)
    fn both_ends_count_alike_forever() {
        let (mut sender, mut receiver) = (SendWindow::new(), ReceiveWindow::new(true));
        let mut number = 0;
        for _ in 0..100 {
            while sender.is_open() {
                number += 1;
                sender.on_sent(tag(number));
                receiver.handle_cell(tag(number)).unwrap();
            }
            while let Some(credit) = receiver.poll_credit() {
                sender.handle_credit(&credit).unwrap();
            }
        }
        assert_eq!(sender.window_cells, WINDOW_MAX_CELLS);
        assert_eq!(
            (sender.left_cells, sender.window_cells),
            (receiver.left_cells, receiver.window_cells)
        );
    }
}
