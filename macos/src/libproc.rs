//! What libproc(3) and csops(2) fill in about processes and descriptors, from bytes (xnu
//! bsd/sys/proc_info.h, proc_info_private.h, codesign.h).

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::text::Text;

use crate::bytes::{id, name, signed, until_nul, word};
use crate::raw::EsProcess;

/// Size of `struct proc_fdinfo`: descriptor, type.
pub const FD_SIZE: usize = 8;
/// Size of `struct vnode_fdinfowithpath`: proc_fileinfo 24, vnode_info 152, path 1024.
pub const VNODE_PATH_SIZE: usize = 1200;
/// Size of `struct proc_bsdinfo`.
pub const BSDINFO_SIZE: usize = 136;
/// Size of `struct proc_uniqidentifierinfo`.
pub const UNIQUE_SIZE: usize = 56;
/// Size of `struct proc_vnodepathinfo`: two of vnode_info 152 and path 1024, working directory first.
pub const DIRECTORIES_SIZE: usize = 2352;

/// PROX_FDTYPE_VNODE of sys/proc_info.h.
const FDTYPE_VNODE: u32 = 1;
/// `CS_PLATFORM_BINARY` (xnu osfmk/kern/cs_blobs.h).
const CS_PLATFORM_BINARY: u32 = 0x0400_0000;

/// Descriptors that are files or devices, of what PROC_PIDLISTFDS filled.
pub fn vnodes(bytes: &[u8]) -> Vec<i32> {
    let rows = bytes.chunks_exact(FD_SIZE);
    rows.filter(|row| word(row, 4) == Some(FDTYPE_VNODE)).filter_map(|row| signed(row, 0)).collect()
}

/// Path of a descriptor, of what PROC_PIDFDVNODEPATHINFO filled.
pub fn path(bytes: &[u8]) -> Option<&[u8]> {
    name(bytes, 176, 1024)
}

/// What several calls said of a process; each may be missing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// PROC_PIDTBSDINFO.
    pub bsdinfo: Option<Vec<u8>>,
    /// PROC_PIDUNIQIDENTIFIERINFO.
    pub unique: Option<Vec<u8>>,
    /// proc_pidpath.
    pub image: Option<Vec<u8>>,
    /// csops CS_OPS_STATUS.
    pub flags: Option<u32>,
    /// csops CS_OPS_IDENTITY.
    pub signing_id: Option<Vec<u8>>,
    /// csops CS_OPS_TEAMID.
    pub team_id: Option<Vec<u8>>,
    /// csops CS_OPS_CDHASH.
    pub cdhash: Option<Vec<u8>>,
}

/// The same words as of a message of Endpoint Security, so that both are judged the same way.
pub fn process(pid: u32, facts: &Facts) -> EsProcess {
    let bsdinfo = |at| facts.bsdinfo.as_deref().and_then(|bytes| word(bytes, at));
    let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| Text::from_bytes(bytes));
    EsProcess {
        pid,
        pidversion: pidversion(facts.unique.as_deref().unwrap_or_default()).unwrap_or(0),
        euid: bsdinfo(20),
        ppid: bsdinfo(16),
        executable: facts.image.as_deref().and_then(|path| text(until_nul(path))),
        codesigning_flags: facts.flags,
        signing_id: facts.signing_id.as_deref().and_then(blob).and_then(text),
        team_id: facts.team_id.as_deref().and_then(blob).and_then(text),
        cdhash: facts.cdhash.as_deref().map(hexadecimal),
        platform_binary: facts.flags.map(|flags| flags & CS_PLATFORM_BINARY != 0),
        ..EsProcess::default()
    }
}

/// `p_idversion` of what PROC_PIDUNIQIDENTIFIERINFO filled: what Endpoint Security calls pidversion.
pub fn pidversion(bytes: &[u8]) -> Option<u32> {
    (bytes.len() >= UNIQUE_SIZE).then(|| word(bytes, 32)).flatten()
}

/// Short name, of what PROC_PIDTBSDINFO filled.
pub fn comm(bytes: &[u8]) -> Option<Text> {
    name(bytes, 48, 16).filter(|name| !name.is_empty()).map(Text::from_bytes)
}

/// Working directory, of what PROC_PIDVNODEPATHINFO filled.
pub fn directory(bytes: &[u8]) -> Option<Text> {
    name(bytes, 152, 1024).filter(|path| !path.is_empty()).map(Text::from_bytes)
}

/// The text after a blob's header of eight bytes: type, and length with the header in network order.
fn blob(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?) as usize;
    bytes.get(8..length.min(bytes.len())).map(until_nul)
}

fn hexadecimal(bytes: &[u8]) -> Text {
    let digits = b"0123456789abcdef";
    let text = |byte: &u8| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]];
    Text::from_bytes(&bytes.iter().flat_map(text).collect::<Vec<_>>())
}

/// The arguments in what the sysctl KERN_PROCARGS2 gave: a count, the path and padding, then the arguments,
/// and last the environment, which is not looked at.
pub fn arguments(bytes: &[u8]) -> Option<Arguments> {
    let count = id(bytes, 0)? as usize;
    let rest = bytes.get(4..)?;
    let rest = rest.get(until_nul(rest).len()..)?;
    let padding = rest.iter().position(|byte| *byte != 0)?;
    let rest = rest.get(padding..)?;
    let list: Vec<&[u8]> = rest.split(|byte| *byte == 0).take(count).collect();
    // What is cut short has no terminator after its last argument, and could be anything.
    let whole: usize = list.iter().map(|argument| argument.len() + 1).sum();
    (list.len() == count && whole <= rest.len())
        .then(|| Arguments::from_nul_separated(&rest[..whole]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use crate::raw::{CS_SIGNED, CS_VALID};

    #[test]
    fn lists_files_and_devices_only() {
        let rows: Vec<u8> = [(0i32, 1u32), (1, 2), (7, 1), (8, 0)]
            .iter()
            .flat_map(|(fd, kind)| [fd.to_ne_bytes(), kind.to_ne_bytes()].concat())
            .collect();
        assert_eq!(vnodes(&rows), [0, 7]);
        assert_eq!(vnodes(&rows[..12]), [0]);
    }

    #[test]
    fn finds_the_path_of_a_descriptor() {
        let mut bytes = vec![0; VNODE_PATH_SIZE];
        bytes[176..186].copy_from_slice(b"/dev/bpf12");
        assert_eq!(path(&bytes), Some(b"/dev/bpf12".as_slice()));
        assert_eq!(path(&bytes[..1000]), None);
    }

    #[test]
    fn a_process_is_the_same_as_endpoint_security_says() {
        let mut bsdinfo = vec![0; BSDINFO_SIZE];
        bsdinfo[16..20].copy_from_slice(&1u32.to_ne_bytes());
        bsdinfo[20..24].copy_from_slice(&501u32.to_ne_bytes());
        bsdinfo[48..55].copy_from_slice(b"tcpdump");
        let mut unique = vec![0; UNIQUE_SIZE];
        unique[32..36].copy_from_slice(&4321u32.to_ne_bytes());
        let facts = Facts {
            bsdinfo: Some(bsdinfo.clone()),
            unique: Some(unique),
            image: Some(b"/usr/sbin/tcpdump".to_vec()),
            flags: Some(CS_VALID | CS_SIGNED | CS_PLATFORM_BINARY),
            signing_id: Some(b"\0\0\0\0\0\0\0\x1acom.apple.tcpdump\0garbage".to_vec()),
            team_id: None,
            cdhash: Some(vec![0xab, 0x01]),
        };
        let process = decode::process(super::process(7, &facts));
        assert_eq!((process.pid, process.start, process.ppid), (7, Some(4321), Some(1)));
        assert_eq!(process.uid, Some(501));
        assert_eq!(process.image, Some("/usr/sbin/tcpdump".into()));
        let identity = process.identity.unwrap();
        assert_eq!(identity.signing_id, Some("com.apple.tcpdump".into()));
        assert_eq!((identity.team_id, identity.cdhash), (None, Some("ab01".into())));
        assert_eq!(identity.platform_binary, Some(true));
        assert_eq!(comm(&bsdinfo), Some("tcpdump".into()));
    }

    #[test]
    fn arguments_end_before_the_environment() {
        let bytes = b"\x03\0\0\0/usr/sbin/tcpdump\0\0\0\0tcpdump\0\0-nn\0SECRET=1\0";
        let arguments = super::arguments(bytes).unwrap();
        assert_eq!(arguments.count(), 3);
        assert_eq!(arguments.head().collect::<Vec<_>>(), ["tcpdump", "", "-nn"]);
        assert_eq!(super::arguments(b"\x09\0\0\0/x\0\0a\0b\0"), None);
        assert_eq!(super::arguments(b"\x02\0\0\0/x\0\0a\0SECRE"), None);
        assert_eq!(super::arguments(b"\x01"), None);
    }
}
