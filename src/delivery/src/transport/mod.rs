//! Where records go. Each transport takes any [`Format`](crate::Format) whose shape it can carry.

mod file;
mod spooled;
mod stream;
mod syslog;

pub use file::{Durability, FileSink, MODE as FILE_MODE, Reopener};
pub use spooled::SpooledSink;
pub use stream::StreamSink;
pub use syslog::{SOCKET_PATHS, SyslogSocket};

use std::io;

use bpfwatch_core::finding::Line;

use crate::format::Format;

/// Renders one record into `record`, which is cleared first.
fn render<F: Format>(format: &F, line: &Line, record: &mut Vec<u8>) -> io::Result<()> {
    record.clear();
    format.render(line, record);
    if record.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line could not be rendered"));
    }
    Ok(())
}
