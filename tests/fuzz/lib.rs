//! The parser of key templates once more, where a fuzzer can instrument it: a procedural macro is built for the compiler itself,
//! without the flags. Its fuzz target stands with its other tests, as those of the header and of the stored outcome do.
//!
//! Each is a plain test, which tries about a second of random inputs. What follows the coverage is
//!
//! ```sh
//! cargo install cargo-bolero --no-default-features --features libfuzzer
//! fuzz() { cargo bolero test --sanitizer NONE -T 10min "$@"; }
//! fuzz -p effectively-fuzz template::tests::any_text_is_a_template_or_has_a_mistake
//! fuzz -p effectively --features axum web::header::tests::any_bytes_are_one_key_or_an_error_that_says_why
//! fuzz -p effectively --features axum model::recorded::tests::any_bytes_are_an_error_or_exactly_what_is_stored_again
//! ```
//!
//! No sanitizer, as no code here is unsafe, so that the pinned compiler will do. Inputs that it kept lie in `__fuzz__` beside the
//! source, and the plain test tries them too.

#![allow(dead_code, reason = "the macros use the rest of it")]

#[path = "../../macros/src/diag.rs"]
mod diag;
#[path = "../../macros/src/template.rs"]
mod template;
#[path = "../../macros/src/value_path.rs"]
mod value_path;
