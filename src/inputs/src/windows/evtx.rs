//! EVTX files: a header of 4 KiB, then chunks of 64 KiB that stand each for itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bpfwatch_core::decoder::{Blocks, Decoded, LineDecoder, LineError, Record, Sequence};
use bpfwatch_core::observation::{Observation, Os};
use evtx::{EvtxChunkData, ParserSettings};

use super::script::Parts;
use super::{decode, layout};
use crate::text::first_line;

/// Bytes of a file's header and of a chunk. (libyal's description of the format, sections 2 and 3.)
const HEADER: usize = 4096;
const CHUNK: usize = 64 * 1024;
/// Bytes of what the parser says about a bad record that are passed on.
const REASON: usize = 200;

/// The format `evtx`.
#[derive(Debug, Clone)]
pub struct Evtx {
    sensor: Arc<str>,
}

impl Default for Evtx {
    fn default() -> Self {
        Self { sensor: Arc::from("windows.evtx") }
    }
}

impl LineDecoder for Evtx {
    fn name(&self) -> &'static str {
        "evtx"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        line.starts_with(b"ElfFile\0")
    }

    fn os(&self) -> Option<Os> {
        Some(Os::Windows)
    }

    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Parts::default()))
    }

    fn blocks(&self) -> Option<Blocks> {
        Some(Blocks::Fixed {
            header: HEADER,
            size: CHUNK,
            held: layout::held,
            whole: layout::whole,
        })
    }

    fn decode_block(&self, block: &[u8], receive: &mut dyn FnMut(Record)) {
        // Windows writes files in steps of a megabyte: what is not yet used is zero.
        if block.iter().all(|byte| *byte == 0) {
            return;
        }
        if block.len() < CHUNK {
            let left = block.len();
            return receive(bad(format!("the file ends within a chunk, after {left} bytes of it")));
        }
        let mut records = Vec::new();
        // The parser is not ours: if a hostile chunk gets the better of it, the next one goes on.
        let parsed = catch_unwind(AssertUnwindSafe(|| self.records(block, &mut records)));
        records.into_iter().for_each(&mut *receive);
        if parsed.is_err() {
            receive(bad("the parser of EVTX files gave up on this chunk"));
        }
    }

    fn decode(&self, _: &[u8], _: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        Err(LineError::new("an EVTX file has no lines"))
    }
}

impl Evtx {
    fn records(&self, block: &[u8], out: &mut Vec<Record>) {
        let settings = Arc::new(ParserSettings::new().num_threads(1).validate_checksums(false));
        let mut data = match EvtxChunkData::new(block.to_vec(), false) {
            Ok(data) => data,
            Err(error) => return out.push(bad(reason(&error))),
        };
        let mut chunk = match data.parse(settings) {
            Ok(chunk) => chunk,
            Err(error) => return out.push(bad(reason(&error))),
        };
        for record in chunk.iter() {
            match record.and_then(|record| record.into_json_value()) {
                Ok(record) => {
                    let number = Some(record.event_record_id);
                    let mut observations = Vec::new();
                    let decoded = decode::decode(&record.data, &self.sensor, &mut observations);
                    out.push(Record { number, observations, decoded });
                }
                Err(error) => out.push(bad(reason(&error))),
            }
        }
    }
}

fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    first_line(&text, REASON)
}

fn bad(what: impl Into<Box<str>>) -> Record {
    Record { number: None, observations: Vec::new(), decoded: Err(LineError::new(what)) }
}
