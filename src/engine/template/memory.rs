//! [`limited`]: a limit on the memory that a rendering takes. The Jinja engine counts instructions, not the values that they
//! build, so thirty of them can double a text to more than any machine has. An allocation that fails ends the process in any case;
//! here that happens early, in words, and before other processes are short of memory. Clients send no Jinja: what exceeds the
//! limit is a broken or hostile model file, which in nearly all cases is found when it is loaded.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What every allocation costs beside its bytes. So the limit holds the number of values as well, and with it how deep one may be
/// nested, for dropping a nested list takes stack for each level.
const OVERHEAD: usize = 1 << 10;

/// Stack of the threads that render: 512 bytes for each level that `OVERHEAD` leaves of the limit on a short conversation.
/// Address space, of which nothing is used until it is needed.
pub const STACK: usize = 64 << 20;

const WORDS: &[u8] = b"arriero worker: the chat template takes more memory than any honest one\n";

thread_local! {
    /// What this thread may still allocate.
    static LEFT: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// Runs `work`, which may hold `bytes` of memory more at the end of any instant than at its start. Over that the process ends.
pub fn limited<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    /// Lifts the limit, after a panic too.
    struct Lift(isize);
    impl Drop for Lift {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let _lift = Lift(LEFT.replace(isize::try_from(bytes).unwrap_or(isize::MAX)));
    work()
}

/// The system's allocator, with an account of each thread.
struct Metered;

#[global_allocator]
static ALLOCATOR: Metered = Metered;

fn charge(bytes: usize) {
    let left = LEFT.get().saturating_sub_unsigned(bytes);
    LEFT.set(left);
    if left < 0 {
        give_up();
    }
}

fn refund(bytes: usize) {
    LEFT.set(LEFT.get().saturating_add_unsigned(bytes));
}

#[cold]
fn give_up() -> ! {
    // SAFETY: the bytes are there for as long as the program runs, and `_exit` asks nothing of its caller. Neither allocates.
    unsafe {
        libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
        libc::_exit(i32::from(crate::engine::FAILED))
    }
}

// SAFETY: all memory is the system allocator's, asked with the caller's own arguments. The accounting neither allocates (it is a
// thread-local without a destructor, initialised when compiled) nor unwinds.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(layout.size() + OVERHEAD);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(layout.size() + OVERHEAD);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        refund(layout.size() + OVERHEAD);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match size.checked_sub(layout.size()) {
            Some(more) => charge(more),
            None => refund(layout.size() - size),
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
