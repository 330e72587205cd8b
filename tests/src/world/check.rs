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
    nodes(world, &relays.chain(clients).collect())
}

/// Checks these nodes, and where every cell is.
///
/// # Errors
/// Something that must never be.
pub fn nodes(world: &World, nodes: &BTreeSet<Node>) -> Result<(), String> {
    conservation(world)?;
    for &node in nodes {
        match node {
            Node::Relay(number) => relay(&world.all_relays()[number])
                .map_err(|fault| format!("relay {number}: {fault}"))?,
            Node::Client(number) => client(&world.all_clients()[number])
                .map_err(|fault| format!("client {number}: {fault}"))?,
        }
    }
    Ok(())
}

/// Every cell sent has arrived, is on its way, or was lost with its link.
fn conservation(world: &World) -> Result<(), String> {
    let cells = world.cells;
    if cells.sent == cells.arrived + cells.lost + cells.in_flight {
        Ok(())
    } else {
        Err(format!("cells went missing: {cells:?}"))
    }
}

/// A relay's machines, tables and disk agree.
fn relay(relay: &SimRelay) -> Result<(), String> {
    let Some(control) = relay.control() else {
        return Ok(());
    };
    control.check()?;
    let halves: usize = relay.tables().map(|(_, table)| table.len()).sum();
    let ends = control.end_count();
    // A half that broke is still in its table; a circuit whose handshake is being answered is not
    // there yet.
    if halves > ends {
        return Err(format!(
            "{halves} halves in its tables for {ends} ends of circuits"
        ));
    }
    relay.disk.check()
}

/// A client stores no message twice.
fn client(client: &SimClient) -> Result<(), String> {
    if client.disk.duplicates > 0 {
        return Err("it stored a message twice".to_owned());
    }
    Ok(())
}
