//! The kernel's numbers that stand in this package, by their names in C: data for the test that compares
//! them with FreeBSD's headers.

use crate::bsm::{event, token};
use crate::{filedesc, files, link, procs, route};

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
    out.extend(event::EVENTS.map(|(number, name, _)| (name, u64::from(number))));
    out
}

/// As C's conversion to unsigned long: negative numbers keep their sign.
fn widened(number: impl Into<i64>) -> u64 {
    number.into().cast_unsigned()
}
