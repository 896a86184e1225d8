//! What captures beyond packet and raw sockets, as far as one look after another has to remember it:
//! programs and where they are attached, AF_XDP sockets that the kernel only counts, USB monitors.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::program::BpfProgram;
use bpfwatch_core::text::Text;

use crate::grip::Grip;
use crate::programs::known::{Known, Programs};
use crate::sensor_table::Seen;
use crate::sensor_traffic::Traffic;
use crate::{clock, ffi, proc};

/// Traffic control is listed at least this often; changes in namespaces that we hear of come at once.
const TRAFFIC: Duration = Duration::from_secs(5);
/// All descriptors are looked at for a USB monitor, or for a socket that was not found, so often.
const WALK: Duration = Duration::from_secs(30);
/// A socket filter that lives so long counts as attached: programs that only ask what the kernel can do
/// load one for a moment, and no table says which socket has it.
const ATTACHED: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Beyond {
    programs: Programs,
    /// What each namespace showed last.
    traffic: HashMap<u64, Traffic>,
    /// Rows of programs have to be made anew.
    changed: bool,
    /// When traffic control was last listed everywhere.
    listed: Option<Instant>,
    /// AF_XDP sockets of each namespace: how many there are.
    counted: HashMap<u64, u64>,
    /// How many were looked for in vain, and when.
    missed: HashMap<u64, (u64, Instant)>,
    usbmon: Option<Instant>,
    readers: Option<u64>,
}

impl Beyond {
    /// Lists programs. Whether the kernel does.
    pub fn list_programs(&mut self) -> bool {
        let Some(changed) = self.programs.refresh() else { return false };
        if changed {
            self.changed = true;
            self.listed = None;
        }
        true
    }

    /// Whether traffic control is to be listed in all namespaces.
    pub fn is_due(&self) -> bool {
        self.listed.is_none_or(|at| at.elapsed() >= TRAFFIC)
    }

    /// It was.
    pub fn listed(&mut self) {
        self.listed = Some(Instant::now());
    }

    /// What a namespace shows now.
    pub fn set_traffic(&mut self, netns: u64, traffic: Traffic) {
        let before = self.traffic.insert(netns, traffic);
        self.changed |= before.as_ref().map(|known| &known.programs)
            != self.traffic.get(&netns).map(|now| &now.programs);
    }

    /// How many AF_XDP sockets a namespace has.
    pub fn set_count(&mut self, netns: u64, count: u64) {
        self.counted.insert(netns, count);
    }

    /// Forgets namespaces that are gone.
    pub fn keep(&mut self, there: impl Fn(u64) -> bool) {
        let before = self.traffic.len();
        self.traffic.retain(|netns, _| there(*netns));
        self.changed |= before != self.traffic.len();
        self.counted.retain(|netns, _| there(*netns));
        self.missed.retain(|netns, _| there(*netns));
    }

    /// Programs with their attachments and the namespace of the first one, where anything changed since the
    /// last call. `name` knows interfaces by namespace and index, `shown` the namespaces that are foreign.
    pub fn rows(
        &mut self,
        name: impl Fn(u64, u32) -> Option<Text>,
        shown: impl Fn(u64) -> Option<u64>,
    ) -> Option<Vec<(u64, Seen)>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut rows = Vec::new();
        for (id, known) in self.programs.packet() {
            let mut places = Vec::new();
            let mut attached: BTreeSet<&str> = BTreeSet::new();
            for (netns, traffic) in &self.traffic {
                let mine = traffic.programs.range((id, "", 0)..).take_while(|row| row.0 == id);
                for (_, place, index) in mine {
                    attached.insert(place);
                    places.push((shown(*netns), *netns, *index));
                }
            }
            // The own namespace first.
            places.sort_unstable();
            let first = places.first();
            let program = described(known, attached, &mut self.changed);
            let handle = Handle {
                interface: first.and_then(|(_, netns, index)| name(*netns, *index)),
                netns: first.and_then(|(foreign, ..)| *foreign),
                program: Some(Box::new(program)),
                ..Handle::new(known.kind, u64::from(id))
            };
            let netns = first.map_or(0, |(_, netns, _)| *netns);
            rows.push((netns, Seen { handle, promiscuous: None }));
        }
        Some(rows)
    }

    /// Searches for AF_XDP sockets that the kernel counts in a namespace and that are not among `known`, pairs
    /// of namespace and inode. `processes` are all, with their namespaces.
    pub fn xdp_sockets<'a>(
        &mut self,
        known: &[(u64, u64)],
        processes: impl Iterator<Item = (&'a u32, &'a u64)>,
    ) -> Vec<(u64, u64, bool)> {
        let have = |netns| known.iter().filter(|(at, _)| *at == netns).count() as u64;
        let missed = &self.missed;
        let is_missed = |netns: u64, count: u64| {
            missed.get(&netns).is_some_and(|(was, at)| *was == count && at.elapsed() < WALK)
        };
        let lacking = |(netns, count): (&u64, &u64)| {
            (*count > have(*netns) && !is_missed(*netns, *count)).then_some(*netns)
        };
        let lacking: BTreeSet<u64> = self.counted.iter().filter_map(lacking).collect();
        let mut found: Vec<(u64, u64, bool)> = Vec::new();
        let mut asked: HashSet<u64> = known.iter().map(|(_, inode)| *inode).collect();
        let Some(any) = lacking.first() else { return found };
        for (pid, netns) in processes {
            for (grip, fd) in proc::grips(*pid, false) {
                let Grip::Socket(inode) = grip else { continue };
                if asked.insert(inode) && is_xdp(*pid, fd) {
                    // A descriptor can be anywhere; mostly it is where its process is.
                    let netns = if lacking.contains(netns) { *netns } else { *any };
                    found.push((netns, inode, receives(*pid, inode)));
                }
            }
        }
        for netns in lacking {
            let now = have(netns) + found.iter().filter(|(at, ..)| *at == netns).count() as u64;
            if let Some(count) = self.counted.get(&netns).filter(|count| **count > now) {
                self.missed.insert(netns, (*count, Instant::now()));
            }
        }
        found
    }

    /// Buses whose monitors are to be searched for now, if any.
    pub fn usb_buses(&mut self) -> Vec<u64> {
        // Without the module there is nothing to open.
        let Ok(entries) = std::fs::read_dir("/sys/class/usbmon") else { return Vec::new() };
        let readers = usb_readers();
        let changed = readers.is_some() && readers != self.readers;
        let due = self.usbmon.is_none_or(|at| at.elapsed() >= WALK);
        if !due && !changed {
            return Vec::new();
        }
        self.usbmon = Some(Instant::now());
        self.readers = readers;
        if readers == Some(0) {
            return Vec::new();
        }
        let bus = |entry: std::fs::DirEntry| {
            entry.file_name().to_str()?.strip_prefix("usbmon")?.parse().ok()
        };
        entries.flatten().filter_map(bus).collect()
    }
}

/// A program with all of its attachments. `young` is set where one is to be described again soon.
fn described(known: &Known, attached: BTreeSet<&str>, young: &mut bool) -> BpfProgram {
    let mut program = known.program.clone();
    program.attached.extend(attached.into_iter().map(Text::from));
    if known.kind == HandleKind::SocketFilter {
        let now = clock::now();
        if known.since.elapsed() >= ATTACHED
            || program.loaded_at.is_some_and(|at| now.since(at) >= ATTACHED)
        {
            program.attached.push(Text::from("socket"));
        } else {
            *young = true;
        }
    }
    program.attached.sort_unstable();
    program
}

/// Whether a descriptor is an AF_XDP socket: the kernel names a socket's protocol (net/socket.c:
/// `sockfs_xattr_get`, net/xdp/xsk.c: `xsk_proto`).
fn is_xdp(pid: u32, fd: u32) -> bool {
    let mut name = [0; 16];
    let Ok(path) = CString::new(format!("/proc/{pid}/fd/{fd}")) else { return false };
    ffi::target_attribute(&path, c"system.sockprotoname", &mut name)
        .is_ok_and(|length| name[..length].starts_with(b"XDP\0"))
}

/// Whether a process maps the receive ring of an AF_XDP socket, which lies at the start of what can be mapped
/// of it (include/uapi/linux/if_xdp.h: XDP_PGOFF_RX_RING).
fn receives(pid: u32, inode: u64) -> bool {
    let socket = format!("socket:[{inode}]");
    let maps = proc::read(&format!("/proc/{pid}/maps")).unwrap_or_default();
    let is_ring = |line: &[u8]| {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let offset = fields.nth(2);
        offset.is_some_and(|offset| offset.iter().all(|digit| *digit == b'0'))
            && fields.next_back() == Some(socket.as_bytes())
    };
    maps.split(|byte| *byte == b'\n').any(is_ring)
}

/// How many monitors are open, from debugfs (drivers/usb/mon/mon_stat.c); `None` where that is not mounted.
fn usb_readers() -> Option<u64> {
    let entries = std::fs::read_dir("/sys/kernel/debug/usb/usbmon").ok()?;
    let mut readers = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().ends_with(b"s") {
            continue;
        }
        // nreaders 1 text_lost 0
        let line = proc::read_line(entry.path().to_str()?)?;
        let mut words = line.split(|byte| *byte == b' ');
        words.find(|word| *word == b"nreaders")?;
        readers += std::str::from_utf8(words.next()?).ok()?.parse::<u64>().ok()?;
    }
    Some(readers)
}
