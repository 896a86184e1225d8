//! Sigma as bpfwatch understands it: each modifier and condition form, with an event that matches and
//! one that does not.

mod common;

use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::events::ProcessEvent;
use bpfwatch_core::observation::Os;
use bpfwatch_core::process::{Ancestor, Process};
use common::{detection, file, load_clean, process};

/// Whether a Linux process_creation rule with this detection matches.
fn matches(detection_text: &str, process: &Process) -> bool {
    let set = load_clean(&[file("rule.yml", &detection("linux", detection_text))]);
    let verdict = set.evaluate(&ProcessEvent::new(process, Os::Linux, None));
    assert!(verdict.hits.len() <= 1);
    !verdict.hits.is_empty()
}

/// A detection, an image and arguments that match, and those that do not.
type Case = (
    &'static str,
    (&'static str, &'static [&'static str]),
    (&'static str, &'static [&'static str]),
);

const CASES: &[Case] = &[
    // Modifiers.
    (
        "s: {Image: /usr/bin/tcpdump}\ncondition: s",
        ("/usr/bin/tcpdump", &["tcpdump"]),
        ("/usr/bin/tcpdump2", &["tcpdump"]),
    ),
    (
        "s: {Image: '*/TCPDUMP'}\ncondition: s",
        ("/usr/bin/tcpdump", &["tcpdump"]),
        ("/usr/bin/tcpdump/x", &["tcpdump"]),
    ),
    (
        "s: {Image: '/usr/bin/tcpdum?'}\ncondition: s",
        ("/usr/bin/tcpdump", &["tcpdump"]),
        ("/usr/bin/tcpdum", &["tcpdump"]),
    ),
    (
        "s: {CommandLine|contains: ' -w '}\ncondition: s",
        ("/x", &["tcpdump", "-w", "f"]),
        ("/x", &["tcpdump", "-wf"]),
    ),
    (
        "s: {CommandLine|contains: [' -w ', ' -i ']}\ncondition: s",
        ("/x", &["tcpdump", "-i", "lo"]),
        ("/x", &["tcpdump", "lo"]),
    ),
    (
        "s: {CommandLine|contains|all: [' -w ', ' -i ']}\ncondition: s",
        ("/x", &["tcpdump", "-i", "lo", "-w", "f"]),
        ("/x", &["tcpdump", "-i", "lo"]),
    ),
    (
        "s: {Image|startswith: ['/tmp/', /dev/shm/]}\ncondition: s",
        ("/dev/shm/x", &[]),
        ("/var/tmp/x", &[]),
    ),
    (
        "s: {Image|endswith: /tshark}\ncondition: s",
        ("/usr/bin/tshark", &[]),
        ("/usr/bin/tshark.bin", &[]),
    ),
    (
        "s: {CommandLine|re: '\\s-[a-z]*w[a-z]*\\s'}\ncondition: s",
        ("/x", &["tcpdump", "-nwv", "f"]),
        ("/x", &["tcpdump", "-W", "f"]),
    ),
    (
        "s: {CommandLine|re|i: 'ARPSPOOF'}\ncondition: s",
        ("/x", &["arpspoof"]),
        ("/x", &["arp", "spoof"]),
    ),
    (
        "s: {Image|endswith|cased: /Wireshark}\ncondition: s",
        ("/Wireshark", &[]),
        ("/wireshark", &[]),
    ),
    (
        "s: {CommandLine|contains|windash: ' -enc '}\ncondition: s",
        ("/x", &["p", "/enc", "x"]),
        ("/x", &["p", "+enc", "x"]),
    ),
    (
        "s: {CommandLine|contains|base64: 'tcpdump'}\ncondition: s",
        ("/x", &["echo", "dGNwZHVtcA=="]),
        ("/x", &["echo", "tcpdump"]),
    ),
    ("s: {ArgumentCount|gte: 3}\ncondition: s", ("/x", &["a", "b", "c"]), ("/x", &["a", "b"])),
    (
        "s: {ArgumentCount|gt: 1, ArgumentCount|lt: 3}\ncondition: s",
        ("/x", &["a", "b"]),
        ("/x", &["a", "b", "c"]),
    ),
    ("s: {ArgumentCount: 2}\ncondition: s", ("/x", &["a", "b"]), ("/x", &["a"])),
    ("s: {ArgumentCount|neq: 2}\ncondition: s", ("/x", &["a"]), ("/x", &["a", "b"])),
    (
        "s: {CommandLine|exists: true, User|exists: false}\ncondition: s",
        ("/x", &["a"]),
        ("/x", &[]),
    ),
    ("s: {CommandLine: null}\ncondition: s", ("/x", &[]), ("/x", &["a"])),
    ("s: {CommandLineTruncated: false}\ncondition: s", ("/x", &["a"]), ("/x", &[])),
    ("s: {CommandLine|fieldref: Image}\ncondition: s", ("/x", &["/x"]), ("/x", &["/x", "-i"])),
    // Values.
    (
        "s:\n  - Image: /a\n    CommandLine: a\n  - Image: /b\ncondition: s",
        ("/b", &["x"]),
        ("/a", &["x"]),
    ),
    (
        "k: [tcpdump, 'tsh*rk']\ncondition: k",
        ("/x", &["sh", "-c", "tshark -i any"]),
        ("/x", &["sh"]),
    ),
    ("k: tcpdump\ncondition: k", ("/usr/sbin/tcpdump", &["x"]), ("/x", &["x"])),
    // Conditions.
    ("a: {Image: /a}\nb: {CommandLine: b}\ncondition: a and b", ("/a", &["b"]), ("/a", &["a"])),
    ("a: {Image: /a}\nb: {CommandLine: b}\ncondition: a or b", ("/x", &["b"]), ("/x", &["x"])),
    ("a: {Image: /a}\nb: {CommandLine: b}\ncondition: a and not b", ("/a", &["a"]), ("/a", &["b"])),
    (
        "sel_a: {Image: /a}\nsel_b: {CommandLine: b}\ncondition: 1 of sel_*",
        ("/x", &["b"]),
        ("/x", &["x"]),
    ),
    (
        "sel_a: {Image: /a}\nsel_b: {CommandLine: b}\ncondition: all of sel*",
        ("/a", &["b"]),
        ("/a", &["a"]),
    ),
    (
        "sel_a: {Image: /a}\nsel_b: {CommandLine: b}\ncondition: all of them",
        ("/a", &["b"]),
        ("/x", &["b"]),
    ),
    (
        "sel_a: {Image: /a}\nsel_b: {CommandLine: b}\ncondition: 1 of them",
        ("/a", &["a"]),
        ("/x", &["x"]),
    ),
    (
        "sel: {Image: /a}\nfilter_main_x: {CommandLine: b}\nfilter_main_y: {CommandLine: c}\n\
         condition: sel and not 1 of filter_main_*",
        ("/a", &["a"]),
        ("/a", &["c"]),
    ),
    (
        "a: {Image: /a}\nb: {CommandLine: b}\nc: {ArgumentCount: 2}\n\
         condition: (a and not b) or (c and a)",
        ("/a", &["a"]),
        ("/a", &["b"]),
    ),
    ("a: {Image: /a}\nb: {CommandLine: b}\ncondition: [a, b]", ("/x", &["b"]), ("/x", &["x"])),
    (
        "a1: {Image: /a}\na2: {CommandLine: b}\na3: {ArgumentCount: 1}\ncondition: 2 of a*",
        ("/x", &["b"]),
        ("/x", &["x"]),
    ),
];

#[test]
fn each_form_matches_what_it_should_and_nothing_else() {
    for (text, yes, no) in CASES {
        assert!(matches(text, &process(yes.0, yes.1)), "should match:\n{text}\n{yes:?}");
        assert!(!matches(text, &process(no.0, no.1)), "should not match:\n{text}\n{no:?}");
    }
}

#[test]
fn lists_match_by_any_element() {
    let mut process = process("/usr/bin/tcpdump", &["tcpdump"]);
    let ancestor = |pid, image: &str, args: &[&str]| {
        Arc::new(Ancestor {
            pid,
            start: None,
            image: Some(image.into()),
            args: Some(Arguments::from_list(args)),
        })
    };
    process.ancestors =
        vec![ancestor(2, "/bin/sh", &["sh", "-c"]), ancestor(1, "/usr/sbin/nginx", &["nginx"])];
    let rule = |value| format!("s: {{AncestorImages|endswith: {value}}}\ncondition: s");
    assert!(matches(&rule("/nginx"), &process));
    assert!(!matches(&rule("/httpd"), &process));
    assert!(matches("s: {ParentImage: /bin/sh}\ncondition: s", &process));
    assert!(!matches("s: {ParentImage: /usr/sbin/nginx}\ncondition: s", &process));
    assert!(matches("s: {ParentCommandLine: sh -c}\ncondition: s", &process));
}

#[test]
fn a_line_break_hides_nothing_from_a_wildcard() {
    let rule = "s: {CommandLine: '*tcpdump*-w*'}\ncondition: s";
    assert!(matches(rule, &process("/x", &["tcpdump", "a\nb", "-w"])));
    assert!(!matches(rule, &process("/x", &["tcpdump", "a\nb", "-i"])));
}

#[test]
fn rules_ask_only_about_their_system() {
    let texts = [("linux", Os::Linux), ("windows", Os::Windows), ("macos", Os::Macos)];
    let process = process("/a", &["a"]);
    for (product, os) in texts {
        let rule = detection(product, "s: {Image: /a}\ncondition: s");
        let set = load_clean(&[file("rule.yml", &rule)]);
        for (_, other) in texts {
            let verdict = set.evaluate(&ProcessEvent::new(&process, other, None));
            assert_eq!(!verdict.hits.is_empty(), os == other, "{product} {other:?}");
        }
    }
    let every = detection("linux", "s: {Image: /a}\ncondition: s").replace("product: linux", "");
    let set = load_clean(&[file("rule.yml", &every.replace("{, ", "{"))]);
    for (_, os) in texts {
        assert_eq!(set.evaluate(&ProcessEvent::new(&process, os, None)).hits.len(), 1);
    }
}

#[test]
fn a_field_that_nobody_supplies_leaves_a_rule_that_never_matches() {
    let never = |product: &str, text: &str| {
        let set = load_clean(&[file("rule.yml", &detection(product, text))]);
        set.rules()[0].never_here.clone()
    };
    let need = "s: {Image: /a, OriginalFileName: a}\ncondition: s";
    assert_eq!(never("linux", need).as_deref(), Some("OriginalFileName"));
    assert_eq!(never("windows", need), None);
    let either = "s:\n  - Image: /a\n  - OriginalFileName: a\ncondition: s";
    assert_eq!(never("macos", either), None);
    let under_not = "s: {Image: /a}\nf: {Company: a}\ncondition: s and not f";
    assert_eq!(never("windows", under_not), None);
    let absent = "s: {Image: /a, SigningId: null}\ncondition: s";
    assert_eq!(never("linux", absent), None);
    let unsigned = "s: {Image: /a, SigningId|exists: false}\ncondition: s";
    assert_eq!(never("linux", unsigned), None);
    let signed = "s: {SigningId: a}\ncondition: s";
    assert_eq!(never("linux", signed).as_deref(), Some("SigningId"));
    assert_eq!(never("macos", signed), None);
    let one_of = "a_1: {SigningId: a}\na_2: {Image: /a}\ncondition: 1 of a_*";
    assert_eq!(never("linux", one_of), None);
    let all_of = "a_1: {SigningId: a}\na_2: {Image: /a}\ncondition: all of a_*";
    assert_eq!(never("linux", all_of).as_deref(), Some("SigningId"));

    let set =
        load_clean(&[file("r.yml", &detection("linux", signed).replace("product: linux, ", ""))]);
    assert_eq!(set.rules()[0].never_here, None);
    assert_eq!(set.never_on(0, Os::Freebsd), Some("SigningId"));
    assert_eq!(set.never_on(0, Os::Macos), None);
}
