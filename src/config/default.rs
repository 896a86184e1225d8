//! The sinks unless one is named, which differ from system to system, and the defaults as a file.

use std::path::PathBuf;

use bpfwatch_delivery::rfc5424;
use bpfwatch_delivery::transport::FILE_MODE;

use super::syslog::SECURITY;
use super::{Format, Header, Layout, Sink, Sync, Transport};
use crate::platform::{self, Sinks};

/// Where lines go unless a sink is named.
pub fn sinks(of: Sinks) -> Vec<Sink> {
    let sink = |transport| Sink { format: Format::Json, transport };
    match of {
        Sinks::Stdout => vec![sink(Transport::Stdout)],
        Sinks::Syslog => {
            let (header, facility, limit) = (Header::Local, SECURITY, rfc5424::DEFAULT_LIMIT);
            let layout = Layout { header, facility, limit };
            let transport = Transport::Syslog { socket: None, layout };
            vec![Sink { format: Format::Rfc5424, transport }]
        }
        Sinks::LogAndFile(path) => {
            let (path, mode, sync) = (PathBuf::from(path), FILE_MODE, Sync::default());
            vec![sink(Transport::Native), sink(Transport::File { path, mode, sync })]
        }
    }
}

/// The same as it is printed, from within a comment on.
fn sinks_text(of: Sinks) -> String {
    match of {
        Sinks::Stdout => r#"this one: to the service manager's log.
[[sink]]
format = "json"            # json, ecs, ocsf, falco, rfc5424, rfc3164, human
transport = "stdout"       # stdout, file, pipe, syslog, oslog, udp, tcp, tls, otlp, webhook
"#
        .to_owned(),
        Sinks::Syslog => r#"this one: to the local syslog daemon.
[[sink]]
format = "rfc5424"         # json, ecs, ocsf, falco, rfc5424, rfc3164, human
transport = "syslog"       # stdout, file, pipe, syslog, oslog, udp, tcp, tls, otlp, webhook
facility = "security"
"#
        .to_owned(),
        Sinks::LogAndFile(path) => format!(
            r#"these two: the unified log, which has not been
# seen to work on a Mac yet, and a file beside it.
[[sink]]
transport = "oslog"        # stdout, file, pipe, syslog, oslog, udp, tcp, tls, otlp, webhook

[[sink]]
format = "json"            # json, ecs, ocsf, falco, rfc5424, rfc3164, human
transport = "file"
path = "{path}"
"#
        ),
    }
}

/// The defaults as a file, each with its reason.
pub fn text() -> String {
    text_with(platform::SINKS)
}

fn text_with(of: Sinks) -> String {
    include_str!("../default.toml")
        .replace("@SINKS@\n", &sinks_text(of))
        .replace("@CONFIG@", platform::CONFIG)
        .replace("@STATE_DIR@", platform::STATE_DIR)
        .replace("@SYSLOG@", platform::SYSLOG)
        .replace("@FOLDER@", platform::CONFIG_FOLDER)
        .replace("@STATUS_SOCKET@", platform::STATUS_SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_printed_default_is_the_built_in_one() {
        assert_eq!(Config::parse(&text()).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
        // Uncommented, the examples are right too.
        let uncommented: String = text()
            .lines()
            .map(|line| {
                let bare = line.strip_prefix("# ").unwrap_or(line);
                let is_key = bare.starts_with("[[") || bare.contains(" = ");
                if is_key { format!("{bare}\n") } else { format!("{line}\n") }
            })
            .collect();
        let full = Config::parse(&uncommented).unwrap();
        assert!(full.sinks.len() >= 3, "{uncommented}");
    }

    #[test]
    fn the_unified_log_has_a_file_beside_it() {
        let file = "/var/log/bpfwatch.json";
        let sinks = Config::parse(&text_with(Sinks::LogAndFile(file))).unwrap().sinks;
        assert_eq!(sinks, self::sinks(Sinks::LogAndFile(file)));
        let [log, Sink { format: Format::Json, transport: Transport::File { path, .. } }] =
            &sinks[..]
        else {
            panic!("{sinks:?}")
        };
        assert_eq!((&log.transport, path.to_str()), (&Transport::Native, Some(file)));
        let stdout = [Sink { format: Format::Json, transport: Transport::Stdout }];
        assert_eq!(Config::parse(&text_with(Sinks::Stdout)).unwrap().sinks, stdout);
    }

    #[test]
    fn the_syslog_daemon_gets_it_as_security() {
        let sinks = Config::parse(&text_with(Sinks::Syslog)).unwrap().sinks;
        assert_eq!(sinks, self::sinks(Sinks::Syslog));
        // LOG_SECURITY of FreeBSD's sys/syslog.h.
        let layout = Layout { header: Header::Local, facility: 13, limit: 2048 };
        let transport = Transport::Syslog { socket: None, layout };
        assert_eq!(sinks, [Sink { format: Format::Rfc5424, transport }]);
    }
}
