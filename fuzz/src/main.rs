//! Hands libFuzzer's inputs to one property of `restante-fuzz-targets`, named by `RESTANTE_FUZZ_TARGET`.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use restante_fuzz_targets::{Target, target_named};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn target() -> &'static Target {
    let name = std::env::var("RESTANTE_FUZZ_TARGET").unwrap_or_default();
    target_named(&name).unwrap_or_else(|| {
        panic!("RESTANTE_FUZZ_TARGET={name:?} names no target; see crates/fuzz-targets/src/lib.rs")
    })
}

fuzz_target!(|bytes: &[u8]| {
    (TARGET.get_or_init(target).check)(bytes);
});
