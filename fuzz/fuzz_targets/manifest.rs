//! Manifests and indexes, as registries send them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_registry::{Document, Manifest, docker_manifest};

fuzz_target!(|bytes: &[u8]| {
    match Document::parse(bytes) {
        Ok(Document::Image(Manifest { config, layers })) => {
            let written = docker_manifest(config.clone(), layers.clone());
            let again = Document::parse(&written).expect("a manifest that was written can be read");
            assert_eq!(again, Document::Image(Manifest { config, layers }));
        }
        Ok(Document::Index(entries)) => {
            for entry in entries {
                let _ = entry.platform.map(|platform| platform.to_string());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
});
