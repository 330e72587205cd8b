//! What must hold after every step.

use crate::world::World;

/// Checks the whole world; says what is wrong.
///
/// # Errors
/// Something that must never be.
pub fn step(world: &World) -> Result<(), String> {
    conservation(world)?;
    for (number, relay) in world.all_relays().iter().enumerate() {
        let Some(control) = relay.control() else {
            continue;
        };
        control
            .check()
            .map_err(|fault| format!("relay {number}: {fault}"))?;
        let halves: usize = relay.tables().map(|(_, table)| table.len()).sum();
        let ends = control.end_count();
        // A half that broke is still in its table; a circuit whose handshake is being answered is
        // not there yet.
        if halves > ends {
            return Err(format!(
                "relay {number}: {halves} halves in its tables for {ends} ends of circuits"
            ));
        }
        relay
            .disk
            .check()
            .map_err(|fault| format!("relay {number}: {fault}"))?;
    }
    for (number, client) in world.all_clients().iter().enumerate() {
        if client.disk.duplicates > 0 {
            return Err(format!("client {number} stored a message twice"));
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
