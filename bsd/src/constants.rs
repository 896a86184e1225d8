//! The kernel's numbers that stand in this package, by their names in C: data for the test that compares
//! them with FreeBSD's headers.

use crate::bsm::{event, token};
use crate::{
    audit, beyond, filedesc, files, inotify, jails, link, mounts, pcbs, procs, route, spans,
};

/// Names and values.
pub fn constants() -> Vec<(&'static str, u64)> {
    let mut out = vec![
        ("DTYPE_VNODE", widened(files::DTYPE_VNODE)),
        ("DTYPE_SOCKET", widened(files::DTYPE_SOCKET)),
        ("KF_TYPE_VNODE", widened(filedesc::KF_TYPE_VNODE)),
        ("KF_TYPE_SOCKET", widened(filedesc::KF_TYPE_SOCKET)),
        ("KF_VTYPE_VCHR", widened(filedesc::KF_VTYPE_VCHR)),
        ("KF_FD_TYPE_CWD", widened(filedesc::KF_FD_TYPE_CWD)),
        ("SZOMB", procs::SZOMB.into()),
        ("P_SYSTEM", procs::P_SYSTEM),
        ("RTM_VERSION", route::RTM_VERSION.into()),
        ("RTM_IFINFO", route::RTM_IFINFO.into()),
        ("RTM_IFANNOUNCE", route::RTM_IFANNOUNCE.into()),
        ("IFF_PROMISC", route::IFF_PROMISC.into()),
        ("IFF_PPROMISC", route::IFF_PPROMISC.into()),
        ("AF_NETLINK", widened(link::AF_NETLINK)),
        ("NETLINK_ROUTE", widened(link::NETLINK_ROUTE)),
        ("SOL_NETLINK", widened(link::SOL_NETLINK)),
        ("NETLINK_ADD_MEMBERSHIP", widened(link::NETLINK_ADD_MEMBERSHIP)),
        ("RTNLGRP_LINK", widened(link::RTNLGRP_LINK)),
        ("RTM_NEWLINK", link::RTM_NEWLINK.into()),
        ("BIOCPROMISC", event::BIOCPROMISC),
        ("BIOCSETIF", event::BIOCSETIF),
        ("O_PATH", event::O_PATH),
        ("AUT_OTHER_FILE32", token::FILE32.into()),
        ("AUT_TRAILER", token::TRAILER.into()),
        ("AUT_HEADER32", token::HEADER32.into()),
        ("AUT_HEADER32_EX", token::HEADER32_EX.into()),
        ("AUT_HEADER64", token::HEADER64.into()),
        ("AUT_OTHER_FILE64", token::FILE64.into()),
        ("AUT_HEADER64_EX", token::HEADER64_EX.into()),
    ];
    out.extend([
        ("IN_ATTRIB", inotify::ATTRIB.into()),
        ("IN_OPEN", inotify::OPEN.into()),
        ("IN_CLOSE", inotify::CLOSE.into()),
        ("IN_DONT_FOLLOW", inotify::DONT_FOLLOW.into()),
        ("IN_UNMOUNT", inotify::UNMOUNT.into()),
        ("IN_Q_OVERFLOW", inotify::OVERFLOW.into()),
        ("IN_IGNORED", inotify::IGNORED.into()),
        ("IN_NONBLOCK", widened(inotify::NONBLOCK)),
        ("IN_CLOEXEC", widened(inotify::CLOEXEC)),
        ("SYS___specialfd", widened(inotify::SYS_SPECIALFD)),
        ("SPECIALFD_INOTIFY", widened(inotify::SPECIALFD_INOTIFY)),
        ("SYS_inotify_add_watch_at", widened(inotify::SYS_ADD_WATCH_AT)),
        ("SYS_inotify_rm_watch", widened(inotify::SYS_RM_WATCH)),
        ("EVFILT_JAIL", widened(jails::EVFILT_JAIL)),
        ("NOTE_JAIL_CHILD", jails::NOTE_JAIL_CHILD.into()),
        ("NOTE_JAIL_SET", jails::NOTE_JAIL_SET.into()),
        ("NOTE_JAIL_ATTACH", jails::NOTE_JAIL_ATTACH.into()),
        ("NOTE_JAIL_REMOVE", jails::NOTE_JAIL_REMOVE.into()),
        ("NOTE_JAIL_MULTI", jails::NOTE_JAIL_MULTI.into()),
        ("VQ_MOUNT", mounts::VQ_MOUNT.into()),
        ("VQ_UNMOUNT", mounts::VQ_UNMOUNT.into()),
    ]);
    out.extend([
        ("AUDITPIPE_SET_QLIMIT", audit::SET_QLIMIT),
        ("AUDITPIPE_SET_PRESELECT_FLAGS", audit::SET_FLAGS),
        ("AUDITPIPE_SET_PRESELECT_NAFLAGS", audit::SET_NAFLAGS),
        ("AUDITPIPE_SET_PRESELECT_MODE", audit::SET_MODE),
        ("AUDITPIPE_PRESELECT_MODE_LOCAL", audit::MODE_LOCAL.into()),
        ("AUDITPIPE_FLUSH", audit::FLUSH),
        ("AUDITPIPE_GET_DROPS", audit::GET_DROPS),
        ("FIONBIO", audit::FIONBIO),
        ("A_GETCOND", widened(audit::A_GETCOND)),
        ("AUC_AUDITING", widened(audit::AUC_AUDITING)),
        ("AF_NETGRAPH", widened(beyond::AF_NETGRAPH)),
        ("PF_DIVERT", widened(beyond::PF_DIVERT)),
        ("AF_INET", widened(beyond::AF_INET)),
        ("AF_INET6", widened(beyond::AF_INET6)),
        ("SOCK_RAW", widened(beyond::SOCK_RAW)),
        ("NG_DATA", widened(beyond::NG_DATA)),
        ("INP_IPV6PROTO", pcbs::INP_IPV6PROTO.into()),
        ("IFT_BRIDGE", spans::IFT_BRIDGE.into()),
        ("IFBIF_SPAN", spans::IFBIF_SPAN.into()),
        ("BRDGGIFS", spans::BRDGGIFS),
        ("SIOCGDRVSPEC", spans::SIOCGDRVSPEC),
    ]);
    out.extend(event::EVENTS.map(|(number, name, _)| (name, u64::from(number))));
    out
}

/// As C's conversion to unsigned long: negative numbers keep their sign.
fn widened(number: impl Into<i64>) -> u64 {
    number.into().cast_unsigned()
}
