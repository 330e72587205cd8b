//! What a dial failed for, as far as a user or an operator can do something about it.

use std::{fmt, io};

use rustix::io::Errno;
use umbel_proto::Violation;

use super::HelloFault;

/// Why a dial did not reach the relay that was meant, from the least telling to the most: of
/// several addresses that failed, the greatest is worth a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialFault {
    /// Nobody answered, or somebody who closed at once.
    Nobody,
    /// It was not found out, for a reason on this machine.
    Unknown,
    /// Something answered that does not speak TLS as relays do.
    NoRelay,
    /// A relay with another identity answered.
    OtherRelay,
    /// The relay belongs to another network.
    OtherNetwork,
    /// The network is this machine's, and the address is not (§8.6(7)).
    Elsewhere,
}

impl From<&io::Error> for DialFault {
    /// Of the connection, or of its TLS.
    fn from(error: &io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>());
        match (tls, Errno::from_io_error(error)) {
            (Some(rustls::Error::InvalidCertificate(_)), _) => Self::OtherRelay,
            (Some(_), _) => Self::NoRelay,
            // None of them comes from the network, as unreachable hosts may.
            (
                None,
                Some(
                    Errno::MFILE
                    | Errno::NFILE
                    | Errno::NOBUFS
                    | Errno::NOMEM
                    | Errno::ADDRNOTAVAIL
                    | Errno::ADDRINUSE
                    | Errno::PERM,
                ),
            ) => Self::Unknown,
            // A relay, too, closes at once when it has too many.
            (None, _) => Self::Nobody,
        }
    }
}

impl From<&HelloFault> for DialFault {
    fn from(fault: &HelloFault) -> Self {
        match fault {
            HelloFault::Io(error) => error.into(),
            HelloFault::Violation(violation) => (*violation).into(),
            HelloFault::Timeout => Self::Nobody,
        }
    }
}

impl From<Violation> for DialFault {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Network => Self::OtherNetwork,
            _ => Self::NoRelay,
        }
    }
}

impl fmt::Display for DialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody answers there",
            Self::Unknown => {
                "this machine has no open files, memory or ports left, or can't set up its socket or TLS"
            }
            Self::NoRelay => "something that is no relay of this version answered there",
            Self::OtherRelay => "another identity answered there",
            Self::OtherNetwork => "it is a relay of another network",
            Self::Elsewhere => {
                "its address is not this machine's, and the network `local` links within one machine only"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_on_this_machine_accuses_no_firewall() {
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
            Errno::PERM,
        ] {
            let error = io::Error::from(errno);
            assert_eq!(DialFault::from(&error), DialFault::Unknown);
        }
        let refused = io::Error::from(Errno::CONNREFUSED);
        assert_eq!(DialFault::from(&refused), DialFault::Nobody);
    }
}
