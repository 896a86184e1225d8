//! Layouts of the kernel's structs that are read as bytes. Nothing is cast: a decoder takes each number from
//! the offset that stands here, and a test compares every one with what a C compiler makes of FreeBSD's own
//! headers.
//!
//! They are those of the 64-bit platforms. A row whose own size field says otherwise is refused.

/// A struct as C has it, for the comparison with the headers.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Header that declares it.
    pub header: &'static str,
    /// Its type in C.
    pub c_type: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its fields that are read.
    pub fields: &'static [Field],
}

/// One field of a [`Layout`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in C.
    pub c_name: &'static str,
    /// Where it begins.
    pub offset: usize,
    /// How many bytes it has.
    pub size: usize,
}

/// A `repr(C)` struct, its size and offsets asserted, and the same as data. A field without a name in C is
/// a gap that nobody reads.
macro_rules! c_struct {
    (
        $(#[$doc:meta])*
        $name:ident = $c_type:literal of $header:literal, $size:literal bytes {
            $($field:ident: $type:ty $(= $c_name:literal at $offset:literal)?,)*
        }
    ) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        #[allow(missing_docs)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            $($(assert!(core::mem::offset_of!($name, $field) == $offset);)?)*
        };

        impl $name {
            /// The same as data.
            pub const LAYOUT: Layout = Layout {
                header: $header,
                c_type: $c_type,
                size: $size,
                fields: &[$($(Field {
                    c_name: $c_name,
                    offset: $offset,
                    size: size_of::<$type>(),
                },)?)*],
            };
        }
    };
}

c_struct! {
    /// A row of the sysctl `net.bpf.stats`.
    XbpfD = "struct xbpf_d" of "net/bpfdesc.h", 168 bytes {
        structsize: u32 = "bd_structsize" at 0,
        promisc: u8 = "bd_promisc" at 4,
        immediate: u8 = "bd_immediate" at 5,
        gap: [u8; 6],
        hdrcmplt: i32 = "bd_hdrcmplt" at 12,
        direction: i32 = "bd_direction" at 16,
        feedback: i32 = "bd_feedback" at 20,
        asynchronous: i32 = "bd_async" at 24,
        rcount: u64 = "bd_rcount" at 32,
        dcount: u64 = "bd_dcount" at 40,
        fcount: u64 = "bd_fcount" at 48,
        sig: i32 = "bd_sig" at 56,
        slen: i32 = "bd_slen" at 60,
        hlen: i32 = "bd_hlen" at 64,
        bufsize: i32 = "bd_bufsize" at 68,
        pid: i32 = "bd_pid" at 72,
        ifname: [u8; 16] = "bd_ifname" at 76,
        locked: i32 = "bd_locked" at 92,
        wcount: u64 = "bd_wcount" at 96,
        wfcount: u64 = "bd_wfcount" at 104,
        wdcount: u64 = "bd_wdcount" at 112,
        zcopy: u64 = "bd_zcopy" at 120,
        bufmode: i32 = "bd_bufmode" at 128,
        spare: [u64; 4] = "bd_spare" at 136,
    }
}

c_struct! {
    /// A row of the sysctl `kern.file`.
    Xfile = "struct xfile" of "sys/file.h", 128 bytes {
        size: u64 = "xf_size" at 0,
        pid: i32 = "xf_pid" at 8,
        uid: u32 = "xf_uid" at 12,
        fd: i32 = "xf_fd" at 16,
        gap_a: i32,
        file: u64 = "xf_file" at 24,
        kind: i16 = "xf_type" at 32,
        gap_b: i16,
        count: i32 = "xf_count" at 36,
        msgcount: i32 = "xf_msgcount" at 40,
        gap_c: i32,
        offset: i64 = "xf_offset" at 48,
        data: u64 = "xf_data" at 56,
        vnode: u64 = "xf_vnode" at 64,
        flag: u32 = "xf_flag" at 72,
        gap_d: i32,
        gap_e: [i64; 6],
    }
}

c_struct! {
    /// A row of the sysctls below `kern.proc`.
    KinfoProc = "struct kinfo_proc" of "sys/user.h", 1088 bytes {
        structsize: i32 = "ki_structsize" at 0,
        gap_a: [u32; 17],
        pid: i32 = "ki_pid" at 72,
        ppid: i32 = "ki_ppid" at 76,
        pgid: i32 = "ki_pgid" at 80,
        tpgid: i32 = "ki_tpgid" at 84,
        sid: i32 = "ki_sid" at 88,
        gap_b: [u32; 19],
        uid: u32 = "ki_uid" at 168,
        ruid: u32 = "ki_ruid" at 172,
        gap_c: [u64; 20],
        start_sec: i64 = "ki_start.tv_sec" at 336,
        start_usec: i64 = "ki_start.tv_usec" at 344,
        gap_d: [u64; 2],
        flag: u64 = "ki_flag" at 368,
        gap_e: [u32; 3],
        stat: u8 = "ki_stat" at 388,
        gap_f: [u8; 5],
        tdname: [u8; 17] = "ki_tdname" at 394,
        gap_g: [u8; 9],
        login: [u8; 18] = "ki_login" at 420,
        gap_h: [u8; 9],
        comm: [u8; 20] = "ki_comm" at 447,
        gap_i: [u8; 93],
        tdev: u64 = "ki_tdev" at 560,
        gap_j: [u32; 2],
        tracer: i32 = "ki_tracer" at 576,
        gap_k: [u32; 3],
        jid: i32 = "ki_jid" at 592,
        gap_l: [u32; 123],
    }
}

c_struct! {
    /// A row of the sysctl `kern.proc.filedesc`, cut off after its path and padded to 8 bytes. Sockets and
    /// files share the part from 32 on.
    KinfoFile = "struct kinfo_file" of "sys/user.h", 1392 bytes {
        structsize: i32 = "kf_structsize" at 0,
        kind: i32 = "kf_type" at 4,
        fd: i32 = "kf_fd" at 8,
        ref_count: i32 = "kf_ref_count" at 12,
        flags: i32 = "kf_flags" at 16,
        gap_a: [u32; 3],
        vnode_type: i32 = "kf_un.kf_file.kf_file_type" at 32,
        sock_domain: i32 = "kf_un.kf_sock.kf_sock_domain0" at 36,
        sock_type: i32 = "kf_un.kf_sock.kf_sock_type0" at 40,
        sock_protocol: i32 = "kf_un.kf_sock.kf_sock_protocol0" at 44,
        gap_b: [u64; 31],
        rdev: u64 = "kf_un.kf_file.kf_file_rdev" at 296,
        gap_c: [u64; 3],
        mode: u16 = "kf_un.kf_file.kf_file_mode" at 328,
        gap_d: [u16; 19],
        path: [u8; 1024] = "kf_path" at 368,
    }
}

c_struct! {
    /// RTM_IFINFO of a route socket, without the counters that end it.
    IfMsghdr = "struct if_msghdr" of "net/if.h", 168 bytes {
        msglen: u16 = "ifm_msglen" at 0,
        version: u8 = "ifm_version" at 2,
        kind: u8 = "ifm_type" at 3,
        addrs: i32 = "ifm_addrs" at 4,
        flags: i32 = "ifm_flags" at 8,
        index: u16 = "ifm_index" at 12,
        gap: u16,
        data: [u64; 19] = "ifm_data" at 16,
    }
}

c_struct! {
    /// RTM_IFANNOUNCE of a route socket.
    IfAnnouncemsghdr = "struct if_announcemsghdr" of "net/if.h", 24 bytes {
        msglen: u16 = "ifan_msglen" at 0,
        version: u8 = "ifan_version" at 2,
        kind: u8 = "ifan_type" at 3,
        index: u16 = "ifan_index" at 4,
        name: [u8; 16] = "ifan_name" at 6,
        what: u16 = "ifan_what" at 22,
    }
}

c_struct! {
    /// The header of a netlink message.
    Nlmsghdr = "struct nlmsghdr" of "netlink/netlink.h", 16 bytes {
        len: u32 = "nlmsg_len" at 0,
        kind: u16 = "nlmsg_type" at 4,
        flags: u16 = "nlmsg_flags" at 6,
        seq: u32 = "nlmsg_seq" at 8,
        pid: u32 = "nlmsg_pid" at 12,
    }
}

c_struct! {
    /// What follows it in RTM_NEWLINK.
    Ifinfomsg = "struct ifinfomsg" of "netlink/route/interface.h", 16 bytes {
        family: u8 = "ifi_family" at 0,
        gap: u8,
        kind: u16 = "ifi_type" at 2,
        index: i32 = "ifi_index" at 4,
        flags: u32 = "ifi_flags" at 8,
        change: u32 = "ifi_change" at 12,
    }
}

c_struct! {
    /// What a read of inotify(2) gives, before the name.
    InotifyEvent = "struct inotify_event" of "sys/inotify.h", 16 bytes {
        wd: i32 = "wd" at 0,
        mask: u32 = "mask" at 4,
        cookie: u32 = "cookie" at 8,
        len: u32 = "len" at 12,
    }
}

c_struct! {
    /// What is asked of the call that makes a descriptor of inotify(2).
    SpecialfdInotify = "struct specialfd_inotify" of "sys/specialfd.h", 4 bytes {
        flags: i32 = "flags" at 0,
    }
}

c_struct! {
    /// A row of the sysctls `net.inet.raw.pcblist` and `net.inet.divert.pcblist`.
    Xinpcb = "struct xinpcb" of "netinet/in_pcb.h", 400 bytes {
        len: u64 = "xi_len" at 0,
        socket_len: u64 = "xi_socket.xso_len" at 8,
        socket: u64 = "xi_socket.xso_so" at 16,
        gap_a: [u64; 28],
        gap_b: [u16; 3],
        local_port: u16 = "inp_inc.inc_ie.ie_lport" at 254,
        gap_c: [u8; 36],
        gap_d: u32,
        gap_e: [u64; 12],
        version: u8 = "inp_vflag" at 392,
        ttl: u8 = "inp_ip_ttl" at 393,
        ip_protocol: u8 = "inp_ip_p" at 394,
        gap_f: [u8; 5],
    }
}

c_struct! {
    /// What stands before and after the rows of a [`Xinpcb`].
    Xinpgen = "struct xinpgen" of "netinet/in_pcb.h", 64 bytes {
        len: u64 = "xig_len" at 0,
        count: u32 = "xig_count" at 8,
        gap: u32,
        gen_pcb: u64 = "xig_gen" at 16,
        gen_socket: u64 = "xig_sogen" at 24,
        gap_a: [u64; 4],
    }
}

c_struct! {
    /// A row of the sysctl `net.link.generic.ifdata`.
    Ifmibdata = "struct ifmibdata" of "net/if_mib.h", 208 bytes {
        name: [u8; 16] = "ifmd_name" at 0,
        listeners: i32 = "ifmd_pcount" at 16,
        flags: i32 = "ifmd_flags" at 20,
        gap_a: [i32; 8],
        kind: u8 = "ifmd_data.ifi_type" at 56,
        gap_b: [u8; 7],
        gap_c: [u64; 18],
    }
}

c_struct! {
    /// What an ioctl asks a driver for.
    Ifdrv = "struct ifdrv" of "net/if.h", 40 bytes {
        name: [u8; 16] = "ifd_name" at 0,
        cmd: u64 = "ifd_cmd" at 16,
        len: u64 = "ifd_len" at 24,
        data: u64 = "ifd_data" at 32,
    }
}

c_struct! {
    /// Where a bridge puts the list of its members.
    Ifbifconf = "struct ifbifconf" of "net/if_bridgevar.h", 16 bytes {
        len: u32 = "ifbic_len" at 0,
        gap: u32,
        buf: u64 = "ifbic_buf" at 8,
    }
}

c_struct! {
    /// A member of a bridge.
    Ifbreq = "struct ifbreq" of "net/if_bridgevar.h", 80 bytes {
        name: [u8; 16] = "ifbr_ifsname" at 0,
        flags: u32 = "ifbr_ifsflags" at 16,
        gap: [u32; 15],
    }
}

/// All of them.
pub const LAYOUTS: [Layout; 16] = [
    XbpfD::LAYOUT,
    Xfile::LAYOUT,
    KinfoProc::LAYOUT,
    KinfoFile::LAYOUT,
    IfMsghdr::LAYOUT,
    IfAnnouncemsghdr::LAYOUT,
    Nlmsghdr::LAYOUT,
    Ifinfomsg::LAYOUT,
    InotifyEvent::LAYOUT,
    SpecialfdInotify::LAYOUT,
    Xinpcb::LAYOUT,
    Xinpgen::LAYOUT,
    Ifmibdata::LAYOUT,
    Ifdrv::LAYOUT,
    Ifbifconf::LAYOUT,
    Ifbreq::LAYOUT,
];
