//! What another process of this program does for a technique. It is told in the environment, so that
//! its command line can look as the technique wants it to, and talks over its standard input. It ends
//! when that is closed: when the one that started it is done, or is gone.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bpfwatch_core::sensor::SensorError;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};

use super::{ATTACH, LONGEST, failed};
use crate::exit::Code;
use crate::platform;

/// The environment variable with the [`Duty`].
pub const VARIABLE: &str = "BPFWATCH_EMULATE_PART";
/// How long sending a file may take.
const SEND: Duration = Duration::from_secs(5);

/// What it is to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Open a handle on the interface, and hold it.
    Capture(String),
    /// Hold what is its standard output.
    Keep,
    /// Hold what is sent to it.
    Receive,
    /// Send a file to an address.
    Upload(SocketAddr, PathBuf),
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It did its part.
    Done,
    /// It could not.
    Failed {
        /// Why.
        what: String,
        /// What the user can do.
        mend: Option<String>,
    },
}

/// Does its part and gives the exit code; `None` where this process is not such a one.
pub fn play() -> Option<ExitCode> {
    let duty = std::env::var_os(VARIABLE)?;
    let duty = serde_json::from_str(duty.to_str()?).ok()?;
    Some(match serve(duty) {
        Ok(()) => Code::Ok.into(),
        Err(_) => Code::Software.into(),
    })
}

fn serve(duty: Duty) -> io::Result<()> {
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Whatever happens, it does not stay longer than this.
    line.set_read_timeout(Some(LONGEST + SEND))?;
    let done = perform(duty, &mut line);
    let (reply, _handle) = match done {
        Ok(handle) => (Reply::Done, handle),
        Err(error) => (Reply::Failed { what: error.what, mend: error.mend }, None),
    };
    writeln!(line, "{}", serde_json::to_string(&reply)?)?;
    while line.read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// Does it, and gives the handle that is to be held.
fn perform(duty: Duty, line: &mut UnixStream) -> Result<Option<OwnedFd>, SensorError> {
    match duty {
        Duty::Keep => Ok(None),
        Duty::Receive => match receive(line) {
            Ok(handle) => Ok(Some(handle)),
            Err(error) => Err(failed(format!("no handle came: {error}"), "please report it")),
        },
        Duty::Capture(interface) => {
            begin(line)?;
            Ok(Some(platform::current().open_handle(ATTACH, &interface)?.handle))
        }
        Duty::Upload(to, file) => {
            begin(line)?;
            upload(to, &file).map(|()| None).map_err(|error| {
                failed(format!("cannot send to {to}: {error}"), "see whether loopback is up")
            })
        }
    }
}

/// Waits until it is told to begin.
fn begin(line: &mut UnixStream) -> Result<(), SensorError> {
    line.read_exact(&mut [0])
        .map_err(|error| failed(format!("it was not told to begin: {error}"), "please report it"))
}

/// Takes a descriptor out of a message (SCM_RIGHTS in unix(4), unix(7)).
fn receive(line: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(line, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty())?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut handles) = message
            && let Some(handle) = handles.next()
        {
            return Ok(handle);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Sends as `curl -T` does.
fn upload(to: SocketAddr, file: &Path) -> io::Result<()> {
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    let mut stream = TcpStream::connect_timeout(&to, SEND)?;
    stream.set_write_timeout(Some(SEND))?;
    write!(stream, "PUT /capture.pcap HTTP/1.1\r\nHost: {to}\r\nContent-Length: {size}\r\n\r\n")?;
    io::copy(&mut file, &mut stream)?;
    Ok(())
}
