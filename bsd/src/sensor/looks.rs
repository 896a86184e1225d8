//! Looks at the kernel's tables, and whose opens they explain.

use std::collections::BTreeSet;

use bpfwatch_core::observation::Kind;

use super::{State, jail_of};
use crate::poll::Said;

impl State<'_> {
    pub(super) fn look(&mut self, at: u64) {
        match self.source.kernel.look(Some(self.device), &mut self.captures) {
            Ok((look, error)) => {
                self.blind("kern.file", None);
                self.blind("net.bpf.stats", error.as_ref());
                let mut said = Vec::new();
                let first = !std::mem::replace(&mut self.looked, true);
                self.table.update(&look, at, &mut self.source.kernel, &mut said);
                let spans = self.captures.spans(&mut said);
                self.blind("span ports of bridges", spans.err().as_ref());
                let recorded = self.records_of(&look.files, at);
                for (id, jid) in self.newly_open(&said) {
                    // Of the others each record was counted.
                    if !recorded.contains(&id) {
                        self.opens.found(jid, at);
                    }
                }
                if first {
                    // What was open before the watches began has no open that will be told.
                    self.opens.begin();
                    self.begin_records();
                }
                self.offer(said, |names| &names.handles);
            }
            Err(error) => {
                self.blind("kern.file", Some(&error));
                self.without_look();
            }
        }
    }

    /// Id and jail of each descriptor that was opened since the last look; one that another process has too,
    /// inherited or passed on, was opened once.
    fn newly_open(&self, said: &[Said]) -> Vec<(u64, u32)> {
        let mut seen = BTreeSet::new();
        let opened = said.iter().filter_map(|(actor, kind)| match kind {
            Kind::HandleOpened { handle, .. } => Some((handle.id, actor.as_ref()?)),
            _ => None,
        });
        let new = opened.filter(|(id, _)| self.table.is_new(*id) && seen.insert(*id));
        new.map(|(id, actor)| (id, jail_of(actor))).collect()
    }
}
