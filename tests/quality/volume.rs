//! Ordinary activity without handles, for volume: shells, compilers, packages, containers, namespaces.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::injected::bundle;
use crate::lab::Lab;
use crate::plan::Plan;
use crate::process::{find, run};

/// Longest time of one piece of work.
const LIMIT: Duration = Duration::from_secs(120);

/// A script as build systems and cron jobs have them: many small programs, pipes, subshells.
const SHELL: &str = r#"
cd "$1" || exit 1
for i in $(seq 1 25); do
    mkdir -p "d$i" && touch "d$i/f" && cp "d$i/f" "d$i/g" && mv "d$i/g" "d$i/h"
    echo "line $i" | sed 's/line/word/' | tr a-z A-Z | cut -c1-3 >"d$i/out"
    grep -q WOR "d$i/out" || exit 1
    test "$(cat "d$i/out" | wc -l)" = 1
    date +%s >/dev/null; id -u >/dev/null; uname -r >/dev/null; hostname >/dev/null
    find "d$i" -name f -exec ls -l {} \; >/dev/null
    awk 'BEGIN { print 1 }' >/dev/null; basename "$PWD" >/dev/null; dirname "$PWD" >/dev/null
    sort "d$i/out" | uniq -c | head -n 1 >/dev/null
    rm -rf "d$i"
done
"#;

/// A program of some files that is configured, compiled and tested.
const BUILD: &str = r#"
cd "$1" || exit 1
cat >conf.c <<'END'
#include <stdio.h>
int main(void) { return 0; }
END
for header in stdio.h sys/socket.h netinet/in.h; do
    printf '#include <%s>\nint main(void) { return 0; }\n' "$header" >t.c && cc -c t.c -o t.o
done
for n in 1 2 3 4; do printf 'int f%s(void) { return %s; }\n' $n $n >f$n.c; done
cat >Makefile <<'END'
prog: conf.o f1.o f2.o f3.o f4.o
	$(CC) -o $@ $^
check: prog
	./prog && nm prog >/dev/null && size prog >/dev/null && strip prog
END
make -s -j2 check
rm -f *.o prog
"#;

/// A package is made, unpacked, listed and taken apart.
const PACKAGE: &str = r#"
cd "$1" || exit 1
mkdir -p p/DEBIAN p/usr/share/doc/bpfwatch-quality root/var/lib/dpkg/updates root/var/lib/dpkg/info
touch root/var/lib/dpkg/status root/var/lib/dpkg/available p/usr/share/doc/bpfwatch-quality/readme
printf 'Package: bpfwatch-quality\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n' >p/DEBIAN/control
dpkg-deb --build p p.deb && dpkg-deb -c p.deb && dpkg-deb -I p.deb
dpkg --root="$PWD/root" --force-not-root -i p.deb
dpkg --root="$PWD/root" -L bpfwatch-quality; dpkg --root="$PWD/root" -P bpfwatch-quality
tar czf p.tgz p && tar tzf p.tgz && gzip -t p.tgz
rm -rf p root p.deb p.tgz
"#;

/// What a network plugin does for each pod.
const NAMESPACE: &str = r#"
for i in 1 2 3; do
    ns="bpfwatch-quality-pod-$$-$i"
    ip netns add "$ns"
    ip link add "bqp$$-$i" type veth peer name eth0 netns "$ns"
    ip -n "$ns" addr add 10.214.0.2/24 dev eth0; ip -n "$ns" link set eth0 up
    ip netns exec "$ns" sysctl -q net.ipv4.ip_forward
    ip netns exec "$ns" iptables-legacy -w -L -n
    iptables-save; ip -d link show; ss -tan; ip route; ip neigh
    ip netns del "$ns"
done
"#;

/// Packages that are small and that nobody depends on; installed if missing, then removed again.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive
for package in hello bc dc tree jq units cowsay; do
    dpkg -s $package && continue
    apt-get -qq -o DPkg::Lock::Timeout=60 --no-install-recommends install $package
    apt-get -qq -o DPkg::Lock::Timeout=60 purge $package
done
"#;

/// Runs this worker's share, again and again.
pub fn work(lab: &Lab, worker: usize, plan: &Plan, over: &AtomicBool) {
    let dir = lab.dir.join(format!("volume{worker}"));
    std::fs::create_dir_all(&dir).unwrap();
    for round in 0.. {
        for (number, script) in [SHELL, BUILD, PACKAGE, SHELL, NAMESPACE, SHELL].iter().enumerate()
        {
            if over.load(Ordering::Relaxed) {
                return;
            }
            run(&["sh", "-c", script, "work", dir.to_str().unwrap()], LIMIT);
            if number == 2 {
                container(&dir, worker, round);
            }
        }
        // Once in a while: packages are downloaded.
        if plan.install && worker == 0 && round % 40 == 0 {
            run(&["sh", "-c", INSTALL], LIMIT);
        }
    }
}

/// A container that starts, works a little and ends.
fn container(dir: &Path, worker: usize, round: usize) {
    if find("runc").is_none() {
        return;
    }
    let work = "for i in 1 2 3 4 5; do ls / | wc -l; cat /etc/passwd | cut -d: -f1 | sort; done";
    let bundle = bundle(dir, &["sh", "-c", work], false);
    let id = format!("bpfwatch-quality-{}-{worker}-{round}", std::process::id());
    run(&["runc", "run", "-b", bundle.to_str().unwrap(), &id], LIMIT);
    run(&["runc", "delete", "-f", &id], LIMIT);
}
