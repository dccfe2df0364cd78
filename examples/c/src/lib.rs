//! Tokens for C. `cancel_tree.h` says what each function does; here is how: a `ct_token *` is the pointer of
//! [`CancellationToken::into_raw`], so that a token costs C what it costs Rust, and nothing is wrapped.
//!
//! A panic ends the process at `extern "C"`. Here only a callback could panic, and those are C's.

use cancel_tree::{CancellationToken, Registration};
use std::ffi::{c_char, c_void, CStr};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::time::Duration;

/// Lends the token that a pointer stands for.
///
/// # Safety
/// The pointer came from a function below, and has not been given to `ct_free`.
unsafe fn lend<'a>(token: *const ()) -> impl Deref<Target = CancellationToken> + 'a {
    // SAFETY: the caller's promise; it is not dropped, so the pointer's handle stays.
    ManuallyDrop::new(unsafe { CancellationToken::from_raw(token) })
}

#[no_mangle]
pub extern "C" fn ct_new() -> *const () {
    CancellationToken::new().into_raw()
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_child(token: *const ()) -> *const () {
    // SAFETY: the caller's promise.
    unsafe { lend(token) }.child_token().into_raw()
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_clone(token: *const ()) -> *const () {
    // SAFETY: the caller's promise.
    unsafe { lend(token) }.clone().into_raw()
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_free(token: *const ()) {
    if !token.is_null() {
        // SAFETY: the caller's promise: it is given back here, once.
        drop(unsafe { CancellationToken::from_raw(token) });
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_cancel(token: *const (), why: *const c_char) {
    // SAFETY: the caller's promise.
    let token = unsafe { lend(token) };
    if why.is_null() {
        token.cancel();
    } else {
        // SAFETY: the caller's promise: a string with its end.
        let why = unsafe { CStr::from_ptr(why) };
        token.cancel_with(why.to_string_lossy().into_owned());
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_is_cancelled(token: *const ()) -> bool {
    // SAFETY: the caller's promise.
    unsafe { lend(token) }.is_cancelled()
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_cause(token: *const (), to: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise.
    let cause = unsafe { lend(token) }.cause();
    let text = cause.map_or_else(String::new, |cause| cause.to_string());
    if let Some(room) = size.checked_sub(1) {
        let length = text.len().min(room);
        // SAFETY: the caller's promise: `size` bytes are at `to`, and C's memory is none of ours.
        unsafe {
            to.cast::<u8>()
                .copy_from_nonoverlapping(text.as_ptr(), length);
            to.add(length).write(0);
        }
    }
    text.len()
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_wait(token: *const ()) {
    // SAFETY: the caller's promise.
    unsafe { lend(token) }.blocking_wait();
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_wait_ms(token: *const (), milliseconds: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { lend(token) }.blocking_wait_timeout(Duration::from_millis(milliseconds))
}

/// What C gave for its callback.
struct Data(*mut c_void);

// SAFETY: the header says that the callback may run on any thread.
unsafe impl Send for Data {}

impl Data {
    /// By a method, so that a closure has all of it and not the pointer alone.
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_on_cancel(
    token: *const (),
    callback: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
) -> *mut Registration {
    let data = Data(data);
    // SAFETY: the caller's promises, of the token, and of what the callback may be called with.
    let registration = unsafe { lend(token) }.on_cancel(move || unsafe { callback(data.get()) });
    Box::into_raw(Box::new(registration))
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_stop_and_wait(registration: *mut Registration) -> bool {
    // SAFETY: the caller's promise: from `ct_on_cancel`, and given back here, once.
    unsafe { Box::from_raw(registration) }.stop_and_wait()
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn ct_leave(registration: *mut Registration) {
    // SAFETY: the caller's promise: from `ct_on_cancel`, and given back here, once.
    drop(unsafe { Box::from_raw(registration) });
}
