//! Lines of eslogger output, of any bytes: recognised, decoded and brought in order, as the reader of a
//! recording does.
#![no_main]

use bpfwatch_core::decoder::{Decoded, LineDecoder};
use bpfwatch_macos::eslogger::Eslogger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let decoder = Eslogger::default();
    let mut sequence = decoder.sequence();
    let (mut decoded, mut ordered) = (Vec::new(), Vec::new());
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = decoder.sniff(line);
        match decoder.decode(line, &mut decoded) {
            Ok(Decoded::Observed) => assert!(!decoded.is_empty()),
            Ok(_) => assert!(decoded.is_empty()),
            Err(error) => {
                let _ = error.to_string();
                decoded.clear();
            }
        }
        for observation in decoded.drain(..) {
            match &mut sequence {
                Some(sequence) => sequence.pass(observation, &mut ordered),
                None => ordered.push(observation),
            }
        }
    }
});
