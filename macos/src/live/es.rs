//! The two clients of Endpoint Security, each on a thread of its own, which made it and must drop it.
//!
//! One hears of BPF devices alone: its muting is inverted to `/dev/bpf`. An inverted client would miss
//! executions of all that is not muted, so another hears of those. A handler does nothing but move the message
//! into a bounded channel: delivery is serial, and a slow client loses messages.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use endpoint_sec::sys::{
    NewClientError, ReturnError, es_event_type_t, es_mute_inversion_type_t, es_mute_path_type_t,
};
use endpoint_sec::{Client, Message, version};

use super::kernel;
use crate::grade::{self, Refusal};
use crate::intake::Role;

/// Messages that wait; about 2 KiB each, so the kernel's own queue is the smaller one.
const WAITING: usize = 16 * 1024;
/// How long a client may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// What all BPF devices begin with.
const DEVICES: &str = "/dev/bpf";

/// What the channel gives.
pub enum Seen {
    /// A message, and to which client it came.
    Message(Role, Box<Message>),
    /// Nothing now.
    Nothing,
    /// Both clients are gone.
    Gone,
}

/// Both clients. They end when this is dropped.
pub struct Clients {
    queue: Receiver<(Role, Box<Message>)>,
    panics: Arc<AtomicU64>,
    /// Threads wait on the other ends.
    _ends: Vec<Sender<()>>,
}

impl Clients {
    /// Makes both. Each message writes a byte to `wake`.
    ///
    /// # Errors
    /// Why the system gives none.
    pub fn new(wake: &Arc<UnixStream>) -> Result<Self, Refusal> {
        let system = kernel::text(c"kern.osproductversion");
        let (major, minor, patch) = system
            .and_then(|text| grade::version(text.as_str()))
            .ok_or_else(|| Refusal::Other("kern.osproductversion is not understood".to_owned()))?;
        if major < 13 {
            return Err(Refusal::TooOld);
        }
        version::set_runtime_version(major, minor, patch);
        let (sender, queue) = sync_channel(WAITING);
        let panics = Arc::<AtomicU64>::default();
        let mut ends = Vec::new();
        // Processes first: who opens a device then is known.
        for role in [Role::Processes, Role::Devices] {
            let (end, ended) = channel();
            let (ready, is_ready) = channel();
            let handler = Handler {
                role,
                queue: sender.clone(),
                wake: Arc::clone(wake),
                panics: Arc::clone(&panics),
            };
            let name = format!("macos.es.{role:?}").to_lowercase();
            thread::Builder::new()
                .name(name)
                .spawn(move || serve(handler, major, &ready, &ended))
                .map_err(|error| Refusal::Other(format!("a thread: {error}")))?;
            match is_ready.recv_timeout(PATIENCE) {
                Ok(Ok(())) => ends.push(end),
                Ok(Err(refusal)) => return Err(refusal),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Refusal::Internal);
                }
            }
        }
        Ok(Self { queue, panics, _ends: ends })
    }

    /// The next message, without waiting.
    pub fn take(&self) -> Seen {
        match self.queue.try_recv() {
            Ok((role, message)) => Seen::Message(role, message),
            Err(TryRecvError::Empty) => Seen::Nothing,
            Err(TryRecvError::Disconnected) => Seen::Gone,
        }
    }

    /// Handlers that panicked since the last call.
    pub fn take_panics(&self) -> u64 {
        self.panics.swap(0, Ordering::Relaxed)
    }
}

struct Handler {
    role: Role,
    queue: SyncSender<(Role, Box<Message>)>,
    wake: Arc<UnixStream>,
    panics: Arc<AtomicU64>,
}

impl Handler {
    fn take(&self, message: Message) {
        // A panic would be swallowed by the crate, and nobody would know.
        let moved = catch_unwind(AssertUnwindSafe(|| {
            // What does not fit is a gap in the sequence numbers, as if the kernel had dropped it.
            let _ = self.queue.try_send((self.role, Box::new(message)));
            // A full pipe wakes as well.
            let _ = (&*self.wake).write(&[1]);
        }));
        if moved.is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn serve(handler: Handler, major: u64, ready: &Sender<Result<(), Refusal>>, ended: &Receiver<()>) {
    let role = handler.role;
    let handler = AssertUnwindSafe(handler);
    let client = Client::new(move |_, message| {
        // The whole of it, not its field: that is what is asserted.
        let handler = &handler;
        handler.take(message);
    });
    let mut client = match client {
        Ok(client) => client,
        Err(error) => {
            // Whoever waits for it may have given up.
            let _ = ready.send(Err(refusal(&error)));
            return;
        }
    };
    let begun = match role {
        Role::Devices => devices(&mut client),
        Role::Processes => processes(&mut client, major),
    };
    let refused = |error: ReturnError| match error {
        ReturnError::ApiUnavailable => Refusal::TooOld,
        error => Refusal::Other(format!("a client could not subscribe: {error}")),
    };
    let has_begun = begun.is_ok();
    if ready.send(begun.map_err(refused)).is_ok() && has_begun {
        // Until the other end is dropped.
        let _ = ended.recv();
    }
    let _ = client.unsubscribe_all();
}

fn devices(client: &mut Client<'_>) -> Result<(), ReturnError> {
    // Some target paths are muted by default; inverted, these would be what is heard of.
    client.unmute_all_target_paths()?;
    client.mute_path(OsStr::new(DEVICES), es_mute_path_type_t::ES_MUTE_PATH_TYPE_TARGET_PREFIX)?;
    client.invert_muting(es_mute_inversion_type_t::ES_MUTE_INVERSION_TYPE_TARGET_PATH)?;
    client.subscribe(&[
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_OPEN,
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_CLOSE,
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_SETMODE,
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_SETOWNER,
    ])
}

fn processes(client: &mut Client<'_>, major: u64) -> Result<(), ReturnError> {
    client.subscribe(&[
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_EXEC,
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_FORK,
        es_event_type_t::ES_EVENT_TYPE_NOTIFY_EXIT,
    ])?;
    if major >= 14 {
        client.subscribe(&[
            es_event_type_t::ES_EVENT_TYPE_NOTIFY_OD_GROUP_ADD,
            es_event_type_t::ES_EVENT_TYPE_NOTIFY_PROFILE_REMOVE,
        ])?;
    }
    Ok(())
}

fn refusal(error: &NewClientError) -> Refusal {
    match error {
        NewClientError::NotEntitled => Refusal::NotEntitled,
        NewClientError::NotPermitted => Refusal::NotPermitted,
        NewClientError::NotPrivileged => Refusal::NotPrivileged,
        NewClientError::TooManyClients => Refusal::TooManyClients,
        NewClientError::Internal => Refusal::Internal,
        error => Refusal::Other(format!("no client: {error}")),
    }
}

/// Whether Endpoint Security gives clients to this program, for `doctor`: both are made and dropped.
///
/// # Errors
/// Why it gives none.
pub fn probe() -> Result<(), Refusal> {
    let (wake, _woken) =
        UnixStream::pair().map_err(|error| Refusal::Other(format!("a pipe: {error}")))?;
    // A full pipe must not hold up a handler.
    wake.set_nonblocking(true).map_err(|error| Refusal::Other(format!("a pipe: {error}")))?;
    Clients::new(&Arc::new(wake)).map(drop)
}
