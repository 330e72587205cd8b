//! The coming events of a world, in the order in which they happen.
//!
//! The soonest comes first. At one instant, events come before timers, so that a node hears what
//! has arrived before it looks at the time. Events of one instant come in the order in which they
//! were scheduled; timers of one instant by node, relays before clients, each by number. The order
//! therefore follows from the seed alone.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::time::Instant;

use super::events::Event;
use super::network::Node;

/// Scheduled events, and one timer for each node.
#[derive(Default)]
pub(super) struct Agenda {
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    /// The same timers twice: by time, and by node.
    timers: BTreeSet<(Instant, Node)>,
    armed: BTreeMap<Node, Instant>,
}

/// The next event.
pub(super) enum Due {
    /// An event.
    Event(Event),
    /// This node's timer expires. It stays armed until the node is asked again when it next wants
    /// to be woken.
    Timer(Node),
}

impl Agenda {
    /// Schedules an event.
    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// Sets a node's only timer, or clears it.
    pub(super) fn arm(&mut self, node: Node, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.armed.insert(node, at),
            None => self.armed.remove(&node),
        };
        if before != at {
            self.timers.extend(at.map(|at| (at, node)));
            if let Some(before) = before {
                self.timers.remove(&(before, node));
            }
        }
    }

    /// All timers, the soonest first.
    pub(super) fn timers(&self) -> impl Iterator<Item = (Instant, Node)> {
        self.timers.iter().copied()
    }

    /// Takes what happens next, and when, unless that is after `end`.
    pub(super) fn pop(&mut self, end: Instant) -> Option<(Instant, Due)> {
        let event_at = self.events.first_key_value().map(|(&(at, _), _)| at);
        if let Some(&(at, node)) = self.timers.first()
            && event_at.is_none_or(|event_at| at < event_at)
        {
            return (at <= end).then_some((at, Due::Timer(node)));
        }
        let first = self.events.first_entry()?;
        if first.key().0 > end {
            return None;
        }
        let ((at, _), event) = first.remove_entry();
        Some((at, Due::Event(event)))
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::ids::RelayId;

    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn event(relay: u8) -> Event {
        Event::DialFailed {
            from: Node::Client(0),
            relay: RelayId([relay; 32]),
        }
    }

    /// What is popped, until the agenda has nothing more; a timer that expired is cleared.
    fn drained(agenda: &mut Agenda, end: Instant) -> Vec<(u64, String)> {
        core::iter::from_fn(|| {
            let (at, due) = agenda.pop(end)?;
            let name = match due {
                Due::Timer(node) => {
                    agenda.arm(node, None);
                    format!("{node:?}")
                }
                Due::Event(Event::DialFailed { relay, .. }) => format!("event {}", relay.0[0]),
                Due::Event(_) => unreachable!("only dials fail here"),
            };
            Some((at.as_micros(), name))
        })
        .collect()
    }

    #[test]
    fn at_one_instant_events_come_first_as_scheduled_then_timers_by_node() {
        let mut agenda = Agenda::default();
        agenda.arm(Node::Client(0), Some(at(5)));
        agenda.arm(Node::Relay(1), Some(at(5)));
        agenda.arm(Node::Relay(0), Some(at(9)));
        agenda.arm(Node::Relay(0), Some(at(5)));
        agenda.arm(Node::Relay(2), Some(at(4)));
        agenda.schedule(at(5), event(2));
        agenda.schedule(at(5), event(1));
        agenda.schedule(at(6), event(3));
        let expected = ["Relay(2)", "event 2", "event 1"];
        let expected = expected
            .iter()
            .chain(&["Relay(0)", "Relay(1)", "Client(0)"]);
        let names: Vec<_> = drained(&mut agenda, at(5))
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert!(names.iter().eq(expected), "{names:?}");
        assert_eq!(drained(&mut agenda, at(6)), [(6, "event 3".to_owned())]);
    }
}
