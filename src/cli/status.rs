//! `status`: asks the running daemon how it fares.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bpfwatch_delivery::style::{Paint, Style};
use bpfwatch_delivery::visible;
use clap::Args;
use serde_json::Value;

use super::FormatArgs;
use crate::config::Config;
use crate::exit::{Code, Failure, Outcome, plain};
use crate::output::{self, Shape};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A longer answer is none of ours.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Ask the running daemon how it fares: sensors, coverage, losses, sinks, last reload
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 69 if no daemon runs, with 77 if only root may ask it.

Examples:
  bpfwatch status
  bpfwatch status --format json | jq .sinks")]
pub struct Status {
    /// The configuration that names the daemon's socket, instead of the system's own.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's socket, instead of the configured one.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

impl Status {
    /// Asks and prints.
    pub fn run(self) -> Outcome {
        let socket = match self.socket {
            Some(socket) => socket,
            None => configured(self.config)?,
        };
        let answer = ask(&socket)?;
        match self.format.format {
            Shape::Json => output::print(&answer)?,
            Shape::Human => {
                let status = serde_json::from_str(&answer).map_err(|error| {
                    let what =
                        format!("{} answers, but not as bpfwatch: {error}", socket.display());
                    Failure::new(Code::Unavailable, what)
                })?;
                output::print(&human(&status, &output::style()))?;
            }
        }
        Ok(Code::Ok)
    }
}

/// The socket of the configuration. Without one that can be read: the system's own.
fn configured(file: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let config = match (Config::load(file.as_deref()), file) {
        (Ok((config, _)), _) => config,
        (Err(failure), Some(_)) => return Err(failure),
        (Err(_), None) => Config::default(),
    };
    config.status.socket.ok_or_else(|| {
        Failure::new(Code::Config, "the configuration switches the status socket off")
            .next("set socket in [status] and restart the daemon")
    })
}

fn ask(socket: &std::path::Path) -> Result<String, Failure> {
    let failed = |error: &io::Error| {
        let shown = socket.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(Code::Unavailable, format!("no daemon answers at {shown}"))
                    .next("start it, or name its socket with --socket")
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(Code::NoPermission, format!("{shown} answers root alone"))
                    .next("run it as root")
            }
            _ => Failure::new(
                Code::Unavailable,
                format!("the daemon at {shown} does not answer: {}", plain(error)),
            ),
        }
    };
    let mut stream = UnixStream::connect(socket).map_err(|error| failed(&error))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| failed(&error))?;
    let mut answer = String::new();
    (&mut stream).take(LIMIT).read_to_string(&mut answer).map_err(|error| failed(&error))?;
    if answer.is_empty() {
        return Err(failed(&io::ErrorKind::PermissionDenied.into()));
    }
    Ok(answer)
}

/// Column where values begin.
const INDENT: usize = 12;

fn human(status: &Value, style: &Style) -> String {
    let mut page = Page { text: String::new(), style };
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    let word = |key: &str| text(&status[key]);
    page.line(
        "daemon",
        Paint::Bold,
        &format!(
            "bpfwatch {}, pid {}, up {} since {}",
            word("version"),
            number("pid"),
            span(number("uptime_s")),
            time(&status["started"])
        ),
    );
    let files: Vec<String> = list(&status["files"]).map(text).collect();
    let files = if files.is_empty() { "the defaults".to_owned() } else { files.join(", ") };
    page.line("config", Paint::Plain, &files);
    reload(&mut page, status);
    for sensor in list(&status["sensors"]) {
        let via = sensor["via"].as_str().map(|via| format!(" ({via})")).unwrap_or_default();
        let (paint, state) = if sensor["running"] == true {
            (Paint::Green, "watches".to_owned())
        } else {
            let why = sensor["error"].as_str().unwrap_or("no reason given");
            (Paint::Red, format!("ENDED: {why}"))
        };
        page.line("sensor", paint, &format!("{}{via} {state}", text(&sensor["name"])));
    }
    coverage(&mut page, status);
    checks(&mut page, "hardening", &status["hardening"]);
    page.line(
        "engine",
        Paint::Plain,
        &format!(
            "{} observations, {} lost, {} of {} bytes wait, lag {} ms",
            number("observations"),
            number("lost"),
            number("backlog_bytes"),
            number("backlog_limit_bytes"),
            number("lag_ms")
        ),
    );
    page.line(
        "findings",
        Paint::Plain,
        &format!(
            "{}, {} folded, {} withheld as expected, {} correlations forgotten",
            number("findings"),
            number("folded"),
            number("withheld"),
            number("forgotten")
        ),
    );
    for filter in list(&status["withheld_by"]) {
        let line = format!("{} by \"{}\"", filter["count"], text(&filter["title"]));
        page.line("", Paint::Dim, &line);
    }
    let refused = number("rules_refused");
    let paint = if refused > 0 { Paint::Yellow } else { Paint::Plain };
    page.line("rules", paint, &format!("{} loaded, {refused} refused", number("rules_loaded")));
    for rule in list(&status["refused_rules"]) {
        page.line("", Paint::Yellow, &text(rule));
    }
    for sink in list(&status["sinks"]) {
        page.sink(sink);
    }
    page.text
}

fn reload(page: &mut Page<'_>, status: &Value) {
    let reload = &status["reload"];
    if reload.is_null() {
        return;
    }
    let at = time(&reload["time"]);
    if reload["taken"] == true {
        page.line("reload", Paint::Plain, &format!("taken at {at}"));
    } else {
        let why = text(&reload["error"]);
        page.line("reload", Paint::Red, &format!("REFUSED at {at}, the old one goes on: {why}"));
    }
}

fn coverage(page: &mut Page<'_>, status: &Value) {
    let coverage = &status["coverage"];
    let count = |key: &str| coverage[key].as_u64().unwrap_or_default();
    let (partial, blind) = (count("partial"), count("blind"));
    let paint = match (partial, blind) {
        (0, 0) => Paint::Green,
        (_, 0) => Paint::Yellow,
        _ => Paint::Red,
    };
    let line = format!("{} ok, {partial} in part, {blind} blind", count("ok"));
    page.line("sources", paint, &line);
    for check in list(&status["sources"]) {
        if check["state"] == "warning" || check["state"] == "blind" {
            let line = format!("{}: {}", text(&check["name"]), text(&check["detail"]));
            page.line("", paint, &line);
        }
    }
}

fn checks(page: &mut Page<'_>, title: &str, checks: &Value) {
    let mut title = title;
    for check in list(checks) {
        let paint = match check["state"].as_str() {
            Some("ok") => Paint::Green,
            Some("info") => Paint::Plain,
            _ => Paint::Yellow,
        };
        let line = format!("{}: {}", text(&check["name"]), text(&check["detail"]));
        page.line(title, paint, &line);
        title = "";
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

/// A time to the second.
fn time(value: &Value) -> String {
    match text(value).split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text(value),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

struct Page<'a> {
    text: String,
    style: &'a Style,
}

impl Page<'_> {
    /// A line; what does not fit is continued below.
    fn line(&mut self, title: &str, paint: Paint, value: &str) {
        let value = visible::escaped(value);
        let width = self.style.width.unwrap_or(usize::MAX).saturating_sub(INDENT).max(40);
        for (index, piece) in visible::wrap(&value, width).into_iter().enumerate() {
            let title = if index == 0 { title } else { "" };
            self.style.push(&mut self.text, Paint::Dim, title);
            self.text.extend(std::iter::repeat_n(' ', INDENT.saturating_sub(title.len())));
            self.style.push(&mut self.text, paint, piece);
            self.text.push('\n');
        }
    }

    fn sink(&mut self, sink: &Value) {
        let number = |key: &str| sink[key].as_u64().unwrap_or_default();
        let mut line = format!(
            "{}: {} written, {} dropped, {} wait",
            text(&sink["name"]),
            number("written"),
            number("dropped"),
            number("queued")
        );
        if let Some(spooled) = sink["spooled"].as_u64() {
            let _ = write!(line, " and {spooled} in the spool");
        }
        match &sink["last_delivery"] {
            Value::Null => line.push_str(", none yet"),
            at => {
                let _ = write!(line, ", last at {}", time(at));
            }
        }
        let error = sink["error"].as_str();
        if let Some(error) = error {
            let _ = write!(line, "; {error}");
        }
        let paint = match (error, number("dropped")) {
            (Some(_), _) => Paint::Red,
            (None, 0) => Paint::Plain,
            (None, _) => Paint::Yellow,
        };
        self.line("sink", paint, &line);
    }
}
