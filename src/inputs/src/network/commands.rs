//! Who gave which command, in the words of each system.

/// A command on a device.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Command<'a> {
    pub(super) juniper: bool,
    pub(super) text: &'a str,
    pub(super) user: Option<&'a str>,
    /// Where the user came from.
    pub(super) source: Option<&'a str>,
    /// The line or terminal.
    pub(super) line: Option<&'a str>,
    pub(super) mnemonic: Option<&'a str>,
}

/// Whether a line looks like one of a device, command or not.
pub(super) fn is_of_a_device(line: &str) -> bool {
    mnemonic(line).is_some() || junos_tag(line).is_some() || tacacs(line).is_some()
}

impl<'a> Command<'a> {
    /// The command in a message; `None` where it is about something else.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        if let Some((mnemonic, rest)) = mnemonic(text) {
            return Self::cisco(mnemonic, rest);
        }
        if let Some((tag, rest)) = junos_tag(text) {
            return Self::junos(tag, rest);
        }
        tacacs(text)
    }

    fn cisco(mnemonic: &'a str, rest: &'a str) -> Option<Self> {
        let known = Self { mnemonic: Some(mnemonic), ..Self::default() };
        let rest = rest.trim();
        // `User:admin  logged command:monitor capture CAP start` (IOS, archive log config)
        if let Some(rest) = rest.strip_prefix("User:")
            && let Some((user, command)) = rest.split_once("logged command:")
        {
            return Some(Self { text: command.trim(), user: some(user), ..known }).filter(is_whole);
        }
        // `update:10.0.0.5@pts/0:admin:monitor session 1 (SUCCESS)` (NX-OS)
        if mnemonic.ends_with("AAA_ACCOUNTING_MESSAGE") {
            let (_, rest) = rest.split_once(':')?;
            // An IPv6 address has colons of its own; a console has no address.
            let (source, rest) = match rest.split_once('@') {
                Some((source, rest)) if !source.contains(' ') => (source, rest),
                _ => ("", rest),
            };
            let mut parts = rest.splitn(3, ':');
            let (line, user, command) = (parts.next()?, parts.next()?, parts.next()?.trim());
            let command = command.rsplit_once(" (").map_or(command, |(command, _)| command);
            let (source, line) = (some(source), some(line));
            return Some(Self { text: command, user: some(user), source, line, ..known })
                .filter(is_whole);
        }
        // `CLIaccounting: show run` and the like, from an event manager applet.
        if mnemonic.starts_with("HA_EM-") {
            let (_, command) = rest.split_once(": ")?;
            return Some(Self { text: command.trim(), ..known }).filter(is_whole);
        }
        // `Configured from console by admin on vty0 (10.0.0.5)`: that somebody did, not what.
        if mnemonic.ends_with("-CONFIG_I") {
            let by = rest.split_once(" by ").map(|(_, by)| by);
            let user = by.and_then(|by| by.split_whitespace().next());
            let line = by.and_then(|by| by.split_once(" on ")).map(|(_, on)| on);
            let line = line.and_then(|on| on.split_whitespace().next());
            let source = rest.rsplit_once('(').map(|(_, source)| source.trim_end_matches(')'));
            return Some(Self { text: rest, user, line, source, ..known });
        }
        None
    }

    /// `User 'admin', command 'monitor traffic interface ge-0/0/0 '`, or the same in structured data.
    fn junos(tag: &'a str, rest: &'a str) -> Option<Self> {
        let quoted = |key: &str, quote: char| {
            let (_, after) = rest.split_once(key)?;
            after.split_once(quote).map(|(value, _)| value.trim())
        };
        let user = quoted("username=\"", '"').or_else(|| quoted("User '", '\''));
        let text = match tag {
            "UI_CFG_AUDIT_SET" | "UI_CFG_AUDIT_OTHER" | "UI_COMMIT" | "UI_LOGIN_EVENT" => {
                return Some(Self {
                    juniper: true,
                    text: rest.trim(),
                    user,
                    mnemonic: Some(tag),
                    ..Self::default()
                })
                .filter(is_whole);
            }
            _ => quoted("command=\"", '"').or_else(|| {
                // The last quote: a command may have some of its own.
                let (_, after) = rest.split_once("command '")?;
                after.rsplit_once('\'').map(|(value, _)| value.trim())
            })?,
        };
        let command = Self { juniper: true, text, user, mnemonic: Some(tag), ..Self::default() };
        Some(command).filter(is_whole)
    }
}

fn some(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}

fn is_whole(command: &Command<'_>) -> bool {
    !command.text.is_empty()
}

/// `%PARSER-5-CFGLOG_LOGGEDCMD: …`: facility, severity, mnemonic. (Cisco IOS System Message Guide)
fn mnemonic(text: &str) -> Option<(&str, &str)> {
    let start = text.find('%')?;
    let (mark, rest) = text.get(start + 1..)?.split_once(':')?;
    let (facility, rest_of_mark) = mark.split_once('-')?;
    let named = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
    };
    let severe = rest_of_mark.split('-').any(|part| matches!(part.as_bytes(), [b'0'..=b'7']));
    (named(facility) && named(rest_of_mark) && severe).then_some((mark, rest))
}

/// `mgd[123]: UI_CMDLINE_READ_LINE: …`, or the tag as the message id of RFC 5424.
fn junos_tag(text: &str) -> Option<(&str, &str)> {
    let start = text.find("UI_")?;
    let tagged = text.get(start..)?;
    let end = tagged.find(|c: char| !(c.is_ascii_uppercase() || c == '_')).unwrap_or(tagged.len());
    let (tag, rest) = tagged.split_at(end);
    let before = text.get(..start)?;
    let by_itself = before.is_empty() || before.ends_with([' ', '\t']);
    (by_itself && tag.len() > 3).then(|| (tag, rest.trim_start_matches([':', ' '])))
}

/// A line of a TACACS+ daemon's accounting file: host, user, terminal, address, then `key=value`, parted
/// by tabs; `cmd=` ends in `<cr>`.
fn tacacs(text: &str) -> Option<Command<'_>> {
    if !text.contains('\t') {
        return None;
    }
    let mut command = Command::default();
    let parts: Vec<&str> = text.split('\t').collect();
    let first = parts.iter().position(|part| part.contains('='))?;
    for part in parts.get(first..)? {
        if let Some(("cmd", text)) = part.split_once('=') {
            command.text = text.trim_end_matches("<cr>").trim();
        }
    }
    // `… host user line address start|stop`
    if let Some([user, line, source, ..]) = parts.get(first.checked_sub(4)?..first) {
        command.user = some(user);
        command.line = some(line);
        command.source = some(source);
    }
    Some(command).filter(is_whole)
}
