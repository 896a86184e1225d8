//! Executables that let users capture: file capabilities, and set-uid tools. A walk through the places
//! where programs are, shallow directories first, that ends in time whatever is there.

use std::collections::{HashSet, VecDeque};
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::capability::{self, Capabilities};
use crate::ffi;

/// Largest file that is compared with a known program, in bytes.
const COMPARE_LIMIT: u64 = 32 << 20;

/// Directories of data, large on many systems, in which no package puts a program. Left out, so that
/// the time suffices for the others; a program hidden there is not found.
const DATA: [&str; 9] = [
    "__pycache__",
    "dist-packages",
    "firmware",
    "include",
    "locale",
    "modules",
    "node_modules",
    "share",
    "site-packages",
];

/// Programs made for capture.
const CAPTURE_TOOLS: [&str; 24] = [
    "airodump-ng",
    "bettercap",
    "darkstat",
    "dsniff",
    "dumpcap",
    "ettercap",
    "hcxdumptool",
    "iftop",
    "kismet",
    "nethogs",
    "netsniff-ng",
    "ngrep",
    "p0f",
    "sngrep",
    "snort",
    "suricata",
    "tcpdump",
    "tcpflow",
    "tcpick",
    "termshark",
    "tshark",
    "urlsnarf",
    "wireshark",
    "zeek",
];

/// Programs that run any code, so that their privilege is everybody's.
const INTERPRETERS: [&str; 14] = [
    "bash", "busybox", "dash", "gdb", "ksh", "lua", "node", "perl", "php", "python", "ruby", "sh",
    "tclsh", "zsh",
];

/// What makes an executable privileged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// File capabilities, of which at least one serves capture.
    Capabilities(Capabilities),
    /// Set-uid, and a capture tool, an interpreter, or a copy of one.
    SetUid,
}

/// A privileged executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privileged {
    /// Where it is.
    pub path: PathBuf,
    /// What makes it so.
    pub why: Why,
    /// Permission bits.
    pub mode: u32,
    /// Group that owns it.
    pub gid: u32,
    /// It captures as it is, or runs any code.
    pub serves_capture: bool,
    /// The capture tool or interpreter of which it is a copy under another name.
    pub copy_of: Option<PathBuf>,
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// Privileged executables, by path.
    pub files: Vec<Privileged>,
    /// Files looked at.
    pub looked_at: usize,
    /// Whether the time sufficed for all of them.
    pub complete: bool,
}

struct Candidate {
    path: PathBuf,
    size: u64,
    mode: u32,
    gid: u32,
}

/// Looks through each of `roots`, and as many levels of directories below it as it says, for at most
/// `budget`.
pub fn find(roots: &[(PathBuf, usize)], budget: Duration) -> Found {
    let end = Instant::now() + budget;
    let mut found = Found { complete: true, ..Found::default() };
    let mut tools: Vec<(PathBuf, u64)> = Vec::new();
    let mut candidates: Vec<(Candidate, Why)> = Vec::new();
    // /bin is a link to /usr/bin on most systems: each directory once.
    let mut seen = HashSet::new();
    let mut waiting: VecDeque<(PathBuf, usize)> = roots
        .iter()
        .filter_map(|(root, levels)| Some((fs::canonicalize(root).ok()?, *levels)))
        .collect();
    while let Some((directory, levels)) = waiting.pop_front() {
        let Ok(metadata) = fs::metadata(&directory) else { continue };
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            if Instant::now() > end {
                found.complete = false;
                waiting.clear();
                break;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && levels > 0 && !DATA.iter().any(|data| entry.file_name() == *data) {
                waiting.push_back((entry.path(), levels - 1));
            }
            if !kind.is_file() {
                continue;
            }
            found.looked_at += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.mode() & 0o111 == 0 {
                continue;
            }
            let path = entry.path();
            let candidate = Candidate {
                size: metadata.len(),
                mode: metadata.mode() & 0o7777,
                gid: metadata.gid(),
                path,
            };
            if candidate.is_known() {
                tools.push((candidate.path.clone(), candidate.size));
            }
            let capabilities = file_capabilities(&candidate.path);
            let wanted = [capability::NET_RAW, capability::NET_ADMIN, capability::BPF];
            if wanted.iter().any(|number| capabilities.has(*number)) {
                candidates.push((candidate, Why::Capabilities(capabilities)));
            } else if candidate.mode & 0o4000 != 0 && metadata.uid() == 0 {
                candidates.push((candidate, Why::SetUid));
            }
        }
    }
    // Only now are all programs known of which one may be a copy.
    let files = candidates.into_iter().map(|(candidate, why)| candidate.privileged(why, &tools));
    found.files.extend(files.filter(|file| file.why != Why::SetUid || file.serves_capture));
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Candidate {
    fn is_known(&self) -> bool {
        is_capture_tool(&self.path) || is_interpreter(&self.path)
    }

    fn privileged(self, why: Why, tools: &[(PathBuf, u64)]) -> Privileged {
        let known = self.is_known();
        let same = |tool: &&(PathBuf, u64)| tool.1 == self.size && same_bytes(&tool.0, &self.path);
        let copy_of = if known { None } else { tools.iter().find(same).map(|tool| tool.0.clone()) };
        Privileged {
            serves_capture: known || copy_of.is_some(),
            path: self.path,
            why,
            mode: self.mode,
            gid: self.gid,
            copy_of,
        }
    }
}

fn file_capabilities(path: &Path) -> Capabilities {
    let mut value = [0; 64];
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else {
        return Capabilities::default();
    };
    // A failure is nearly always ENODATA: the file has none.
    let length = ffi::attribute(&c_path, c"security.capability", &mut value).unwrap_or(0);
    Capabilities::from_file_attribute(&value[..length]).unwrap_or_default()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_capture_tool(path: &Path) -> bool {
    CAPTURE_TOOLS.contains(&name(path))
}

/// `python3.13` is python.
fn is_interpreter(path: &Path) -> bool {
    let name = name(path).trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.contains(&name)
}

fn same_bytes(one: &Path, other: &Path) -> bool {
    // What was a file may have become a pipe meanwhile, where anybody may write.
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        options.open(path).ok()?.take(COMPARE_LIMIT).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    read(one).is_some_and(|bytes| Some(bytes) == read(other))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_of_interpreters() {
        for yes in ["/usr/bin/python3.13", "/usr/bin/perl5.36.0", "/bin/bash", "/usr/bin/php8.2"] {
            assert!(is_interpreter(Path::new(yes)), "{yes}");
        }
        for no in ["/usr/bin/pythonic", "/usr/bin/ping", "/usr/bin/", "/"] {
            assert!(!is_interpreter(Path::new(no)), "{no}");
        }
    }

    #[test]
    fn finds_set_uid_copies_of_capture_tools() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: making a set-uid file of root needs root");
            return;
        }
        let root = std::env::temp_dir().join(format!("bpfwatch-files-{}", std::process::id()));
        fs::create_dir_all(root.join("deep/er")).unwrap();
        let make = |name: &str, bytes: &[u8], mode: u32| {
            let path = root.join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let tool = make("tcpdump", b"#!capture", 0o755);
        let copy = make("deep/er/x", b"#!capture", 0o4755);
        make("deep/other", b"#!another", 0o4755);
        make("deep/plain", b"#!capture", 0o755);
        let shell = make("bash", b"#!shell", 0o4750);
        let found = find(&[(root.clone(), 2), (root.join("deep/.."), 0)], Duration::from_secs(10));
        let shallow = find(&[(root.clone(), 0)], Duration::from_secs(10));
        let late = find(&[(root.clone(), 2)], Duration::ZERO);
        fs::remove_dir_all(&root).unwrap();
        let paths: Vec<_> = found.files.iter().map(|file| (&file.path, &file.copy_of)).collect();
        assert_eq!(paths, [(&shell, &None), (&copy, &Some(tool))]);
        assert!(found.complete && found.looked_at == 5, "{found:?}");
        assert!(shallow.complete && shallow.looked_at == 2, "{shallow:?}");
        assert!(!late.complete);
    }
}
