//! Lower bounds: the ciphers alone, on one core.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConnection,
    SupportedCipherSuite,
};
use umbel_proto::crypto::sign::SigningKey;
use umbel_proto::limits::{BODY_LEN, TAG_LEN};
use umbel_proto::link::tls;

use super::cpu;
use super::row::{Row, Unit};
use super::{BenchError, Extent, Report};

/// The longest TLS record: so much is sealed at once.
const RECORD_LEN: usize = 16 * 1024;
/// Records that are timed together.
const BATCH_RECORDS: usize = 16;
/// Rounds before any that counts.
const WARM_UP_ROUNDS: usize = 3;

pub(super) fn measure(extent: Extent, report: &mut Report<'_>) -> Result<(), BenchError> {
    let mut cipher = RecordCipher::of_a_link()?;
    let (mut layer, mut keystream, mut record) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP_ROUNDS + extent.pick(300, 20) {
        let layer_cost = cpu::baseline() / (BODY_LEN - TAG_LEN) as f64; // ns a byte is s a GB
        let keystream_cost = cpu::keystream() / BODY_LEN as f64;
        let record_cost = cipher.seal_batch()?;
        if round >= WARM_UP_ROUNDS {
            layer.push(layer_cost);
            keystream.push(keystream_cost);
            record.push(record_cost);
        }
    }
    let unit = Unit::SecondsPerGigabyte;
    report(Row::of(
        "limit_layer",
        unit,
        layer,
        "ChaCha20-Poly1305 over 2 KiB with a fresh key, by aws-lc-rs: one layer with a tag",
    ));
    report(Row::of(
        "limit_keystream",
        unit,
        keystream,
        "ChaCha20 over 2 KiB with a fresh key, by OpenSSL, and the next key: one layer without a tag",
    ));
    report(Row::of(
        "limit_tls",
        unit,
        record,
        "one TLS record of 16 KiB sealed by rustls, with the cipher that links agree on; a hop opens one and seals one",
    ));
    Ok(())
}

/// The sending half of a link's TLS, without the link.
struct RecordCipher {
    encrypter: Box<dyn MessageEncrypter>,
    plain: Vec<u8>,
    number: u64,
}

impl RecordCipher {
    /// The cipher and the key that a client and a relay agree on.
    fn of_a_link() -> Result<Self, BenchError> {
        let identity = SigningKey::generate(&mut rand::rng());
        let mut config = (*tls::dial_config(&identity.public().into(), None)?).clone();
        config.enable_secret_extraction = true;
        let mut client = ClientConnection::new(Arc::new(config), tls::server_name())?;
        let mut server = ServerConnection::new(tls::accept_config(&identity)?)?;
        while client.is_handshaking() || server.is_handshaking() {
            pass(&mut client, &mut server)?;
            pass(&mut server, &mut client)?;
        }
        let Some(SupportedCipherSuite::Tls13(suite)) = client.negotiated_cipher_suite() else {
            return Err(BenchError::Unexpected);
        };
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) =
            client.dangerous_extract_secrets()?.tx.1
        else {
            return Err(BenchError::Unexpected);
        };
        Ok(Self {
            encrypter: suite.aead_alg.encrypter(key, iv),
            plain: vec![0; RECORD_LEN],
            number: 0,
        })
    }

    /// Seconds for each 10^9 bytes.
    fn seal_batch(&mut self) -> Result<f64, BenchError> {
        let started = Instant::now();
        for _ in 0..BATCH_RECORDS {
            let message = OutboundPlainMessage {
                typ: ContentType::ApplicationData,
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(&self.plain),
            };
            black_box(self.encrypter.encrypt(message, self.number)?);
            self.number += 1;
        }
        Ok(started.elapsed().as_secs_f64() * 1e9 / (BATCH_RECORDS * RECORD_LEN) as f64)
    }
}

/// Passes one side's pending handshake bytes to the other.
fn pass<S, T>(
    from: &mut rustls::ConnectionCommon<S>,
    to: &mut rustls::ConnectionCommon<T>,
) -> Result<(), BenchError> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire)?;
    }
    let mut unread = io::Cursor::new(wire);
    while unread.position() < unread.get_ref().len() as u64 {
        to.read_tls(&mut unread)?;
        to.process_new_packets()?;
    }
    Ok(())
}
