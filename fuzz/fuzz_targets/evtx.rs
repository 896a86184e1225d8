//! A chunk of an EVTX file, of any bytes.
#![no_main]

use bpfwatch_core::decoder::LineDecoder;
use bpfwatch_inputs::windows::Evtx;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let decoder = Evtx::default();
    let _ = decoder.sniff(bytes);
    // The parser wants whole chunks: the rest of one is zero.
    let mut chunk = bytes.to_vec();
    chunk.resize(64 * 1024, 0);
    chunk[..8].copy_from_slice(b"ElfChnk\0");
    decoder.decode_block(&chunk, &mut |record| {
        let _ = record.decoded.map_err(|error| error.to_string());
    });
});
