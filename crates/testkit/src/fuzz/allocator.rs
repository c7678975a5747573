//! Counts what each thread allocates.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; it hands everything on to the system's"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting. A test binary names it as its own:
///
/// ```ignore
/// #[global_allocator]
/// static ALLOCATOR: fleetlog_testkit::fuzz::CountingAllocator = fleetlog_testkit::fuzz::CountingAllocator;
/// ```
///
/// Memory that C libraries take for themselves is not seen.
pub struct CountingAllocator;

/// What was allocated by this thread while something was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Most bytes held at one time, beside what was held before.
    pub peak_bytes: usize,
    /// The largest single piece.
    pub largest_bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    is_on: bool,
    /// Signed: what was allocated before may be freed now.
    held_bytes: isize,
    peak_bytes: isize,
    largest_bytes: usize,
}

thread_local! {
    static COUNTS: Cell<Counts> =
        const { Cell::new(Counts { is_on: false, held_bytes: 0, peak_bytes: 0, largest_bytes: 0 }) };
}

/// Runs `what` and tells what this thread allocated meanwhile. Where the binary has another allocator, nothing.
pub fn measure<T>(what: impl FnOnce() -> T) -> (T, Memory) {
    COUNTS.set(Counts { is_on: true, ..Counts::default() });
    let done = what();
    let counts = COUNTS.replace(Counts::default());
    let peak_bytes = usize::try_from(counts.peak_bytes).unwrap_or(0);
    (done, Memory { peak_bytes, largest_bytes: counts.largest_bytes })
}

fn changed(taken_bytes: usize, given_back_bytes: usize) {
    // A thread that is ending has no counts any more.
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        if !counts.is_on {
            return;
        }
        // Both are sizes of layouts, at most isize::MAX.
        counts.held_bytes += taken_bytes.cast_signed() - given_back_bytes.cast_signed();
        counts.peak_bytes = counts.peak_bytes.max(counts.held_bytes);
        counts.largest_bytes = counts.largest_bytes.max(taken_bytes);
        cell.set(counts);
    });
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting neither allocates nor panics.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(layout.size(), 0);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        changed(layout.size(), 0);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        changed(0, layout.size());
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new may stand side by side while it is copied.
        changed(new_size, 0);
        changed(0, layout.size());
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_one_time_is_counted() {
        let ((), memory) = measure(|| {
            drop(std::hint::black_box(vec![0_u8; 1_000]));
            let held = std::hint::black_box((vec![1_u8; 300], vec![1_u8; 400]));
            drop(held);
        });
        assert_eq!(memory, Memory { peak_bytes: 1_000, largest_bytes: 1_000 });
        let before = vec![1_u8; 5_000];
        let ((), memory) = measure(|| {
            drop(std::hint::black_box(before));
            drop(std::hint::black_box(vec![1_u8; 4_000]));
        });
        assert_eq!(memory.peak_bytes, 0, "no more than was held before");
    }
}
