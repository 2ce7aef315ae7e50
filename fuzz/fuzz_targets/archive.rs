//! What `docker load` reads: archives of Docker's kind and of OCI's, with layers in them. A load that fails leaves nothing.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use skep_fuzz::Yard;

static YARD: LazyLock<Yard> = LazyLock::new(Yard::default);

fuzz_target!(|bytes: &[u8]| {
    match YARD.store.load(&mut &bytes[..], &mut |_| {}) {
        Ok(loaded) => {
            for image in loaded {
                assert!(!image.lines().is_empty(), "a load tells what it loaded");
                let found = YARD.store.find(&image.id.to_string()).expect("what was loaded is there");
                assert_eq!(found.id, image.id);
                for name in image.references {
                    // A later image of the same archive may have taken the name.
                    YARD.store.resolve(&name.reference.familiar()).expect("a name that was loaded is there");
                }
            }
        }
        Err(_) => assert!(YARD.store.list().expect("a store").is_empty(), "nothing of it is visible"),
    }
    YARD.check();
});
