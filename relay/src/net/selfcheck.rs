//! A relay's checks of itself, since nobody else would warn its operator: whether it answers at the
//! address it advertises, whether another does, and whether its data directory is still there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use umbel_proto::ids::RelayId;
use umbel_proto::limits::{HANDSHAKE_MAX, LINK_CLOSING_MAX};
use umbel_proto::link::{Hello, tls};

use super::Shared;
use crate::shell::files::{WATCH_INTERVAL, Watched};
use crate::shell::{DialFault, HelloFault, exchange_hello};

/// How often a relay dials itself when all is well.
const INTERVAL: Duration = Duration::from_secs(4 * 3600);
/// How soon it does so again when something is wrong, at first and then.
const AGAIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];
/// How often a finding is logged again while it lasts.
const SAY_AGAIN: Duration = Duration::from_secs(6 * 3600);
/// Tries after which an address that is not this machine's, and through which nobody came, is taken
/// for dead.
const TRIES_PATIENT: u32 = 3;

/// Who answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// This relay.
    Own,
    /// A relay with this relay's identity, which is not this process.
    Twin,
    /// Another, or nobody.
    Not(DialFault),
}

/// How bad that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It may be no fault: many routers don't lead back inside.
    Doubtful,
    Bad,
}

/// Dials each address that the relay advertises, after its start and now and then, until the relay
/// stops.
pub(crate) async fn dial_self(
    shared: Arc<Shared>,
    mut addresses: watch::Receiver<Vec<SocketAddr>>,
    stop: watch::Receiver<bool>,
) {
    let mut findings: BTreeMap<SocketAddr, Finding> = BTreeMap::new();
    let mut bad_rounds = 0;
    loop {
        let current = addresses.borrow_and_update().clone();
        findings.retain(|address, _| current.contains(address));
        let mut is_good = true;
        for address in current {
            let Some(answer) = ask_unless_stopped(&shared, address, &stop).await else {
                return;
            };
            let has_visitors = shared.relay_link_count() > 0;
            let finding = findings.entry(address).or_default();
            is_good &=
                finding.note(address, answer, has_visitors, is_own(address.ip())) == Verdict::Good;
        }
        let wait = match (is_good, bad_rounds) {
            (true, _) => INTERVAL,
            (false, 0) => AGAIN[0],
            (false, _) => AGAIN[1],
        };
        bad_rounds = if is_good { 0 } else { bad_rounds + 1 };
        tokio::select! {
            () = sleep(wait) => {}
            changed = addresses.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
        }
    }
}

/// Who answers at `address`; `None` once the relay stops, since it closes its socket then, and
/// nobody answers there through no fault.
async fn ask_unless_stopped(
    shared: &Shared,
    address: SocketAddr,
    stop: &watch::Receiver<bool>,
) -> Option<Answer> {
    let answer = ask(shared, address).await;
    // Set before the socket closes: whatever that did to the dial, it shows here.
    (!*stop.borrow()).then_some(answer)
}

/// Who answers at `address`. The link is made as a client's, and not kept.
async fn ask(shared: &Shared, address: SocketAddr) -> Answer {
    let Ok(config) = tls::dial_config(&RelayId::from(shared.identity.public()), None) else {
        return Answer::Not(DialFault::Unknown);
    };
    let socket = match timeout(HANDSHAKE_MAX, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Answer::Not((&error).into()),
        Err(_) => return Answer::Not(DialFault::Nobody),
    };
    let handshake = TlsConnector::from(config).connect(tls::server_name(), socket);
    let mut stream = match timeout(HANDSHAKE_MAX, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Answer::Not((&error).into()),
        Err(_) => return Answer::Not(DialFault::NoRelay),
    };
    let before = shared.hello();
    let hello = Hello {
        parameters: None,
        descriptor: None,
        ..before.clone()
    };
    let exchanged = exchange_hello(&mut stream, &hello, HANDSHAKE_MAX).await;
    if exchanged.is_ok() {
        // As any link ends (§2.6(5)); where the Hello failed, the exchange has ended it.
        let _ = timeout(LINK_CLOSING_MAX, stream.shutdown()).await;
    }
    match exchanged {
        // This process's own descriptor may have changed meanwhile, but only once.
        Ok(theirs)
            if [before.descriptor, shared.hello().descriptor].contains(&theirs.descriptor) =>
        {
            Answer::Own
        }
        // TLS has proved that this relay's identity answers, whatever it says.
        Ok(_) | Err(HelloFault::Violation(_)) => Answer::Twin,
        Err(fault) => Answer::Not((&fault).into()),
    }
}

/// Whether this machine has the address itself: then no router is in between.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// The last finding at one address, as it was logged.
#[derive(Debug, Default)]
struct Finding {
    said: Option<(Answer, Verdict, Instant)>,
    failures: u32,
}

impl Finding {
    /// Notes who answered, and says what the operator does not know yet.
    fn note(
        &mut self,
        address: SocketAddr,
        answer: Answer,
        has_visitors: bool,
        is_own: bool,
    ) -> Verdict {
        self.failures = match answer {
            Answer::Own => 0,
            Answer::Not(DialFault::Unknown) => self.failures,
            Answer::Twin | Answer::Not(_) => self.failures + 1,
        };
        let verdict = judge(answer, has_visitors, is_own, self.failures);
        let now = Instant::now();
        let is_known = self.said.is_some_and(|(before, judged, said_at)| {
            (before, judged) == (answer, verdict)
                && (verdict == Verdict::Good || now - said_at < SAY_AGAIN)
        });
        let was_bad = self
            .said
            .is_some_and(|(_, judged, _)| judged != Verdict::Good);
        if !is_known {
            self.said = Some((answer, verdict, now));
            say(address, answer, verdict, was_bad);
        }
        verdict
    }
}

fn judge(answer: Answer, has_visitors: bool, is_own: bool, failures: u32) -> Verdict {
    match answer {
        Answer::Own => Verdict::Good,
        Answer::Twin => Verdict::Bad,
        Answer::Not(DialFault::Unknown) => Verdict::Doubtful,
        // A router that does not lead back inside may answer itself.
        Answer::Not(_) if has_visitors => Verdict::Doubtful,
        Answer::Not(DialFault::OtherRelay | DialFault::OtherNetwork) => Verdict::Bad,
        Answer::Not(_) if is_own || failures >= TRIES_PATIENT => Verdict::Bad,
        Answer::Not(DialFault::NoRelay | DialFault::Nobody | DialFault::Elsewhere) => {
            Verdict::Doubtful
        }
    }
}

fn say(address: SocketAddr, answer: Answer, verdict: Verdict, was_bad: bool) {
    match (answer, verdict) {
        (_, Verdict::Good) if was_bad => {
            tracing::info!(%address, "this relay answers at the address that it advertises");
        }
        (_, Verdict::Good) => {
            tracing::debug!(%address, "this relay answers at the address that it advertises");
        }
        (Answer::Twin, _) => tracing::error!(%address, "{TWIN}"),
        (Answer::Not(DialFault::Unknown), _) => tracing::warn!(
            %address,
            "this relay could not try the address that it advertises, for a reason of its own: it has no open files or memory left \
             (see LimitNOFILE), or can't set up its TLS, which is a fault to report. Whether others reach it is not known"
        ),
        (_, Verdict::Doubtful) => tracing::warn!(
            %address,
            "this relay can't reach itself at the address that it advertises. Behind a router that does not lead back inside this \
             may be no fault: try the address from another network; if that fails, check `advertise`, the firewall and the router's \
             port forwarding"
        ),
        (Answer::Not(DialFault::OtherRelay | DialFault::OtherNetwork), _) => tracing::error!(
            %address,
            "another relay answers at the address that this one advertises: correct `advertise`, or the router's port forwarding"
        ),
        (Answer::Not(DialFault::NoRelay), _) => tracing::error!(
            %address,
            "something that is no relay answers at the address that this relay advertises: correct `advertise`, or the router's \
             port forwarding"
        ),
        (Answer::Own | Answer::Not(DialFault::Nobody | DialFault::Elsewhere), _) => {
            tracing::error!(
                %address,
                "nobody answers at the address that this relay advertises, so others can't reach it: correct `advertise`, or open the \
                 port in the firewall and the router"
            );
        }
    }
}

/// Said wherever another process with this relay's identity shows.
pub(crate) const TWIN: &str = "another process runs with this relay's identity: stop one of the two, and make a relay of its own \
     there with `umbel-relay init`; the two take each other's circuits and mail";

/// Checks the data directory at intervals until the relay stops; while a file is missing or
/// replaced, logs that every six hours. Returns whether `files[0]`, the store of mail, is lost:
/// whatever is written there from then on is lost too.
pub(crate) async fn watch_directory(
    data_dir: PathBuf,
    files: &'static [&'static str],
    mut stop: watch::Receiver<bool>,
) -> bool {
    let watched = Watched::begin(&data_dir, files);
    let mut said_at: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = stop.wait_for(|&stop| stop) => return false,
            () = sleep(WATCH_INTERVAL) => {}
        }
        match watched.lost() {
            None => said_at = None,
            Some(file) if file == files[0] => {
                tracing::error!(
                    directory = %data_dir.display(),
                    file,
                    "the file that holds the mail of others was deleted or replaced while this relay runs: it stops, since what it \
                     takes from now on would be lost. Put a copy of the directory back, or make another relay with `umbel-relay init`"
                );
                return true;
            }
            Some(file) if said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) => {
                said_at = Some(Instant::now());
                tracing::error!(
                    directory = %data_dir.display(),
                    file,
                    "a file of this relay's data directory was deleted or replaced while it runs: what it keeps is lost when it stops. \
                     Stop it, put a copy of the directory back or make another relay with `umbel-relay init`, and start it"
                );
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use umbel_proto::crypto::sign::SigningKey;
    use umbel_proto::network::Network;
    use umbel_proto::time::WallTime;

    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use umbel_proto::ids::NetworkId;

    use super::*;
    use crate::shell::Clock;

    fn shared() -> Arc<Shared> {
        let network = Network::local();
        let hello = Hello::of_client(network.id, WallTime(0));
        let identity = SigningKey::from_seed(&[1; 32]);
        Shared::new(network, identity, 1 << 20, hello, Clock::start(), None).0
    }

    /// Answers one link by this identity, as a process of another network would.
    async fn answer_of_another_network(listener: TcpListener, identity: SigningKey) {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(tls::accept_config(&identity).unwrap());
        let mut stream = acceptor.accept(socket).await.unwrap();
        let hello = Hello::of_client(NetworkId([9; 32]), WallTime(0));
        // The other side ends the link once it has read this.
        let _ = exchange_hello(&mut stream, &hello, HANDSHAKE_MAX).await;
    }

    #[tokio::test]
    async fn the_same_identity_in_another_network_is_a_twin() {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let identity = SigningKey::from_seed(&[1; 32]);
        let twin = tokio::spawn(answer_of_another_network(listener, identity));
        assert_eq!(ask(&shared(), address).await, Answer::Twin);
        twin.await.unwrap();
    }

    #[test]
    fn a_finding_that_may_be_no_fault_is_worded_with_care() {
        let far = |failures| judge(Answer::Not(DialFault::Nobody), false, false, failures);
        assert_eq!(
            (far(1), far(TRIES_PATIENT)),
            (Verdict::Doubtful, Verdict::Bad)
        );
        assert_eq!(
            judge(Answer::Not(DialFault::Nobody), false, true, 1),
            Verdict::Bad,
            "no router is in between"
        );
        assert_eq!(
            judge(Answer::Not(DialFault::Nobody), true, false, 9),
            Verdict::Doubtful,
            "others do come"
        );
        assert_eq!(
            judge(Answer::Not(DialFault::OtherRelay), false, false, 1),
            Verdict::Bad
        );
        assert_eq!(judge(Answer::Twin, true, false, 1), Verdict::Bad);
        assert_eq!(judge(Answer::Own, false, true, 0), Verdict::Good);
    }

    #[tokio::test]
    async fn a_relay_that_stops_draws_nothing_from_its_closed_socket() {
        let shared = shared();
        let free = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let closed = free.local_addr().unwrap();
        drop(free);
        let (stop, stopped) = watch::channel(false);
        let runs = ask_unless_stopped(&shared, closed, &stopped).await;
        assert_eq!(runs, Some(Answer::Not(DialFault::Nobody)));
        stop.send_replace(true);
        assert_eq!(ask_unless_stopped(&shared, closed, &stopped).await, None);
    }

    #[test]
    fn what_fails_on_this_machine_counts_against_no_address() {
        assert_eq!(
            judge(Answer::Not(DialFault::Unknown), false, true, 9),
            Verdict::Doubtful
        );
        let mut finding = Finding {
            said: None,
            failures: 2,
        };
        finding.note(
            SocketAddr::from(([127, 0, 0, 1], 1)),
            Answer::Not(DialFault::Unknown),
            false,
            true,
        );
        assert_eq!(finding.failures, 2, "it says nothing of the address");
    }
}
