//! Tells a listing of interfaces from a capture.
//!
//! On macOS and FreeBSD libpcap opens, attaches and closes a descriptor for each interface just to
//! list them (`tcpdump -D`: ten within 7 ms with five interfaces, seen on FreeBSD 15.1). So: one
//! process, two or more handles within a second, each attached for 50 ms or less, none promiscuous,
//! nothing counted. That becomes one informational event; a single short attach stays a capture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::process::ProcessKey;
use crate::session::CaptureSession;
use crate::time::Timestamp;

/// Longest attach of a listing.
const SHORT: Duration = Duration::from_millis(50);
/// How long after the first short handle more of them are waited for.
const WINDOW: Duration = Duration::from_secs(1);
/// Short sessions kept of one process.
const MAX_KEPT: usize = 64;

/// What short-lived sessions turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One event for all of them.
    Listing,
    /// A capture, however short.
    Capture,
}

#[derive(Debug)]
struct Candidate {
    due: Timestamp,
    sessions: Vec<(Arc<CaptureSession>, u64)>,
}

/// Sessions that closed before their attach was announced.
#[derive(Debug, Default)]
pub struct Listings {
    candidates: BTreeMap<Option<ProcessKey>, Candidate>,
}

impl Listings {
    /// Takes a session that closed within its hold-back. Gives the time at which to settle, where
    /// that is new.
    pub fn closed(
        &mut self,
        session: Arc<CaptureSession>,
        seq: u64,
        at: Timestamp,
    ) -> Option<Timestamp> {
        let owner = session.owner().map(|owner| owner.key());
        let mut new_due = None;
        let candidate = self.candidates.entry(owner).or_insert_with(|| {
            let due = at + WINDOW;
            new_due = Some(due);
            Candidate { due, sessions: Vec::new() }
        });
        // Over the limit the count is certain, and the rest of the listing says nothing new.
        if candidate.sessions.len() < MAX_KEPT {
            candidate.sessions.push((session, seq));
        }
        new_due
    }

    /// Decides about all that is due at `now`.
    pub fn settle(&mut self, now: Timestamp) -> Vec<(Verdict, Arc<CaptureSession>, u64)> {
        let due: Vec<_> =
            self.candidates.iter().filter(|(_, c)| c.due <= now).map(|(owner, _)| *owner).collect();
        let mut out = Vec::new();
        for owner in due {
            let Some(candidate) = self.candidates.remove(&owner) else { continue };
            let short = |session: &CaptureSession| {
                let attached = session.reached[1].unwrap_or(session.opened_at());
                session.closed_at.is_some_and(|closed| closed.since(attached) <= SHORT)
                    && session.packets.unwrap_or(0) == 0
                    && session.promiscuous_at.is_none()
            };
            let (listing, captures): (Vec<_>, Vec<_>) =
                candidate.sessions.into_iter().partition(|(session, _)| short(session));
            if listing.len() >= 2 && owner.is_some() {
                if let Some((mut session, seq)) = listing.into_iter().next() {
                    Arc::make_mut(&mut session).enumeration = true;
                    out.push((Verdict::Listing, session, seq));
                }
            } else {
                out.extend(listing.into_iter().map(|(s, seq)| (Verdict::Capture, s, seq)));
            }
            out.extend(captures.into_iter().map(|(s, seq)| (Verdict::Capture, s, seq)));
        }
        out
    }
}
