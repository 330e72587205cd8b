//! Faults of the nodes of a world: they die, move, sleep and lose each other; their calendars go
//! wrong and their disks fill.

use umbel_proto::ids::RelayId;
use umbel_proto::time::Duration;

use super::World;
use super::network::Node;
use crate::disk::ClientDisk;
use crate::shells::{ClientName, Input, RelayName};

impl World {
    /// From now on a node's calendar is this many seconds ahead; 0 sets it right.
    pub fn set_clock(&mut self, node: Node, ahead: i64) {
        self.clocks.insert(node, ahead);
    }

    /// Kills a relay, between any write and its commit.
    pub fn crash_relay(&mut self, name: RelayName) {
        // Cells in its queues die with it; no queue is left when its links break.
        self.lose_waiting(self.relays[name.0].waiting_cells() as u64);
        self.lose_copies(self.relays[name.0].waiting_copies());
        self.relays[name.0].crash();
        self.drop_links(Node::Relay(name.0));
        self.touch(Node::Relay(name.0));
    }

    /// Starts a relay that is down.
    pub fn restart_relay(&mut self, name: RelayName) {
        let moment = self.moment_of(Node::Relay(name.0));
        self.relays[name.0].start(&self.overlay, moment, &mut self.rng);
        self.drain(Node::Relay(name.0));
    }

    /// A relay that is down gets another address.
    pub fn move_relay(&mut self, name: RelayName) {
        let port = self.relays[name.0].address.port();
        self.relays[name.0].address.set_port(port + 10_000);
    }

    /// A client's machine sleeps for this time, while the rest of the world continues and
    /// `meanwhile` happens.
    pub fn suspend_client(
        &mut self,
        name: ClientName,
        time: Duration,
        meanwhile: impl FnOnce(&mut Self),
    ) {
        self.suspended = Some(name);
        self.touch(Node::Client(name.0));
        meanwhile(self);
        self.run_for(time);
        self.suspended = None;
        let ends = self.network.ends_at(Node::Client(name.0));
        self.hear_again(|end| ends.contains(&end));
        self.tell(Node::Client(name.0), Input::Timeout);
        self.drain(Node::Client(name.0));
        for event in core::mem::take(&mut self.asleep) {
            self.schedule(Duration::ZERO, event);
        }
    }

    /// Kills a client, between any write and its commit.
    pub fn crash_client(&mut self, name: ClientName) {
        self.clients[name.0].crash();
        self.drop_links(Node::Client(name.0));
        self.touch(Node::Client(name.0));
    }

    /// Fills a client's disk, or makes room on it.
    pub fn set_client_disk_full(&mut self, name: ClientName, is_full: bool) {
        self.clients[name.0].set_disk_full(is_full);
    }

    /// A client that is down loses what it has of all relays but these.
    pub fn forget_relays_but(&mut self, name: ClientName, kept: &[RelayId]) {
        self.clients[name.0].disk.forget_relays_but(kept);
    }

    /// The user of this client chooses whether it has full vanguards, from its next start on.
    pub fn set_full_vanguards(&mut self, name: ClientName, is_on: bool) {
        self.clients[name.0].disk.set_full_vanguards(is_on);
    }

    /// The user of a client that is down goes on although seeds disagree.
    pub fn accept_view(&mut self, name: ClientName) {
        self.clients[name.0].disk.accept_view();
    }

    /// Starts a client that is down.
    pub fn restart_client(&mut self, name: ClientName) {
        let moment = self.moment_of(Node::Client(name.0));
        self.clients[name.0].start(&self.overlay, moment, &mut self.rng);
        self.drain(Node::Client(name.0));
    }

    /// A client starts anew from an earlier copy of its disk: a backup.
    pub fn restore_client(&mut self, name: ClientName, disk: ClientDisk) {
        self.crash_client(name);
        self.clients[name.0].disk = disk;
        self.restart_client(name);
    }

    /// These two can't reach each other until the network heals.
    pub fn cut(&mut self, a: Node, b: Node) {
        for end in self.network.cut(a, b) {
            self.break_link(end);
        }
    }

    /// From now on everything between this client and this relay is lost silently.
    pub fn silence(&mut self, client: ClientName, relay: RelayName) {
        let (a, b) = (Node::Client(client.0), Node::Relay(relay.0));
        self.network.silence(a, b);
    }

    /// Lets time pass in which no machine runs: those that are up sleep, and wake afterwards.
    pub fn skip(&mut self, time: Duration) {
        self.now = self.now + time;
        self.hear_again(|_| true);
    }
}
