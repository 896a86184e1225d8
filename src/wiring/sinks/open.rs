//! From a `[[sink]]` of the configuration to what writes it: its format, then its transport.

use std::io;
use std::path::{Path, PathBuf};

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::envelope;
use bpfwatch_delivery::limit::{Cut, DEFAULT_LIMIT};
use bpfwatch_delivery::rfc3164::Zone;
use bpfwatch_delivery::transport::{Durability, FileSink, PipeSink, StreamSink, SyslogSocket};
use bpfwatch_delivery::{
    Ecs, Envelope, Falco, Format, Human, Json, Limited, Ocsf, OtlpRecord, Rfc3164, Rfc5424, Style,
};

use super::remote::{self, Place};
use crate::config::{self, Header, Layout, Sync, Transport};
use crate::exit::{Code, Failure};
use crate::platform;

/// authpriv, for a format with a syslog header of its own that goes to a file or a pipe.
const AUTHPRIV: u8 = 10;

/// Bytes of the header that goes before a record on the local socket: `<191>bpfwatch[4194304]: `.
const LOCAL_HEADER: usize = 32;

/// A sink that is open and does nothing yet; it fails only where the system gives no thread.
pub type Ready = Box<dyn FnOnce() -> io::Result<Box<dyn Sink>>>;

/// Opens a sink as configured.
///
/// # Errors
/// When its file, pipe or spool cannot be opened, or its receiver is set up wrongly.
pub fn open(sink: &config::Sink, place: &Place) -> Result<Ready, Failure> {
    let format = || format(sink.format, DEFAULT_LIMIT);
    let sink: Box<dyn Sink> = match &sink.transport {
        Transport::Stdout => Box::new(StreamSink::stdout(format())),
        Transport::File { path, mode, sync } => {
            let durability = match sync {
                Sync::Idle => Durability::OnFlush,
                Sync::Always => Durability::EachRecord,
                Sync::Never => Durability::Never,
            };
            let sink = FileSink::open_with_mode(path, *mode, format(), durability);
            Box::new(sink.map_err(|error| failed(path, &error))?)
        }
        Transport::Pipe { path, mode } => {
            let sink = PipeSink::open(path, *mode, format());
            Box::new(sink.map_err(|error| failed(path, &error))?)
        }
        Transport::Syslog { socket, layout } => local(sink.format, socket.as_ref(), layout)?,
        Transport::Native => platform::current().native_sink().ok_or_else(|| {
            let failure = Failure::new(Code::Config, "this system has no log for `oslog`");
            failure.next("it is the unified log of macOS: elsewhere use `syslog`")
        })?,
        Transport::Receiver(receiver) => {
            let format = syslog(sink.format, &receiver.layout);
            return remote::spooled(place, &receiver.spool, format, |_| remote::syslog(receiver));
        }
        Transport::Otlp(http) => {
            let open = |stream| remote::otlp(http, &place.host, stream);
            return remote::spooled(place, &http.spool, format(), open);
        }
        Transport::Webhook(http) => {
            let open = |stream| remote::webhook(http, stream);
            return remote::spooled(place, &http.spool, format(), open);
        }
    };
    Ok(Box::new(move || Ok(sink)))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::file("open the sink", path, error);
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => failure.next(
            "where the service manager lets it write nowhere else, name the directory there \
             (systemd: ReadWritePaths=)",
        ),
        _ => failure,
    }
}

fn local(
    format: config::Format,
    socket: Option<&PathBuf>,
    layout: &Layout,
) -> Result<Box<dyn Sink>, Failure> {
    let format = syslog(format, layout);
    let sink = match socket {
        Some(path) => SyslogSocket::at(path, format, layout.facility),
        None => SyslogSocket::local(format, layout.facility),
    };
    Ok(Box::new(sink.map_err(|error| Failure::new(Code::Config, error.to_string()))?))
}

/// What renders lines in a format, JSON within `limit` bytes.
fn format(format: config::Format, limit: usize) -> Box<dyn Format> {
    fn limited<F: Cut + 'static>(format: F, limit: usize) -> Box<dyn Format> {
        Box::new(Limited::new(format, limit))
    }
    let layout = |header, limit| Layout { header, facility: AUTHPRIV, limit };
    match format {
        config::Format::Json => limited(Json, limit),
        config::Format::Ecs => limited(Ecs, limit),
        config::Format::Ocsf => limited(Ocsf, limit),
        config::Format::Falco => limited(Falco, limit),
        config::Format::Human => Box::new(Human::new(Style::default())),
        config::Format::Otlp => Box::new(OtlpRecord),
        config::Format::Rfc3164 => syslog(format, &layout(Header::Rfc3164, 1024)),
        config::Format::Rfc5424 => syslog(format, &layout(Header::Rfc5424, 2048)),
    }
}

/// What renders lines as syslog records.
fn syslog(wanted: config::Format, layout: &Layout) -> Box<dyn Format> {
    let Layout { header, facility, limit } = *layout;
    let procid = Some(std::process::id());
    let bare = header == Header::Local;
    let limit = if bare { limit - LOCAL_HEADER } else { limit };
    let header = match (wanted, header) {
        (config::Format::Rfc5424, _) => {
            return Box::new(Rfc5424 { facility, procid, limit, bare });
        }
        (config::Format::Rfc3164, _) => {
            return Box::new(Rfc3164 { facility, procid, limit, zone: Zone::Local, bare });
        }
        (_, Header::Local) => return format(wanted, limit),
        (_, Header::Rfc5424) => envelope::Header::Rfc5424,
        (_, Header::Rfc3164) => envelope::Header::Rfc3164,
    };
    let format = format(wanted, limit - envelope::MOST);
    Box::new(Envelope { format, header, facility, procid, zone: Zone::Local })
}
