//! Output of Apple's eslogger(1): one JSON object a line, recorded from Endpoint Security.
//!
//! Apple says that it is no API; what is read here was seen in message versions 7 to 11 and is taken as
//! it comes: a field that is missing is unknown, an event that is not known is skipped. Audit tokens
//! are objects in some versions and arrays in others. `env` is never read.

use std::fmt;
use std::sync::Arc;

use bpfwatch_core::arguments::Arguments;
use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError, Sequence};
use bpfwatch_core::observation::{Observation, Os};
use bpfwatch_core::text::Text;
use bpfwatch_core::time::Timestamp;
use memchr::memmem;
use serde::de::{self, MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer};

use crate::decode;
use crate::holders::Holders;
use crate::raw::{self, EsProcess, Event, Message};

/// The decoder. One serves all threads.
#[derive(Debug, Clone)]
pub struct Eslogger {
    sensor: Arc<str>,
}

impl Default for Eslogger {
    fn default() -> Self {
        Self { sensor: Arc::from("eslogger") }
    }
}

impl LineDecoder for Eslogger {
    fn name(&self) -> &'static str {
        "eslogger"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        // The order of keys differs from line to line, and a long line may be seen in part. Inside a
        // JSON string these quotes would be escaped.
        let has =
            |keys: [&str; 2]| keys.iter().any(|key| memmem::find(line, key.as_bytes()).is_some());
        line.first() == Some(&b'{')
            && has([r#""mach_time""#, r#""global_seq_num""#])
            && has([r#""audit_token""#, r#""event_type""#])
    }

    fn os(&self) -> Option<Os> {
        Some(Os::Macos)
    }

    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Holders::default()))
    }

    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        let record: Record = serde_json::from_slice(line)?;
        match record.message()?.and_then(|message| decode::observation(message, &self.sensor)) {
            Some(observation) => {
                out.push(observation);
                Ok(Decoded::Observed)
            }
            None => Ok(Decoded::Skipped),
        }
    }
}

/// `action_type` of an AUTH event: an attempt that is being decided on, not yet an event.
const ACTION_AUTH: u32 = 0;
/// `action.result.result.auth` of a refused attempt (`ES_AUTH_RESULT_DENY`).
const AUTH_DENY: u32 = 1;
/// The only `schema_version` so far.
const SCHEMA: u32 = 1;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    action_type: Option<u32>,
    #[serde(default)]
    action: Option<Action>,
    time: Timestamp,
    process: Proc,
    event: Events,
}

#[derive(Deserialize)]
struct Action {
    #[serde(default)]
    result: Option<ActionResult>,
}

#[derive(Deserialize)]
struct ActionResult {
    #[serde(default)]
    result: Option<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    #[serde(default)]
    auth: Option<u32>,
    #[serde(default)]
    flags: Option<u32>,
}

/// The one event of the record, if it is one of these.
#[derive(Deserialize)]
struct Events {
    exec: Option<Exec>,
    open: Option<Open>,
    fork: Option<Fork>,
    close: Option<Close>,
    exit: Option<de::IgnoredAny>,
    setmode: Option<SetMode>,
    setowner: Option<SetOwner>,
    od_group_add: Option<GroupAdd>,
    profile_remove: Option<ProfileRemove>,
}

#[derive(Deserialize)]
struct GroupAdd {
    instigator: Option<Box<Proc>>,
    #[serde(default)]
    error_code: i32,
    group_name: Text,
    #[serde(default)]
    member: Option<Member>,
}

/// `es_od_member_id_t`: by name, or by UUID.
#[derive(Deserialize)]
struct Member {
    member_value: MemberValue,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MemberValue {
    Named { name: Text },
    Numbered { uuid: Text },
    Bare(Text),
    Other(de::IgnoredAny),
}

impl MemberValue {
    fn into_text(self) -> Option<Text> {
        match self {
            Self::Named { name: text } | Self::Numbered { uuid: text } | Self::Bare(text) => {
                raw::given(text)
            }
            Self::Other(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct ProfileRemove {
    instigator: Option<Box<Proc>>,
    profile: Profile,
}

#[derive(Deserialize)]
struct Profile {
    identifier: Text,
}

#[derive(Deserialize)]
struct Exec {
    target: Box<Proc>,
    #[serde(default)]
    args: Arguments,
    cwd: Option<File>,
}

#[derive(Deserialize)]
struct Open {
    file: File,
}

#[derive(Deserialize)]
struct Fork {
    child: Box<Proc>,
}

#[derive(Deserialize)]
struct Close {
    target: File,
}

#[derive(Deserialize)]
struct SetMode {
    target: File,
    mode: u32,
}

#[derive(Deserialize)]
struct SetOwner {
    target: File,
    #[serde(deserialize_with = "signed_id")]
    uid: u32,
    #[serde(deserialize_with = "signed_id")]
    gid: u32,
}

#[derive(Deserialize)]
struct File {
    path: Text,
    #[serde(default)]
    path_truncated: bool,
    #[serde(default)]
    stat: Option<Stat>,
}

#[derive(Deserialize)]
struct Stat {
    st_uid: Option<u32>,
}

#[derive(Deserialize)]
struct Proc {
    audit_token: Token,
    responsible_audit_token: Option<Token>,
    ppid: Option<i64>,
    session_id: Option<i64>,
    codesigning_flags: Option<u32>,
    signing_id: Option<Text>,
    team_id: Option<Text>,
    cdhash: Option<String>,
    is_platform_binary: Option<bool>,
    executable: Option<File>,
    tty: Option<Tty>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tty {
    File(File),
    Path(Text),
}

impl Record {
    /// The message, or `None` for one that is not wanted.
    fn message(self) -> Result<Option<Message>, LineError> {
        if let Some(version) = self.schema_version.filter(|version| *version != SCHEMA) {
            let what = format!("eslogger schema_version {version}, only {SCHEMA} is known");
            return Err(LineError::new(what));
        }
        let refused =
            |verdict: Verdict| verdict.auth == Some(AUTH_DENY) || verdict.flags == Some(0);
        let verdict = self.action.and_then(|action| action.result).and_then(|result| result.result);
        if self.action_type == Some(ACTION_AUTH) || verdict.is_some_and(refused) {
            return Ok(None);
        }
        let event = match self.event {
            Events { exec: Some(exec), .. } => Event::Exec {
                target: Box::new((*exec.target).into()),
                args: exec.args,
                cwd: exec.cwd.map(File::into_text),
            },
            Events { open: Some(open), .. } => Event::Open { path: open.file.into_text() },
            Events { fork: Some(fork), .. } => {
                Event::Fork { child: Box::new((*fork.child).into()) }
            }
            Events { close: Some(close), .. } => Event::Close { path: close.target.into_text() },
            Events { exit: Some(_), .. } => Event::Exit,
            Events { setmode: Some(SetMode { target, mode }), .. } => {
                Event::SetMode { path: target.into_text(), mode }
            }
            Events { setowner: Some(SetOwner { target, uid, gid }), .. } => {
                Event::SetOwner { path: target.into_text(), uid, gid }
            }
            // One that failed changed nothing.
            Events { od_group_add: Some(add), .. } if add.error_code == 0 => Event::GroupAdd {
                instigator: add.instigator.map(|process| Box::new((*process).into())),
                group: add.group_name,
                member: add.member.and_then(|member| member.member_value.into_text()),
            },
            Events { profile_remove: Some(remove), .. } => Event::ProfileRemove {
                instigator: remove.instigator.map(|process| Box::new((*process).into())),
                identifier: remove.profile.identifier,
            },
            _ => return Ok(None),
        };
        Ok(Some(Message { at: self.time, process: self.process.into(), event }))
    }
}

impl File {
    fn into_text(self) -> Text {
        raw::path(self.path, self.path_truncated)
    }
}

impl From<Proc> for EsProcess {
    fn from(process: Proc) -> Self {
        let stat = process.executable.as_ref().and_then(|file| file.stat.as_ref());
        Self {
            pid: process.audit_token.pid,
            pidversion: process.audit_token.pidversion,
            euid: process.audit_token.euid,
            ppid: process.ppid.and_then(|id| id.try_into().ok()),
            responsible: process.responsible_audit_token.map(|by| (by.pid, by.pidversion)),
            session_id: process.session_id.and_then(|id| id.try_into().ok()),
            executable_owner: stat.and_then(|stat| stat.st_uid),
            executable: process.executable.map(File::into_text),
            tty: process.tty.map(|tty| match tty {
                Tty::File(file) => file.into_text(),
                Tty::Path(path) => path,
            }),
            codesigning_flags: process.codesigning_flags,
            signing_id: process.signing_id.and_then(raw::given),
            team_id: process.team_id.and_then(raw::given),
            cdhash: process.cdhash.as_deref().and_then(raw::cdhash),
            platform_binary: process.is_platform_binary,
        }
    }
}

/// An id that some versions print as a signed number: -1 and 4294967295 are the same.
fn signed_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let id = i64::deserialize(deserializer)?;
    match id {
        -1 => Ok(u32::MAX),
        id => u32::try_from(id).map_err(|_| de::Error::custom("not a user or group id")),
    }
}

/// What is wanted of an audit token (`audit_token_t`).
#[derive(Debug, PartialEq)]
struct Token {
    pid: u32,
    pidversion: u32,
    euid: Option<u32>,
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Token;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an audit token: an object, or an array of eight numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Token, A::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    pid: u32,
                    pidversion: u32,
                    euid: Option<u32>,
                }
                let fields = Fields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Token { pid: fields.pid, pidversion: fields.pidversion, euid: fields.euid })
            }
            /// In the order of `audit_token_t.val` (xnu bsd/kern/kern_prot.c `set_security_token`).
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Token, A::Error> {
                let mut value = [0u32; 8];
                for (index, value) in value.iter_mut().enumerate() {
                    *value = seq
                        .next_element()?
                        .ok_or_else(|| de::Error::invalid_length(index, &self))?;
                }
                if seq.next_element::<de::IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(9, &self));
                }
                let [_, euid, _, _, _, pid, _, pidversion] = value;
                Ok(Token { pid, pidversion, euid: Some(euid) })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
