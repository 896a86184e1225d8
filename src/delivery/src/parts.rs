//! Sessions, scopes and records of logs as JSON for foreign schemas: the names of native JSON, but every text a plain
//! string, which index mappings demand. (Native JSON writes a text that was cut or had bad bytes as an
//! object.)

use bpfwatch_core::finding::{RecordView, SessionView};
use bpfwatch_core::handle::Handle;
use bpfwatch_core::program::BpfProgram;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

use crate::object::Object;

/// A capture session.
pub fn session(session: &SessionView) -> Object {
    let mut out = Object::new();
    out.put("id", session.id.as_str());
    out.put("stage", session.stage.as_str());
    out.put("promiscuous", session.promiscuous);
    out.put_time("opened_at", session.opened_at);
    out.put_some("closed_at", session.closed_at.map(|at| at.to_string()));
    out.put_some("pre_existing", session.pre_existing.then_some(true));
    out.put_some("packets", session.packets);
    out.put_object("handle", handle(&session.handle));
    out
}

fn handle(handle: &Handle) -> Object {
    let mut out = Object::new();
    out.put("kind", handle.kind.as_str());
    out.put("id", handle.id);
    out.put_text("device", handle.device.as_ref());
    out.put_text("interface", handle.interface.as_ref());
    out.put_text("protocol", handle.protocol.as_ref());
    out.put_some("socket_type", handle.socket_type.map(|kind| kind.as_str()));
    out.put_some("ip_version", handle.ip_version);
    out.put_some("filter", handle.filter);
    out.put_some("ring", handle.ring);
    out.put_some("netns", handle.netns);
    out.put_some("grade", handle.grade.map(|grade| grade.as_str()));
    out.put_text("peer", handle.peer.as_ref());
    out.put_some("program", handle.program.as_deref().map(program));
    out
}

fn program(program: &BpfProgram) -> Object {
    let mut out = Object::new();
    let mut list = |name: &str, texts: &[Text]| {
        if !texts.is_empty() {
            out.put_list(name, texts.iter().map(|text| text.as_str().to_owned()));
        }
    };
    list("attached", &program.attached);
    list("cgroups", &program.cgroups);
    list("maps", program.maps.as_deref().unwrap_or_default());
    list("pinned", &program.pinned);
    out.put_text("name", program.name.as_ref());
    out.put_text("tag", program.tag.as_ref());
    out.put_text("program_type", program.program_type.as_ref());
    out.put_some("uid", program.uid);
    out.put_some("loaded_at", program.loaded_at.map(|at| at.to_string()));
    out
}

/// A record of a log. Its fields become `name=value`: as keys, their endless names would each be a new
/// field of an index.
pub fn record(record: &RecordView) -> Object {
    let mut out = Object::new();
    out.put("log", record.log.as_str());
    out.put_some("subject", record.subject.as_deref());
    out.put("message", record.message.as_str());
    let fields = record.fields.iter().map(|(name, value)| match value {
        serde_json::Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    out.put_list("fields", fields);
    out
}

/// Host, jail, container or namespace.
pub fn scope(scope: &Scope) -> Object {
    let mut out = Object::new();
    out.put("kind", scope.kind());
    match scope {
        Scope::Host => {}
        Scope::Jail { jid, name, vnet, path, hostname } => {
            out.put_some("jid", *jid);
            out.put("name", name.as_str());
            out.put_some("vnet", *vnet);
            out.put_text("path", path.as_ref());
            out.put_text("hostname", hostname.as_ref());
        }
        Scope::Container { id, runtime, image, pod, netns } => {
            out.put("id", id.as_str());
            out.put_text("runtime", runtime.as_ref());
            out.put_text("image", image.as_ref());
            out.put_text("pod", pod.as_ref());
            out.put_some("netns", *netns);
        }
        Scope::Namespace { netns, name } => {
            out.put("netns", *netns);
            out.put_text("name", name.as_ref());
        }
    }
    out
}
