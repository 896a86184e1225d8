//! Chunks are decoded on several threads and come back in the order of the file.
//!
//! Each worker takes the next chunk from the source itself, under a lock, decodes it and hands in the
//! result. How far the workers may run ahead of the delivery is bounded in chunks and in bytes, so
//! that memory does not grow with the file.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bpfwatch_core::decoder::LineDecoder;

use crate::chunk::{self, Parsed};
use crate::source::{Chunk, Cutter};

/// Bytes of chunks that may be under way; one chunk always may.
const BYTES_UNDER_WAY: usize = 24 * 1024 * 1024;
/// Buffers beyond this size are given back after use.
const BUFFER_KEPT: usize = 1024 * 1024;

/// How decoding a source ended.
pub(crate) enum End {
    /// All of it was delivered.
    Complete,
    /// The receiver wanted no more.
    Stopped,
    /// Reading failed; what was read before was delivered.
    Failed(io::Error),
    /// A worker panicked.
    Worker,
}

/// Decodes all that `cutter` gives with `workers` threads and hands each chunk to `deliver`, on the
/// calling thread and in order.
pub(crate) fn run(
    mut cutter: Cutter,
    decoder: &dyn LineDecoder,
    workers: usize,
    deliver: &mut dyn FnMut(Parsed) -> ControlFlow<()>,
) -> End {
    if workers < 2 {
        let mut chunk = Chunk::default();
        loop {
            match next(&mut cutter, &mut chunk) {
                Ok(None) => return End::Complete,
                Err(error) => return End::Failed(error),
                Ok(Some(read)) => {
                    let parsed = Parsed { read, ..chunk::parse(&chunk, decoder) };
                    give_back(&mut chunk);
                    if deliver(parsed).is_break() {
                        return End::Stopped;
                    }
                }
            }
        }
    }
    let shared = Shared {
        cutter: Mutex::new((cutter, 0)),
        state: Mutex::default(),
        room: Condvar::new(),
        ready: Condvar::new(),
        ahead: workers + 2,
    };
    std::thread::scope(|scope| {
        let start = |_| {
            scope.spawn(|| {
                let guard = OnPanic(&shared);
                shared.work(decoder);
                std::mem::forget(guard);
            })
        };
        let workers: Vec<_> = (0..workers).map(start).collect();
        let end = shared.deliver(deliver);
        shared.lock().stop = true;
        shared.room.notify_all();
        // Joined by hand: the scope would hand a worker's panic on to the caller.
        let panics = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        if panics == 0 { end } else { End::Worker }
    })
}

/// The next chunk and how many bytes were read when it was complete.
fn next(cutter: &mut Cutter, chunk: &mut Chunk) -> io::Result<Option<u64>> {
    Ok(cutter.next(chunk)?.then_some(cutter.bytes))
}

fn give_back(chunk: &mut Chunk) {
    if chunk.bytes.capacity() > BUFFER_KEPT {
        chunk.bytes = Vec::new();
    }
}

struct Shared {
    /// The source, and the number of the next chunk.
    cutter: Mutex<(Cutter, u64)>,
    state: Mutex<State>,
    /// A chunk was delivered: another may be read.
    room: Condvar,
    /// A result was handed in.
    ready: Condvar,
    /// How many chunks may be under way.
    ahead: usize,
}

#[derive(Default)]
struct State {
    /// Results not yet delivered, with the size of their chunks.
    results: BTreeMap<u64, (usize, Parsed)>,
    /// Chunks and bytes read but not yet delivered.
    chunks: usize,
    bytes: usize,
    /// Number of chunks in the source, known at its end.
    total: Option<u64>,
    failed: Option<io::Error>,
    panicked: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker that panics holds no half-done change: see `OnPanic`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, decoder: &dyn LineDecoder) {
        let mut chunk = Chunk::default();
        while let Some((number, read)) = self.take(&mut chunk) {
            let size = chunk.bytes.len();
            let parsed = Parsed { read, ..chunk::parse(&chunk, decoder) };
            give_back(&mut chunk);
            self.lock().results.insert(number, (size, parsed));
            self.ready.notify_one();
        }
    }

    /// Waits for room and reads the next chunk; `None` at the end.
    fn take(&self, chunk: &mut Chunk) -> Option<(u64, u64)> {
        let mut source = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.lock();
        let state = self
            .room
            .wait_while(state, |state| {
                let full = state.chunks >= self.ahead || state.bytes >= BYTES_UNDER_WAY;
                state.chunks > 0 && full && !state.stop
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.stop || state.total.is_some() {
            return None;
        }
        drop(state);
        let (cutter, count) = &mut *source;
        let got = next(cutter, chunk);
        let mut state = self.lock();
        match got {
            Ok(Some(read)) => {
                let number = *count;
                *count += 1;
                state.chunks += 1;
                state.bytes += chunk.bytes.len();
                return Some((number, read));
            }
            Ok(None) => {}
            Err(error) => state.failed = Some(error),
        }
        state.total = Some(*count);
        drop(state);
        self.ready.notify_one();
        None
    }

    fn deliver(&self, deliver: &mut dyn FnMut(Parsed) -> ControlFlow<()>) -> End {
        let mut number = 0;
        loop {
            let state = self.lock();
            let mut state = self
                .ready
                .wait_while(state, |state| {
                    !state.results.contains_key(&number)
                        && state.total != Some(number)
                        && !state.panicked
                })
                .unwrap_or_else(PoisonError::into_inner);
            let Some((size, parsed)) = state.results.remove(&number) else {
                return match state.failed.take() {
                    _ if state.panicked => End::Worker,
                    Some(error) => End::Failed(error),
                    None => End::Complete,
                };
            };
            drop(state);
            number += 1;
            let flow = deliver(parsed);
            let mut state = self.lock();
            state.chunks -= 1;
            state.bytes -= size;
            drop(state);
            self.room.notify_one();
            if flow.is_break() {
                return End::Stopped;
            }
        }
    }
}

/// Dropped only by unwinding: tells the receiver that a result will never come.
struct OnPanic<'a>(&'a Shared);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.panicked = true;
        state.stop = true;
        drop(state);
        self.0.ready.notify_all();
        self.0.room.notify_all();
    }
}
