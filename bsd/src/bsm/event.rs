//! Numbers of the events that matter (bsm/audit_kevents.h of FreeBSD; macOS has the same and some of its
//! own).

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A program was executed.
    Execute,
    /// A process was copied.
    Fork,
    /// A process ended.
    Exit,
    /// A file was opened.
    Open,
    /// A descriptor was closed.
    Close,
    /// ioctl(2).
    Ioctl,
    /// Mode of a file was set.
    SetMode,
    /// Owner of a file was set.
    SetOwner,
}

/// BIOCPROMISC of net/bpf.h, as amd64 and arm64 have it.
pub const BIOCPROMISC: u64 = 0x2000_4269;
/// BIOCSETIF of net/bpf.h.
pub const BIOCSETIF: u64 = 0x8020_426c;
/// O_PATH of FreeBSD's sys/fcntl.h: no descriptor of the device is made. (macOS has O_DSYNC there.)
pub const O_PATH: u64 = 0x0040_0000;

/// Number, name in C and meaning of each, by number.
pub(crate) const EVENTS: [(u16, &str, Event); 63] = [
    (1, "AUE_EXIT", Event::Exit),
    (2, "AUE_FORK", Event::Fork),
    (3, "AUE_OPEN", Event::Open),
    (7, "AUE_EXEC", Event::Execute),
    (10, "AUE_CHMOD", Event::SetMode),
    (11, "AUE_CHOWN", Event::SetOwner),
    (23, "AUE_EXECVE", Event::Execute),
    (25, "AUE_VFORK", Event::Fork),
    (38, "AUE_FCHOWN", Event::SetOwner),
    (39, "AUE_FCHMOD", Event::SetMode),
    (72, "AUE_OPEN_R", Event::Open),
    (73, "AUE_OPEN_RC", Event::Open),
    (74, "AUE_OPEN_RT", Event::Open),
    (75, "AUE_OPEN_RTC", Event::Open),
    (76, "AUE_OPEN_W", Event::Open),
    (77, "AUE_OPEN_WC", Event::Open),
    (78, "AUE_OPEN_WT", Event::Open),
    (79, "AUE_OPEN_WTC", Event::Open),
    (80, "AUE_OPEN_RW", Event::Open),
    (81, "AUE_OPEN_RWC", Event::Open),
    (82, "AUE_OPEN_RWT", Event::Open),
    (83, "AUE_OPEN_RWTC", Event::Open),
    (112, "AUE_CLOSE", Event::Close),
    (158, "AUE_IOCTL", Event::Ioctl),
    (237, "AUE_LCHOWN", Event::SetOwner),
    (241, "AUE_FORK1", Event::Fork),
    (270, "AUE_OPENAT_R", Event::Open),
    (271, "AUE_OPENAT_RC", Event::Open),
    (272, "AUE_OPENAT_RT", Event::Open),
    (273, "AUE_OPENAT_RTC", Event::Open),
    (274, "AUE_OPENAT_W", Event::Open),
    (275, "AUE_OPENAT_WC", Event::Open),
    (276, "AUE_OPENAT_WT", Event::Open),
    (277, "AUE_OPENAT_WTC", Event::Open),
    (278, "AUE_OPENAT_RW", Event::Open),
    (279, "AUE_OPENAT_RWC", Event::Open),
    (280, "AUE_OPENAT_RWT", Event::Open),
    (281, "AUE_OPENAT_RWTC", Event::Open),
    (284, "AUE_FCHOWNAT", Event::SetOwner),
    (43043, "AUE_RFORK", Event::Fork),
    (43044, "AUE_LCHMOD", Event::SetMode),
    (43131, "AUE_MAC_EXECVE", Event::Execute),
    (43144, "AUE_FEXECVE", Event::Execute),
    (43146, "AUE_FCHMODAT", Event::SetMode),
    (43163, "AUE_CHMOD_EXTENDED", Event::SetMode),
    (43164, "AUE_FCHMOD_EXTENDED", Event::SetMode),
    (43169, "AUE_OPEN_EXTENDED", Event::Open),
    (43170, "AUE_OPEN_EXTENDED_R", Event::Open),
    (43171, "AUE_OPEN_EXTENDED_RC", Event::Open),
    (43172, "AUE_OPEN_EXTENDED_RT", Event::Open),
    (43173, "AUE_OPEN_EXTENDED_RTC", Event::Open),
    (43174, "AUE_OPEN_EXTENDED_W", Event::Open),
    (43175, "AUE_OPEN_EXTENDED_WC", Event::Open),
    (43176, "AUE_OPEN_EXTENDED_WT", Event::Open),
    (43177, "AUE_OPEN_EXTENDED_WTC", Event::Open),
    (43178, "AUE_OPEN_EXTENDED_RW", Event::Open),
    (43179, "AUE_OPEN_EXTENDED_RWC", Event::Open),
    (43180, "AUE_OPEN_EXTENDED_RWT", Event::Open),
    (43181, "AUE_OPEN_EXTENDED_RWTC", Event::Open),
    (43184, "AUE_OPENAT", Event::Open),
    (43190, "AUE_POSIX_SPAWN", Event::Execute),
    (43197, "AUE_PDFORK", Event::Fork),
    (43262, "AUE_EXECVEAT", Event::Execute),
];

impl Event {
    /// The event of that number; `None` for one that does not matter.
    pub fn of(number: u16) -> Option<Self> {
        let found = EVENTS.binary_search_by_key(&number, |(number, _, _)| *number);
        found.ok().map(|index| EVENTS[index].2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sorted_and_found() {
        assert!(EVENTS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(Event::of(23), Some(Event::Execute));
        assert_eq!(Event::of(278), Some(Event::Open));
        assert_eq!(Event::of(22), None);
    }
}
