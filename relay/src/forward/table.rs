//! One [`LinkTable`] a link, owned by the task that reads that link: circuit id to half a circuit.
//!
//! A relay cell is peeled or added to in place, gets the next link's circuit id, and goes to that
//! link's queue. No lock, no allocation, no copy a cell. Never makes or ends a circuit: the control
//! plane does, by [`TableUpdate`]s. Rules: docs/protocol.md §2 (cells), §3 (layers), §4 (circuits
//! on a link).

use umbel_proto::Violation;
use umbel_proto::cell::{Cell, Command};
use umbel_proto::ids::CircId;
use umbel_proto::limits::{EARLY_CELLS_MAX, TAG_LEN};
use umbel_proto::link::circuit_of;
use umbel_proto::onion::HopCommand;
use umbel_proto::onion::transit::{AddLayer, PeelLayer};

use super::CircMap;
use super::updates::TableUpdate;

/// The circuits of one link, as seen from the cells that arrive on it. `Q` names a link's outgoing
/// queue.
#[expect(missing_debug_implementations, reason = "holds keys")]
pub struct LinkTable<Q> {
    halves: CircMap<Entry<Q>>,
}

/// Half a circuit, and whether it still works: once broken it takes nothing more, until the control
/// plane removes it.
struct Entry<Q> {
    half: Half<Q>,
    is_broken: bool,
}

/// Half a circuit, by the direction of the relay cells that arrive on this link.
enum Half<Q> {
    /// They come from the origin: peel a layer.
    Peel {
        layer: PeelLayer,
        early_left: u8,
        next: Option<Next<Q>>,
    },
    /// They go to the origin: add a layer.
    Add { layer: AddLayer, next: Next<Q> },
    /// We are the origin: its cells are the control plane's.
    Own,
}

/// Where a circuit continues.
#[derive(Debug, Clone)]
pub struct Next<Q> {
    /// The link's queue.
    pub queue: Q,
    /// The circuit's id on that link.
    pub circ: CircId,
}

/// The verdict on a cell.
#[derive(Debug)]
pub enum Verdict<'a, Q> {
    /// Its header is rewritten (§3.2(5)): hand it to this queue.
    Onward(&'a Q),
    /// It holds a relay message for us: hand it to the control plane.
    Deliver(Delivered),
    /// A command that makes or ends a circuit, or a cell of our own circuit: hand it to the control
    /// plane as it is.
    Control,
    /// The circuit broke a rule and its half is gone: report that to the control plane.
    Broken(CircId, Violation),
    /// Padding: nothing.
    Padding,
    /// A circuit we do not know. A benign race with a `Destroy` of ours (§4.4): drop it and count
    /// it.
    Stale,
    /// The link broke a rule: close it.
    Close(Violation),
}

/// A cell that was addressed to us.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    /// Its circuit on the link it came from.
    pub circ: CircId,
    /// Its tag as it arrived: a credit proves the cell by it.
    pub tag: [u8; TAG_LEN],
    /// Whether it may carry an extend.
    pub is_early: bool,
}

/// An event for the control plane.
#[derive(Debug)]
pub enum LinkEvent {
    /// A cell that makes or ends a circuit, or that belongs to a circuit of our own.
    Cell(Cell),
    /// A relay message that was addressed to us.
    Delivered(Delivered, Cell),
    /// A circuit broke a rule, or overran a queue.
    Broken(CircId, Violation),
}

impl<Q> Verdict<'_, Q> {
    /// The event for the control plane, if there is one.
    pub fn into_event(self, cell: Cell) -> Option<LinkEvent> {
        match self {
            Self::Deliver(delivered) => Some(LinkEvent::Delivered(delivered, cell)),
            Self::Control => Some(LinkEvent::Cell(cell)),
            Self::Broken(circ, violation) => Some(LinkEvent::Broken(circ, violation)),
            Self::Onward(_) | Self::Padding | Self::Stale | Self::Close(_) => None,
        }
    }
}

impl<Q> Default for LinkTable<Q> {
    fn default() -> Self {
        Self {
            halves: CircMap::new(),
        }
    }
}

impl<Q> LinkTable<Q> {
    /// An empty table: a new link has no circuits.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many halves of circuits it holds.
    pub fn len(&self) -> usize {
        self.halves.len()
    }

    /// Whether the link has no circuits.
    pub fn is_empty(&self) -> bool {
        self.halves.is_empty()
    }

    /// Applies what the control plane decided.
    pub fn apply(&mut self, update: TableUpdate<Q>) {
        match update {
            TableUpdate::Terminate(circ, layer) => {
                self.install(
                    circ,
                    Half::Peel {
                        layer,
                        early_left: EARLY_CELLS_MAX,
                        next: None,
                    },
                );
            }
            TableUpdate::Join(circ, onward) => {
                if let Some(Entry {
                    half: Half::Peel { next, .. },
                    ..
                }) = self.halves.get_mut(&circ)
                {
                    *next = Some(onward);
                }
            }
            TableUpdate::Return(circ, layer, next) => self.install(circ, Half::Add { layer, next }),
            TableUpdate::Own(circ) => self.install(circ, Half::Own),
            TableUpdate::Remove(circ) => {
                self.halves.remove(&circ);
            }
        }
    }

    fn install(&mut self, circ: CircId, half: Half<Q>) {
        self.halves.insert(
            circ,
            Entry {
                half,
                is_broken: false,
            },
        );
    }

    /// Decides about a cell, and makes it ready to be passed on.
    #[inline]
    pub fn handle_cell(&mut self, cell: &mut Cell) -> Verdict<'_, Q> {
        match circuit_of(cell) {
            Ok(Some((circ, Command::Relay))) => self.handle_relay_cell(circ, cell),
            Ok(Some(_)) => Verdict::Control,
            Ok(None) => Verdict::Padding,
            Err(violation) => Verdict::Close(violation),
        }
    }

    #[inline]
    fn handle_relay_cell(&mut self, circ: CircId, cell: &mut Cell) -> Verdict<'_, Q> {
        let Some(Entry {
            half,
            is_broken: is_broken @ false,
        }) = self.halves.get_mut(&circ)
        else {
            return Verdict::Stale;
        };
        half.pass(circ, cell).unwrap_or_else(|violation| {
            *is_broken = true;
            Verdict::Broken(circ, violation)
        })
    }
}

impl<Q> Half<Q> {
    #[inline]
    fn pass(&mut self, circ: CircId, cell: &mut Cell) -> Result<Verdict<'_, Q>, Violation> {
        match self {
            Self::Peel {
                layer,
                early_left,
                next,
            } => {
                let peeled = layer.peel(cell)?;
                let is_early = peeled.command.is_early();
                if is_early {
                    *early_left = early_left.checked_sub(1).ok_or(Violation::Early)?;
                }
                match (peeled.command, next) {
                    (HopCommand::Forward | HopCommand::ForwardEarly, Some(next)) => {
                        cell.set_header(Some(next.circ), Command::Relay);
                        Ok(Verdict::Onward(&next.queue))
                    }
                    (HopCommand::Deliver | HopCommand::DeliverEarly, None) => {
                        Ok(Verdict::Deliver(Delivered {
                            circ,
                            tag: peeled.tag,
                            is_early,
                        }))
                    }
                    _ => Err(Violation::HopCommand),
                }
            }
            Self::Add { layer, next } => {
                layer.add(cell.body_mut());
                cell.set_circ_id(next.circ);
                Ok(Verdict::Onward(&next.queue))
            }
            Self::Own => Ok(Verdict::Control),
        }
    }
}
