//! The invariants that hold after every step.

use std::collections::BTreeSet;

use super::World;
use super::network::Node;
use crate::shells::{SimClient, SimRelay};

/// Checks the whole world; says what is wrong.
///
/// # Errors
/// Something that must never be.
pub fn world(world: &World) -> Result<(), String> {
    let relays = (0..world.all_relays().len()).map(Node::Relay);
    let clients = (0..world.all_clients().len()).map(Node::Client);
    nodes(world, &relays.chain(clients).collect())?;
    let waiting: usize = world.all_relays().iter().map(SimRelay::waiting_cells).sum();
    if world.cells.waiting == waiting as u64 {
        Ok(())
    } else {
        Err(format!("{waiting} cells wait: {:?}", world.cells))
    }
}

/// Checks these nodes, and where every cell is.
///
/// # Errors
/// Something that must never be.
pub fn nodes(world: &World, nodes: &BTreeSet<Node>) -> Result<(), String> {
    conservation(world)?;
    for &node in nodes {
        match node {
            Node::Relay(number) => world.all_relays()[number]
                .check()
                .map_err(|fault| format!("relay {number}: {fault}"))?,
            Node::Client(number) => client(&world.all_clients()[number])
                .map_err(|fault| format!("client {number}: {fault}"))?,
        }
    }
    Ok(())
}

/// Every cell sent has arrived, waits, is in flight, was lost with its link, or was dropped with a
/// circuit that overran.
fn conservation(world: &World) -> Result<(), String> {
    let cells = world.cells;
    let found = cells.arrived + cells.lost + cells.in_flight + cells.waiting + cells.dropped;
    if cells.sent == found {
        Ok(())
    } else {
        Err(format!("cells went missing: {cells:?}"))
    }
}

/// A client stores no message twice.
fn client(client: &SimClient) -> Result<(), String> {
    if client.disk.duplicates > 0 {
        return Err("it stored a message twice".to_owned());
    }
    Ok(())
}
