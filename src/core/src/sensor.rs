//! What a live sensor is, and the channel between sensors and the engine.
//!
//! A sensor must never wait for the engine, or the kernel's buffers overflow: [`Outlet::offer`] takes
//! a lock for a moment and returns. The channel is bounded in bytes; a quarter of it is kept for
//! observations about handles and losses, so that a flood of executions cannot hide a capture. What
//! does not fit is counted and comes out as a `Lost` observation.
//!
//! A followed file is another matter: it keeps what is not read yet. [`Outlet::feed`] waits for the engine
//! instead of shedding, and says for each batch where it comes from.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::observation::{Kind, Observation};
use crate::pipeline::Batch;
use crate::process::Process;
use crate::text::Text;
use crate::time::Timestamp;

/// Default size of the channel in bytes.
pub const CHANNEL_BYTES: usize = 8 * 1024 * 1024;

/// Watches one or more signals of the operating system until it is woken to stop.
pub trait Sensor: Send {
    /// Short name, such as `linux.sockets`, in observations and in health.
    fn name(&self) -> &'static str;

    /// How it watches on this system, where it has more than one way: for health and for the user.
    fn via(&self) -> Option<Via> {
        None
    }

    /// Something that ends a running `run` within 200 ms; may be called from any thread, and again.
    fn waker(&self) -> Box<dyn Fn() + Send + Sync>;

    /// Watches until woken. Never blocks on a slow engine.
    ///
    /// # Errors
    /// When the sensor cannot start or go on; what it lost before is already offered.
    fn run(self: Box<Self>, outlet: &Outlet) -> Result<(), SensorError>;
}

/// How a sensor watches, in words. Clones share them: a running sensor may come to watch in another way.
#[derive(Debug, Clone, Default)]
pub struct Via(Arc<Mutex<String>>);

impl Via {
    /// The words of now.
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It watches in another way from now on.
    pub fn set(&self, words: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words.into();
    }
}

impl<T: Into<String>> From<T> for Via {
    fn from(words: T) -> Self {
        Self(Arc::new(Mutex::new(words.into())))
    }
}

/// Why a sensor cannot watch, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sensor}: {what}{}", .mend.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
pub struct SensorError {
    /// Which sensor.
    pub sensor: &'static str,
    /// What went wrong.
    pub what: String,
    /// What the user can do.
    pub mend: Option<String>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Observation>,
    bytes: usize,
    next_seq: u64,
    shed: u64,
    /// When the last shed observation was seen.
    shed_at: Timestamp,
    closed: bool,
    /// What followed files gave, in order, and its size.
    batches: VecDeque<Batch>,
    batch_bytes: usize,
    /// It is the turn of a batch.
    batch_next: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    /// A batch was taken: there is room for another.
    room: Condvar,
    limit: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere while it held the lock leaves the queue whole: each change is one step.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a sensor offers: an observation before it has its place in the order.
#[derive(Debug, Clone)]
pub struct Offer {
    /// When it happened, or was seen.
    pub at: Timestamp,
    /// The process that did it.
    pub actor: Option<Arc<Process>>,
    /// What happened.
    pub kind: Kind,
}

/// The sensors' end of the channel. Clones go to the same channel.
#[derive(Clone)]
pub struct Outlet {
    shared: Arc<Shared>,
}

/// The engine's end of the channel.
pub struct Inlet {
    shared: Arc<Shared>,
}

/// What an [`Inlet`] gave.
#[derive(Debug)]
pub enum Received {
    /// Observations in processing order, never empty.
    Batch(Vec<Observation>),
    /// What a followed file gave.
    From(Batch),
    /// Nothing came in time.
    Timeout,
    /// Every sensor has ended and nothing is left.
    Closed,
}

/// A channel that holds at most `limit` bytes.
pub fn channel(limit: usize) -> (Outlet, Inlet) {
    let (ready, room) = (Condvar::new(), Condvar::new());
    let shared = Arc::new(Shared { queue: Mutex::default(), ready, room, limit });
    (Outlet { shared: Arc::clone(&shared) }, Inlet { shared })
}

impl Outlet {
    /// Hands an observation to the engine, or counts it as lost. Never blocks. `seq` is set here: the
    /// order of offering is the order of processing.
    pub fn offer(&self, at: Timestamp, sensor: &Arc<str>, actor: Option<Arc<Process>>, kind: Kind) {
        self.offer_all(sensor, [Offer { at, actor, kind }]);
    }

    /// The same for several, which the engine then gets together: it is woken once.
    pub fn offer_all(&self, sensor: &Arc<str>, offers: impl IntoIterator<Item = Offer>) {
        let mut queue = self.shared.lock();
        for Offer { at, actor, kind } in offers {
            let sheddable = kind.is_sheddable();
            let limit = if sheddable { self.shared.limit / 4 * 3 } else { self.shared.limit };
            let seq = queue.next_seq;
            let observation = Observation { at, seq, sensor: Arc::clone(sensor), actor, kind };
            let weight = observation.weight();
            if queue.bytes + weight > limit {
                queue.shed += 1;
                queue.shed_at = queue.shed_at.max(at);
            } else {
                queue.next_seq += 1;
                queue.bytes += weight;
                queue.waiting.push_back(observation);
            }
        }
        let any = !queue.waiting.is_empty() || queue.shed > 0;
        drop(queue);
        if any {
            self.shared.ready.notify_one();
        }
    }

    /// Hands over what a followed file gave, and waits until a quarter of the channel has room for it.
    /// False when the channel was closed meanwhile; the batch is dropped then.
    pub fn feed(&self, batch: Batch) -> bool {
        let bytes: usize = batch.observations.iter().map(Observation::weight).sum();
        let queue = self.shared.lock();
        let mut queue = self
            .shared
            .room
            .wait_while(queue, |queue| {
                let full = queue.batch_bytes + bytes > self.shared.limit / 4;
                full && !queue.batches.is_empty() && !queue.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return false;
        }
        queue.batch_bytes += bytes;
        queue.batches.push_back(batch);
        drop(queue);
        self.shared.ready.notify_one();
        true
    }

    /// Whether the engine has taken all that was fed.
    pub fn is_fed(&self) -> bool {
        self.shared.lock().batches.is_empty()
    }

    /// Reports that events were missed.
    pub fn lost(&self, at: Timestamp, sensor: &Arc<str>, count: u64, why: &str) {
        self.offer(at, sensor, None, Kind::Lost { count, why: Text::from(why) });
    }

    /// Bytes that wait for the engine.
    pub fn backlog(&self) -> usize {
        let queue = self.shared.lock();
        queue.bytes + queue.batch_bytes
    }

    /// Tells the engine that nothing more will come.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_all();
        self.shared.room.notify_all();
    }
}

impl Inlet {
    /// Waits up to `timeout` and takes all that is there.
    pub fn receive(&self, timeout: Duration) -> Received {
        let queue = self.shared.lock();
        let (mut queue, _) = self
            .shared
            .ready
            .wait_timeout_while(queue, timeout, |queue| {
                let empty = queue.waiting.is_empty() && queue.batches.is_empty();
                empty && queue.shed == 0 && !queue.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        // In turn with what sensors saw: neither waits for the other to be silent.
        queue.batch_next = !queue.batch_next;
        if (queue.batch_next || (queue.waiting.is_empty() && queue.shed == 0))
            && let Some(batch) = queue.batches.pop_front()
        {
            let bytes: usize = batch.observations.iter().map(Observation::weight).sum();
            queue.batch_bytes = queue.batch_bytes.saturating_sub(bytes);
            drop(queue);
            self.shared.room.notify_all();
            return Received::From(batch);
        }
        let mut batch: Vec<Observation> = std::mem::take(&mut queue.waiting).into();
        queue.bytes = 0;
        let shed = std::mem::take(&mut queue.shed);
        if shed > 0 {
            let seq = queue.next_seq;
            queue.next_seq += 1;
            batch.push(Observation {
                at: queue.shed_at,
                seq,
                sensor: Arc::from("channel"),
                actor: None,
                kind: Kind::Lost { count: shed, why: Text::from("channel full") },
            });
        }
        match (batch.is_empty(), queue.closed) {
            (false, _) => Received::Batch(batch),
            (true, true) => Received::Closed,
            (true, false) => Received::Timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::{Handle, HandleKind};

    #[test]
    fn a_flood_of_executions_cannot_hide_a_handle() {
        let (outlet, inlet) = channel(64 * 1024);
        let sensor: Arc<str> = Arc::from("test");
        for pid in 0..10_000 {
            let actor = Some(Arc::new(Process::from_pid(pid)));
            outlet.offer(Timestamp::from_secs(1), &sensor, actor, Kind::Executed);
        }
        let handle = Handle::new(HandleKind::PacketSocket, 7);
        let opened = Kind::HandleOpened { handle, pre_existing: false };
        outlet.offer(Timestamp::from_secs(2), &sensor, None, opened.clone());
        let Received::Batch(batch) = inlet.receive(Duration::ZERO) else { panic!("nothing came") };
        assert!(batch.iter().any(|o| o.kind == opened));
        let executed = batch.iter().filter(|o| o.kind == Kind::Executed).count() as u64;
        let Some(Kind::Lost { count, .. }) = batch.last().map(|o| o.kind.clone()) else {
            panic!("the loss is not reported")
        };
        assert_eq!(executed + count, 10_000);
        assert!(batch.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    }

    #[test]
    fn a_followed_file_waits_and_loses_nothing() {
        use crate::observation::{Origin, Os};

        let (outlet, inlet) = channel(64 * 1024);
        let origin =
            Arc::new(Origin { host: "h".into(), os: Os::Linux, os_version: None, boot_id: None });
        let batch = move |n| {
            let kind = Kind::Lost { count: n, why: Text::from("x") };
            let at = Timestamp::from_secs(1);
            let one = Observation { at, seq: n, sensor: "t".into(), actor: None, kind };
            Batch { origin: Arc::clone(&origin), observations: vec![one; 40] }
        };
        let last = batch(200);
        let feeder = outlet.clone();
        let thread = std::thread::spawn(move || (0..200).all(|n| feeder.feed(batch(n))));
        let sensor: Arc<str> = Arc::from("test");
        let mut fed = Vec::new();
        while fed.len() < 200 {
            // What sensors offer comes in between, and a flood of it hides no batch.
            outlet.offer(Timestamp::from_secs(1), &sensor, None, Kind::Running);
            assert!(outlet.backlog() <= 64 * 1024);
            match inlet.receive(Duration::from_secs(10)) {
                Received::From(batch) => fed.push(batch.observations[0].seq),
                Received::Batch(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(thread.join().unwrap() && outlet.is_fed());
        assert!(fed.is_sorted());
        // Nobody waits for room in a channel that is closed.
        outlet.close();
        assert!(!outlet.feed(last));
    }

    #[test]
    fn tells_the_end() {
        let (outlet, inlet) = channel(1024);
        assert!(matches!(inlet.receive(Duration::ZERO), Received::Timeout));
        outlet.close();
        assert!(matches!(inlet.receive(Duration::from_secs(60)), Received::Closed));
    }
}
