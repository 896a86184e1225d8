//! Windows events as JSON, one a line: the tree of the XML (evtx_dump, Chainsaw), Winlogbeat and Elastic
//! Agent (`winlog.event_data`), and flat records (NXLog and others).

use std::sync::Arc;

use bpfwatch_core::decoder::{Decoded, LineDecoder, LineError, Sequence};
use bpfwatch_core::observation::{Observation, Os};
use memchr::memmem;

use super::decode;
use super::script::Parts;

/// The format `windows-json`.
#[derive(Debug, Clone)]
pub struct WindowsJson {
    sensor: Arc<str>,
}

impl Default for WindowsJson {
    fn default() -> Self {
        Self { sensor: Arc::from("windows.json") }
    }
}

impl LineDecoder for WindowsJson {
    fn name(&self) -> &'static str {
        "windows-json"
    }

    fn sniff(&self, line: &[u8]) -> bool {
        let has = |key: &[u8]| memmem::find(line, key).is_some();
        line.starts_with(b"{")
            && ((has(b"\"winlog\"") && has(b"\"event_id\""))
                || (has(b"\"Event\"") && has(b"\"System\""))
                || ((has(b"\"EventID\"") || has(b"\"EventId\""))
                    && (has(b"\"Channel\"") || has(b"\"SourceName\"") || has(b"\"Provider"))))
    }

    fn os(&self) -> Option<Os> {
        Some(Os::Windows)
    }

    fn sequence(&self) -> Option<Box<dyn Sequence>> {
        Some(Box::new(Parts::default()))
    }

    fn decode(&self, line: &[u8], out: &mut Vec<Observation>) -> Result<Decoded, LineError> {
        decode::decode(&serde_json::from_slice(line)?, &self.sensor, out)
    }
}
