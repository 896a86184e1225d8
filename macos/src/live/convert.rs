//! Messages of Endpoint Security into [`raw`]: field by field, and nothing else. What they mean is decided in
//! [`decode`](crate::decode), as for recorded ones. Environment variables are not touched.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use endpoint_sec::{self as es, Event as Es, OdMemberIdValue};

use crate::raw::{self, EsProcess, Event, Message};

/// The message, or `None` for one that is not wanted: of an event newer than the crate too.
pub fn message(message: &es::Message) -> Option<Message> {
    let event = match message.event()? {
        Es::NotifyExec(exec) => Event::Exec {
            target: Box::new(process(&exec.target())),
            args: Arguments::from_list(exec.args().map(OsStrExt::as_bytes)),
            cwd: exec.cwd().map(|directory| path(&directory)),
        },
        Es::NotifyOpen(open) => Event::Open { path: path(&open.file()) },
        Es::NotifyFork(fork) => Event::Fork { child: Box::new(process(&fork.child())) },
        Es::NotifyClose(close) => Event::Close { path: path(&close.target()) },
        Es::NotifyExit(_) => Event::Exit,
        Es::NotifySetMode(set) => {
            Event::SetMode { path: path(&set.target()), mode: u32::from(set.mode()) }
        }
        Es::NotifySetOwner(set) => {
            Event::SetOwner { path: path(&set.target()), uid: set.uid(), gid: set.gid() }
        }
        // One that failed changed nothing.
        Es::NotifyOdGroupAdd(add) if add.error_code() == 0 => Event::GroupAdd {
            instigator: add.instigator().map(|instigator| Box::new(process(&instigator))),
            group: text(add.group_name()),
            member: add.member().member_value().and_then(|member| match member {
                OdMemberIdValue::UserName(name) => raw::given(text(name)),
                OdMemberIdValue::UserUuid(id) | OdMemberIdValue::GroupUuid(id) => {
                    Some(raw::uuid(id))
                }
                _ => None,
            }),
        },
        Es::NotifyProfileRemove(remove) => Event::ProfileRemove {
            instigator: remove.instigator().map(|instigator| Box::new(process(&instigator))),
            identifier: text(remove.profile().identifier()),
        },
        _ => return None,
    };
    let since = message.time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp::default() + since;
    Some(Message { at, process: process(&message.process()), event })
}

fn text(text: &OsStr) -> Text {
    Text::from_bytes(text.as_bytes())
}

fn path(file: &es::File<'_>) -> Text {
    raw::path(text(file.path()), file.path_truncated())
}

fn process(process: &es::Process<'_>) -> EsProcess {
    let token = process.audit_token();
    let executable = process.executable();
    let hash: String = process.cdhash().iter().map(|byte| format!("{byte:02x}")).collect();
    EsProcess {
        pid: token.pid().cast_unsigned(),
        pidversion: token.pidversion().cast_unsigned(),
        euid: Some(token.euid()),
        ppid: process.ppid().try_into().ok(),
        responsible: process
            .responsible_audit_token()
            .map(|by| (by.pid().cast_unsigned(), by.pidversion().cast_unsigned())),
        session_id: process.session_id().try_into().ok(),
        executable_owner: Some(executable.stat().st_uid),
        executable: Some(path(&executable)),
        tty: process.tty().map(|tty| path(&tty)),
        codesigning_flags: Some(process.codesigning_flags()),
        signing_id: raw::given(text(process.signing_id())),
        team_id: raw::given(text(process.team_id())),
        cdhash: raw::cdhash(&hash),
        platform_binary: Some(process.is_platform_binary()),
    }
}
