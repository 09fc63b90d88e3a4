//! llama.cpp's log: goes to tracing, and its last errors are kept, because a failed call returns no reason. And the worker's own
//! few lines.
#![expect(unsafe_code, reason = "llama.cpp takes a C callback")]

use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use llama_cpp_sys_2::{
    GGML_LOG_LEVEL_CONT, GGML_LOG_LEVEL_ERROR, GGML_LOG_LEVEL_WARN, ggml_log_level, llama_log_set,
};

use super::vision;
use crate::generation::seam::WARNING;

/// The latest error lines, oldest first.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A failure writes a handful of lines; more would be a flood.
const KEPT: usize = 16;

/// Takes llama.cpp's log over, for the whole process.
pub fn capture() {
    // SAFETY: `on_line` is a function, so it outlives every use, and it ignores its data pointer.
    unsafe { llama_log_set(Some(on_line), std::ptr::null_mut()) }
    vision::capture_log();
}

/// The error lines since the last call.
pub fn take_errors() -> Vec<String> {
    std::mem::take(&mut *ERRORS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Writes a line for the supervisor's log. To stdout, for what is on stderr is taken for the reason of the worker's end.
pub fn say(text: &str) {
    // Without a reader there is nobody to tell.
    writeln!(std::io::stdout(), "{text}").ok();
}

/// The same for what somebody should look into.
pub fn warn(text: &str) {
    say(&format!("{WARNING}{text}"));
}

/// Takes a line of the log.
pub(super) unsafe extern "C" fn on_line(level: ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends with NUL and lives until this returns.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = text.trim();
    match level {
        _ if line.is_empty() => {}
        GGML_LOG_LEVEL_ERROR => {
            tracing::error!(target: "llama.cpp", "{line}");
            let mut errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() == KEPT {
                errors.remove(0);
            }
            errors.push(line.to_owned());
        }
        GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        // Loading a model writes hundreds of lines of information.
        GGML_LOG_LEVEL_CONT => tracing::trace!(target: "llama.cpp", "{line}"),
        _ => tracing::debug!(target: "llama.cpp", "{line}"),
    }
}
