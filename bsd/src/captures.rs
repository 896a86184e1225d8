//! Reads the tables of what captures and never opens /dev/bpf, for [`beyond`](crate::beyond) and
//! [`spans`](crate::spans) to decide on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, c_int};
use std::io;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::Handle;

use crate::beyond::{Beyond, NETMAP_DEVICE};
use crate::kernel::{self, Kernel};
use crate::poll::Said;
use crate::raw::{FileRow, PcbRow, SocketRow};
use crate::spans::{self, Spans};
use crate::{bytes, ffi, jails, pcbs};

/// Processes are asked for their sockets so often at most.
const WALK: Duration = Duration::from_millis(900);
/// So many of them at once: each takes half a millisecond.
const WALKED: usize = 64;
/// Bridges are asked for their span ports so often.
const BRIDGES: Duration = Duration::from_secs(5);
/// The device of netmap(4) may come with a module.
const DEVICE: Duration = Duration::from_secs(30);
/// Bytes of a list of sockets.
const LIST_CAP: usize = pcbs::MAX_ROWS * 400;
/// CTL_NET, PF_LINK, NETLINK_GENERIC, IFMIB_SYSTEM and IFMIB_IFCOUNT of sys/sysctl.h and net/if_mib.h.
const INTERFACES: [c_int; 5] = [4, 18, 0, 1, 1];
/// A socket that captures nothing.
const NOTHING: SocketRow = SocketRow { domain: 0, kind: 0, protocol: 0 };

/// What is known, and when it was read.
pub struct Captures {
    opens: bool,
    beyond: Beyond,
    spans: Spans,
    buffer: Vec<u8>,
    began: Instant,
    walked: Option<Instant>,
    bridges: Option<Instant>,
    device: Option<Instant>,
}

/// Whose sockets are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Nobody's.
    None,
    /// Of processes in jails with a network stack of their own.
    Jails,
    /// Everybody's: the kernel has netgraph sockets.
    All,
}

fn is_due(last: &mut Option<Instant>, pause: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= pause);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl Captures {
    /// Nothing is read yet. `opens`: devices may be opened once, to know them when others do.
    pub fn new(opens: bool) -> Self {
        Self {
            opens,
            beyond: Beyond::default(),
            spans: Spans::default(),
            buffer: vec![0; 64 * 1024],
            began: Instant::now(),
            walked: None,
            bridges: None,
            device: None,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads the lists, before `kern.file` is read. Says whose sockets are to be asked for after it.
    pub fn prepare(&mut self, kernel: &mut Kernel) -> Walk {
        if self.beyond.netmap.is_none() && is_due(&mut self.device, DEVICE) {
            // Where it is not opened, it is known only while somebody has it.
            self.beyond.netmap = if self.opens {
                kernel.find_device(NETMAP_DEVICE).ok()
            } else {
                kernel.device(NETMAP_DEVICE).ok().flatten()
            };
        }
        self.read_lists();
        self.beyond.begin();
        if !is_due(&mut self.walked, WALK) {
            return Walk::None;
        }
        if ffi::mib(c"net.graph.family").is_ok() {
            Walk::All
        } else if kernel.jails().iter().any(|jail| jail.vnet == Some(true)) {
            Walk::Jails
        } else {
            Walk::None
        }
    }

    fn read_lists(&mut self) {
        let raw = self.list(c"net.inet.raw.pcblist");
        let divert = self.list(c"net.inet.divert.pcblist");
        self.beyond.list(&raw, &divert);
    }

    /// `kern.file` was read: leaves of what it had what still is so.
    pub fn confirm(&mut self, found: &mut Vec<(FileRow, Handle)>) {
        self.beyond.end();
        if self.beyond.has_listed(found) {
            self.read_lists();
            self.beyond.confirm(found);
        }
    }

    /// Sockets of a list; none where the kernel has no such protocol.
    fn list(&mut self, name: &CStr) -> Vec<PcbRow> {
        let Ok(mib) = ffi::mib(name) else { return Vec::new() };
        let length = ffi::sysctl(&mib, &mut self.buffer, LIST_CAP).unwrap_or(0);
        pcbs::rows(&self.buffer[..length]).unwrap_or_default()
    }

    /// What an open file captures as.
    pub fn handle(&mut self, row: &FileRow) -> Option<Handle> {
        self.beyond.handle(row)
    }

    /// Whether it is a socket of which nobody told lately what it is.
    pub fn is_unknown(&self, row: &FileRow) -> bool {
        self.beyond.is_unknown(row, self.now())
    }

    /// Asks processes for their sockets, and returns those that capture.
    pub fn walk(
        &mut self,
        walk: Walk,
        unknown: Vec<FileRow>,
        kernel: &mut Kernel,
    ) -> Vec<(FileRow, Handle)> {
        if unknown.is_empty() {
            return Vec::new();
        }
        let now = self.now();
        let jailed = in_jails(kernel);
        let mut by_process: BTreeMap<u32, Vec<FileRow>> = BTreeMap::new();
        for row in unknown {
            if walk == Walk::Jails && !jailed.contains_key(&row.pid) {
                self.beyond.tell(&row, Some(NOTHING), now);
            } else {
                by_process.entry(row.pid).or_default().push(row);
            }
        }
        let mut found = Vec::new();
        let mut vague = BTreeSet::new();
        for (pid, rows) in by_process.into_iter().take(WALKED) {
            let sockets = kernel.sockets(pid);
            for row in rows {
                // What cannot be read is not asked for at every look.
                let socket = match &sockets {
                    Some(sockets) => sockets.get(&row.fd).copied(),
                    None => Some(NOTHING),
                };
                if self.beyond.tell(&row, socket, now) {
                    vague.extend(jailed.get(&pid));
                }
                found.push(row);
            }
        }
        for jid in vague {
            let raw = self.list_in(c"net.inet.raw.pcblist", jid);
            let divert = self.list_in(c"net.inet.divert.pcblist", jid);
            self.beyond.refine(&raw, &divert);
        }
        let handle = |row| Some((row, self.beyond.handle(&row)?));
        found.into_iter().filter_map(handle).collect()
    }

    /// Sockets of a list, of a jail with a network stack of its own.
    fn list_in(&mut self, name: &CStr, jid: u32) -> Vec<PcbRow> {
        let Ok(mib) = ffi::mib(name) else { return Vec::new() };
        let length = ffi::sysctl_in_jail(jid, &mib, &mut self.buffer, kernel::IN_JAIL).unwrap_or(0);
        pcbs::rows(&self.buffer[..length]).unwrap_or_default()
    }

    /// Span ports of the host's bridges: says what came and went.
    pub fn spans(&mut self, said: &mut Vec<Said>) -> io::Result<()> {
        if !is_due(&mut self.bridges, BRIDGES) {
            return Ok(());
        }
        let there = self.span_ports()?;
        self.spans.update(&there, said);
        Ok(())
    }

    /// Bridges are to be asked at the next look: an interface changed.
    pub fn forget_bridges(&mut self) {
        self.bridges = None;
    }

    fn span_ports(&mut self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let length = ffi::sysctl(&INTERFACES, &mut self.buffer, LIST_CAP)?;
        let count = bytes::signed(&self.buffer[..length], 0).unwrap_or(0);
        let mut socket = None;
        let mut out = Vec::new();
        for index in 1..=count {
            // IFMIB_IFDATA and IFDATA_GENERAL. There are gaps.
            let mib = [4, 18, 0, 2, index, 1];
            let Ok(length) = ffi::sysctl(&mib, &mut self.buffer, LIST_CAP) else { continue };
            let Some(bridge) = spans::bridge(&self.buffer[..length]) else { continue };
            if socket.is_none() {
                socket = Some(ffi::socket(libc::AF_LOCAL, libc::SOCK_DGRAM, 0)?);
            }
            let Some(socket) = &socket else { continue };
            // It may be gone by now.
            let members = ffi::bridge_members(socket, &bridge).unwrap_or_default();
            out.extend(spans::ports(&members).into_iter().map(|port| (bridge.clone(), port)));
        }
        Ok(out)
    }
}

/// Processes in jails with a network stack of their own.
fn in_jails(kernel: &mut Kernel) -> HashMap<u32, u32> {
    let jails: HashMap<_, _> = kernel.jails().into_iter().map(|jail| (jail.jid, jail)).collect();
    let all = kernel.all().unwrap_or_default().into_iter();
    all.filter_map(|row| Some((row.pid, jails::stack_owner(row.jid, &jails)?))).collect()
}
