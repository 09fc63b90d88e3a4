//! [`Trap`]: turns a crash of foreign code into the worker's last words. llama.cpp ends the process where a file does not fit what it
//! takes for granted; the supervisor should hear which file that was, not the number of a signal.
#![expect(unsafe_code, reason = "signal handlers")]

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use llama_cpp_sys_2::{ggml_abort_callback_t, ggml_set_abort_callback};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::engine::FAILED;

/// How foreign code ends a process.
const CRASHES: [Signal; 5] =
    [Signal::SIGABRT, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL];

/// What is said; the first time counts, for a worker has one projector.
static WORDS: OnceLock<String> = OnceLock::new();

/// While it lives, a crash ends the process with words and an exit code.
pub struct Trap {
    callback: ggml_abort_callback_t,
    actions: Vec<(Signal, SigAction)>,
}

impl Trap {
    /// Sets it; `words` say what is being done.
    pub fn set(words: &str) -> Self {
        WORDS.get_or_init(|| format!("arriero worker: {words}: llama.cpp cannot compute with it"));
        // Rust gives its threads a stack for signals, for the case that their own is what ran out.
        let action = SigAction::new(SigHandler::Handler(on_crash), SaFlags::SA_ONSTACK, SigSet::empty());
        let replace = |signal| {
            // SAFETY: the handler does nothing but what a signal handler may do.
            unsafe { sigaction(signal, &action) }.ok().map(|before| (signal, before))
        };
        let actions = CRASHES.into_iter().filter_map(replace).collect();
        // SAFETY: the callback is a function, so it outlives every use.
        let callback = unsafe { ggml_set_abort_callback(Some(on_abort)) };
        Self { callback, actions }
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        for (signal, before) in &self.actions {
            // SAFETY: it is what was there before. An error would mean that it still is the trap, which is as good.
            let _ = unsafe { sigaction(*signal, before) };
        }
        // SAFETY: as above.
        unsafe { ggml_set_abort_callback(self.callback) };
    }
}

/// A failed assertion: llama.cpp says which.
unsafe extern "C" fn on_abort(message: *const c_char) {
    // SAFETY: ggml passes a string that ends with NUL.
    let message = unsafe { CStr::from_ptr(message) };
    end(message.to_bytes())
}

extern "C" fn on_crash(_: c_int) {
    end(b"")
}

/// Writes the words and ends the process at once, with nothing but what a signal handler may call.
fn end(reason: &[u8]) -> ! {
    let words = WORDS.get().map_or(&b""[..], |words| words.as_bytes());
    let pieces = [words, if reason.is_empty() { b"" } else { b": " }, reason, b"\n"];
    for piece in pieces {
        // SAFETY: as many bytes are there. What cannot be written nobody hears.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, piece.as_ptr().cast(), piece.len()) };
    }
    // SAFETY: it asks nothing of its caller.
    unsafe { libc::_exit(c_int::from(FAILED)) }
}
