//! Counts what the program allocates: an allocator that hands on to the system's. With the engine there is one already, which keeps
//! accounts of templates, and nothing is counted here.
#![cfg_attr(
    not(feature = "engine"),
    expect(unsafe_code, reason = "an allocator cannot be implemented without; it only counts")
)]

#[cfg(not(feature = "engine"))]
pub use counting::count;

/// Allocations so far, if they are counted.
#[cfg(feature = "engine")]
pub fn count() -> Option<u64> {
    None
}

#[cfg(not(feature = "engine"))]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Counting;

    static COUNT: AtomicU64 = AtomicU64::new(0);

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // SAFETY: every call is handed on to the system's allocator as it is, which keeps the contract.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            COUNT.fetch_add(1, Ordering::Relaxed);
            // SAFETY: as the caller promised.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: as the caller promised.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    /// Allocations until now.
    pub fn count() -> Option<u64> {
        Some(COUNT.load(Ordering::Relaxed))
    }
}
