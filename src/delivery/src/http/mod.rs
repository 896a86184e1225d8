//! What the transports over HTTP share: one connection, TLS, proxies, a token, compression, and what an
//! answer means.
//!
//! | module | duty |
//! |---|---|
//! | [`client`] | a POST, and the answer to it |
//! | [`way`] | proxies, and certificates that are read again when they change |
//! | [`answer`] | which status means later, never, or smaller |
//! | [`secret`] | a token or key in a file, read again when it changes |

pub mod answer;
pub mod client;
pub mod secret;
mod stamp;
pub mod way;

pub use answer::Answer;
pub use client::{Client, Setup, SetupError};
pub use secret::Secret;
pub use way::Proxy;
