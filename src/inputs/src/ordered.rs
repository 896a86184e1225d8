//! Chunks are decoded on several threads and come back in the order of the file.
//!
//! Each worker takes the next chunk from the source itself, under a lock, decodes it and hands in the
//! result. The calling thread delivers, and decodes where nothing is ready: so there are as many
//! threads as cores, and none is in the way of the one that everything waits for. How far the workers may run ahead of the delivery is bounded in chunks and in bytes, so
//! that memory does not grow with the file.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// Decodes all that `cutter` gives with `threads` threads, the calling one included, and hands each
/// chunk to `deliver`, on the calling thread and in order.
pub(crate) fn run(
    mut cutter: Cutter,
    decoder: &dyn LineDecoder,
    threads: usize,
    deliver: &mut dyn FnMut(Parsed) -> ControlFlow<()>,
) -> End {
    if threads < 2 {
        let mut chunk = Chunk::default();
        loop {
            match next(&mut cutter, &mut chunk) {
                Ok(None) => return End::Complete,
                Err(error) => return End::Failed(error),
                Ok(Some(read)) => {
                    let Some(parsed) = decode(&mut chunk, read, decoder) else {
                        return End::Worker;
                    };
                    if deliver(parsed).is_break() {
                        return End::Stopped;
                    }
                }
            }
        }
    }
    // A read from a pipe may wait, and would hold up what is ready: then the calling thread reads none.
    let helps = cutter.is_regular();
    let shared = Shared {
        cutter: Mutex::new((cutter, 0)),
        state: Mutex::default(),
        room: Condvar::new(),
        ready: Condvar::new(),
        ahead: threads + 2,
    };
    std::thread::scope(|scope| {
        let start = |_| scope.spawn(|| shared.work(decoder));
        let workers: Vec<_> = (1..threads).map(start).collect();
        let guard = Stop(&shared);
        let end = shared.deliver(helps.then_some(decoder), deliver);
        drop(guard);
        // Joined by hand: the scope would hand a worker's panic on to the caller.
        let panics = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        if panics == 0 { end } else { End::Worker }
    })
}

/// The next chunk and how many bytes were read when it was complete.
fn next(cutter: &mut Cutter, chunk: &mut Chunk) -> io::Result<Option<u64>> {
    Ok(cutter.next(chunk)?.then_some(cutter.bytes))
}

/// Decodes a chunk; `None` when the decoder panicked, which must not be taken for the end of the file.
fn decode(chunk: &mut Chunk, read: u64, decoder: &dyn LineDecoder) -> Option<Parsed> {
    // What a panic leaves of the chunk is not looked at.
    let parsed = catch_unwind(AssertUnwindSafe(|| chunk::parse(chunk, decoder))).ok()?;
    if chunk.bytes.capacity() > BUFFER_KEPT {
        chunk.bytes = Vec::new();
    }
    Some(Parsed { read, ..parsed })
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
        // Whoever panics while holding it has changed nothing by halves: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, decoder: &dyn LineDecoder) {
        let mut chunk = Chunk::default();
        loop {
            let source = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
            let state = self.lock();
            let state = self
                .room
                .wait_while(state, |state| self.is_full(state) && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            drop(state);
            let Some((number, read)) = self.take(source, &mut chunk) else { return };
            self.decode(number, read, &mut chunk, decoder);
        }
    }

    /// Decodes one chunk if there is one to be had at once; whether there was.
    fn help(&self, chunk: &mut Chunk, decoder: &dyn LineDecoder) -> bool {
        let Ok(source) = self.cutter.try_lock() else { return false };
        if self.is_full(&self.lock()) {
            return false;
        }
        let Some((number, read)) = self.take(source, chunk) else { return false };
        self.decode(number, read, chunk, decoder);
        true
    }

    fn decode(&self, number: u64, read: u64, chunk: &mut Chunk, decoder: &dyn LineDecoder) {
        let size = chunk.bytes.len();
        let parsed = decode(chunk, read, decoder);
        let mut state = self.lock();
        match parsed {
            Some(parsed) => {
                state.results.insert(number, (size, parsed));
            }
            None => {
                state.panicked = true;
                state.stop = true;
            }
        }
        drop(state);
        self.ready.notify_one();
    }

    fn is_full(&self, state: &State) -> bool {
        let full = state.chunks >= self.ahead || state.bytes >= BYTES_UNDER_WAY;
        state.chunks > 0 && full
    }

    /// Reads the next chunk: its number and how far the source was read; `None` at the end.
    fn take(
        &self,
        mut source: MutexGuard<'_, (Cutter, u64)>,
        chunk: &mut Chunk,
    ) -> Option<(u64, u64)> {
        let state = self.lock();
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

    /// Delivers in order; decodes with `helper` meanwhile.
    fn deliver(
        &self,
        helper: Option<&dyn LineDecoder>,
        deliver: &mut dyn FnMut(Parsed) -> ControlFlow<()>,
    ) -> End {
        let mut chunk = Chunk::default();
        let mut number = 0;
        loop {
            let ready = self.lock().results.contains_key(&number);
            if !ready && helper.is_some_and(|decoder| self.help(&mut chunk, decoder)) {
                continue;
            }
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

/// Ends the workers when the delivery is over, by a panic of the receiver too: else they would wait for
/// room, and the panic for them.
struct Stop<'a>(&'a Shared);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.room.notify_all();
    }
}
