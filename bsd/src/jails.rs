//! Parameters of a jail, as jail_get(2) fills them in (sys/kern/kern_jail.c `kern_jail_get`).

use std::collections::HashMap;

use crate::bytes::{id, until_nul};
use crate::raw::JailRow;

/// EVFILT_JAIL of sys/event.h, 15.0 and later.
pub const EVFILT_JAIL: i16 = -14;
/// NOTE_JAIL_CHILD: a jail was made in it.
pub const NOTE_JAIL_CHILD: u32 = 0x8000_0000;
/// NOTE_JAIL_SET: its parameters were changed.
pub const NOTE_JAIL_SET: u32 = 0x4000_0000;
/// NOTE_JAIL_ATTACH: a process entered it.
pub const NOTE_JAIL_ATTACH: u32 = 0x2000_0000;
/// NOTE_JAIL_REMOVE: it ends; this comes before its processes are killed and its file systems unmounted.
pub const NOTE_JAIL_REMOVE: u32 = 0x1000_0000;
/// NOTE_JAIL_MULTI: several of these happened.
pub const NOTE_JAIL_MULTI: u32 = 0x0800_0000;
/// All of them.
pub const NOTE_JAIL: u32 =
    NOTE_JAIL_CHILD | NOTE_JAIL_SET | NOTE_JAIL_ATTACH | NOTE_JAIL_REMOVE | NOTE_JAIL_MULTI;

/// A parameter that is asked for, and how many bytes its value may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Bytes of its value.
    pub size: usize,
}

const fn number(name: &'static str) -> Parameter {
    Parameter { name, size: 4 }
}

/// What is asked for of each jail; sizes of names are MAXHOSTNAMELEN and MAXPATHLEN of sys/param.h.
pub const PARAMETERS: [Parameter; 9] = [
    number("jid"),
    number("parent"),
    Parameter { name: "name", size: 256 },
    Parameter { name: "path", size: 1024 },
    Parameter { name: "host.hostname", size: 256 },
    number("vnet"),
    number("devfs_ruleset"),
    number("allow.raw_sockets"),
    number("dying"),
];

/// JAIL_SYS_NEW of sys/jail.h: of a subsystem that the jail has for itself.
const JAIL_SYS_NEW: u32 = 1;

/// The jail whose values stand in `values`, in the order of [`PARAMETERS`]; `None` for one that a kernel
/// does not know. `None` in all where there is no id.
pub fn row(values: &[Option<Vec<u8>>]) -> Option<JailRow> {
    let value = |wanted: &str| {
        let index = PARAMETERS.iter().position(|parameter| parameter.name == wanted)?;
        values.get(index)?.as_deref()
    };
    let number = |name| value(name).and_then(|bytes| id(bytes, 0));
    let text = |name| value(name).map(until_nul).unwrap_or_default().to_vec();
    Some(JailRow {
        jid: number("jid").filter(|jid| *jid != 0)?,
        parent: number("parent").unwrap_or(0),
        name: text("name"),
        path: text("path"),
        hostname: text("host.hostname"),
        vnet: number("vnet").map(|vnet| vnet == JAIL_SYS_NEW),
        devfs_ruleset: number("devfs_ruleset"),
        raw_sockets: number("allow.raw_sockets").map(|allowed| allowed != 0),
        dying: number("dying").is_some_and(|dying| dying != 0),
    })
}

/// The jail that owns the network stack of jail `jid`: itself, or the nearest around it that has one. `None`
/// for the host's stack, and where the kernel does not say.
pub fn stack_owner(jid: u32, jails: &HashMap<u32, JailRow>) -> Option<u32> {
    let mut at = jid;
    for _ in 0..=jails.len() {
        let jail = jails.get(&at)?;
        if jail.vnet? {
            return Some(at);
        }
        at = jail.parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_stack_is_that_of_the_nearest_vnet_jail() {
        let jail = |jid, parent, vnet| (jid, JailRow { jid, parent, vnet, ..JailRow::default() });
        let jails = HashMap::from([
            jail(1, 0, Some(false)),
            jail(2, 0, Some(true)),
            jail(3, 2, Some(false)),
            jail(4, 0, None),
            jail(5, 6, Some(false)),
            jail(6, 5, Some(false)),
        ]);
        let owner = |jid| stack_owner(jid, &jails);
        assert_eq!((owner(0), owner(1), owner(2), owner(3)), (None, None, Some(2), Some(2)));
        assert_eq!((owner(4), owner(5), owner(9)), (None, None, None), "nor does a circle hang");
    }

    fn values() -> Vec<Option<Vec<u8>>> {
        let number = |number: u32| Some(number.to_ne_bytes().to_vec());
        let text = |text: &str, size: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(size, 0);
            Some(bytes)
        };
        vec![
            number(3),
            number(0),
            text("leg.sub", 256),
            text("/jails/vn", 1024),
            text("vn.example", 256),
            number(1),
            number(10),
            number(0),
            number(0),
        ]
    }

    #[test]
    fn reads_a_jail() {
        assert_eq!(values().len(), PARAMETERS.len());
        let jail = row(&values()).unwrap();
        assert_eq!((jail.jid, jail.parent, jail.vnet), (3, 0, Some(true)));
        assert_eq!(
            (jail.name.as_slice(), jail.path.as_slice()),
            (b"leg.sub".as_slice(), b"/jails/vn".as_slice())
        );
        assert_eq!(
            (jail.devfs_ruleset, jail.raw_sockets, jail.dying),
            (Some(10), Some(false), false)
        );
    }

    #[test]
    fn what_a_kernel_does_not_know_is_unknown() {
        let mut values = values();
        values[5] = None;
        values[7] = Some(vec![1]);
        let jail = row(&values).unwrap();
        assert_eq!((jail.vnet, jail.raw_sockets), (None, None));
        values[0] = None;
        assert_eq!(row(&values), None);
        assert_eq!(row(&[]), None);
    }
}
