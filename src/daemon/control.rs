//! The socket that answers `bpfwatch status`: whoever may connect is handed the status as one line of
//! JSON, and nothing is read from him. So there is nothing to parse and nothing to wait for.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::status::Board;
use crate::{output, platform};

/// How long a client may take to accept what fits no buffer.
const PATIENCE: Duration = Duration::from_millis(500);
/// After a failed accept, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, bound but not yet served.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// Takes the socket away at the end.
pub struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Control {
    /// Binds it, for its owner alone. One that a daemon left behind is replaced.
    ///
    /// # Errors
    /// When it cannot be bound, or another daemon answers there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another bpfwatch answers there",
                ));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers on a thread of its own, until the program ends.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn serve(self, board: Board) -> io::Result<Bound> {
        let Self { listener, path } = self;
        thread::Builder::new().name("status".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    // Whoever went away again is his own loss.
                    Ok(stream) => drop(answer(&stream, &board)),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })?;
        Ok(Bound(path))
    }
}

fn answer(mut stream: &UnixStream, board: &Board) -> io::Result<()> {
    let user = platform::peer(stream)?;
    // The socket's mode says so already; it may have been changed.
    if user != 0 && user != nix::unistd::geteuid().as_raw() {
        output::warn(&format!("user {user} asked for the status and got nothing"));
        return Ok(());
    }
    let Some(status) = board.newest() else { return Ok(()) };
    let mut line = serde_json::to_vec(&*status)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&line)
}
