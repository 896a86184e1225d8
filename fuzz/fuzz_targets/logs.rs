//! Lines of each log format, of any bytes: the first byte says which. Recognised, decoded, brought in
//! order and written down, as the reader of a replay does.
#![no_main]

use bpfwatch_core::decoder::{Decoded, LineDecoder};
use bpfwatch_core::observation::Observation;
use bpfwatch_core::time::Timestamp;
use bpfwatch_inputs::auditd::Auditd;
use bpfwatch_inputs::kubernetes::KubernetesAudit;
use bpfwatch_inputs::network::NetworkSyslog;
use bpfwatch_inputs::windows::WindowsJson;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let decoder: Box<dyn LineDecoder> = match which % 4 {
        0 => Box::new(Auditd::default()),
        1 => Box::new(KubernetesAudit::default()),
        2 => Box::new(WindowsJson::default()),
        _ => Box::new(NetworkSyslog::new(Timestamp::from_secs(1_800_000_000))),
    };
    let mut sequence = decoder.sequence();
    let (mut decoded, mut ordered) = (Vec::new(), Vec::new());
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = decoder.sniff(line);
        match decoder.decode(line, &mut decoded) {
            Ok(Decoded::Observed | Decoded::From(_)) => assert!(!decoded.is_empty()),
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
    if let Some(sequence) = &mut sequence {
        sequence.flush(&mut ordered);
    }
    // What was decoded can be recorded, and reads back as what it was.
    for observation in ordered {
        let json = serde_json::to_string(&observation).expect("serialises");
        let back: Observation = serde_json::from_str(&json).expect("reads back");
        assert_eq!(back, observation);
    }
});
