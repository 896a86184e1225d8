//! Capability sets, as `/proc/PID/status` and the extended attribute `security.capability` have them.

/// CAP_NET_ADMIN (linux/capability.h).
pub const NET_ADMIN: u8 = 12;
/// CAP_NET_RAW.
pub const NET_RAW: u8 = 13;
/// CAP_SYS_PTRACE.
pub const SYS_PTRACE: u8 = 19;
/// CAP_SYS_ADMIN.
pub const SYS_ADMIN: u8 = 21;
/// CAP_DAC_READ_SEARCH.
pub const DAC_READ_SEARCH: u8 = 2;
/// CAP_BPF.
pub const BPF: u8 = 39;

const NAMES: [(u8, &str); 6] = [
    (DAC_READ_SEARCH, "cap_dac_read_search"),
    (NET_ADMIN, "cap_net_admin"),
    (NET_RAW, "cap_net_raw"),
    (SYS_PTRACE, "cap_sys_ptrace"),
    (SYS_ADMIN, "cap_sys_admin"),
    (BPF, "cap_bpf"),
];

/// A set of capabilities, bit N for number N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// From the hexadecimal digits of a `Cap...:` line.
    pub fn from_hex(digits: &str) -> Option<Self> {
        u64::from_str_radix(digits.trim(), 16).ok().map(Self)
    }

    /// The permitted set of a file, from the value of `security.capability`: `struct vfs_cap_data` and
    /// `vfs_ns_cap_data` of linux/capability.h, little-endian: magic with the revision in its top
    /// byte, then a permitted and an inheritable word, once in revision 1, twice in 2 and 3. Revision
    /// 3 ends in the root id of the user namespace for which it counts.
    pub fn from_file_attribute(value: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = value.get(at..at + 4)?.try_into().ok()?;
            Some(u64::from(u32::from_le_bytes(bytes)))
        };
        let (revision, length) = (word(0)? >> 24, value.len());
        match (revision, length) {
            (1, 12) => Some(Self(word(4)?)),
            (2, 20) | (3, 24) => Some(Self(word(4)? | word(12)? << 32)),
            _ => None,
        }
    }

    /// Whether it has the capability of this number.
    pub fn has(self, number: u8) -> bool {
        self.0.checked_shr(u32::from(number)).is_some_and(|bits| bits & 1 == 1)
    }

    /// What it has of capabilities that this package knows, by name.
    pub fn names(self) -> Vec<&'static str> {
        NAMES.iter().filter(|(number, _)| self.has(*number)).map(|(_, name)| *name).collect()
    }
}

/// What is taken from `/proc/PID/status` (proc_pid_status(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The kernel's short name, with `\n` and `\\` as the kernel escapes them.
    pub name: String,
    /// Effective user id.
    pub euid: Option<u32>,
    /// What it may make effective at any time.
    pub permitted: Capabilities,
    /// What is in force.
    pub effective: Capabilities,
    /// What it can ever gain by executing a file.
    pub bounding: Capabilities,
    /// What it hands on to any program that it executes.
    pub ambient: Capabilities,
}

impl Status {
    /// Reads the text of the file; a line that is not there leaves its field empty.
    pub fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let set = || Capabilities::from_hex(value).unwrap_or_default();
            match key {
                "Name" => status.name = value.trim().to_owned(),
                // Real, effective, saved, file system.
                "Uid" => {
                    status.euid = value.split_whitespace().nth(1).and_then(|uid| uid.parse().ok());
                }
                "CapPrm" => status.permitted = set(),
                "CapEff" => status.effective = set(),
                "CapBnd" => status.bounding = set(),
                "CapAmb" => status.ambient = set(),
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_attributes_of_each_revision() {
        // As `setcap cap_net_raw=ep` and `cap_net_raw,cap_bpf=p` write them.
        let v2 = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Capabilities::from_file_attribute(&v2).unwrap().names(), ["cap_net_raw"]);
        let mut v3 = v2.to_vec();
        (v3[3], v3[12]) = (3, 0x80);
        v3.extend([0, 0, 1, 0]);
        let both = Capabilities::from_file_attribute(&v3).unwrap();
        assert_eq!(both.names(), ["cap_net_raw", "cap_bpf"]);
        let v1 = [1, 0, 0, 1, 0, 0x10, 0, 0, 0, 0, 0, 0];
        assert_eq!(Capabilities::from_file_attribute(&v1).unwrap().names(), ["cap_net_admin"]);
        for bad in [&v2[..19], &v3[..20], &[], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(Capabilities::from_file_attribute(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn status_lines() {
        let text = "Name:\tping\nUid:\t1000\t33\t1000\t1000\nCapPrm:\t0000000000002000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\tnonsense\n";
        let status = Status::parse(text);
        assert_eq!((status.name.as_str(), status.euid), ("ping", Some(33)));
        assert!(status.permitted.has(NET_RAW) && !status.permitted.has(NET_ADMIN));
        assert_eq!(status.effective, Capabilities(0));
        assert!(status.bounding.has(BPF) && !status.bounding.has(200));
        assert_eq!(status.ambient, Capabilities(0));
        assert_eq!(Status::parse(""), Status::default());
    }

    #[test]
    fn every_known_capability_has_a_name() {
        for number in [NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN, DAC_READ_SEARCH, BPF] {
            assert_eq!(
                Capabilities(1 << number).names(),
                [NAMES.iter().find(|(known, _)| *known == number).unwrap().1]
            );
        }
    }
}
