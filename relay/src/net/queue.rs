//! The lock around a link's [`Outgoing`] queue: any link's task and the control plane push to it, a
//! batch with one lock; the task that owns the link empties it and is woken for that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use umbel_proto::cell::Cell;
use umbel_proto::link::LinkId;

use crate::forward::outgoing::{Budget, Outgoing, Phase, Pushed};

/// One link's queue.
pub(crate) struct LinkQueue {
    link: LinkId,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outgoing: Outgoing,
    waker: Option<Waker>,
}

impl LinkQueue {
    /// An empty queue of the link `link`.
    pub(crate) fn new(link: LinkId, budget: Arc<Budget>) -> Self {
        Self {
            link,
            budget,
            state: Mutex::default(),
        }
    }

    /// Which link's queue this is.
    pub(crate) const fn link(&self) -> LinkId {
        self.link
    }

    /// The budget that pays for the waiting cells.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Puts each cell behind those of its circuit. `pushed` is added to.
    pub(crate) fn push(&self, cells: impl IntoIterator<Item = Cell>, pushed: &mut Pushed) {
        let mut state = self.lock();
        state.outgoing.push(cells, &self.budget, pushed);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves up to `room` cells to the end of `batch`, and has the task woken for the next.
    pub(crate) fn take(&self, cx: &Context<'_>, batch: &mut VecDeque<Cell>, room: usize) -> Phase {
        let mut state = self.lock();
        let phase = state.outgoing.take(batch, room);
        if !state
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.waker = Some(cx.waker().clone());
        }
        phase
    }

    /// Wakes the link's task: it has something to do besides sending.
    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives back memory that a quiet link does not need.
    pub(crate) fn shrink(&self) {
        self.lock().outgoing.shrink();
    }

    /// Closes the link once the queued cells are sent.
    pub(crate) fn close(&self) {
        self.lock().outgoing.close();
        self.wake();
    }

    /// The link is gone: drops the queued cells and takes no more.
    pub(crate) fn shut(&self) {
        let mut state = self.lock();
        let waited = state.outgoing.shut(&self.budget);
        state.waker = None;
        drop(state);
        drop(waited); // up to 16 MiB: not while others wait for the lock
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
