//! Which container or unit a process belongs to, from its control groups and namespaces.
//!
//! Pure: text of `/proc/PID/cgroup` (cgroups(7): `hierarchy:controllers:path`) and a few inodes in, a
//! [`Scope`] out. cgroup v1 gives a line for each controller, v2 the one line `0::PATH`, hybrid both.
//!
//! The outermost container counts. What lies below it in the path is named by whoever runs inside (a
//! system container may make control groups of any name), and so proves nothing. In a user's own slice
//! even the outermost name is that user's choice; it can only make a capture look more alarming.

use bpfwatch_core::scope::Scope;
use bpfwatch_core::text::Text;

/// What is known of a process's namespaces. Unknown is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Inode of its network namespace.
    pub net: Option<u64>,
    /// Inode of the host's network namespace, pid 1's.
    pub host_net: Option<u64>,
    /// Its mount namespace is another than pid 1's.
    pub own_mount: Option<bool>,
    /// Its pid namespace is another than pid 1's.
    pub own_pid: Option<bool>,
    /// Name of its network namespace under /run/netns.
    pub net_name: Option<Text>,
    /// [`container_id`] of pid 1. When pid 1 itself sits in a container, that container is what
    /// counts as the host here.
    pub host_container: Option<Text>,
}

/// Scope of a process whose `/proc/PID/cgroup` is `cgroup`; `None` where too little is known.
///
/// A runtime's own path form makes a container whatever its namespaces are: a container that shares
/// the host's network, or entered all of pid 1's namespaces, is still the one to blame. A plain path
/// makes one only together with a pid and a mount namespace other than pid 1's.
pub fn from_proc(cgroup: &[u8], namespaces: &Namespaces) -> Option<Scope> {
    if let Some(found) = container(cgroup, namespaces) {
        let id = Text::from_bytes(found.id);
        if namespaces.host_container.as_ref() != Some(&id) {
            return Some(Scope::Container {
                id,
                runtime: found.runtime.map(Text::from),
                image: None,
                pod: found.pod.map(|uid| Text::from(uid.as_str())),
                netns: namespaces.net,
            });
        }
    }
    match (namespaces.net, namespaces.host_net) {
        (Some(net), Some(host)) if net == host => Some(Scope::Host),
        (Some(net), Some(_)) => {
            Some(Scope::Namespace { netns: net, name: namespaces.net_name.clone() })
        }
        _ => None,
    }
}

/// Id of the container that these control groups name by a runtime's own path form.
pub fn container_id(cgroup: &[u8]) -> Option<Text> {
    lines(cgroup).find_map(|line| by_form(&line, true)).map(|found| Text::from_bytes(found.id))
}

/// The systemd unit of the system's manager: the first part of the path that is no slice, as
/// sd_pid_get_unit(3) has it. Units of a user's manager, and of a systemd inside a container, are not
/// reported: their names are free to choose there.
pub fn unit(cgroup: &[u8]) -> Option<Text> {
    let systemd = || lines(cgroup).find(|line| line.controllers == b"name=systemd");
    let unified = || lines(cgroup).find(|line| line.controllers.is_empty());
    [systemd(), unified()].into_iter().flatten().find_map(|line| {
        let part = line.parts().find(|part| !part.ends_with(b".slice"))?;
        // systemd puts `_` before a name that could be taken for a kernel file (cg_escape).
        let name = part.strip_prefix(b"_").unwrap_or(part);
        is_unit(name).then(|| Text::from_bytes(name))
    })
}

struct Found<'a> {
    id: &'a [u8],
    runtime: Option<&'static str>,
    pod: Option<String>,
}

struct Line<'a> {
    controllers: &'a [u8],
    path: &'a [u8],
}

impl<'a> Line<'a> {
    /// Parts of the path. `..` stands there when the reader has a cgroup namespace of its own.
    fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b"..")
    }
}

fn lines(cgroup: &[u8]) -> impl Iterator<Item = Line<'_>> {
    cgroup.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Line { controllers, path: path.strip_suffix(b" (deleted)").unwrap_or(path) })
    })
}

fn container<'a>(cgroup: &'a [u8], namespaces: &Namespaces) -> Option<Found<'a>> {
    let own_pid = namespaces.own_pid != Some(false);
    lines(cgroup).find_map(|line| by_form(&line, own_pid)).or_else(|| {
        let isolated = namespaces.own_pid == Some(true) && namespaces.own_mount == Some(true);
        isolated.then(|| plain(cgroup)).flatten()
    })
}

/// Prefixes of control group names by runtime; what follows is a hexadecimal id. The processes that
/// watch over a container (`crio-conmon-ID`, `libpod-conmon-ID`) so never match.
const HEX_PREFIXES: [(&[u8], &str); 7] = [
    (b"docker-", "docker"),
    (b"cri-containerd-", "containerd"),
    (b"nerdctl-", "containerd"),
    (b"crio-", "cri-o"),
    (b"libpod-payload-", "podman"),
    (b"libpod-", "podman"),
    (b"cri-dockerd-", "docker"),
];

/// Prefixes of scopes by runtime; what follows is any name, and so a pid namespace must agree.
const NAME_PREFIXES: [(&[u8], &str); 4] =
    [(b"runc-", "runc"), (b"crun-", "crun"), (b"youki-", "youki"), (b"machine-", "systemd-nspawn")];

/// A path that a runtime's own naming tells. `own_pid`: its pid namespace may be other than pid 1's.
fn by_form<'a>(line: &Line<'a>, own_pid: bool) -> Option<Found<'a>> {
    let mut pod = None;
    let (mut before, mut parent): (&[u8], &[u8]) = (b"", b"");
    for part in line.parts() {
        pod = pod_uid(part).or(pod);
        if let Some((id, runtime)) = by_part(before, parent, part, pod.is_some(), own_pid) {
            return Some(Found { id, runtime, pod });
        }
        (before, parent) = (parent, part);
    }
    None
}

fn by_part<'a>(
    before: &[u8],
    parent: &[u8],
    part: &'a [u8],
    in_pod: bool,
    own_pid: bool,
) -> Option<(&'a [u8], Option<&'static str>)> {
    // A systemd path (`slice:prefix:name`) under the cgroupfs driver stays one literal name.
    let mut colons = part.splitn(3, |byte| *byte == b':');
    if let (Some(_), Some(prefix), Some(id)) = (colons.next(), colons.next(), colons.next()) {
        let named = |table: &[(&[u8], &'static str)]| {
            table.iter().find(|(p, _)| p.strip_suffix(b"-") == Some(prefix)).map(|(_, r)| *r)
        };
        let runtime = if is_hex(id) {
            named(&HEX_PREFIXES).or_else(|| named(&NAME_PREFIXES))
        } else if own_pid {
            named(&NAME_PREFIXES)
        } else {
            None
        };
        return runtime.map(|runtime| (id, Some(runtime)));
    }
    let scope = part.strip_suffix(b".scope");
    let name = scope.unwrap_or(part);
    for (prefix, runtime) in HEX_PREFIXES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_hex(id)) {
            return Some((id, Some(runtime)));
        }
    }
    if let (Some(scope), true) = (scope, own_pid) {
        for (prefix, runtime) in NAME_PREFIXES {
            if let Some(id) = scope.strip_prefix(prefix).filter(|id| !id.is_empty()) {
                return Some((id, Some(runtime)));
            }
        }
    }
    if let Some(id) =
        part.strip_prefix(b"systemd-nspawn@").and_then(|p| p.strip_suffix(b".service"))
        && own_pid
    {
        return Some((id, Some("systemd-nspawn")));
    }
    if let Some(id) = part.strip_prefix(b"lxc.payload.") {
        return Some((id, Some("lxc")));
    }
    match parent {
        b"lxc" | b"lxc.payload" => return Some((part, Some("lxc"))),
        b"docker" if is_hex(part) => return Some((part, Some("docker"))),
        b"buildkit" if before == b"docker" => return Some((part, Some("buildkit"))),
        _ => {}
    }
    // Under another parent (`--cgroup-parent`, the cgroupfs driver of Kubernetes) the id stands alone.
    if part.len() == 64 && is_hex(part) {
        let containerd = in_pod || is_containerd_namespace(parent);
        return Some((part, containerd.then_some("containerd")));
    }
    None
}

/// runc and its like without an engine: `/ID` below whatever units started it, the same in most
/// controllers. One controller alone proves nothing: a login or a job may have put it there.
fn plain(cgroup: &[u8]) -> Option<Found<'_>> {
    let candidates: Vec<Option<(&[u8], &'static str)>> =
        lines(cgroup).map(|l| plain_id(&l)).collect();
    let chosen = candidates
        .iter()
        .flatten()
        .max_by_key(|one| candidates.iter().flatten().filter(|other| other == one).count())?;
    let count = candidates.iter().flatten().filter(|other| *other == chosen).count();
    (count * 2 > candidates.len()).then_some(Found {
        id: chosen.0,
        runtime: Some(chosen.1),
        pod: None,
    })
}

fn plain_id<'a>(line: &Line<'a>) -> Option<(&'a [u8], &'static str)> {
    let mut parts = line.parts().skip_while(|part| part.ends_with(b".slice") || is_unit(part));
    let first = parts.next()?;
    if is_containerd_namespace(first) {
        return parts.next().map(|id| (id, "containerd"));
    }
    // Monitors of containers, and services of OpenRC, which has no suffix for them.
    let other = [&b"openrc"[..], b"lxc.monitor", b"libpod_parent", b"conmon", b"crio-conmon-"];
    (!other.iter().any(|prefix| first.starts_with(prefix))).then_some((first, "runc"))
}

/// Namespaces of containerd itself (`ctr`, nerdctl, Kubernetes, docker), which are part of the path.
fn is_containerd_namespace(part: &[u8]) -> bool {
    matches!(part, b"default" | b"k8s.io" | b"moby")
}

/// UID of a Kubernetes pod from `pod<uid>` (cgroupfs driver) or `kubepods-burstable-pod<uid>.slice`
/// (systemd driver, `-` written as `_`). Static pods have 32 hexadecimal digits without dashes.
fn pod_uid(part: &[u8]) -> Option<String> {
    // A literal systemd path has the slice before its first colon.
    let part = part.split(|byte| *byte == b':').next()?;
    let name = match part.strip_suffix(b".slice") {
        Some(slice) => {
            let at = slice.windows(4).position(|window| window == b"-pod")?;
            let is_pods = slice.starts_with(b"kubepods") || slice.starts_with(b"kubelet-kubepods");
            is_pods.then(|| &slice[at + 1..])?
        }
        None => part,
    };
    let uid = std::str::from_utf8(name.strip_prefix(b"pod")?).ok()?.replace('_', "-");
    let digits = uid.bytes().filter(|byte| *byte != b'-').count();
    (digits == 32 && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()))
        .then_some(uid)
}

fn is_hex(id: &[u8]) -> bool {
    (12..=64).contains(&id.len()) && id.iter().all(u8::is_ascii_hexdigit)
}

/// Whether systemd could have a unit of this name that holds processes.
fn is_unit(name: &[u8]) -> bool {
    let suffixes = [&b".service"[..], b".scope", b".socket", b".mount", b".swap"];
    suffixes.iter().any(|suffix| name.strip_suffix(*suffix).is_some_and(|stem| !stem.is_empty()))
}

#[cfg(test)]
mod tests;
