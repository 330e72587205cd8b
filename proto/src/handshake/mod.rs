//! Handshakes (docs/protocol.md §5).

pub mod circuit;

pub use circuit::{
    Binding, HandshakeFault, HopKeys, HopTarget, Initiator, ONIONSKIN_LEN, OnionKey, OnionSecret,
    Onionskin, REPLY_LEN, Reply, respond,
};
