//! Where records go. Each transport takes any [`Format`](crate::Format) whose shape it can carry.

mod connection;
mod file;
mod memory;
mod pipe;
mod spooled;
mod stream;
mod syslog;
mod syslog_tcp;
mod syslog_udp;

pub use connection::{Tls, host};
pub use file::{Durability, FileSink, MODE as FILE_MODE};
pub use memory::{DEFAULT_BYTES as MEMORY_BYTES, MemorySink};
pub use pipe::PipeSink;
pub use spooled::SpooledSink;
pub use stream::StreamSink;
pub use syslog::{SOCKET_PATHS, SyslogSocket};
pub use syslog_tcp::{Framing, SyslogTcp};
pub use syslog_udp::{MOST as DATAGRAM_MOST, SyslogUdp};

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
