//! The handles that are open, and what is said when they change. No system calls: rows come in, what
//! is to be said comes out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bpfwatch_core::handle::{Handle, HandleKey, HandleKind, RawGrade};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::{Process, ProcessKey};

use crate::grip::Grip;

/// How long a closed handle is remembered: longer than any look takes.
const CLOSED: Duration = Duration::from_secs(5);
/// Closed handles that are remembered.
const MAX_CLOSED: usize = 4096;

/// Somebody who has a descriptor of a handle.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Who.
    pub process: Arc<Process>,
    /// Number of the descriptor.
    pub fd: u32,
}

/// A handle as one look shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The handle.
    pub handle: Handle,
    /// It asks for promiscuous mode, where the source tells.
    pub promiscuous: Option<bool>,
}

impl Seen {
    /// Whether it can receive packets: a packet socket with a protocol, a raw IP socket of any protocol
    /// but IPPROTO_RAW, a program that is attached.
    pub fn receives(&self) -> bool {
        match self.handle.kind {
            HandleKind::RawSocket => self.handle.grade != Some(RawGrade::SendOnly),
            // It has no protocol: it takes what the queue of its interface gets.
            HandleKind::XdpSocket => {
                self.handle.interface.is_some() || self.handle.ring == Some(true)
            }
            kind if kind.is_program() => {
                self.handle.program.as_ref().is_some_and(|program| !program.attached.is_empty())
            }
            HandleKind::TcMirror
            | HandleKind::TapPort
            | HandleKind::NflogSocket
            | HandleKind::NfqueueSocket
            | HandleKind::Usbmon => true,
            _ => self.handle.protocol.is_some(),
        }
    }
}

/// An open handle.
#[derive(Debug)]
pub struct Entry {
    seen: Seen,
    /// Inode of its namespace.
    pub netns: u64,
    /// Who has it, oldest process first.
    pub holders: Vec<Holder>,
    /// When it was first seen.
    pub since: Instant,
    /// When an event last told of it.
    told: Instant,
    /// A look found none of its holders.
    unheld: bool,
}

/// Actor and kind of an observation.
pub type Said = (Option<Arc<Process>>, Kind);

/// Which handles a look covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Packet sockets.
    Packet,
    /// Raw IP sockets.
    RawIp,
    /// AF_XDP sockets.
    Xdp,
    /// Readers of NFLOG and NFQUEUE.
    Reader,
    /// Mirrors of traffic control.
    Mirror,
    /// TAP devices.
    Tap,
    /// eBPF programs. The kernel lists those of all namespaces together.
    Program,
}

impl Class {
    fn of(kind: HandleKind) -> Option<Self> {
        match kind {
            HandleKind::RawSocket => Some(Class::RawIp),
            HandleKind::PacketSocket | HandleKind::SockPacket => Some(Class::Packet),
            HandleKind::XdpSocket => Some(Class::Xdp),
            HandleKind::NflogSocket | HandleKind::NfqueueSocket => Some(Class::Reader),
            HandleKind::TcMirror => Some(Class::Mirror),
            HandleKind::TapPort => Some(Class::Tap),
            kind if kind.is_program() => Some(Class::Program),
            _ => None,
        }
    }
}

/// All open handles.
#[derive(Debug, Default)]
pub struct Table {
    entries: BTreeMap<HandleKey, Entry>,
    closed: VecDeque<(HandleKey, Instant)>,
    /// Where events tell of handles: what looks found to be gone, and when they began. Events from before
    /// that may still wait to be read.
    gone: Option<Vec<(HandleKey, Instant)>>,
}

/// The one table of a sensor, which events and looks both change.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Table>>);

impl Shared {
    /// For a moment: events wait meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The handles.
    pub fn entries(&self) -> impl Iterator<Item = (&HandleKey, &Entry)> {
        self.entries.iter()
    }

    /// From now on events tell of handles too, up to the moment that [`Self::caught_up`] is told.
    pub fn expect_events(&mut self) {
        self.gone = Some(Vec::new());
    }

    /// Whether events tell of handles.
    pub fn has_events(&self) -> bool {
        self.gone.is_some()
    }

    /// All events from before `moment` have been told: what looks found to be gone by then is closed.
    pub fn caught_up(&mut self, moment: Instant, said: &mut Vec<Said>) {
        let Some(gone) = &mut self.gone else { return };
        for (key, _) in gone.extract_if(.., |(_, looked)| *looked <= moment).collect::<Vec<_>>() {
            if self.entries.contains_key(&key) {
                self.close(key, said);
            }
        }
    }

    /// A look that began at `looked` did not find it any more.
    pub fn missed(&mut self, key: HandleKey, looked: Instant, said: &mut Vec<Said>) {
        match &mut self.gone {
            None => self.close(key, said),
            Some(gone) if gone.iter().any(|(known, _)| *known == key) => {}
            Some(gone) => gone.push((key, looked)),
        }
    }

    /// Remembers whether a look found none of its holders; whether the one before did not either.
    pub fn unheld(&mut self, key: HandleKey, now: bool) -> bool {
        let entry = self.entries.get_mut(&key);
        entry.is_some_and(|entry| std::mem::replace(&mut entry.unheld, now))
    }

    /// A holder has the handle as another descriptor now.
    pub fn moved(&mut self, key: HandleKey, holder: ProcessKey, fd: u32) {
        let holders = self.entries.get_mut(&key).map(|entry| &mut entry.holders);
        let known = holders.into_iter().flatten().find(|known| known.process.key() == holder);
        if let Some(known) = known {
            known.fd = fd;
        }
    }

    /// Whether that process holds a handle.
    pub fn is_holder(&self, pid: u32) -> bool {
        let mut holders = self.entries.values().flat_map(|entry| &entry.holders);
        holders.any(|holder| holder.process.pid == pid)
    }

    /// Compares with all rows of one class in a namespace (of programs: in all), read from `looked` on: says what changed,
    /// closes what is missing, and returns what is new. What events told of since then, they know better.
    pub fn update(
        &mut self,
        netns: u64,
        class: Class,
        looked: Instant,
        mut rows: Vec<Seen>,
        said: &mut Vec<Said>,
    ) -> Vec<Seen> {
        rows.retain(|row| {
            let key = row.handle.key();
            !self.closed.iter().any(|(closed, at)| *closed == key && *at >= looked)
        });
        let there: HashSet<HandleKey> = rows.iter().map(|row| row.handle.key()).collect();
        let gone: Vec<HandleKey> = self
            .entries
            .iter()
            .filter(|(key, entry)| {
                (entry.netns == netns || class == Class::Program)
                    && Class::of(key.kind) == Some(class)
                    && entry.since < looked
                    && !there.contains(key)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.missed(key, looked, said);
        }
        let mut new = Vec::new();
        for row in rows {
            match self.entries.get_mut(&row.handle.key()) {
                // Events tell nothing of where a program is attached, and its row comes only once.
                Some(entry) if entry.told >= looked && class != Class::Program => {}
                Some(entry) => entry.change(row, said),
                None => new.push(row),
            }
        }
        new
    }

    /// Takes in a new handle. `holders` may be empty: then nobody could be found.
    pub fn open(
        &mut self,
        netns: u64,
        seen: Seen,
        mut holders: Vec<Holder>,
        pre_existing: bool,
        said: &mut Vec<Said>,
    ) {
        if self.entries.contains_key(&seen.handle.key()) {
            // An event told of it meanwhile.
            for holder in holders {
                self.add_holder(seen.handle.key(), holder, said);
            }
            return;
        }
        holders.sort_by_key(|holder| (holder.process.start, holder.process.pid));
        let mut entry = Entry {
            seen: seen.clone(),
            netns,
            holders,
            since: Instant::now(),
            told: Instant::now(),
            unheld: false,
        };
        let opened = || Kind::HandleOpened { handle: seen.handle.clone(), pre_existing };
        if entry.holders.is_empty() {
            said.push((None, opened()));
        }
        for holder in &entry.holders {
            said.push((Some(Arc::clone(&holder.process)), opened()));
        }
        // A TAP device that nobody has a descriptor of is read by nobody.
        let is_read = seen.handle.kind != HandleKind::TapPort || !entry.holders.is_empty();
        if seen.receives() && is_read {
            said.push((entry.owner(), Kind::HandleAttached { handle: seen.handle.clone() }));
        }
        if seen.promiscuous == Some(true) {
            let kind = Kind::Promiscuous { handle: seen.handle.clone(), on: true };
            said.push((entry.owner(), kind));
        }
        entry.seen = seen.clone();
        self.entries.insert(seen.handle.key(), entry);
    }

    /// Changes what is known of a handle; whether it is known at all.
    pub fn change(
        &mut self,
        key: HandleKey,
        change: impl FnOnce(&mut Seen),
        said: &mut Vec<Said>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        let mut row = entry.seen.clone();
        change(&mut row);
        entry.told = Instant::now();
        entry.change(row, said);
        true
    }

    /// One more holder of a known handle; nothing for one that is known already.
    pub fn add_holder(&mut self, key: HandleKey, holder: Holder, said: &mut Vec<Said>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match entry.holders.iter_mut().find(|known| known.process.key() == holder.process.key()) {
            Some(known) => known.fd = holder.fd,
            None => {
                let handle = || entry.seen.handle.clone();
                let kind = Kind::HandleOpened { handle: handle(), pre_existing: false };
                said.push((Some(Arc::clone(&holder.process)), kind));
                if entry.holders.is_empty() && key.kind == HandleKind::TapPort {
                    let kind = Kind::HandleAttached { handle: handle() };
                    said.push((Some(Arc::clone(&holder.process)), kind));
                }
                entry.holders.push(holder);
            }
        }
    }

    /// A holder let go of a handle that lives on.
    pub fn release(&mut self, key: HandleKey, holder: ProcessKey, said: &mut Vec<Said>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(at) = entry.holders.iter().position(|known| known.process.key() == holder) {
            let gone = entry.holders.remove(at);
            let handle = entry.seen.handle.clone();
            said.push((Some(gone.process), Kind::HandleReleased { handle }));
        }
    }

    /// A handle is gone.
    pub fn close(&mut self, key: HandleKey, said: &mut Vec<Said>) {
        let now = Instant::now();
        while let Some((_, at)) = self.closed.front()
            && (now - *at > CLOSED || self.closed.len() >= MAX_CLOSED)
        {
            self.closed.pop_front();
        }
        self.closed.push_back((key, now));
        if let Some(entry) = self.entries.remove(&key) {
            let owner = entry.owner();
            said.push((owner, Kind::HandleClosed { handle: entry.seen.handle }));
        }
    }
}

impl Entry {
    /// What its holders' descriptors show; `None` where it has none.
    pub fn grip(&self) -> Option<Grip> {
        Grip::of(&self.seen.handle)
    }

    /// The first holder.
    pub fn owner(&self) -> Option<Arc<Process>> {
        self.holders.first().map(|holder| Arc::clone(&holder.process))
    }

    fn change(&mut self, row: Seen, said: &mut Vec<Said>) {
        if row == self.seen {
            return;
        }
        let mut handle = self.seen.handle.clone();
        // A packet socket never goes back to no protocol: it only shows none for a moment, while it is
        // bound anew (net/packet/af_packet.c: packet_do_bind, packet_set_ring).
        handle.update(&row.handle);
        let promiscuous = row.promiscuous.or(self.seen.promiscuous);
        let before = std::mem::replace(&mut self.seen, Seen { handle, promiscuous });
        let handle = || self.seen.handle.clone();
        if self.seen.receives() && (!before.receives() || before.handle != self.seen.handle) {
            said.push((self.owner(), Kind::HandleAttached { handle: handle() }));
        }
        let on = promiscuous.unwrap_or(false);
        if on != before.promiscuous.unwrap_or(false) {
            said.push((self.owner(), Kind::Promiscuous { handle: handle(), on }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::program::BpfProgram;
    use bpfwatch_core::text::Text;

    fn seen(id: u64, protocol: Option<&str>) -> Seen {
        let protocol = protocol.map(Text::from);
        let handle = Handle { protocol, ..Handle::new(HandleKind::PacketSocket, id) };
        Seen { handle, promiscuous: Some(false) }
    }

    fn holder(pid: u32, start: u64) -> Holder {
        let process = Process { start: Some(start), ..Process::from_pid(pid) };
        Holder { process: Arc::new(process), fd: 3 }
    }

    fn names(said: &mut Vec<Said>) -> Vec<(Option<u32>, &'static str)> {
        said.drain(..).map(|(actor, kind)| (actor.map(|a| a.pid), kind.name())).collect()
    }

    #[test]
    fn a_handle_from_open_to_close() {
        let (mut table, mut said) = (Table::default(), Vec::new());
        let new = table.update(1, Class::Packet, Instant::now(), vec![seen(7, None)], &mut said);
        assert_eq!(new.len(), 1);
        table.open(1, new[0].clone(), vec![holder(20, 9), holder(30, 5)], false, &mut said);
        assert_eq!(names(&mut said), [(Some(30), "handle_opened"), (Some(20), "handle_opened")]);
        let all = Seen { promiscuous: Some(true), ..seen(7, Some("ETH_P_ALL")) };
        for want in [vec![(Some(30), "handle_attached"), (Some(30), "promiscuous")], vec![]] {
            assert!(
                table
                    .update(1, Class::Packet, Instant::now(), vec![all.clone()], &mut said)
                    .is_empty()
            );
            assert_eq!(names(&mut said), want);
        }
        table.update(1, Class::Packet, Instant::now(), vec![seen(7, Some("ETH_P_ALL"))], &mut said);
        assert!(matches!(said[..], [(_, Kind::Promiscuous { on: false, .. })]));
        said.clear();
        let key = seen(7, None).handle.key();
        table.add_holder(key, holder(20, 9), &mut said);
        assert_eq!(names(&mut said), []);
        table.add_holder(key, holder(20, 11), &mut said);
        assert_eq!(names(&mut said), [(Some(20), "handle_opened")]);
        table.release(key, holder(30, 5).process.key(), &mut said);
        assert_eq!(names(&mut said), [(Some(30), "handle_released")]);
        table.update(2, Class::Packet, Instant::now(), vec![], &mut said);
        table.update(1, Class::RawIp, Instant::now(), vec![], &mut said);
        assert_eq!(names(&mut said), []);
        table.update(1, Class::Packet, Instant::now(), vec![], &mut said);
        assert_eq!(names(&mut said), [(Some(20), "handle_closed")]);
        assert_eq!(table.entries().count(), 0);
    }

    #[test]
    fn a_filter_that_comes_later_is_said_and_lost_knowledge_is_not() {
        let (mut table, mut said) = (Table::default(), Vec::new());
        let first = seen(7, Some("ETH_P_ALL"));
        table.open(1, first.clone(), vec![], true, &mut said);
        assert_eq!(names(&mut said), [(None, "handle_opened"), (None, "handle_attached")]);
        let mut filtered = first.clone();
        filtered.handle.filter = Some(true);
        table.update(1, Class::Packet, Instant::now(), vec![filtered], &mut said);
        assert_eq!(names(&mut said), [(None, "handle_attached")]);
        table.update(
            1,
            Class::Packet,
            Instant::now(),
            vec![Seen { promiscuous: None, ..first }],
            &mut said,
        );
        assert_eq!(names(&mut said), []);
    }

    #[test]
    fn a_look_that_began_before_an_event_does_not_undo_it() {
        let (mut table, mut said) = (Table::default(), Vec::new());
        let looked = Instant::now();
        let key = seen(7, None).handle.key();
        table.open(1, seen(7, None), vec![holder(20, 9)], false, &mut said);
        // The look saw nothing yet of what was opened meanwhile,
        table.update(1, Class::Packet, looked, vec![], &mut said);
        assert_eq!(names(&mut said), [(Some(20), "handle_opened")]);
        assert!(table.change(key, |seen| seen.promiscuous = Some(true), &mut said));
        assert_eq!(names(&mut said), [(Some(20), "promiscuous")]);
        // and still saw what was closed meanwhile.
        table.close(key, &mut said);
        assert!(table.update(1, Class::Packet, looked, vec![seen(7, None)], &mut said).is_empty());
        assert_eq!(names(&mut said), [(Some(20), "handle_closed")]);
        let later = Instant::now();
        assert_eq!(table.update(1, Class::Packet, later, vec![seen(7, None)], &mut said).len(), 1);
    }

    #[test]
    fn a_tap_device_without_reader_is_not_attached() {
        let (mut table, mut said) = (Table::default(), Vec::new());
        let tap = Seen { handle: Handle::new(HandleKind::TapPort, 5), promiscuous: None };
        let key = tap.handle.key();
        table.open(1, tap.clone(), vec![], false, &mut said);
        assert_eq!(names(&mut said), [(None, "handle_opened")]);
        table.add_holder(key, holder(20, 9), &mut said);
        assert_eq!(names(&mut said), [(Some(20), "handle_opened"), (Some(20), "handle_attached")]);
        table.update(1, Class::Tap, Instant::now(), vec![tap], &mut said);
        assert_eq!(names(&mut said), []);
    }

    #[test]
    fn programs_of_all_namespaces_are_one_list() {
        let (mut table, mut said) = (Table::default(), Vec::new());
        let program = |attached: &[&str]| {
            let attached = attached.iter().map(|place| Text::from(*place)).collect();
            let program = BpfProgram { attached, ..BpfProgram::default() };
            let program = Some(Box::new(program));
            let handle = Handle { program, ..Handle::new(HandleKind::TcProgram, 41) };
            Seen { handle, promiscuous: None }
        };
        table.open(7, program(&[]), vec![], false, &mut said);
        assert_eq!(names(&mut said), [(None, "handle_opened")]);
        let attached = vec![program(&["tcx/ingress"])];
        assert!(table.update(0, Class::Program, Instant::now(), attached, &mut said).is_empty());
        assert_eq!(names(&mut said), [(None, "handle_attached")]);
        table.update(0, Class::Program, Instant::now(), vec![], &mut said);
        assert_eq!(names(&mut said), [(None, "handle_closed")]);
    }

    #[test]
    fn what_is_gone_is_closed_after_the_events_from_before() {
        let (mut table, mut said) = (Table::default(), Vec::new());
        table.expect_events();
        let before = Instant::now();
        let key = seen(7, None).handle.key();
        table.open(1, seen(7, None), vec![holder(20, 9)], false, &mut said);
        let looked = Instant::now();
        for _ in 0..2 {
            table.update(1, Class::Packet, looked, vec![], &mut said);
        }
        table.caught_up(before, &mut said);
        assert_eq!(names(&mut said), [(Some(20), "handle_opened")]);
        assert!(table.change(key, |seen| seen.promiscuous = Some(true), &mut said));
        table.caught_up(looked, &mut said);
        assert_eq!(names(&mut said), [(Some(20), "promiscuous"), (Some(20), "handle_closed")]);
    }

    #[test]
    fn what_only_sends_is_not_attached() {
        let mut handle = Handle::new(HandleKind::RawSocket, 3);
        for (protocol, receives) in [(255, false), (1, true), (6, true)] {
            handle.grade = Some(RawGrade::of_protocol(protocol));
            assert_eq!(Seen { handle: handle.clone(), promiscuous: None }.receives(), receives);
        }
    }
}
