//! Takes the process's address space away for a while: then there is none for a thread's stack.

use std::ffi::{c_int, c_long};

const RLIMIT_AS: c_int = 9;
const PAGE_SIZE: c_int = 30;

// With pointers to what the functions ask for, on targets of 64 bits.
extern "C" {
    fn getrlimit(resource: c_int, limit: *mut [u64; 2]) -> c_int;
    fn setrlimit(resource: c_int, limit: *const [u64; 2]) -> c_int;
    fn sysconf(name: c_int) -> c_long;
}

/// While this is there, the process gets no more than it had, and some room. The hard limit stays as it is: not everybody may raise it
/// again.
pub struct Limited([u64; 2]);

impl Limited {
    pub fn to(room: u64) -> Limited {
        let mut before = [0; 2];
        // SAFETY: there is room for two numbers.
        assert_eq!(unsafe { getrlimit(RLIMIT_AS, &mut before) }, 0);
        let limited = Limited(before);
        set([(in_use() + room).min(before[1]), before[1]]);
        limited
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        set(self.0);
    }
}

fn set(limit: [u64; 2]) {
    // SAFETY: two numbers, which are only read.
    assert_eq!(unsafe { setrlimit(RLIMIT_AS, &limit) }, 0);
}

fn in_use() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: no memory is passed.
    pages * unsafe { sysconf(PAGE_SIZE) } as u64
}
