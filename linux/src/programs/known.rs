//! The programs that are loaded, and where they are attached as far as no network namespace is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use bpfwatch_core::handle::HandleKind;
use bpfwatch_core::program::BpfProgram;
use bpfwatch_core::text::Text;

use super::ffi::{self, Object};
use super::info::{self, LinkRow, Place};
use super::{cgroups, pins};
use crate::clock;

/// Control groups and pins are walked at least this often while there are programs.
const WALK: Duration = Duration::from_secs(30);
/// Most objects of a kind that are listed.
const MAX_OBJECTS: usize = 65_536;

/// A program that sees packets.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its mechanism.
    pub kind: HandleKind,
    /// What the kernel tells, and where it is attached without a network namespace.
    pub program: BpfProgram,
    /// When it was first seen.
    pub since: Instant,
}

/// What is known of all programs. Does nothing where the kernel refuses to list them.
#[derive(Debug, Default)]
pub struct Programs {
    /// `None` for one that sees no packets.
    known: BTreeMap<u32, Option<Known>>,
    links: BTreeMap<u32, Option<LinkRow>>,
    walked: Option<Instant>,
}

impl Programs {
    /// Lists programs and links again. Whether a program that sees packets, or a link of one, came or went;
    /// `None` where the kernel does not list them.
    pub fn refresh(&mut self) -> Option<bool> {
        let ids = all(Object::Program).ok()?;
        let gone = |known: &Option<Known>| known.is_some();
        let before = self.known.len();
        let mut changed = self.known.iter().any(|(id, known)| !ids.contains(id) && gone(known));
        self.known.retain(|id, _| ids.contains(id));
        let came = before != self.known.len() || ids.len() != self.known.len();
        if came {
            for id in ids {
                if let std::collections::btree_map::Entry::Vacant(slot) = self.known.entry(id) {
                    let known = read(id);
                    changed |= known.is_some();
                    slot.insert(known);
                }
            }
        }
        if self.packet().any(|(_, known)| is_told_by_links(known.kind)) {
            changed |= self.refresh_links();
        } else {
            self.links.clear();
        }
        let due = self.walked.is_none_or(|at| at.elapsed() >= WALK);
        if self.packet().next().is_none() {
            self.walked = None;
        } else if changed || due {
            self.walked = Some(Instant::now());
            self.place();
        }
        Some(changed)
    }

    /// Those that see packets.
    pub fn packet(&self) -> impl Iterator<Item = (u32, &Known)> {
        self.known.iter().filter_map(|(id, known)| Some((*id, known.as_ref()?)))
    }

    fn refresh_links(&mut self) -> bool {
        // Before Linux 5.8 there is no list of links.
        let Ok(ids) = all(Object::Link) else { return false };
        let mut changed = self.links.iter().any(|(id, row)| row.is_some() && !ids.contains(id));
        self.links.retain(|id, _| ids.contains(id));
        for id in ids {
            if let std::collections::btree_map::Entry::Vacant(slot) = self.links.entry(id) {
                let row = read_link(id);
                changed |= row.is_some();
                slot.insert(row);
            }
        }
        changed
    }

    /// Finds control groups, netfilter hooks and pins.
    fn place(&mut self) {
        let mut places: BTreeMap<u32, (BTreeSet<&'static str>, BTreeSet<u64>)> = BTreeMap::new();
        for row in self.links.values().flatten() {
            let (names, groups) = places.entry(row.program).or_default();
            match row.place {
                Place::Cgroup(group, name) => {
                    names.insert(name);
                    groups.insert(group);
                }
                Place::Netfilter(name) => {
                    names.insert(name);
                }
            }
        }
        let is_cgroup = |known: &Known| known.kind == HandleKind::CgroupProgram;
        let without_link =
            self.packet().any(|(id, known)| is_cgroup(known) && !places.contains_key(&id));
        let groups = if self.packet().any(|(_, known)| is_cgroup(known)) {
            cgroups::walk(without_link)
        } else {
            cgroups::Groups::default()
        };
        for (program, name, group) in groups.attached {
            let (names, at) = places.entry(program).or_default();
            names.insert(name);
            at.insert(group);
        }
        let mut pins = pins::walk();
        for (id, known) in &mut self.known {
            let Some(known) = known else { continue };
            known.program.pinned = pins.remove(id).unwrap_or_default();
            let (names, at) = places.remove(id).unwrap_or_default();
            known.program.attached = names.into_iter().map(Text::from).collect();
            let mut paths: Vec<Text> =
                at.iter().filter_map(|group| groups.paths.get(group).cloned()).collect();
            paths.sort_unstable();
            paths.truncate(MAX_GROUPS);
            known.program.cgroups = paths;
        }
    }
}

/// Most control groups of one program that are named.
const MAX_GROUPS: usize = 16;

fn is_told_by_links(kind: HandleKind) -> bool {
    matches!(kind, HandleKind::CgroupProgram | HandleKind::NetfilterProgram)
}

/// All numbers of a kind of object.
///
/// # Errors
/// As [`ffi::next_id`] has them.
pub fn all(object: Object) -> std::io::Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    let mut last = 0;
    while let Some(id) = ffi::next_id(object, last)? {
        ids.insert(id);
        if id <= last || ids.len() >= MAX_OBJECTS {
            break;
        }
        last = id;
    }
    Ok(ids)
}

fn read(id: u32) -> Option<Known> {
    let program = ffi::open(Object::Program, id).ok()?;
    let (bytes, maps) = ffi::program(program.as_fd()).ok()?;
    drop(program);
    let row = info::program(&bytes)?;
    let (name, kind) = info::packet_type(row.program_type)?;
    let mut types: Vec<Text> = maps.into_iter().map(|id| Text::from(map_type(id))).collect();
    types.sort_unstable();
    types.dedup();
    if types.is_empty() && info::needs_maps(kind) {
        return None;
    }
    let tag: String = row.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    let program = BpfProgram {
        name: (!row.name.is_empty()).then(|| Text::from_bytes(&row.name)),
        tag: Some(Text::from(tag)),
        program_type: Some(Text::from(name)),
        uid: Some(row.uid),
        loaded_at: clock::wall_of_boot(row.loaded_ns),
        attached: Vec::new(),
        cgroups: Vec::new(),
        maps: Some(types),
        pinned: Vec::new(),
    };
    Some(Known { kind, program, since: Instant::now() })
}

fn map_type(id: u32) -> &'static str {
    let read = || {
        let map = ffi::open(Object::Map, id).ok()?;
        let mut bytes = [0; info::MAP_INFO];
        ffi::info(map.as_fd(), &mut bytes).ok()?;
        crate::netlink::u32_at(&bytes, 0)
    };
    read().map_or("unknown", info::map_type)
}

fn read_link(id: u32) -> Option<LinkRow> {
    let link = ffi::open(Object::Link, id).ok()?;
    let mut bytes = [0; info::LINK_INFO];
    ffi::info(link.as_fd(), &mut bytes).ok()?;
    info::link(&bytes)
}
