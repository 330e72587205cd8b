//! Changes to a link's table, on their way from the control plane to the task that owns the table.
//!
//! The order that matters: an update is in [`TableUpdates`] before any cell that the control plane
//! sends because of it is in any queue. The answer to such a cell is read later, and the task takes
//! the updates after it has read and before it handles what it read. So the table always knows the
//! circuit.

use std::sync::{Mutex, PoisonError};

use umbel_proto::ids::CircId;
use umbel_proto::onion::transit::{AddLayer, PeelLayer};

use super::table::Next;

/// A change to one link's table.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub enum TableUpdate<Q> {
    /// A circuit from this link ends here, for now.
    Terminate(CircId, PeelLayer),
    /// A circuit from this link continues there.
    Join(CircId, Next<Q>),
    /// A circuit that was extended over this link comes back from it.
    Return(CircId, AddLayer, Next<Q>),
    /// A circuit of our own begins over this link.
    Own(CircId),
    /// A circuit is over.
    Remove(CircId),
}

impl<Q> TableUpdate<Q> {
    /// The same update with queues named otherwise; `None` if the queue it names is gone.
    pub fn map_queue<R>(self, mut map: impl FnMut(Q) -> Option<R>) -> Option<TableUpdate<R>> {
        let mut map_next = |next: Next<Q>| {
            Some(Next {
                queue: map(next.queue)?,
                circ: next.circ,
            })
        };
        Some(match self {
            Self::Terminate(circ, layer) => TableUpdate::Terminate(circ, layer),
            Self::Join(circ, next) => TableUpdate::Join(circ, map_next(next)?),
            Self::Return(circ, layer, next) => TableUpdate::Return(circ, layer, map_next(next)?),
            Self::Own(circ) => TableUpdate::Own(circ),
            Self::Remove(circ) => TableUpdate::Remove(circ),
        })
    }
}

/// The updates of one link that its task has not taken yet.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct TableUpdates<Q>(Mutex<Vec<TableUpdate<Q>>>);

impl<Q> Default for TableUpdates<Q> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Q> TableUpdates<Q> {
    /// Adds an update.
    pub fn push(&self, update: TableUpdate<Q>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(update);
    }

    /// Takes all that came since, into a list that is empty.
    pub fn take(&self, taken: &mut Vec<TableUpdate<Q>>) {
        std::mem::swap(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            taken,
        );
    }
}
