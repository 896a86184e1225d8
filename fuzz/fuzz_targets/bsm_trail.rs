//! BSM records of any bytes: a trail cut into whole records, decoded and joined, as the reader of a replay
//! does; and the same as reads of an audit pipe give it, cut anywhere.
#![no_main]

use bpfwatch_bsd::audit::stream::Stream;
use bpfwatch_bsd::bsm::format::Bsm;
use bpfwatch_core::decoder::{Blocks, Decoded, LineDecoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for format in [Bsm::freebsd(), Bsm::macos()] {
        let _ = format.sniff(bytes);
        let Some(Blocks::Records(whole)) = format.blocks() else { panic!("not cut into records") };
        let end = whole(bytes);
        assert!(end <= bytes.len());
        let mut sequence = format.sequence().expect("descriptors are joined");
        let mut out = Vec::new();
        let mut left = bytes.len();
        for part in [&bytes[..end], &bytes[end..]] {
            format.decode_block(part, &mut |record| {
                // Each record or piece of damage has at least a byte of its own.
                left = left.checked_sub(1).expect("more records than bytes");
                let observed = matches!(record.decoded, Ok(Decoded::Observed));
                assert_eq!(observed, !record.observations.is_empty());
                for observation in record.observations {
                    sequence.pass(observation, &mut out);
                }
            });
        }
    }
    let pace = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
    let mut stream = Stream::new(0x1a, 0);
    let mut seen = Vec::new();
    for part in bytes.chunks(pace) {
        stream.take(part, &mut seen);
    }
    assert!(seen.len() <= bytes.len());
});
