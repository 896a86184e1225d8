//! Handles that change hands: by fork, by a message, and in a message that nobody reads.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bpfwatch_core::platform::reported::UNEXPECTED;
use bpfwatch_core::sensor::SensorError;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::part::Duty;
use super::run::{Known, Run};
use super::stage::Part;
use super::{ATTACH, IN_FLIGHT, failed};

/// A handle is in flight for an instant whenever one is passed, so that sensors look twice, each second
/// unless told otherwise, before they call it that.
const TWO_LOOKS: Duration = Duration::from_secs(6);

/// The child's standard output is the handle, from before its execve(2) on.
pub fn inherited(run: &Run) -> Result<String, SensorError> {
    run.involve(std::process::id());
    let open = run.open(ATTACH)?;
    let mut part = Part::own("inherited", &Duty::Keep, Some(open.handle))?;
    hand_to(run, &part);
    part.reply()?;
    let held = run.hold(is_handed);
    let own = std::process::id();
    Ok(format!(
        "pid {own} opened {}; its child {} alone held it then, for {held}",
        open.held,
        part.pid()
    ))
}

/// Through a message to another process.
pub fn passed(run: &Run) -> Result<String, SensorError> {
    run.involve(std::process::id());
    let mut part = Part::own("passed", &Duty::Receive, None)?;
    hand_to(run, &part);
    let open = run.open(ATTACH)?;
    send(&part.line, open.handle.as_fd())
        .map_err(|error| failed(format!("cannot pass the handle: {error}"), "please report it"))?;
    part.reply()?;
    drop(open.handle);
    let held = run.hold(is_handed);
    let own = std::process::id();
    Ok(format!(
        "pid {own} opened {} and passed it to pid {}, which alone held it then, for {held}",
        open.held,
        part.pid()
    ))
}

/// Into a message to ourselves that is never read.
pub fn in_flight(run: &Run) -> Result<String, SensorError> {
    run.involve(std::process::id());
    let open = run.open(ATTACH)?;
    let sent =
        UnixStream::pair().and_then(|pair| send(&pair.0, open.handle.as_fd()).map(|()| pair));
    let _unread = sent
        .map_err(|error| failed(format!("cannot send the handle: {error}"), "please report it"))?;
    drop(open.handle);
    let held = run.hold_at_least(TWO_LOOKS, |known| known.has(&[UNEXPECTED, IN_FLIGHT]));
    let own = std::process::id();
    Ok(format!(
        "pid {own} opened {} and put it into a message that nobody read, for {held}",
        open.held
    ))
}

fn hand_to(run: &Run, part: &Part) {
    run.involve(part.pid());
    run.known().handed_to = Some(part.pid());
}

fn is_handed(known: &Known) -> bool {
    known.has(&[UNEXPECTED]) && known.is_handed()
}

/// SCM_RIGHTS of unix(4), unix(7).
fn send(line: &UnixStream, handle: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handles = [handle];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&handles)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(line, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}
