//! The same seeds in every process. Hash maps take theirs from the system's random bytes; with others they have other
//! collisions, which is half a percent of the count where one map is asked all the time.
//!
//! A symbol of this program alone: the product has no part in it.
#![expect(unsafe_code, reason = "the symbol by which the standard library asks for random bytes")]

use std::ffi::{c_uint, c_void};

/// In the place of the C library's, for what is linked statically: Rust's standard library.
///
/// # Safety
/// As getrandom(2) says: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: by this function's contract.
    unsafe { buffer.cast::<u8>().write_bytes(0x5a, length) };
    length.cast_signed()
}
