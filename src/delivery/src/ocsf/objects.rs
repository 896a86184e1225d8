//! Objects of the schema: process, container, device, product, analytic, attack.

use bpfwatch_core::finding::{Host, ProcessView, RuleRef};
use bpfwatch_core::observation::Os;
use bpfwatch_core::scope::Scope;
use bpfwatch_core::time::Timestamp;

use crate::attack::{Attack, technique_name};
use crate::object::{Object, file_name};

/// `timestamp_t`: milliseconds since the epoch.
pub fn millis(at: Timestamp) -> i64 {
    at.nanos().div_euclid(1_000_000)
}

/// The product that detects.
pub fn product(version: Option<&str>) -> Object {
    let mut out = Object::new();
    out.put("name", "bpfwatch");
    out.put("vendor_name", "bpfwatch");
    out.put_some("version", version);
    out
}

/// The rule.
pub fn analytic(rule: &RuleRef) -> Object {
    let mut out = Object::new();
    out.put("uid", rule.id.as_str());
    out.put("name", rule.title.as_str());
    out.put("type_id", 1);
    out.put("type", "Rule");
    out
}

/// Techniques, sub-techniques and tactics, one of them in each object: which technique serves which
/// tactic here, tags do not say.
pub fn attacks(attack: &Attack) -> Vec<Object> {
    let named = |id: &str, name: Option<&str>| {
        let mut out = Object::new();
        out.put("uid", id);
        out.put_some("name", name);
        out
    };
    let wrap = |key: &str, inner: Object| {
        let mut out = Object::new();
        out.put_object(key, inner);
        out
    };
    let has_sub = |id: &String| {
        attack.sub_techniques.iter().any(|sub| sub.split('.').next() == Some(id.as_str()))
    };
    let whole = attack.techniques.iter().filter(|id| !has_sub(id));
    let techniques = whole.map(|id| wrap("technique", named(id, technique_name(id))));
    let subs = attack.sub_techniques.iter().map(|id| {
        let mut out = wrap("sub_technique", named(id, None));
        let main = id.split('.').next().unwrap_or(id);
        out.put_object("technique", named(main, technique_name(main)));
        out
    });
    let tactics =
        attack.tactics.iter().map(|tactic| wrap("tactic", named(tactic.id, Some(tactic.name))));
    techniques.chain(subs).chain(tactics).collect()
}

/// The machine, with the interface that was captured on.
pub fn device(host: &Host, interface: Option<&str>) -> Object {
    let mut out = Object::new();
    out.put("hostname", host.name.as_str());
    out.put("type_id", 0);
    out.put("type", "Unknown");
    out.put_some("interface_name", interface);
    let (id, name) = match host.os {
        Os::Linux => (200, "Linux"),
        Os::Macos => (300, "macOS"),
        Os::Windows => (100, "Windows"),
        // Other: the schema has no number for them.
        Os::Freebsd => (99, "FreeBSD"),
        Os::Kubernetes => (99, "Kubernetes"),
        Os::Cisco => (99, "Cisco"),
        Os::Juniper => (99, "Junos"),
    };
    let mut os = Object::new();
    os.put("name", name);
    os.put("type_id", id);
    os.put("type", name);
    out.put_object("os", os);
    out
}

/// A process with its user, file, parent and ancestors.
pub fn process(process: &ProcessView) -> Object {
    let mut out = Object::new();
    out.put("pid", process.pid);
    let name = process.name.as_deref().or(process.image.as_deref().map(file_name));
    out.put_some("name", name);
    out.put_some("cmd_line", process.command_line.as_deref());
    out.put_some("working_directory", process.cwd.as_deref());
    if let Some(image) = &process.image {
        out.put("path", image.as_str());
        let mut file = file(image, 1);
        file.put_some("is_deleted", process.image_deleted);
        out.put_object("file", file);
    }
    let mut user = Object::new();
    user.put_some("name", process.user.as_deref());
    user.put_some("uid", process.uid.map(|uid| uid.to_string()));
    out.put_object("user", user);
    let entity = |pid: Option<u32>, image: Option<&str>, command_line: Option<&str>| {
        let mut out = Object::new();
        out.put_some("pid", pid);
        out.put_some("name", image.map(file_name));
        out.put_some("path", image);
        out.put_some("cmd_line", command_line);
        out
    };
    let parent = match process.ancestors.first() {
        Some(first) => {
            entity(Some(first.pid), first.image.as_deref(), first.command_line.as_deref())
        }
        None => entity(process.ppid, None, None),
    };
    out.put_object("parent_process", parent);
    out.put_list(
        "ancestry",
        process.ancestors.iter().map(|ancestor| {
            entity(Some(ancestor.pid), ancestor.image.as_deref(), ancestor.command_line.as_deref())
        }),
    );
    let mut more = Object::new();
    more.put_some("tty", process.tty.as_deref());
    more.put_some("unit", process.unit.as_deref());
    more.put_some("command_line_truncated", process.command_line_truncated);
    if let Some(identity) = &process.identity {
        more.put_text("signing_id", identity.signing_id.as_ref());
        more.put_text("team_id", identity.team_id.as_ref());
        more.put_text("cdhash", identity.cdhash.as_ref());
        more.put_some("platform_binary", identity.platform_binary);
    }
    out.put_object("xattributes", more);
    out
}

/// A file by its path. `type_id`: 1 is a regular file, 3 a character device.
fn file(path: &str, type_id: u32) -> Object {
    let mut out = Object::new();
    out.put("name", file_name(path));
    out.put("path", path);
    out.put("type_id", type_id);
    out
}

/// The device node that packets come through.
pub fn device_file(path: &str) -> Object {
    file(path, 3)
}

/// The container, where the scope is one.
pub fn container(scope: &Scope) -> Option<Object> {
    let Scope::Container { id, runtime, image, pod, .. } = scope else { return None };
    let mut out = Object::new();
    out.put("uid", id.as_str());
    out.put_text("runtime", runtime.as_ref());
    if let Some(image) = image {
        let mut fields = Object::new();
        fields.put("name", image.as_str());
        fields.put("uid", image.as_str());
        out.put_object("image", fields);
    }
    if let Some(pod) = pod {
        out.put("orchestrator", "kubernetes");
        let is_uuid = pod.as_str().len() == 36
            && pod.as_str().bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        out.put_some("pod_uuid", is_uuid.then_some(pod.as_str()));
    }
    Some(out)
}
