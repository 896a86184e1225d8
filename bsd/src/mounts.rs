//! What a bpf node in a devfs mount means, by whose mount it is. Pure.

use bpfwatch_core::platform::{Check, CheckState};

use crate::raw::JailRow;

/// VQ_MOUNT of sys/mount.h: a file system was mounted.
pub const VQ_MOUNT: u32 = 0x8;
/// VQ_UNMOUNT: one was unmounted.
pub const VQ_UNMOUNT: u32 = 0x10;

/// Whose a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The host's own /dev.
    Host,
    /// A jail's.
    Jail(&'a JailRow),
    /// Below no jail's root: of a chroot, or of a jail that is gone.
    Elsewhere,
}

/// Whose the mount at `on` is: that of the jail with the deepest root above it.
pub fn place<'a>(on: &[u8], jails: &'a [JailRow]) -> Place<'a> {
    if on == b"/dev" {
        return Place::Host;
    }
    let below = |root: &[u8]| {
        let rest = on.strip_prefix(root);
        !root.is_empty() && root != b"/" && rest.is_some_and(|rest| rest.starts_with(b"/"))
    };
    let within = jails.iter().filter(|jail| below(&jail.path));
    within.max_by_key(|jail| jail.path.len()).map_or(Place::Elsewhere, Place::Jail)
}

/// Who may open the node.
pub fn node_check(node: &str, mode: u32, uid: u32, gid: u32, place: Place<'_>) -> Check {
    let name = |jail: &JailRow| String::from_utf8_lossy(&jail.name).into_owned();
    let opened_wide = mode & 0o006 != 0;
    let group = mode & 0o060 != 0;
    let others = if opened_wide {
        Some("every user")
    } else if group && gid != 0 {
        Some("a group other than wheel")
    } else if uid != 0 {
        Some("a user other than root")
    } else {
        None
    };
    let access = format!("{node} has mode {mode:o}, user {uid}, group {gid}");
    let (state, detail, mend) = match (place, others) {
        (Place::Jail(jail), _) if jail.vnet != Some(true) => (
            CheckState::Warning,
            format!(
                "{access}: root of jail {} can read the host's traffic, because the jail has no network \
                 stack of its own",
                name(jail)
            ),
            Some("hide it: give the jail a devfs ruleset that does not unhide bpf, or a VNET"),
        ),
        (Place::Jail(jail), _) => (
            CheckState::Warning,
            format!(
                "{access}: root of jail {} can read the traffic of its own interfaces",
                name(jail)
            ),
            Some("hide it unless the jail needs it (DHCP clients do): devfs.rules(5)"),
        ),
        (_, Some(who)) => (
            CheckState::Warning,
            format!("{access}: {who} may capture"),
            Some("chown root:wheel and chmod 600, and look for what changed it in devfs.conf(5)"),
        ),
        (Place::Host, None) => (CheckState::Ok, format!("{access}: root alone"), None),
        (Place::Elsewhere, None) => (
            CheckState::Info,
            format!("{access}: belongs to no jail that runs"),
            Some("unmount it if nothing needs it"),
        ),
    };
    Check { name: "access to BPF".to_owned(), state, detail, mend: mend.map(str::to_owned) }
}

/// Jails whose root may open raw sockets.
pub fn raw_socket_checks(jails: &[JailRow]) -> Vec<Check> {
    let allowed = jails.iter().filter(|jail| jail.raw_sockets == Some(true));
    let one = |jail: &JailRow| Check {
        name: "raw sockets in jails".to_owned(),
        state: CheckState::Info,
        detail: format!(
            "root of jail {} may open raw IP sockets (allow.raw_sockets)",
            String::from_utf8_lossy(&jail.name)
        ),
        mend: None,
    };
    allowed.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(name: &str, path: &str, vnet: bool) -> JailRow {
        JailRow {
            name: name.into(),
            path: path.into(),
            vnet: Some(vnet),
            raw_sockets: Some(vnet),
            ..JailRow::default()
        }
    }

    #[test]
    fn a_mount_is_that_of_the_deepest_jail() {
        let jails = [
            jail("leg", "/jails/leg", false),
            jail("leg.sub", "/jails/leg/sub", true),
            jail("all", "/", false),
        ];
        let name = |on: &str| match place(on.as_bytes(), &jails) {
            Place::Jail(jail) => String::from_utf8_lossy(&jail.name).into_owned(),
            other => format!("{other:?}"),
        };
        assert_eq!(name("/dev"), "Host");
        assert_eq!(name("/jails/leg/dev"), "leg");
        assert_eq!(name("/jails/leg/sub/dev"), "leg.sub");
        assert_eq!(name("/jails/legacy/dev"), "Elsewhere");
    }

    #[test]
    fn who_may_open_it() {
        let (legacy, vnet) = (jail("leg", "/j/leg", false), jail("vn", "/j/vn", true));
        let of = |mode, uid, gid, place| {
            let check = node_check("/dev/bpf", mode, uid, gid, place);
            (check.state, check.detail)
        };
        assert_eq!(of(0o600, 0, 0, Place::Host).0, CheckState::Ok);
        assert_eq!(of(0o660, 0, 0, Place::Host).0, CheckState::Ok, "wheel is root's group");
        for (mode, uid, gid, who) in [
            (0o660, 0, 1001, "a group other than wheel"),
            (0o600, 1001, 0, "a user other than root"),
            (0o666, 0, 0, "every user"),
        ] {
            let (state, detail) = of(mode, uid, gid, Place::Host);
            assert_eq!(state, CheckState::Warning);
            assert!(detail.contains(who), "{detail}");
        }
        assert!(of(0o600, 0, 0, Place::Jail(&legacy)).1.contains("the host's traffic"));
        assert!(of(0o600, 0, 0, Place::Jail(&vnet)).1.contains("its own interfaces"));
        assert_eq!(of(0o600, 0, 0, Place::Elsewhere).0, CheckState::Info);
        assert_eq!(raw_socket_checks(&[legacy, vnet]).len(), 1);
    }
}
