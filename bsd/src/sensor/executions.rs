//! Processes: events of kqueue and lists, and what they come to once audit records had their say.

use std::time::Instant;

use bpfwatch_core::observation::Kind;
use bpfwatch_core::process::{Process, ProcessKey};
use bpfwatch_core::scope::Scope;
use bpfwatch_core::sensor::Offer;
use bpfwatch_core::text::Text;

use super::{State, ask, jail_of};
use crate::ffi::{Event, Kqueue};
use crate::kernel::{Kernel, now};
use crate::poll::Said;
use crate::processes::{Followed, ProcEvent, System};
use crate::raw::ProcRow;

/// NOTE_CHILD of sys/event.h.
const NOTE_CHILD: u32 = 4;

/// The kernel as the process table asks it.
pub(super) struct Source<'a> {
    pub(super) kernel: Kernel,
    pub(super) kqueue: &'a Kqueue,
}

impl System for Source<'_> {
    fn list(&mut self) -> Option<Vec<ProcRow>> {
        self.kernel.all().ok()
    }

    fn follow(&mut self, pid: u32) -> Followed {
        let notes = libc::NOTE_EXIT | libc::NOTE_EXEC | libc::NOTE_TRACK;
        match self.kqueue.change(ask(pid as usize, libc::EVFILT_PROC, notes)) {
            Ok(()) => Followed::Yes,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Followed::Gone,
            Err(_) => Followed::No,
        }
    }

    fn read(&mut self, pid: u32) -> Process {
        self.kernel.read(pid)
    }
}

impl State<'_> {
    /// At the start: every process there is.
    pub(super) fn list_processes(&mut self) {
        let mut said = Vec::new();
        let how = self.processes.begin(&mut self.source, &mut said);
        self.heard(said);
        self.refused(how.refused);
    }

    pub(super) fn reconcile(&mut self) {
        self.reconciled = Instant::now();
        let mut said = Vec::new();
        let how = self.processes.reconcile(&mut self.source, &mut said);
        self.heard(said);
        self.refused(how.refused);
    }

    fn refused(&self, count: u64) {
        if count > 0 {
            let why = "processes that the kernel does not let be followed";
            self.outlet.lost(now(), &self.names.processes, count, why);
        }
    }

    pub(super) fn process_event(&mut self, event: &Event) {
        let Ok(pid) = u32::try_from(event.ident) else { return };
        let parent = u32::try_from(event.data).unwrap_or(0);
        // Several may have come in one: in the order in which they happen.
        let notes = [
            (NOTE_CHILD, ProcEvent::Child { pid, parent }),
            (libc::NOTE_EXEC, ProcEvent::Execute(pid)),
            (libc::NOTE_TRACKERR, ProcEvent::Untracked(pid)),
            (libc::NOTE_EXIT, ProcEvent::Exit(pid)),
        ];
        let mut said = Vec::new();
        for (note, what) in notes {
            if event.fflags & note != 0 {
                self.processes.happened(what, &mut self.source, &mut said);
            }
        }
        let holder = self.table.holds(ProcessKey { pid, start: None });
        let jailed = said.iter().any(|(actor, kind)| {
            let scope = actor.as_ref().and_then(|actor| actor.scope.as_deref());
            *kind == Kind::Executed && matches!(scope, Some(Scope::Jail { .. }))
        });
        self.heard(said);
        if event.fflags & libc::NOTE_TRACKERR != 0 {
            let why = "a process that the kernel could not follow";
            self.outlet.lost(now(), &self.names.processes, 1, why);
        }
        let at = self.millis();
        // Opens in a jail's own /dev give no event; those of a holder change who holds.
        if holder || jailed {
            self.schedule.event(at);
        }
    }

    /// What kqueue and lists tell: said at once, or in its place among audit records.
    fn heard(&mut self, said: Vec<Said>) {
        let (at, millis) = (now(), self.millis());
        if let Some(audit) = &mut self.audit {
            audit.heard(said, at, millis);
            return self.say_held(millis);
        }
        for (actor, kind) in said {
            self.say(Offer { at, actor, kind }, millis);
        }
    }

    /// Says what no longer waits for an audit record.
    pub(super) fn say_held(&mut self, millis: u64) {
        let ready = self.audit.as_mut().map(|audit| audit.execs.take(millis));
        for offer in ready.into_iter().flatten() {
            self.say(offer, millis);
        }
    }

    fn say(&mut self, offer: Offer, millis: u64) {
        if let (Some(actor), Kind::Executed) = (&offer.actor, &offer.kind) {
            let image = actor.image.as_ref().or(actor.name.as_ref());
            let image = image.map_or("?", Text::as_str);
            let what = format!("{image} (pid {})", actor.pid);
            self.opens.executed(jail_of(actor), what, millis);
        }
        let of_handle = offer.kind.handle().is_some();
        let sensor = if of_handle { &self.names.audit } else { &self.names.processes };
        self.outlet.offer_all(sensor, [offer]);
    }
}
