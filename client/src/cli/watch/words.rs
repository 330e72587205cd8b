//! The text and the exit code for a message that is not with enough holders.

use std::borrow::Cow;

use umbel_client::core::io::{Copies, DeferReason};
use umbel_proto::ids::MessageId;
use umbel_proto::time::Duration;

use super::super::failure::{Exit, Failure};
use super::super::view::{
    CLOCK_HINT, DISPUTED_HINT, DISPUTED_TEXT, clock_text, few_hint, few_text,
};
use super::super::{output, times};
use super::progress::Obstacle;

/// The advice where a second copy would reach the reader, too.
pub(super) const ASK_FIRST: &str = "before you send it again, ask its reader, who may get it twice";

/// The advice where a message has left the outbox and nobody is left who knows why.
pub(super) fn left_hint() -> String {
    format!(
        "enough relays have it unless another umbel command took it back or it expired; {ASK_FIRST}"
    )
}

/// What became of a message that expired.
pub(in super::super) fn expired_text(id: MessageId, copies: Copies, wanted: usize) -> String {
    match copies {
        Copies::InDoubt => format!(
            "message {id} expired and has left the outbox: no relay confirmed it, but one may have it; {ASK_FIRST}"
        ),
        Copies::None => format!(
            "message {id} expired and has left the outbox: nobody has it; send it again if it still matters"
        ),
        Copies::Held(holders) => format!(
            "message {id} expired and has left the outbox: {holders} of {wanted} relays have it, and its reader gets it from there"
        ),
    }
}

/// The outcome of a command whose message expired while nobody was known to have it.
pub(super) fn expired_failure(copies: Copies) -> Failure {
    if copies.may_be_out() {
        Failure::new(
            Exit::InDoubt,
            "the message expired: no relay confirmed it, but one may have it",
            ASK_FIRST,
        )
    } else {
        Failure::failed(
            "the message expired: nobody has it",
            "compare the address with its owner, who must be online once a week, and send it again",
        )
    }
}

/// How long it is until a message that these have goes out again.
pub(super) fn planned_text(holders: &str, wait: Duration) -> String {
    let wait = times::length(wait.max(Duration::from_secs(1)));
    format!(
        "kept by {holders}; the next copy goes out in about {wait}, or with the next `umbel send`, `receive` or `outbox flush`"
    )
}

/// Why no further holder has a message that one has.
pub(super) fn why_not_more(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Time => "the others have not answered yet",
        Obstacle::View { relays: 1.. } => "too few relays can be used yet",
        Obstacle::View { .. } | Obstacle::Clock { .. } => "no list of relays has come yet",
        Obstacle::Disputed => DISPUTED_TEXT,
        Obstacle::Unreachable => "no relay can be reached just now",
        Obstacle::Deferred(DeferReason::NoCircuit) => "no circuit can be built just now",
        Obstacle::Deferred(DeferReason::QueueFull) => "the inbox is full at the others",
        Obstacle::Deferred(_) => "the others can't be reached",
    }
}

pub(super) fn exit(obstacle: Obstacle) -> Exit {
    match obstacle {
        Obstacle::Unreachable | Obstacle::View { .. } => Exit::Unreachable,
        Obstacle::Disputed => Exit::Disputed,
        Obstacle::Time | Obstacle::Clock { .. } | Obstacle::Deferred(_) => Exit::Deferred,
    }
}

pub(super) fn text(obstacle: Obstacle) -> Cow<'static, str> {
    let text = match obstacle {
        Obstacle::Time => "too few holders have it yet",
        Obstacle::Unreachable => "no relay could be reached",
        Obstacle::View { relays: 0 } => "no list of relays came in time",
        Obstacle::View { relays } => return few_text(relays).into(),
        Obstacle::Disputed => DISPUTED_TEXT,
        Obstacle::Clock { seconds } => return clock_text(seconds).into(),
        Obstacle::Deferred(reason) => return why(reason),
    };
    text.into()
}

/// Why a message stays in the outbox for now.
pub(in super::super) fn why(reason: DeferReason) -> Cow<'static, str> {
    let text = match reason {
        DeferReason::NoCircuit => "no circuit could be built",
        DeferReason::NoDescriptor => "no directory relay knows this address",
        DeferReason::NoDirectory => "no directory relay that may know this address answered",
        DeferReason::Broken { circuits, guards } => {
            let (circuits, guards) = (
                output::count(circuits, "circuit"),
                output::count(guards, "guard"),
            );
            return format!("circuits break before the question arrives: {circuits} over {guards}")
                .into();
        }
        DeferReason::Holders => "too few of the inbox's holders could be reached or accepted it",
        DeferReason::QueueFull => "the inbox is full",
    };
    text.into()
}

pub(super) fn hint(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::View { relays } if relays > 0 => few_hint(relays),
        Obstacle::Unreachable | Obstacle::View { .. } => {
            "check your connection; if every relay that you knew has moved, name one that is up with `umbel seed add \
             ID@HOST:PORT`; the next send or receive tries again"
        }
        Obstacle::Clock { .. } => CLOCK_HINT,
        Obstacle::Disputed => DISPUTED_HINT,
        Obstacle::Deferred(DeferReason::NoDescriptor) => {
            "compare the address with its owner, who must be online once a week; the next send or receive tries again"
        }
        Obstacle::Deferred(DeferReason::QueueFull) => {
            "its owner must receive first; the next send or receive tries again"
        }
        Obstacle::Deferred(DeferReason::Broken { .. }) => {
            "a relay on the path keeps breaking circuits; the next send or receive tries other relays"
        }
        Obstacle::Deferred(DeferReason::NoCircuit) => {
            "relays answer, but no circuit through them was completed: others may be down; the next send or receive tries again, as does `umbel outbox flush`"
        }
        Obstacle::Time | Obstacle::Deferred(_) => {
            "the next send or receive tries again, as does `umbel outbox flush`"
        }
    }
}
