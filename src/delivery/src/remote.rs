//! What a network transport is: it takes a batch of rendered records, or says why not.
//!
//! A transport knows one receiver and one protocol. It keeps nothing: what it does not take stays in
//! the spool, whose courier decides what happens next from the answer. So a transport neither
//! retries nor waits longer than its own timeouts.

use std::time::Duration;

use bpfwatch_core::time::Timestamp;

/// One rendered record on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the spool: one more than that of the record before. A receiver that sees a gap has
    /// missed something.
    pub seq: u64,
    /// Id of the finding or other line, by which a receiver drops what comes twice. It is the same on
    /// every try.
    pub id: String,
    /// When the thing it tells of happened.
    pub time: Timestamp,
    /// What the format made of the line. A record of shape `Line` still has its newline.
    pub bytes: Vec<u8>,
}

/// How much a transport takes in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records at most; 1 for a transport without batches.
    pub records: usize,
    /// Sum of [`Record::bytes`] at most. A single larger record is still handed over, alone: the
    /// transport answers [`Refused::TooLarge`] if it cannot carry it.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 1024, bytes: 1024 * 1024 }
    }
}

/// Why a batch was not taken, or not all of it. `why` is one line for an operator: what happened, at
/// which address, and what to do where that is known. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Not now: the receiver is away, busy, or refuses us for a reason that an operator can mend (a
    /// wrong token, an untrusted certificate). What is left of the batch is tried again later.
    Later {
        /// How many records from the front of the batch were taken all the same.
        taken: usize,
        /// How long the receiver asks us to wait (`Retry-After`).
        after: Option<Duration>,
        /// Why.
        why: String,
    },
    /// Never: the same bytes would be refused again. They are tried in smaller batches, and what is
    /// refused alone is set aside and counted.
    Poison {
        /// Why.
        why: String,
    },
    /// The receiver failed over it (HTTP 500): it may be in trouble, or one of the records makes it
    /// fail. Tried again later in smaller batches; a single record over which it fails again and again
    /// is set aside.
    Faulty {
        /// Why.
        why: String,
    },
    /// More than the receiver takes at once: tried in smaller batches, and a single record that is too
    /// large is set aside.
    TooLarge {
        /// Why.
        why: String,
    },
    /// The receiver took the batch but for some records, and does not want them again (partial success
    /// of OTLP). They are counted as refused; the batch is done.
    InPart {
        /// How many it did not take.
        rejected: u64,
        /// Why.
        why: String,
    },
}

impl Refused {
    /// Nothing was taken; try again when the courier thinks fit.
    pub fn later(why: impl Into<String>) -> Self {
        Self::Later { taken: 0, after: None, why: why.into() }
    }

    /// Why, for an operator.
    pub fn why(&self) -> &str {
        match self {
            Self::Later { why, .. }
            | Self::Poison { why }
            | Self::Faulty { why }
            | Self::TooLarge { why }
            | Self::InPart { why, .. } => why,
        }
    }
}

/// A network transport.
pub trait Remote: Send {
    /// Name in health and in messages: protocol and address, such as `otlp https://collector:4318`. It
    /// holds no secret.
    fn name(&self) -> &str;

    /// How much it takes in one call.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// How long records are gathered while many come, before they go in a batch that is not full. One
    /// that comes after a quiet time as long goes at once. Zero for a transport without batches.
    fn linger(&self) -> Duration {
        Duration::from_secs(3)
    }

    /// Hands over a batch, which is never empty. `Ok` when all of it was taken, as far as the protocol
    /// can tell. Returns within seconds, whatever the receiver does: every wait has a timeout.
    ///
    /// # Errors
    /// What was not taken, and whether to try again.
    fn deliver(&mut self, batch: &[Record]) -> Result<(), Refused>;
}
