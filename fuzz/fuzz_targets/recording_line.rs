//! Lines of a recording, of any bytes: an observation that is read is the same after it was written and
//! read again, and goes through the pipeline, whatever it says.
#![no_main]

use std::sync::Arc;

use bpfwatch_core::observation::{Observation, Origin, Os};
use bpfwatch_core::pipeline::{Batch, Pipeline, Settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n');
    let observations: Vec<Observation> =
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    for observation in &observations {
        let printed = serde_json::to_vec(observation).expect("an observation can be written");
        let again: Observation =
            serde_json::from_slice(&printed).expect("what was written can be read");
        assert_eq!(*observation, again);
    }
    let origin =
        Arc::new(Origin { host: "host".into(), os: Os::Linux, os_version: None, boot_id: None });
    let mut pipeline = Pipeline::new(Arc::default(), Settings::default());
    let mut out = |line| {
        serde_json::to_vec(&line).expect("a line can be written");
    };
    let last = observations.iter().map(|observation| observation.at).max();
    pipeline.feed(Batch { origin, observations }, &mut out);
    for session in last.map(|now| pipeline.sessions(now)).unwrap_or_default() {
        serde_json::to_vec(&session).expect("a session can be written");
    }
    let state = pipeline.state();
    pipeline.finish(&mut out);
    let mut restarted = Pipeline::new(Arc::default(), Settings::default());
    restarted.restore(&state).expect("a state can be taken back");
});
