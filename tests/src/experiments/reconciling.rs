//! One reconciliation of two books, as bytes, and what it costs.

use std::fs;

use rand::rngs::ChaCha20Rng;
use umbel_proto::directory::reconcile::{self, Syncer};
use umbel_proto::directory::{Book, DirectoryReply, DirectoryRequest, Listing, NotLearned, Source};
use umbel_proto::ids::RelayId;
use umbel_proto::network::Network;
use umbel_proto::time::WallTime;

/// A reconciliation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) requests: usize,
    pub(super) up: usize,
    pub(super) down: usize,
    /// Descriptors that were news, and those that nobody vouched for.
    pub(super) news: usize,
    pub(super) refused: usize,
    /// CPU time of asker and answerer, seconds.
    pub(super) asker: f64,
    pub(super) answerer: f64,
}

/// CPU time that this thread has had, seconds.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split(' ')
        .next()
        .and_then(|text| text.parse::<f64>().ok());
    nanos.unwrap_or(0.0) / 1e9
}

/// Brings the asker's book up to date from this source, which has the answerer's, as a client does.
pub(super) fn reconcile(
    network: &Network,
    asker: &mut Book,
    (source, answerer): (RelayId, &Book),
    wall: WallTime,
    rng: &mut ChaCha20Rng,
) -> Cost {
    let mut cost = Cost::default();
    let begun = cpu();
    let known = answerer.view().get(&source);
    let at = known.map(|it| Source::dialled_by_others(network, it));
    let mark = asker.mark();
    let (mut syncer, request) = Syncer::begin_taking(asker.view());
    let (mut next, mut unvouched) = (Some(request), Vec::new());
    while let Some(request) = next {
        let Some(reply) = exchange(&request, answerer, &mut cost) else {
            return cost;
        };
        let Ok(step) = syncer.on_reply(asker.view(), reply) else {
            return cost;
        };
        for unverified in step.received {
            match asker.hear(network, wall, at.as_ref(), unverified.clone(), rng) {
                Ok(learned) => cost.news += usize::from(learned.is_news()),
                Err(NotLearned::Unvouched) => unvouched.push(unverified),
                Err(_) => {}
            }
        }
        next = step.request;
    }
    cost.refused = unvouched.len();
    let lacking = syncer.into_lacking();
    let listing = Listing {
        source,
        mark,
        lacking,
    };
    if let Some(at) = &at {
        asker.handle_listing(at, &listing);
    }
    while asker.poll_op().is_some() {}
    cost.asker = cpu() - begun - cost.answerer;
    cost
}

/// A request and its reply, as bytes that the other side decodes.
fn exchange(
    request: &DirectoryRequest,
    answerer: &Book,
    cost: &mut Cost,
) -> Option<DirectoryReply> {
    let frame = request.encode();
    cost.requests += 1;
    cost.up += frame.len();
    let answering = cpu();
    let Ok(DirectoryRequest::Sync(request)) = DirectoryRequest::decode(&frame) else {
        return None;
    };
    let frame = DirectoryReply::Sync(reconcile::answer(answerer.view(), &request)).encode();
    cost.answerer += cpu() - answering;
    cost.down += frame.len();
    DirectoryReply::decode(&frame).ok()
}
