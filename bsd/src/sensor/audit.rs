//! The audit pipe in the sensor: what it tells beside kqueue and the tables, without doubles.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::sensor::Offer;
use bpfwatch_core::time::Timestamp;

use super::{State, jail_of};
use crate::audit::execs::Execs;
use crate::audit::openers::{Openers, by_file};
use crate::audit::stream::{Opened, Seen, Stream};
use crate::auditpipe::{self, AuditPipe};
use crate::ffi::Event;
use crate::kernel::now;
use crate::poll::{Said, file_id};
use crate::raw::FileRow;

/// What is said while it cannot be read.
const RECORDS: &str = "audit records";

/// The pipe, and what was read of it.
pub(super) struct Audit {
    pipe: AuditPipe,
    stream: Stream,
    pub(super) execs: Execs,
    /// Where opens are recorded too.
    openers: Option<Openers>,
}

impl Audit {
    pub(super) fn new(pipe: AuditPipe, opens: bool, rdev: u64) -> Self {
        let stream = Stream::new(rdev, std::process::id());
        Self { pipe, stream, execs: Execs::default(), openers: opens.then(Openers::default) }
    }

    /// Whether the event says that there is something to read.
    pub(super) fn is_of(&self, event: &Event) -> bool {
        event.filter == libc::EVFILT_READ && event.ident == self.pipe.descriptor() as usize
    }

    pub(super) fn heard(&mut self, said: Vec<Said>, at: Timestamp, millis: u64) {
        if let Some(openers) = &mut self.openers {
            for (actor, kind) in &said {
                if let (Some(child), Kind::Forked) = (actor, kind)
                    && let Some(parent) = child.ppid
                {
                    openers.forked(child.pid, parent);
                }
            }
        }
        self.execs.heard(said, at, millis);
    }
}

impl State<'_> {
    /// Begins with what comes from now on: every process was listed just now.
    pub(super) fn begin_audit(&mut self) {
        let Some(audit) = &mut self.audit else { return };
        audit.stream.flushed();
        if let Err(error) = audit.pipe.flush() {
            self.end_audit(&error);
        }
    }

    /// There is something to read.
    pub(super) fn audit_event(&mut self) {
        let Some(audit) = &mut self.audit else { return };
        let mut seen = Vec::new();
        let read = audit.pipe.read(&mut audit.stream, &mut seen);
        for seen in seen {
            self.recorded(seen);
        }
        match read {
            Ok(0) => {}
            Ok(dropped) => {
                let why = "audit records that found no room in the pipe";
                self.outlet.lost(now(), &self.names.audit, dropped, why);
            }
            Err(error) => self.end_audit(&error),
        }
        self.say_held(self.millis());
    }

    /// Without the pipe the other sources go on as they would alone.
    fn end_audit(&mut self, error: &io::Error) {
        self.without_look();
        self.say_held(u64::MAX);
        self.audit = None;
        self.blind(RECORDS, Some(error));
    }

    /// auditd(8) may be stopped at any time, and then no records come.
    pub(super) fn check_audit(&mut self) {
        if self.audit.is_none() {
            return;
        }
        match auditpipe::is_auditing() {
            Ok(true) => self.blind(RECORDS, None),
            Ok(false) => {
                let why = "auditd does not run any more; `service auditd start` brings them back";
                self.blind(RECORDS, Some(&io::Error::other(why)));
            }
            Err(error) => self.blind(RECORDS, Some(&error)),
        }
    }

    fn recorded(&mut self, seen: Seen) {
        let millis = self.millis();
        match seen {
            Seen::Executed(at, process) => {
                let process = self.placed(process);
                let kernel = &mut self.source.kernel;
                if let Some(audit) = &mut self.audit {
                    audit.execs.recorded(at, process, millis, &mut |pid| kernel.read(pid));
                }
            }
            Seen::Opened(mut open) => {
                open.process = self.placed(open.process);
                let jid = jail_of(&open.process);
                let openers = self.audit.as_mut().and_then(|audit| audit.openers.as_mut());
                if openers.is_some_and(|openers| openers.opened(open, millis)) {
                    self.opens.found(jid, millis);
                }
                self.schedule.event(millis);
            }
            Seen::Damaged => {
                let why = "an audit record that could not be read";
                self.outlet.lost(now(), &self.names.audit, 1, why);
            }
        }
    }

    /// A record names the jail; here is the rest of it.
    fn placed(&mut self, mut process: Process) -> Process {
        if let Some(Scope::Jail { jid: None, name, .. }) = process.scope.as_deref()
            && let Some(scope) = self.source.kernel.jail_named(name)
        {
            process.scope = Some(scope);
        }
        process
    }

    /// Tells a look's new files from those that records told already: ids of the latter. Opens that it did not
    /// find are said.
    pub(super) fn records_of(&mut self, rows: &[FileRow], millis: u64) -> BTreeSet<u64> {
        let Some(openers) = self.audit.as_mut().and_then(|audit| audit.openers.as_mut()) else {
            return BTreeSet::new();
        };
        let table = &self.table;
        let answers = openers.looked(&by_file(rows, file_id, |id| table.is_new(id)), millis);
        for open in answers.short {
            self.say_short(open);
        }
        answers.recorded
    }

    /// What the first look found was open before.
    pub(super) fn begin_records(&mut self) {
        if let Some(openers) = self.audit.as_mut().and_then(|audit| audit.openers.as_mut()) {
            openers.begin();
        }
    }

    /// No look can be had: what waits for one is said.
    pub(super) fn without_look(&mut self) {
        let openers = self.audit.as_mut().and_then(|audit| audit.openers.as_mut());
        for open in openers.map(Openers::give_up).unwrap_or_default() {
            self.say_short(open);
        }
    }

    /// An open that no process has a descriptor of any more.
    fn say_short(&mut self, open: Opened) {
        /// Times of records have milliseconds.
        const ROUNDED: i64 = 1_000_000;
        let Opened { at, process, fd, path } = open;
        let read = self.source.kernel.read(process.pid);
        let start = read.start.and_then(|start| i64::try_from(start).ok()?.checked_mul(1000));
        // The number may be another process's by now.
        let same = start.is_some_and(|start| start <= at.nanos().saturating_add(ROUNDED));
        let scope = process.scope.clone();
        let actor = Some(Arc::new(if same { Process { scope, ..read } } else { process }));
        let id = actor.as_ref().map_or(0, |actor| u64::from(actor.pid) << 32 | u64::from(fd));
        let handle = Handle { device: path, ..Handle::new(HandleKind::Bpf, id) };
        let opened = Kind::HandleOpened { handle: handle.clone(), pre_existing: false };
        let closed = Kind::HandleClosed { handle };
        let millis = self.millis();
        if let Some(audit) = &mut self.audit {
            audit.execs.beside(Offer { at, actor: actor.clone(), kind: opened }, millis);
            audit.execs.beside(Offer { at: now(), actor, kind: closed }, millis);
        }
        self.say_held(millis);
    }
}
