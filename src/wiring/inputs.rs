//! Every format that is read: bpfwatch's own, those of logs, and those that the platform packages decode.

use bpfwatch_bsd::bsm::format::Bsm;
use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_inputs::auditd::Auditd;
use bpfwatch_inputs::kubernetes::KubernetesAudit;
use bpfwatch_inputs::network::NetworkSyslog;
use bpfwatch_inputs::recording::Recording;
use bpfwatch_inputs::windows::{Evtx, WindowsJson};
use bpfwatch_macos::eslogger::Eslogger;

use super::now;

/// The formats, in the order in which they are tried on a file's content.
pub fn formats() -> Vec<Box<dyn LineDecoder>> {
    vec![
        Box::new(Recording),
        Box::new(Eslogger::default()),
        Box::new(Evtx::default()),
        Box::new(Bsm::freebsd()),
        Box::new(Bsm::macos()),
        Box::new(WindowsJson::default()),
        Box::new(KubernetesAudit::default()),
        Box::new(Auditd::default()),
        Box::new(NetworkSyslog::new(now())),
    ]
}
