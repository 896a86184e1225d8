//! Tokens of a FreeBSD 15.1 recording, printed as praudit(1) prints them, against praudit's own text of the
//! same bytes. The printer is here and not in the program: it is the comparison.

use std::fmt::Write as _;

use bpfwatch_bsd::bsm::frame::{self, Frame};
use bpfwatch_bsd::bsm::record::Tokens;
use bpfwatch_bsd::bsm::token::{Attributes, Header, Subject, Token};

const CASES: [(&str, &[u8], &str); 7] = [
    (
        "execve-host",
        include_bytes!("data/execve-host.bsm"),
        include_str!("data/execve-host.praudit.txt"),
    ),
    (
        "execve-jail",
        include_bytes!("data/execve-jail.bsm"),
        include_str!("data/execve-jail.praudit.txt"),
    ),
    (
        "ioctl-host",
        include_bytes!("data/ioctl-host.bsm"),
        include_str!("data/ioctl-host.praudit.txt"),
    ),
    (
        "ioctl-jail",
        include_bytes!("data/ioctl-jail.bsm"),
        include_str!("data/ioctl-jail.praudit.txt"),
    ),
    ("open-host", include_bytes!("data/open-host.bsm"), include_str!("data/open-host.praudit.txt")),
    ("open-jail", include_bytes!("data/open-jail.bsm"), include_str!("data/open-jail.praudit.txt")),
    (
        "open-eacces",
        include_bytes!("data/open-eacces.bsm"),
        include_str!("data/open-eacces.praudit.txt"),
    ),
];

#[test]
fn says_what_praudit_says() {
    for (name, bytes, want) in CASES {
        let printed = print(bytes);
        for (line, (ours, theirs)) in printed.lines().zip(want.lines()).enumerate() {
            assert_eq!(ours, theirs, "{name}, line {}", line + 1);
        }
        assert_eq!(printed.lines().count(), want.lines().count(), "{name}");
    }
}

fn print(mut bytes: &[u8]) -> String {
    let mut out = String::new();
    while let Frame::Record(size) = frame::next(bytes) {
        for token in Tokens::new(&bytes[..size]) {
            line(token, &mut out);
        }
        bytes = &bytes[size..];
    }
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    out
}

fn line(token: Result<Token<'_>, impl std::fmt::Display>, out: &mut String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let _ = match token {
        Ok(Token::Header(header)) => head(header, out),
        Ok(Token::Trailer(size)) => writeln!(out, "trailer,{size}"),
        Ok(Token::Path(path)) => writeln!(out, "path,{}", text(path)),
        Ok(Token::Zone(zone)) => writeln!(out, "zone,{}", text(zone)),
        Ok(Token::Argument { number, value, text: words }) => {
            writeln!(out, "argument,{number},0x{value:x},{}", text(words))
        }
        Ok(Token::ExecArguments(list)) => {
            let list = list.strip_suffix(b"\0").unwrap_or(list);
            writeln!(out, "exec arg,{}", text(list).replace('\0', ","))
        }
        Ok(Token::Attributes(file)) => attributes(file, out),
        Ok(Token::Subject(subject)) => who(subject, out),
        Ok(Token::Return { error, value }) => match error {
            0 => writeln!(out, "return,success,{value}"),
            _ => writeln!(out, "return,failure : {},{value}", reason(error)),
        },
        Ok(other) => writeln!(out, "{other:?}"),
        Err(error) => writeln!(out, "{error}"),
    };
}

fn head(header: Header, out: &mut String) -> std::fmt::Result {
    // Names of /etc/security/audit_event.
    let event = match header.event {
        23 => "execve(2)",
        72 => "open(2) - read",
        158 => "ioctl(2)",
        270 => "openat(2) - read",
        274 => "openat(2) - write",
        277 => "openat(2) - write,creat,trunc",
        278 => "openat(2) - read,write",
        _ => "?",
    };
    let Header { size, version, modifier, millis, seconds, .. } = header;
    // All of the recording is of one day.
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    assert_eq!(seconds / 86_400, 20_781, "2026-11-24");
    writeln!(
        out,
        "header,{size},{version},{event},{modifier},\
         Tue Nov 24 {hour:02}:{minute:02}:{second:02} 2026, + {millis} msec"
    )
}

fn attributes(file: Attributes, out: &mut String) -> std::fmt::Result {
    let Attributes { mode, uid, gid, fsid, node, rdev } = file;
    writeln!(out, "attribute,{mode:o},{},{},{fsid},{node},{rdev}", user(uid), group(gid))
}

fn who(subject: Subject, out: &mut String) -> std::fmt::Result {
    let Subject { auid, euid, egid, ruid, rgid, pid, session, port } = subject;
    let auid = auid.cast_signed();
    writeln!(
        out,
        "subject,{auid},{},{},{},{},{pid},{session},{port},0.0.0.0",
        user(euid),
        group(egid),
        user(ruid),
        group(rgid)
    )
}

fn user(uid: u32) -> String {
    match uid {
        0 => "root".to_owned(),
        65534 => "nobody".to_owned(),
        other => other.to_string(),
    }
}

fn group(gid: u32) -> String {
    match gid {
        0 => "wheel".to_owned(),
        65534 => "nobody".to_owned(),
        other => other.to_string(),
    }
}

fn reason(error: u8) -> &'static str {
    match error {
        2 => "No such file or directory",
        13 => "Permission denied",
        25 => "Inappropriate ioctl for device",
        _ => "?",
    }
}
