//! From rows to what the rest of the program knows: processes, handles, scopes.

use std::sync::Arc;

use bpfwatch_core::handle::{Handle, HandleKind};
use bpfwatch_core::process::Process;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

use crate::poll::file_id;
use crate::raw::{BpfRow, FileRow, JailRow, ProcRow};

/// Bytes kept of a short name.
const NAME_LIMIT: usize = 256;

/// The device that all BPF descriptors are opened through (bpf(4)).
pub const BPF_DEVICE: &str = "/dev/bpf";

/// A process without what further calls tell: arguments, path, working directory, terminal.
pub fn process(row: &ProcRow, scope: Option<Arc<Scope>>) -> Process {
    let name = Text::from_bytes_limited(&row.comm, NAME_LIMIT);
    Process {
        pid: row.pid,
        start: Some(row.start),
        ppid: Some(row.ppid),
        sid: (row.sid != 0).then_some(row.sid),
        uid: Some(row.uid),
        name: (!row.comm.is_empty()).then_some(name),
        scope,
        ..Process::default()
    }
}

/// The scope of a process with that jail id. Of a jail that is gone before it could be asked for, the id
/// stands as its name, as jail(8) has it for a jail without one.
pub fn scope(jid: u32, jail: Option<&JailRow>) -> Scope {
    if jid == 0 {
        return Scope::Host;
    }
    let text = |bytes: &Vec<u8>, limit| Text::from_bytes_limited(bytes, limit);
    let given = |bytes: &Vec<u8>, limit| (!bytes.is_empty()).then(|| text(bytes, limit));
    Scope::Jail {
        jid: Some(jid),
        name: jail
            .and_then(|jail| given(&jail.name, NAME_LIMIT))
            .unwrap_or_else(|| Text::from(jid.to_string())),
        vnet: jail.and_then(|jail| jail.vnet),
        path: jail.and_then(|jail| given(&jail.path, 1024)),
        hostname: jail.and_then(|jail| given(&jail.hostname, NAME_LIMIT)),
    }
}

/// The handle of an open file, with what is known of its attachment.
pub fn handle(file: &FileRow, attached: Option<&BpfRow>) -> Handle {
    handle_of(file_id(file), attached)
}

/// The handle with that id.
pub fn handle_of(id: u64, attached: Option<&BpfRow>) -> Handle {
    Handle {
        device: Some(Text::from(BPF_DEVICE)),
        interface: attached.map(interface),
        ..Handle::new(HandleKind::Bpf, id)
    }
}

/// Name of the interface that a row is attached to.
pub fn interface(row: &BpfRow) -> Text {
    Text::from_bytes_limited(&row.interface, NAME_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files, procs, stats};

    #[test]
    fn a_recorded_capture_in_a_jail() {
        let procs = procs::rows(include_bytes!("../tests/data/kern.proc.proc.bin")).unwrap();
        let files = files::rows(include_bytes!("../tests/data/kern.file.bin"), |row| {
            row.pid == 115 && row.fd == 3
        })
        .unwrap();
        let stats = stats::rows(include_bytes!("../tests/data/net.bpf.stats-three.bin")).unwrap();
        let jail = JailRow {
            jid: 3,
            name: b"vn".to_vec(),
            path: b"/jails/vn".to_vec(),
            vnet: Some(true),
            ..JailRow::default()
        };
        let row = procs.iter().find(|row| row.pid == 115).unwrap();
        let scope = Arc::new(scope(row.jid, Some(&jail)));
        let process = process(row, Some(scope));
        assert_eq!(process.key().start, Some(1_795_488_653_430_044));
        let Some(Scope::Jail { jid, name, vnet, hostname, .. }) = process.scope.as_deref() else {
            panic!("no jail")
        };
        assert_eq!((*jid, name.as_str(), *vnet, hostname), (Some(3), "vn", Some(true), &None));
        let handle = handle(&files[0], Some(&stats[0]));
        assert_eq!(handle.id, 0xffff_f800_01ab_74b0);
        assert_eq!(handle.interface, Some(Text::from("epair0b")));
    }

    #[test]
    fn a_jail_that_is_gone_has_its_id_as_name() {
        assert_eq!(scope(0, None), Scope::Host);
        let Scope::Jail { jid, name, vnet, path, .. } = scope(7, None) else { panic!("no jail") };
        assert_eq!((jid, name.as_str(), vnet, path), (Some(7), "7", None, None));
    }
}
