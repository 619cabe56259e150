//! Whatever a server sends: frames are cut or refused, errors and parameters read or refused.
//!
//! The input's first byte says how the bytes arrive: all at once, or in pieces of that size.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailwater::postgres::wire::{frame::FrameBuffer, read_error, read_parameter};

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let mut buffer = FrameBuffer::new();
    let mut taken = 0;
    for mut rest in bytes.chunks(piece) {
        while !rest.is_empty() {
            let room = buffer.room();
            let count = room.len().min(rest.len());
            let (now, later) = rest.split_at(count);
            room[..count].copy_from_slice(now);
            buffer.filled(count);
            rest = later;
            loop {
                match buffer.next_frame() {
                    Ok(Some(frame)) => {
                        // A frame is its tag, its length and its body, and nothing is skipped.
                        taken += 5 + frame.body.len();
                        assert!(taken <= bytes.len());
                        let _ = read_error(frame.body);
                        let _ = read_parameter(frame.body);
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    }
});
