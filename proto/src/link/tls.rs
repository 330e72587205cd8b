//! TLS as a link uses it (docs/protocol.md §2.5): 1.3 only, X25519MLKEM768 only, Ed25519 raw public
//! keys (RFC 7250).
//!
//! The relay that accepts always presents its identity, and the dialler pins it. A relay that
//! dials proves its own identity too; a client offers raw public keys and then presents none, so
//! that both pass through one configuration. There is no resumption, no ticket, no early data and
//! no server name: nothing ties one link to another.
//!
//! Owns the parameters and no state. rustls takes its own randomness for the key exchange from the
//! provider, which is why the simulator uses links without TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use zeroize::Zeroizing;

use crate::crypto::sign::SigningKey;
use crate::ids::RelayId;

/// The wrapping of an Ed25519 public key: the fixed front of its `SubjectPublicKeyInfo` (RFC
/// 8410 §4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// The wrapping of an Ed25519 seed: the fixed front of its PKCS#8 v1 form (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Built once: every link uses the same parameters.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(provider()));

/// How to dial the relay `expected`: no other key is accepted (§2.5(5)). `own` is the dialling
/// relay's identity; a client has none.
///
/// # Errors
/// Only if rustls refuses these parameters or the key's encoding, which is a fault of ours.
pub fn dial_config(
    expected: &RelayId,
    own: Option<&SigningKey>,
) -> Result<Arc<ClientConfig>, Error> {
    let own = own.map(certified_key).transpose()?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // the only way to say "this key, and no certificate authority"
        .with_custom_certificate_verifier(Arc::new(PinnedRelay(*expected)))
        .with_client_cert_resolver(Arc::new(OwnKey(own)));
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// How to accept links as the relay `own`, from relays that prove their id and from clients that
/// have none (§2.5(6)).
///
/// # Errors
/// As [`dial_config`].
pub fn accept_config(own: &SigningKey) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyPeer))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            certified_key(own)?,
        )));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The name that rustls requires for a dialled server. It is never sent (§2.5(7)): the pinned key
/// says which relay it must be.
pub fn server_name() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The id that the peer proved in the handshake, from rustls' `peer_certificates`; `None` for a
/// client.
pub fn peer_id(presented: Option<&[CertificateDer<'_>]>) -> Option<RelayId> {
    let [key] = presented? else { return None };
    key_of(key).ok()
}

// §2.5(1), §2.5(2)
fn provider() -> CryptoProvider {
    let aes = TLS13_AES_128_GCM_SHA256;
    let chacha = TLS13_CHACHA20_POLY1305_SHA256;
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768],
        // The dialler's order counts. In software AES-GCM is slow, and not in constant time
        // everywhere.
        cipher_suites: if has_fast_aes() {
            vec![aes, chacha]
        } else {
            vec![chacha, aes]
        },
        ..default_provider()
    }
}

#[cfg(target_arch = "x86_64")]
fn has_fast_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_fast_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_fast_aes() -> bool {
    false
}

/// An identity as rustls presents it: a raw public key, and what signs for it.
fn certified_key(own: &SigningKey) -> Result<Arc<CertifiedKey>, Error> {
    let seed = own.seed();
    // Allocated once, at its full length: growing would leave a copy behind.
    let mut pkcs8 = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + seed.len()));
    pkcs8.extend_from_slice(&PKCS8_PREFIX);
    pkcs8.extend_from_slice(&*seed);
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
    let mut spki = SPKI_PREFIX.to_vec();
    spki.extend_from_slice(&own.public().0);
    Ok(Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(spki)],
        signer,
    )))
}

// §2.5(4)
fn key_of(spki: &CertificateDer<'_>) -> Result<RelayId, Error> {
    let key = spki
        .strip_prefix(&SPKI_PREFIX)
        .and_then(|key| key.try_into().ok());
    key.map(RelayId)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Both verifiers' answers about signatures: those of TLS 1.3, by raw Ed25519 keys (§2.5(1),
/// §2.5(4)).
macro_rules! raw_ed25519_only {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _key: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            // TLS 1.2 is not offered, so rustls never asks.
            Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let key = SubjectPublicKeyInfoDer::from(key.as_ref());
            verify_tls13_signature_with_raw_key(
                message,
                &key,
                signature,
                &PROVIDER.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// The dialler's side: one relay and no other.
#[derive(Debug)]
struct PinnedRelay(RelayId);

impl ServerCertVerifier for PinnedRelay {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if others.is_empty() && key_of(key)? == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    raw_ed25519_only!();
}

/// The accepting side: any key that the peer can sign for, or none at all.
#[derive(Debug)]
struct AnyPeer;

impl ClientCertVerifier for AnyPeer {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !others.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        key_of(key).map(|_| ClientCertVerified::assertion())
    }

    raw_ed25519_only!();
}

/// The dialler's key (§2.5(3)). A client's handshake offers raw public keys as a relay's does,
/// because a server that takes them refuses a hello without them; its `Certificate` message is then
/// empty.
#[derive(Debug)]
struct OwnKey(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for OwnKey {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        if schemes.contains(&SignatureScheme::ED25519) {
            self.0.clone()
        } else {
            None
        }
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;
    use rustls::{ClientConnection, NamedGroup, ProtocolVersion, ServerConnection};

    use crate::time::Duration;

    use super::*;

    struct Ends {
        dialler: ClientConnection,
        accepter: ServerConnection,
    }

    fn key(seed: u64) -> SigningKey {
        SigningKey::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    fn id(key: &SigningKey) -> RelayId {
        RelayId(key.public().0)
    }

    fn ends(expected: &RelayId, own: Option<&SigningKey>, accepter: &SigningKey) -> Ends {
        Ends {
            dialler: ClientConnection::new(dial_config(expected, own).unwrap(), server_name())
                .unwrap(),
            accepter: ServerConnection::new(accept_config(accepter).unwrap()).unwrap(),
        }
    }

    impl Ends {
        /// Carries bytes both ways until both are silent.
        fn run(&mut self) -> Result<(), Error> {
            while self.dialler.wants_write() || self.accepter.wants_write() {
                let mut wire = Vec::new();
                while self.dialler.wants_write() {
                    self.dialler.write_tls(&mut wire).unwrap();
                }
                let mut rest = wire.as_slice();
                while !rest.is_empty() {
                    self.accepter.read_tls(&mut rest).unwrap();
                    self.accepter.process_new_packets()?;
                }
                wire.clear();
                while self.accepter.wants_write() {
                    self.accepter.write_tls(&mut wire).unwrap();
                }
                let mut rest = wire.as_slice();
                while !rest.is_empty() {
                    self.dialler.read_tls(&mut rest).unwrap();
                    self.dialler.process_new_packets()?;
                }
            }
            Ok(())
        }
    }

    #[test] // §2.5(1), §2.5(2)
    fn a_link_is_tls13_with_the_hybrid_group_and_a_fast_suite() {
        let accepter = key(1);
        let mut ends = ends(&id(&accepter), None, &accepter);
        ends.run().unwrap();
        assert!(!ends.dialler.is_handshaking() && !ends.accepter.is_handshaking());
        assert_eq!(
            ends.dialler.protocol_version(),
            Some(ProtocolVersion::TLSv1_3)
        );
        let group = ends.dialler.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        let suite = ends.dialler.negotiated_cipher_suite().unwrap();
        let fastest = if has_fast_aes() {
            TLS13_AES_128_GCM_SHA256
        } else {
            TLS13_CHACHA20_POLY1305_SHA256
        };
        assert_eq!(suite, fastest);
    }

    #[test] // §2.5(6)
    fn a_relay_that_dials_proves_its_id_and_a_client_proves_none() {
        let (accepter, dialler) = (key(1), key(2));
        let mut relay = ends(&id(&accepter), Some(&dialler), &accepter);
        relay.run().unwrap();
        assert_eq!(
            peer_id(relay.accepter.peer_certificates()),
            Some(id(&dialler))
        );
        assert_eq!(
            peer_id(relay.dialler.peer_certificates()),
            Some(id(&accepter))
        );

        let mut client = ends(&id(&accepter), None, &accepter);
        client.run().unwrap();
        assert!(!client.accepter.is_handshaking());
        assert_eq!(peer_id(client.accepter.peer_certificates()), None);
    }

    #[test] // §2.5(4)
    fn a_key_is_44_bytes_of_ed25519_and_stands_alone() {
        let own = id(&key(1));
        let spki = [SPKI_PREFIX.as_slice(), own.as_bytes()].concat();
        let is_taken = |bytes: &[u8]| key_of(&CertificateDer::from(bytes)).is_ok();
        assert!(spki.len() == 44 && is_taken(&spki));
        assert!(!is_taken(&spki[..43]) && !is_taken(&[spki.as_slice(), &[0]].concat()));
        for index in 0..SPKI_PREFIX.len() {
            let mut other = spki.clone();
            other[index] ^= 1;
            assert!(!is_taken(&other), "byte {index}");
        }
        let (key, now) = (
            CertificateDer::from(spki),
            UnixTime::since_unix_epoch(Duration::ZERO),
        );
        let taken = |others: &[CertificateDer<'_>]| {
            let relay = PinnedRelay(own);
            let is_relay = relay.verify_server_cert(&key, others, &server_name(), &[], now);
            (
                is_relay.is_ok(),
                AnyPeer.verify_client_cert(&key, others, now).is_ok(),
            )
        };
        assert_eq!(taken(&[]), (true, true));
        assert_eq!(taken(core::slice::from_ref(&key)), (false, false));
    }

    #[test] // §2.5(5)
    fn another_key_than_the_expected_is_refused() {
        let (accepter, other) = (key(1), key(2));
        let mut ends = ends(&id(&other), None, &accepter);
        let fault = ends.run().unwrap_err();
        assert_eq!(
            fault,
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        );
    }

    #[test] // §2.5(6)
    fn only_the_holder_of_the_key_proves_an_id() {
        let (accepter, claimed, thief) = (key(1), key(2), key(3));
        let stolen = CertifiedKey::new(
            certified_key(&claimed).unwrap().cert.clone(),
            Arc::clone(&certified_key(&thief).unwrap().key),
        );
        let mut config = Arc::unwrap_or_clone(dial_config(&id(&accepter), None).unwrap());
        config.client_auth_cert_resolver = Arc::new(OwnKey(Some(Arc::new(stolen))));
        let mut ends = ends(&id(&accepter), None, &accepter);
        ends.dialler = ClientConnection::new(Arc::new(config), server_name()).unwrap();
        assert!(ends.run().is_err());
        assert!(ends.accepter.is_handshaking());
    }

    #[test] // §2.5(1), §2.5(3)
    fn a_dialler_without_raw_public_keys_or_the_hybrid_group_is_refused() {
        let accepter = key(1);
        let classical = CryptoProvider {
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        };
        let config = ClientConfig::builder_with_provider(Arc::new(classical))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedRelay(id(&accepter))))
            .with_client_cert_resolver(Arc::new(OwnKey(None)));
        let mut refused = ends(&id(&accepter), None, &accepter);
        refused.dialler = ClientConnection::new(Arc::new(config), server_name()).unwrap();
        assert!(refused.run().is_err());

        let mut config = Arc::unwrap_or_clone(dial_config(&id(&accepter), None).unwrap());
        config.client_auth_cert_resolver =
            ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
                .with_protocol_versions(&[&TLS13])
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth()
                .client_auth_cert_resolver
                .clone();
        let mut refused = ends(&id(&accepter), None, &accepter);
        refused.dialler = ClientConnection::new(Arc::new(config), server_name()).unwrap();
        assert!(refused.run().is_err());
    }

    #[test] // §2.5(7)
    fn what_a_dialler_offers_too_much_is_passed_over_and_keys_may_be_updated() {
        let accepter = key(1);
        let accepting = accept_config(&accepter).unwrap();
        let mut dialling = Arc::unwrap_or_clone(dial_config(&id(&accepter), None).unwrap());
        dialling.enable_sni = true;
        dialling.alpn_protocols = vec![b"h2".to_vec()];
        dialling.resumption = Resumption::in_memory_sessions(8);
        let dialling = Arc::new(dialling);
        for _ in 0..2 {
            let name = ServerName::try_from("relay.example").unwrap();
            let mut ends = Ends {
                dialler: ClientConnection::new(Arc::clone(&dialling), name).unwrap(),
                accepter: ServerConnection::new(Arc::clone(&accepting)).unwrap(),
            };
            ends.run().unwrap();
            assert!(!ends.accepter.is_handshaking());
            assert_eq!(
                (ends.dialler.alpn_protocol(), ends.accepter.alpn_protocol()),
                (None, None)
            );
            assert_eq!(
                ends.accepter.handshake_kind(),
                Some(rustls::HandshakeKind::Full)
            );
            ends.dialler.refresh_traffic_keys().unwrap();
            ends.dialler.writer().write_all(b"cell").unwrap();
            ends.run().unwrap();
            let mut came = [0; 4];
            ends.accepter.reader().read_exact(&mut came).unwrap();
            assert_eq!(&came, b"cell");
        }
    }

    #[test] // §2.5(7)
    fn nothing_ties_one_link_to_another() {
        let accepter = key(1);
        let dialling = dial_config(&id(&accepter), None).unwrap();
        let accepting = accept_config(&accepter).unwrap();
        assert!(
            !dialling.enable_sni && !dialling.enable_early_data && !accepting.ticketer.enabled()
        );
        assert_eq!(
            (accepting.send_tls13_tickets, accepting.max_early_data_size),
            (0, 0)
        );
        for _ in 0..2 {
            let mut ends = Ends {
                dialler: ClientConnection::new(Arc::clone(&dialling), server_name()).unwrap(),
                accepter: ServerConnection::new(Arc::clone(&accepting)).unwrap(),
            };
            ends.run().unwrap();
            assert_eq!(ends.dialler.tls13_tickets_received(), 0);
            assert_eq!(
                ends.dialler.handshake_kind(),
                Some(rustls::HandshakeKind::Full)
            );
        }
    }
}
