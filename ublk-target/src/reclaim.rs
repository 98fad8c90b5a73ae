//! What a process must be when the kernel may have to write memory out through
//! it: under memory pressure dirty pages go to our block devices, so serving them
//! must not wait for memory that only comes free by serving them.
//!
//! | measure | what it keeps away |
//! |---|---|
//! | memory locked | a page of ours must be read back while nothing can be written |
//! | OOM score | the kernel kills us for memory, and with us what would free it |
//! | I/O flusher | an allocation in our system calls waits for writes to us |
//!
//! Each needs privilege. Contract: a refusal is an error here and changes nothing;
//! whether to go on without is the caller's choice.

use std::fs;
use std::io;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// `PR_SET_IO_FLUSHER` of `include/uapi/linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// `CAP_IPC_LOCK` of `include/uapi/linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;

/// Marks the calling thread, and those it starts from now on, as one that
/// writeback depends on. Needs `CAP_SYS_RESOURCE`.
///
/// # Errors
/// `EPERM` without the privilege.
pub fn io_flusher() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes integers only and touches no memory of ours.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, unused, unused, unused) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps all memory of the process, now and later, from being paged out; what has
/// never been touched takes no memory yet.
///
/// # Errors
/// `EPERM` when memory may be locked up to a limit only: the first allocation
/// beyond it would fail, which is worse than to be paged out.
pub fn lock_memory() -> io::Result<()> {
    if !unlimited_memlock() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?;
    Ok(())
}

/// Whether memory can be locked without a limit, after raising it if allowed.
fn unlimited_memlock() -> bool {
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK);
    raised.is_ok() || limit.is_ok_and(|(soft, _)| soft == RLIM_INFINITY) || may(CAP_IPC_LOCK)
}

/// Keeps the kernel from choosing this process when memory runs out.
///
/// # Errors
/// `EACCES` without `CAP_SYS_RESOURCE`.
pub fn refuse_oom_kill() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", "-1000")
}

/// Whether the process has a capability, by its number.
pub(crate) fn may(capability: u32) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| has(&status, capability))
}

fn has(status: &str, capability: u32) -> bool {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << capability) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP_SYS_RESOURCE: u32 = 24;

    #[test]
    fn capabilities_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t0000000000004000\n";
        assert!(has(status, CAP_IPC_LOCK));
        assert!(!has(status, CAP_SYS_RESOURCE));
        assert!(!has("", CAP_IPC_LOCK));
    }

    #[test]
    fn the_flusher_mark_needs_its_capability_and_says_so() {
        // In a thread of its own: the mark stays.
        let result = std::thread::spawn(io_flusher).join().unwrap();
        assert_eq!(result.is_ok(), may(CAP_SYS_RESOURCE), "{result:?}");
    }
}
