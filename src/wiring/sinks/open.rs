//! From a `[[sink]]` of the configuration to what writes it: its format, then its transport.

use std::io;

use bpfwatch_core::sink::Sink;
use bpfwatch_delivery::limit::{Cut, DEFAULT_LIMIT};
use bpfwatch_delivery::transport::{Durability, FileSink, StreamSink, SyslogSocket};
use bpfwatch_delivery::{
    Ecs, Falco, Format, Human, Json, Limited, Ocsf, OtlpRecord, Rfc3164, Rfc5424, Style,
};

use super::remote::{self, Place};
use crate::config;
use crate::exit::Failure;

/// Syslog facility of records without a header of their own: authpriv (RFC 5424, 6.2.1).
const AUTHPRIV: u8 = 10;

/// Opens a sink as configured.
///
/// # Errors
/// When its file, socket or spool cannot be opened, or its receiver is set up wrongly.
pub fn open(sink: &config::Sink, place: &Place) -> Result<Box<dyn Sink>, Failure> {
    let format = format(sink.format);
    let opened: (_, io::Result<Box<dyn Sink>>) = match &sink.transport {
        config::Transport::Stdout => return Ok(Box::new(StreamSink::stdout(format))),
        config::Transport::File { path, mode } => (
            path,
            FileSink::open_with_mode(path, *mode, format, Durability::OnFlush)
                .map(|sink| Box::new(sink) as Box<dyn Sink>),
        ),
        config::Transport::Syslog { socket } => (
            socket,
            SyslogSocket::at(socket, format, AUTHPRIV).map(|sink| Box::new(sink) as Box<dyn Sink>),
        ),
        config::Transport::Otlp(http) => {
            let open = |stream| remote::otlp(http, &place.host, stream);
            return remote::spooled(place, &http.spool, format, open);
        }
        config::Transport::Webhook(http) => {
            let open = |stream| remote::webhook(http, stream);
            return remote::spooled(place, &http.spool, format, open);
        }
    };
    let (path, result) = opened;
    result.map_err(|error| Failure::file("open the sink", path, &error))
}

/// What renders lines in a format, each within a bound.
pub fn format(format: config::Format) -> Box<dyn Format> {
    fn limited<F: Cut + 'static>(format: F) -> Box<dyn Format> {
        Box::new(Limited::new(format, DEFAULT_LIMIT))
    }
    match format {
        config::Format::Json => limited(Json),
        config::Format::Ecs => limited(Ecs),
        config::Format::Ocsf => limited(Ocsf),
        config::Format::Falco => limited(Falco),
        config::Format::Human => Box::new(Human::new(Style::default())),
        config::Format::Otlp => Box::new(OtlpRecord),
        config::Format::Rfc3164 => {
            Box::new(Rfc3164 { procid: Some(std::process::id()), ..Rfc3164::default() })
        }
        config::Format::Rfc5424 => {
            Box::new(Rfc5424 { procid: Some(std::process::id()), ..Rfc5424::default() })
        }
    }
}
