//! `umbel vanguards`: whether the third hop of each path is kept for hours, too (docs/protocol.md
//! §6.4(18)). Needs no network.

use clap::Subcommand;
use serde::Serialize;

use super::failure::Failure;
use super::session::Session;

#[derive(Clone, Copy, Subcommand)]
pub(super) enum VanguardsCommand {
    /// Draw it from eight relays, each kept for one to 48 hours
    On,
    /// Draw it anew for each path, as by default
    Off,
}

#[derive(Serialize)]
struct Chosen {
    full_vanguards: bool,
}

pub(super) fn run(session: &Session, command: VanguardsCommand) -> Result<(), Failure> {
    let is_on = matches!(command, VanguardsCommand::On);
    session.library()?.set_full_vanguards(is_on)?;
    if session.is_json() {
        return session.json(&Chosen {
            full_vanguards: is_on,
        });
    }
    session.line(if is_on {
        "Full vanguards are on: the third hop of each path is one of eight relays, each kept for one to 48 hours."
    } else {
        "Full vanguards are off: the third hop of each path is drawn anew."
    })?;
    session.line("An umbel that is running goes by this once it is started again.")
}
