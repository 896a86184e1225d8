//! Joins observations into capture sessions and says what changed.
//!
//! One tracker for each origin. It knows the handles that are open, who holds each, how far each has
//! come, and, through [`Lineage`], who their holders descend from. What it says are [`Event`]s: the
//! things that rules are evaluated on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::finding::Stage;
use crate::handle::{Handle, HandleKey};
use crate::ids;
use crate::lineage::Lineage;
use crate::listing::{Listings, Verdict};
use crate::observation::{Kind, Observation, Origin, Os};
use crate::process::{Process, ProcessKey};
use crate::session::{CaptureSession, Change, SessionChanged};
use crate::text::Text;
use crate::time::Timestamp;

/// Open sessions that are tracked; over it the oldest is let go, and that is a loss.
const MAX_SESSIONS: usize = 8192;
/// Holders kept of one session.
const MAX_HOLDERS: usize = 64;
/// How long an attach is held back where libpcap attaches only to list interfaces.
const HOLD_BACK: Duration = Duration::from_millis(250);
/// How long after the end of its last holder a session is taken as closed when no sensor says so.
const ORPHAN_AFTER: Duration = Duration::from_secs(2);
/// How long after its last holder let go of it a handle is taken as in flight: a program that separates
/// privileges passes its descriptor on within milliseconds, but a sensor's look can fall between.
const IN_FLIGHT_AFTER: Duration = Duration::from_secs(1);

/// Something that rules are evaluated on, or that goes straight to output.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A process executed an image.
    Executed {
        /// When.
        at: Timestamp,
        /// Position of its observation.
        seq: u64,
        /// The process, with ancestors.
        process: Arc<Process>,
        /// Leader of its lineage.
        lineage: ProcessKey,
    },
    /// A process ended.
    Exited {
        /// When.
        at: Timestamp,
        /// The process.
        process: ProcessKey,
    },
    /// A session changed.
    Session(SessionChanged),
    /// An interface became promiscuous, or a device's access was loosened.
    Posture(Observation),
    /// A record of a log.
    Logged(Observation),
    /// A sensor missed something.
    Lost(Observation),
}

#[derive(Debug)]
struct Tracked {
    session: Arc<CaptureSession>,
    seq: u64,
    /// The attach is not announced yet.
    held_back: bool,
    /// Every holder has ended.
    orphaned: bool,
    /// When its last holder let go of it, until somebody else is seen with it.
    released: Option<Timestamp>,
    /// Place in `Tracker::by_age`.
    age: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    HoldBack(HandleKey),
    Orphan(HandleKey),
    InFlight(HandleKey),
    Listing,
}

/// The sessions of one origin.
#[derive(Debug)]
pub struct Tracker {
    origin: Arc<Origin>,
    lineage: Lineage,
    sessions: HashMap<HandleKey, Tracked>,
    by_age: BTreeMap<u64, HandleKey>,
    next_age: u64,
    /// How many sessions each process holds, so that other processes' ends cost nothing.
    holding: HashMap<u32, u32>,
    listings: Listings,
    timers: BTreeMap<(Timestamp, u64), Timer>,
    timer_count: u64,
}

impl Tracker {
    /// For observations of this origin.
    pub fn new(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            lineage: Lineage::default(),
            sessions: HashMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            holding: HashMap::new(),
            listings: Listings::default(),
            timers: BTreeMap::new(),
            timer_count: 0,
        }
    }

    /// The processes and their descent.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The open session of the handle.
    pub fn session(&self, key: HandleKey) -> Option<&Arc<CaptureSession>> {
        self.sessions.get(&key).map(|tracked| &tracked.session)
    }

    /// Open sessions, oldest first.
    pub fn sessions(&self) -> Vec<Arc<CaptureSession>> {
        let in_order = self.by_age.values().filter_map(|key| self.session(*key));
        in_order.map(Arc::clone).collect()
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets time pass up to `now`.
    pub fn advance(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let ((at, _), timer) = entry.remove_entry();
            match timer {
                Timer::HoldBack(key) => self.announce_attach(key, at, out),
                Timer::Orphan(key) => {
                    if self.sessions.get(&key).is_some_and(|tracked| tracked.orphaned) {
                        self.close(key, at, None, out);
                    }
                }
                Timer::InFlight(key) => self.in_flight(key, at, out),
                Timer::Listing => self.settle_listings(at, out),
            }
        }
    }

    /// Takes one observation; what it means is appended to `out`.
    pub fn observe(&mut self, observation: Observation, out: &mut Vec<Event>) {
        let Observation { at, seq, sensor, actor, kind } = observation;
        match kind {
            Kind::Running => {
                if let Some(process) = actor {
                    self.lineage.running(process);
                }
            }
            Kind::Forked => {
                if let Some(process) = actor {
                    self.lineage.forked(process);
                }
            }
            Kind::Executed => {
                if let Some(mut process) = actor {
                    self.lineage.executed(&mut process, at);
                    let lineage = self.lineage.leader(&process);
                    out.push(Event::Executed { at, seq, process, lineage });
                }
            }
            Kind::Exited => {
                if let Some(process) = actor {
                    self.exited(process.key(), at);
                    out.push(Event::Exited { at, process: process.key() });
                }
            }
            Kind::HandleOpened { handle, pre_existing } => {
                let actor = self.enriched(actor);
                self.opened(at, seq, &handle, actor, pre_existing, out);
            }
            Kind::HandleAttached { handle } => {
                let actor = self.enriched(actor);
                self.reached(at, seq, &handle, actor, Stage::Attached, out);
            }
            Kind::HandleActive { handle, packets } => {
                let actor = self.enriched(actor);
                self.ensure(at, seq, &handle, actor.as_ref(), out);
                if let Some(tracked) = self.sessions.get_mut(&handle.key()) {
                    Arc::make_mut(&mut tracked.session).packets = Some(packets);
                }
                if packets > 0 {
                    self.reached(at, seq, &handle, actor, Stage::Reading, out);
                }
            }
            Kind::Promiscuous { handle, on } => {
                let actor = self.enriched(actor);
                self.promiscuous(at, seq, &handle, actor, on, out);
            }
            Kind::HandleReleased { handle } => {
                if let Some(process) = actor {
                    self.released(at, &handle, process.key());
                }
            }
            Kind::HandleClosed { handle } => self.close(handle.key(), at, Some(&handle), out),
            kind @ (Kind::InterfacePromiscuous { .. } | Kind::AccessLoosened { .. }) => {
                let actor = self.enriched(actor);
                out.push(Event::Posture(Observation { at, seq, sensor, actor, kind }));
            }
            kind @ Kind::Logged { .. } => {
                let actor = self.enriched(actor);
                out.push(Event::Logged(Observation { at, seq, sensor, actor, kind }));
            }
            kind @ Kind::Lost { .. } => {
                out.push(Event::Lost(Observation { at, seq, sensor, actor, kind }));
            }
        }
    }

    fn enriched(&self, actor: Option<Arc<Process>>) -> Option<Arc<Process>> {
        actor.map(|mut process| {
            self.lineage.enrich(Arc::make_mut(&mut process));
            process
        })
    }

    /// Whether libpcap attaches here only to list interfaces, so that an attach means little yet.
    fn holds_back(&self) -> bool {
        matches!(self.origin.os, Os::Macos | Os::Freebsd)
    }

    fn timer(&mut self, at: Timestamp, timer: Timer) {
        self.timer_count += 1;
        self.timers.insert((at, self.timer_count), timer);
    }

    fn emit(&self, key: HandleKey, at: Timestamp, seq: u64, change: Change, out: &mut Vec<Event>) {
        if let Some(tracked) = self.sessions.get(&key) {
            let session = Arc::clone(&tracked.session);
            out.push(Event::Session(SessionChanged { at, seq, change, session }));
        }
    }

    /// The session of the handle, made where there is none; whether it was made.
    fn ensure(
        &mut self,
        at: Timestamp,
        seq: u64,
        handle: &Handle,
        actor: Option<&Arc<Process>>,
        out: &mut Vec<Event>,
    ) -> bool {
        let key = handle.key();
        if self.sessions.contains_key(&key) {
            return false;
        }
        if self.sessions.len() >= MAX_SESSIONS {
            self.let_go_of_oldest(at, seq, out);
        }
        let id = self.session_id(key, at, seq);
        let session = CaptureSession {
            id: Arc::from(id),
            os: self.origin.os,
            handle: handle.clone(),
            holders: Vec::new(),
            reached: [Some(at), None, None],
            promiscuous_at: None,
            promiscuous: false,
            packets: None,
            closed_at: None,
            pre_existing: false,
            in_flight: false,
            enumeration: false,
            lineage: None,
        };
        let age = self.next_age;
        self.next_age += 1;
        let tracked = Tracked {
            session: Arc::new(session),
            seq,
            held_back: false,
            orphaned: false,
            released: None,
            age,
        };
        self.by_age.insert(age, key);
        self.sessions.insert(key, tracked);
        if let Some(actor) = actor {
            self.add_holder(key, actor);
        }
        true
    }

    fn session_id(&self, key: HandleKey, at: Timestamp, seq: u64) -> String {
        let boot = self.origin.boot_id.as_ref().map_or("", Text::as_str);
        ids::derive(&[
            b"session",
            self.origin.host.as_str().as_bytes(),
            boot.as_bytes(),
            key.kind.as_str().as_bytes(),
            &key.id.to_le_bytes(),
            &at.nanos().to_le_bytes(),
            &seq.to_le_bytes(),
        ])
    }

    fn let_go_of_oldest(&mut self, at: Timestamp, seq: u64, out: &mut Vec<Event>) {
        let Some(key) = self.by_age.first_key_value().map(|(_, key)| *key) else { return };
        self.close(key, at, None, out);
        out.push(Event::Lost(Observation {
            at,
            seq,
            sensor: Arc::from("tracker"),
            actor: None,
            kind: Kind::Lost { count: 1, why: Text::from("session table full") },
        }));
    }

    /// Adds the process to the session's holders, or puts it in the place of what it was before an
    /// exec. Whether anything changed.
    fn add_holder(&mut self, key: HandleKey, process: &Arc<Process>) -> bool {
        let leader = self.lineage.leader(process);
        let Some(tracked) = self.sessions.get_mut(&key) else { return false };
        let session = Arc::make_mut(&mut tracked.session);
        tracked.orphaned = false;
        tracked.released = None;
        session.in_flight = false;
        if session.lineage.is_none() {
            session.lineage = Some(leader);
        }
        if let Some(known) = session.holders.iter_mut().find(|h| h.is_same(process.key())) {
            if known.image == process.image || process.image.is_none() {
                return false;
            }
            *known = Arc::clone(process);
            return true;
        }
        if session.holders.len() >= MAX_HOLDERS {
            return false;
        }
        session.holders.push(Arc::clone(process));
        *self.holding.entry(process.pid).or_default() += 1;
        true
    }

    fn opened(
        &mut self,
        at: Timestamp,
        seq: u64,
        handle: &Handle,
        actor: Option<Arc<Process>>,
        pre_existing: bool,
        out: &mut Vec<Event>,
    ) {
        let key = handle.key();
        if self.ensure(at, seq, handle, actor.as_ref(), out) {
            if let Some(tracked) = self.sessions.get_mut(&key) {
                Arc::make_mut(&mut tracked.session).pre_existing = pre_existing;
            }
            self.emit(key, at, seq, Change::Opened, out);
            return;
        }
        if let Some(tracked) = self.sessions.get_mut(&key) {
            Arc::make_mut(&mut tracked.session).handle.update(handle);
        }
        if actor.is_some_and(|actor| self.add_holder(key, &actor)) {
            self.emit(key, at, seq, Change::Holder, out);
        }
    }

    fn reached(
        &mut self,
        at: Timestamp,
        seq: u64,
        handle: &Handle,
        actor: Option<Arc<Process>>,
        stage: Stage,
        out: &mut Vec<Event>,
    ) {
        let key = handle.key();
        if !self.ensure(at, seq, handle, actor.as_ref(), out)
            && let Some(actor) = &actor
            && self.add_holder(key, actor)
        {
            self.emit(key, at, seq, Change::Holder, out);
        }
        let holds_back = self.holds_back();
        let Some(tracked) = self.sessions.get_mut(&key) else { return };
        let session = Arc::make_mut(&mut tracked.session);
        let before = session.handle.clone();
        session.handle.update(handle);
        let index = stage as usize;
        if session.reached[index].is_some() {
            // Another interface, protocol or filter is another capture through the same handle.
            if session.handle != before && !tracked.held_back {
                self.emit(key, at, seq, Change::Attached, out);
            }
            return;
        }
        session.reached[index] = Some(at);
        // Who reads is attached, also when nobody saw it happen.
        session.reached[1].get_or_insert(at);
        match stage {
            Stage::Attached if holds_back && !session.promiscuous => {
                tracked.held_back = true;
                self.timer(at + HOLD_BACK, Timer::HoldBack(key));
            }
            Stage::Attached => self.emit(key, at, seq, Change::Attached, out),
            Stage::Reading => {
                self.announce_attach(key, at, out);
                self.emit(key, at, seq, Change::Reading, out);
            }
            Stage::Opened => {}
        }
    }

    fn announce_attach(&mut self, key: HandleKey, at: Timestamp, out: &mut Vec<Event>) {
        if let Some(tracked) = self.sessions.get_mut(&key)
            && std::mem::take(&mut tracked.held_back)
        {
            let seq = tracked.seq;
            self.emit(key, at, seq, Change::Attached, out);
        }
    }

    fn promiscuous(
        &mut self,
        at: Timestamp,
        seq: u64,
        handle: &Handle,
        actor: Option<Arc<Process>>,
        on: bool,
        out: &mut Vec<Event>,
    ) {
        let key = handle.key();
        self.ensure(at, seq, handle, actor.as_ref(), out);
        if let Some(actor) = &actor {
            self.add_holder(key, actor);
        }
        if on {
            self.announce_attach(key, at, out);
        }
        let Some(tracked) = self.sessions.get_mut(&key) else { return };
        let session = Arc::make_mut(&mut tracked.session);
        session.handle.update(handle);
        session.promiscuous = on;
        if on && session.promiscuous_at.is_none() {
            session.promiscuous_at = Some(at);
            self.emit(key, at, seq, Change::Promiscuous, out);
        }
    }

    fn released(&mut self, at: Timestamp, handle: &Handle, holder: ProcessKey) {
        let key = handle.key();
        let Some(tracked) = self.sessions.get_mut(&key) else { return };
        let session = Arc::make_mut(&mut tracked.session);
        let Some(index) = session.holders.iter().position(|h| h.is_same(holder)) else { return };
        if session.holders.len() > 1 {
            session.holders.remove(index);
            self.unhold(holder.pid);
        } else if tracked.released.is_none() && !key.kind.outlives_holders() {
            tracked.released = Some(at);
            self.timer(at + IN_FLIGHT_AFTER, Timer::InFlight(key));
        }
    }

    /// A handle that still receives, and that nobody has had for a while: its descriptor travels in a
    /// message.
    fn in_flight(&mut self, key: HandleKey, at: Timestamp, out: &mut Vec<Event>) {
        let Some(tracked) = self.sessions.get_mut(&key) else { return };
        let is_old = tracked.released.is_some_and(|released| released + IN_FLIGHT_AFTER <= at);
        if is_old && tracked.session.reached[1].is_some() && !tracked.session.in_flight {
            Arc::make_mut(&mut tracked.session).in_flight = true;
            let seq = tracked.seq;
            self.emit(key, at, seq, Change::Holder, out);
        }
    }

    fn unhold(&mut self, pid: u32) {
        if let Some(count) = self.holding.get_mut(&pid) {
            *count -= 1;
            if *count == 0 {
                self.holding.remove(&pid);
            }
        }
    }

    fn exited(&mut self, process: ProcessKey, at: Timestamp) {
        self.lineage.exited(process, at);
        if !self.holding.contains_key(&process.pid) {
            return;
        }
        let mut orphans = Vec::new();
        let mut left = 0;
        for (key, tracked) in &mut self.sessions {
            let Some(index) = tracked.session.holders.iter().position(|h| h.is_same(process))
            else {
                continue;
            };
            if tracked.session.holders.len() > 1 {
                Arc::make_mut(&mut tracked.session).holders.remove(index);
                left += 1;
            } else if !tracked.orphaned && !key.kind.outlives_holders() {
                tracked.orphaned = true;
                orphans.push(*key);
            }
        }
        for _ in 0..left {
            self.unhold(process.pid);
        }
        orphans.sort_unstable();
        for key in orphans {
            self.timer(at + ORPHAN_AFTER, Timer::Orphan(key));
        }
    }

    fn close(
        &mut self,
        key: HandleKey,
        at: Timestamp,
        handle: Option<&Handle>,
        out: &mut Vec<Event>,
    ) {
        let Some(mut tracked) = self.sessions.remove(&key) else { return };
        self.by_age.remove(&tracked.age);
        let session = Arc::make_mut(&mut tracked.session);
        if let Some(handle) = handle {
            session.handle.update(handle);
        }
        session.closed_at = Some(at);
        session.promiscuous = false;
        for holder in tracked.session.holders.clone() {
            self.unhold(holder.pid);
        }
        let seq = tracked.seq;
        if tracked.held_back {
            if let Some(due) = self.listings.closed(tracked.session, seq, at) {
                self.timer(due, Timer::Listing);
            }
            return;
        }
        let session = tracked.session;
        out.push(Event::Session(SessionChanged { at, seq, change: Change::Closed, session }));
    }

    /// Handles that were attached for a moment: a listing of interfaces, or captures after all.
    fn settle_listings(&mut self, at: Timestamp, out: &mut Vec<Event>) {
        for (verdict, session, seq) in self.listings.settle(at) {
            let changes: &[Change] = match verdict {
                Verdict::Listing => &[Change::Enumeration],
                Verdict::Capture => &[Change::Attached, Change::Closed],
            };
            for change in changes {
                let at = session.closed_at.unwrap_or(at);
                let session = Arc::clone(&session);
                out.push(Event::Session(SessionChanged { at, seq, change: *change, session }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
