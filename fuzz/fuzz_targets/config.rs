//! Images' configurations, as registries send them, and images' names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use skep_fuzz::Yard;
use skep_images::{Reference, layers_of};

static YARD: LazyLock<Yard> = LazyLock::new(Yard::default);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(reference) = text.parse::<Reference>() {
            let again: Reference = reference.familiar().parse().expect("a name that was written can be read");
            assert_eq!(again, reference);
        }
    }
    let layers = layers_of(bytes);
    let intake = YARD.store.intake().expect("a store");
    let committed = intake.commit(bytes.to_vec(), Vec::new(), Vec::new());
    assert_eq!(committed.is_ok(), layers.is_ok_and(|layers| layers.is_empty()), "no layer came");
    if let Ok(id) = committed {
        let image = YARD.store.find(&id.to_string()).expect("what was committed is there");
        assert_eq!((image.id, image.size), (id, 0));
        assert_eq!(YARD.store.raw_config(&id).expect("an image's configuration"), bytes);
    }
    YARD.check();
});
