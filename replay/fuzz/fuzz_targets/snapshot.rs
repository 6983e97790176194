//! Loads whatever the fuzzer makes up as a snapshot: an error or a buffer, and no panic.
//!
//! The fuzzer's bytes are the header's content and the stream of pieces; checksums and lengths around them are made to
//! fit, or the fuzzer would never get past them. The first byte's highest bit says into which kind of buffer the file is
//! loaded, a `FrameReplay` if it is set, and the others how the stream is cut into blocks; 0 takes the rest as the whole
//! file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rl_replay::{Batch, Drawn, Dtype, FramePadding, FrameReplay, Prioritized, Replay, Rng, Schema};
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, rest)) = bytes.split_first() else { return };
    let (frames, cut) = (cut >> 7 == 1, usize::from(cut & 0x7f));
    let file = if cut == 0 { rest.to_vec() } else { framed(rest, cut) };
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("it");
    std::fs::write(&path, file).unwrap();
    if frames { load_frames(&path) } else { load_rows(&path) }
});

fn load_rows(path: &Path) {
    let schema = Schema::transition((Dtype::F32, &[3]), (Dtype::I64, &[])).unwrap();
    let replay = Replay::builder(schema).capacity(16).prioritized(Prioritized::default()).build().unwrap();
    match replay.load(path) {
        Ok(saved) => assert_eq!(saved.live, replay.live()),
        Err(_) => assert!(replay.is_empty()),
    }
}

fn load_frames(path: &Path) {
    let builder = FrameReplay::builder((Dtype::I32, &[3]), (Dtype::I64, &[])).stack(2).n_step(2, 0.9);
    let builder = builder.capacity(16).extra_frames(4).history(7).reserve(1).padding(FramePadding::Zero);
    let replay = builder.prioritized(Prioritized::default()).build().unwrap();
    match replay.load(path) {
        Ok(saved) => {
            assert_eq!(saved.live.end, replay.inserted());
            // What refers to no frame is refused when it is drawn.
            let mut batch = Batch::new(replay.schema(), 8);
            let mut rng: Rng = rand::SeedableRng::seed_from_u64(0);
            let _ = replay.sampler().sample_into(&mut rng, 8, &mut batch.view_mut(), &mut Drawn::default());
        }
        Err(_) => assert!((replay.inserted(), replay.inserted_frames()) == (0, 0)),
    }
}

/// A file as `src/file/format.rs` describes it, whose checksums fit.
fn framed(bytes: &[u8], cut: usize) -> Vec<u8> {
    let (meta, stream) = bytes.split_at(bytes.len().min(40));
    let mut file = b"rlreplay".to_vec();
    file.extend(2u32.to_le_bytes());
    file.extend((meta.len() as u32).to_le_bytes());
    file.extend(meta);
    file.extend(xxh3_64(&file).to_le_bytes());
    let mut id = Xxh3::new();
    id.update(&file);
    let mut blocks = 0u64;
    for stored in stream.chunks(cut) {
        let mut header = blocks.to_le_bytes().to_vec();
        header.extend((stored.len() as u32).to_le_bytes());
        header.extend((stored.len() as u32).to_le_bytes());
        header.extend(xxh3_64(stored).to_le_bytes());
        header.extend(xxh3_64(&header).to_le_bytes());
        id.update(&header);
        file.extend(header);
        file.extend(stored);
        blocks += 1;
    }
    let mut footer = b"endrepla".to_vec();
    footer.extend(blocks.to_le_bytes());
    footer.extend((file.len() as u64 + 40).to_le_bytes());
    footer.extend(id.digest().to_le_bytes());
    footer.extend(xxh3_64(&footer).to_le_bytes());
    file.extend(footer);
    file
}
