//! Holds the watches of bpf nodes by inotify(2), on 15.0 and later, in a thread of its own: it must let go of
//! a jail's node between the end of the jail and the moment when jail(8) unmounts its /dev, however busy the
//! rest of the sensor is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ffi::{self, Event, Kqueue};
use crate::inotify::{self, ATTRIB, CLOSE, DONT_FOLLOW, IGNORED, OPEN, OVERFLOW, UNMOUNT};
use crate::jails::{EVFILT_JAIL, NOTE_JAIL, NOTE_JAIL_ATTACH, NOTE_JAIL_CHILD, NOTE_JAIL_REMOVE};
use crate::kernel;
use crate::mounts::{VQ_MOUNT, VQ_UNMOUNT};
use crate::raw::JailRow;
use crate::watches::{self, Held, Node};

/// The first release with inotify(2) and EVFILT_JAIL (sys/sys/param.h of 15.0-RELEASE). An older kernel would
/// answer the call with SIGSYS.
pub const SINCE: u32 = 1_500_068;
/// Rules of a mount may hide or show its node, which gives no event.
const RESCAN: Duration = Duration::from_secs(30);
/// After an event of mounts, which come in numbers.
const SETTLE: Duration = Duration::from_millis(100);
/// Identifiers of user events.
const STOP: usize = 1;
/// Of the sensor's queue: there is something to be told.
pub const TOLD: usize = 2;

/// Mode, owner and group of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What happened.
#[derive(Debug)]
pub enum Told {
    /// The node was opened.
    Opened(Node),
    /// It was closed: who has it changed.
    Closed,
    /// More may open it than before.
    Loosened(Node, Access, Access),
    /// Jails came, went or changed.
    Jails,
    /// Opens were lost.
    Overflow,
    /// Something cannot be seen.
    Blind(io::Error),
}

/// The thread and what it told.
pub struct Guard {
    queue: Arc<Kqueue>,
    told: Arc<Mutex<Vec<Told>>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Starts it; `sensor` is woken with a user event [`TOLD`].
    ///
    /// # Errors
    /// When the kernel gives no inotify descriptor, queue or thread.
    pub fn start(sensor: Arc<Kqueue>) -> io::Result<Self> {
        if kernel::release_date().is_none_or(|date| date < SINCE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let queue = Arc::new(Kqueue::new()?);
        queue.change(ask(STOP, libc::EVFILT_USER, 0))?;
        let inotify = File::from(ffi::inotify()?);
        queue.change(ask(inotify.as_raw_fd() as usize, libc::EVFILT_READ, 0))?;
        queue.change(ask(0, libc::EVFILT_FS, VQ_MOUNT | VQ_UNMOUNT))?;
        let told = Arc::default();
        let mut watcher = Watcher {
            queue: Arc::clone(&queue),
            inotify,
            held: Held::default(),
            access: BTreeMap::new(),
            guarded: BTreeSet::new(),
            jails: Vec::new(),
            told: Arc::clone(&told),
            sensor,
        };
        watcher.guard_jail(0);
        watcher.scan();
        let thread =
            std::thread::Builder::new().name("nodes".to_owned()).spawn(move || watcher.run())?;
        Ok(Self { queue, told, thread: Some(thread) })
    }

    /// What was told since the last time.
    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.queue.change(trigger(STOP));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask(ident: usize, filter: i16, fflags: u32) -> Event {
    Event { ident, filter, flags: libc::EV_ADD | libc::EV_CLEAR, fflags, data: 0 }
}

fn trigger(ident: usize) -> Event {
    Event { ident, filter: libc::EVFILT_USER, flags: 0, fflags: libc::NOTE_TRIGGER, data: 0 }
}

struct Watcher {
    queue: Arc<Kqueue>,
    inotify: File,
    held: Held,
    access: BTreeMap<i32, Access>,
    /// Jails whose end is watched.
    guarded: BTreeSet<u32>,
    jails: Vec<JailRow>,
    told: Arc<Mutex<Vec<Told>>>,
    sensor: Arc<Kqueue>,
}

impl Watcher {
    fn run(mut self) {
        let mut events = Vec::new();
        let mut next = Instant::now() + RESCAN;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            if let Err(error) = self.queue.wait(wait, &mut events) {
                self.tell(vec![Told::Blind(error)]);
                return;
            }
            // Jails that end come first: jail(8) goes on to unmount.
            for event in events.iter().filter(|event| event.filter == EVFILT_JAIL) {
                if event.fflags & NOTE_JAIL_REMOVE != 0 {
                    self.let_go(u32::try_from(event.ident).unwrap_or(0));
                }
            }
            let mut jails = false;
            for event in &events {
                match event.filter {
                    libc::EVFILT_USER => return,
                    libc::EVFILT_READ => self.read(),
                    libc::EVFILT_FS => next = next.min(Instant::now() + SETTLE),
                    // Somebody entered: the list of jails is as it was.
                    EVFILT_JAIL if event.fflags == NOTE_JAIL_ATTACH => {}
                    EVFILT_JAIL => {
                        jails = true;
                        if event.fflags & NOTE_JAIL_CHILD != 0 {
                            self.scan();
                        }
                    }
                    _ => {}
                }
            }
            if jails {
                self.tell(vec![Told::Jails]);
            }
            if Instant::now() >= next {
                self.scan();
                next = Instant::now() + RESCAN;
            }
        }
    }

    fn tell(&self, what: Vec<Told>) {
        if what.is_empty() {
            return;
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(what);
        // It can only fail when the queue is gone, and then nobody waits.
        let _ = self.sensor.change(trigger(TOLD));
    }

    fn let_go(&mut self, jid: u32) {
        for watch in self.held.within(jid, &self.jails) {
            self.drop_watch(watch);
        }
        self.guarded.remove(&jid);
    }

    fn drop_watch(&mut self, watch: i32) {
        // It may be gone already, with its mount.
        let _ = ffi::inotify_remove(&self.inotify, watch);
        self.held.remove(watch);
        self.access.remove(&watch);
    }

    /// Watches a jail's end, and the start of jails in it.
    fn guard_jail(&mut self, jid: u32) -> bool {
        let watched = self.queue.change(ask(jid as usize, EVFILT_JAIL, NOTE_JAIL)).is_ok();
        if watched {
            self.guarded.insert(jid);
        }
        watched
    }

    fn scan(&mut self) {
        let (jails, mounts) = match (kernel::list_jails(), ffi::mounts()) {
            (Ok(jails), Ok(mounts)) => (jails, mounts),
            (Err(error), _) | (_, Err(error)) => {
                self.tell(vec![Told::Blind(error)]);
                return;
            }
        };
        self.jails = jails.into_values().collect();
        self.guarded.retain(|jid| *jid == 0 || self.jails.iter().any(|jail| jail.jid == *jid));
        let new = self.jails.iter().filter(|jail| !jail.dying).map(|jail| jail.jid);
        let new: Vec<u32> = new.filter(|jid| !self.guarded.contains(jid)).collect();
        for jid in new {
            self.guard_jail(jid);
        }
        let devfs = mounts.into_iter().filter(|(kind, _)| kind == b"devfs");
        let devfs: Vec<Vec<u8>> = devfs.map(|(_, on)| on).collect();
        let wanted = watches::wanted(&devfs, &self.jails, &self.guarded);
        let (gone, new) = self.held.differs(&wanted);
        for watch in gone {
            self.drop_watch(watch);
        }
        for node in new {
            self.add(node);
        }
    }

    fn add(&mut self, node: Node) {
        // Hidden by the rules of its mount, or no device: nothing to watch.
        let Some(access) = access(&node) else { return };
        let mask = OPEN | CLOSE | ATTRIB | DONT_FOLLOW;
        match ffi::inotify_add(&self.inotify, &node.path, mask) {
            Ok(watch) => {
                self.access.insert(watch, access);
                self.held.add(watch, node);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.tell(vec![Told::Blind(error)]),
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = match self.inotify.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.tell(vec![Told::Blind(error)]),
            };
            let mut told = Vec::new();
            let mut again = false;
            for event in inotify::events(&buffer[..length]) {
                if event.mask & OVERFLOW != 0 {
                    told.push(Told::Overflow);
                }
                let Some(node) = self.held.of(event.watch).cloned() else { continue };
                if event.mask & OPEN != 0 {
                    told.push(Told::Opened(node.clone()));
                }
                if event.mask & CLOSE != 0 {
                    told.push(Told::Closed);
                }
                if event.mask & ATTRIB != 0 {
                    told.extend(self.access_changed(event.watch, node));
                }
                if event.mask & (IGNORED | UNMOUNT) != 0 {
                    self.held.remove(event.watch);
                    self.access.remove(&event.watch);
                    again = true;
                }
            }
            self.tell(told);
            if again {
                self.scan();
            }
        }
    }

    /// Mode, owner or group of the node were set, or its times only.
    fn access_changed(&mut self, watch: i32, node: Node) -> Option<Told> {
        let after = access(&node)?;
        let before = self.access.insert(watch, after)?;
        (before != after).then_some(Told::Loosened(node, before, after))
    }
}

fn access(node: &Node) -> Option<Access> {
    let facts = fs::symlink_metadata(Path::new(OsStr::from_bytes(&node.path))).ok()?;
    let device = facts.file_type().is_char_device();
    device.then(|| Access { mode: facts.mode() & 0o7777, uid: facts.uid(), gid: facts.gid() })
}
