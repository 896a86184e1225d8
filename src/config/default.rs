//! The sinks unless one is named, which differ from system to system, and the defaults as a file.

use std::path::PathBuf;

use bpfwatch_delivery::transport::FILE_MODE;

use super::{Format, Sink, Sync, Transport};
use crate::platform;

/// Where lines go unless a sink is named: standard output, or `file` beside the system's own log.
pub fn sinks(file: Option<&str>) -> Vec<Sink> {
    let sink = |transport| Sink { format: Format::Json, transport };
    match file {
        None => vec![sink(Transport::Stdout)],
        Some(path) => {
            let (path, mode, sync) = (PathBuf::from(path), FILE_MODE, Sync::default());
            vec![sink(Transport::Native), sink(Transport::File { path, mode, sync })]
        }
    }
}

/// The same as it is printed, from within a comment on.
fn sinks_text(file: Option<&str>) -> String {
    match file {
        None => r#"this one: to the service manager's log.
[[sink]]
format = "json"            # json, ecs, ocsf, falco, rfc5424, rfc3164, human
transport = "stdout"       # stdout, file, pipe, syslog, oslog, udp, tcp, tls, otlp, webhook
"#
        .to_owned(),
        Some(path) => format!(
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
    text_with(platform::LOG_FILE)
}

fn text_with(file: Option<&str>) -> String {
    include_str!("../default.toml")
        .replace("@SINKS@\n", &sinks_text(file))
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
        let file = Some("/var/log/bpfwatch.json");
        let sinks = Config::parse(&text_with(file)).unwrap().sinks;
        assert_eq!(sinks, self::sinks(file));
        let [log, Sink { format: Format::Json, transport: Transport::File { path, .. } }] =
            &sinks[..]
        else {
            panic!("{sinks:?}")
        };
        assert_eq!((&log.transport, path.to_str()), (&Transport::Native, file));
        let stdout = [Sink { format: Format::Json, transport: Transport::Stdout }];
        assert_eq!(Config::parse(&text_with(None)).unwrap().sinks, stdout);
    }
}
