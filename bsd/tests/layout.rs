//! Compares every struct and number that is read with FreeBSD's own headers, by a C compiler that carries
//! them (`zig cc`; its headers have inotify(2) and the events of jails, which came with 15.0, whatever the
//! release that is asked for). Nothing is linked or run: the compiler's assertions are the test.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

use bpfwatch_bsd::layout::LAYOUTS;

/// The oldest release of which the compiler has what is asserted.
const TARGET: &str = "x86_64-freebsd.14.0";

/// The compiler, if there is one.
fn zig() -> Option<Command> {
    let candidates: [&[&str]; 2] = [&["zig"], &["python3", "-m", "ziglang"]];
    candidates.into_iter().find_map(|words| {
        let command = || {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        let found = command().arg("version").output().is_ok_and(|output| output.status.success());
        found.then(command)
    })
}

fn compile(mut zig: Command, directory: &Path, text: &str) -> io::Result<Output> {
    let source = directory.join("layout.c");
    std::fs::write(&source, text)?;
    // Its caches stay in the test's own directory.
    zig.args(["cc", "-target", TARGET, "-c", "-Wno-everything", "-o"])
        .args([directory.join("layout.o"), source])
        .env("ZIG_GLOBAL_CACHE_DIR", directory)
        .env("ZIG_LOCAL_CACHE_DIR", directory)
        .output()
}

fn assertions() -> String {
    let mut out = String::from(HEADERS);
    for layout in LAYOUTS {
        let c_type = layout.c_type;
        let _ = writeln!(out, "#include <{}>", layout.header);
        let size = layout.size;
        let _ = writeln!(out, "_Static_assert(sizeof({c_type}) == {size}, \"{c_type}\");");
        for field in layout.fields {
            let (name, offset, size) = (field.c_name, field.offset, field.size);
            let _ = writeln!(
                out,
                "_Static_assert(__builtin_offsetof({c_type}, {name}) == {offset}, \"{name}\");\n\
                 _Static_assert(sizeof((({c_type} *)0)->{name}) == {size}, \"{name}\");"
            );
        }
    }
    for (name, value) in bpfwatch_bsd::constants() {
        let _ = writeln!(out, "_Static_assert((unsigned long)({name}) == {value}UL, \"{name}\");");
    }
    out
}

const HEADERS: &str = "\
#include <sys/types.h>
#include <sys/param.h>
#include <sys/socket.h>
#include <sys/ioctl.h>
#include <sys/proc.h>
#include <sys/sysctl.h>
#include <sys/event.h>
#include <sys/mount.h>
#include <sys/file.h>
#include <sys/user.h>
#include <sys/jail.h>
#include <net/if.h>
#include <net/route.h>
#include <net/bpf.h>
#include <sys/inotify.h>
#include <sys/specialfd.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <bsm/audit.h>
#include <bsm/audit_record.h>
#include <bsm/audit_kevents.h>
#include <security/audit/audit_ioctl.h>
#include <sys/filio.h>
#include <sys/sockio.h>
#include <sys/socketvar.h>
#include <net/if_types.h>
#include <net/if_mib.h>
#include <net/ethernet.h>
#include <net/if_bridgevar.h>
#include <netinet/in.h>
#include <netinet/in_pcb.h>
#include <netgraph/ng_socket.h>
#include <netlink/netlink.h>
#include <netlink/netlink_route.h>
";

#[test]
fn the_headers_of_freebsd_say_the_same() {
    let Some(compiler) = zig() else {
        eprintln!("skipped: needs zig (the `ziglang` package), which has FreeBSD's headers");
        return;
    };
    let directory = std::env::temp_dir().join(format!("bpfwatch-layout-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let text = assertions();
    let output = compile(compiler, &directory, &text).unwrap();
    // That the compiler looks at all: one that is wrong must not pass.
    let wrong = text.replacen("== 168", "== 169", 1);
    let refused = compile(zig().unwrap(), &directory, &wrong).unwrap();
    let _ = std::fs::remove_dir_all(&directory);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("static assertion failed"));
}
