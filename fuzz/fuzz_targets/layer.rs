//! Layers' archives: what comes in, plain or compressed, comes out again byte for byte, or not at all where it names a file twice
//! (Docker refuses those), and nothing leads out of its folder.
#![no_main]

use std::io::Read;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use skep_fuzz::Yard;
use skep_images::{Import, is_archive, unpack_files};

static YARD: LazyLock<Yard> = LazyLock::new(Yard::default);

fuzz_target!(|bytes: &[u8]| {
    let compressed = !bytes.starts_with(b"\0") && !is_plain(bytes);
    if let Ok(id) = YARD.store.import(&mut &bytes[..], Import::default()) {
        let mut again = Vec::new();
        let mut layer = YARD.store.layer_archive(&id, 0).expect("the layer of a new image");
        if layer.read_to_end(&mut again).is_ok() {
            assert!(compressed || again == bytes, "a layer comes out as it came in");
        }
        drop(layer);
        assert!(!YARD.store.layer_paths(&id).expect("a new image").is_empty());
    }
    // The context of a build, and what ADD unpacks: names of whiteouts are names there.
    let _ = is_archive(&mut &bytes[..]);
    let _ = unpack_files(&mut &bytes[..], &YARD.files());
    YARD.check();
});

/// Whether the bytes begin as nothing does that is compressed.
fn is_plain(bytes: &[u8]) -> bool {
    !matches!(
        bytes,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, ..] | [0x50..=0x5f, 0x2a, ..] | [b'B', b'Z', ..] | [0xfd, b'7', ..]
    )
}
