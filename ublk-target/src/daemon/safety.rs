//! Which protections the daemon got, tried once at its start.
//!
//! An ordinary user who serves NBD gets none of them and needs none: no memory
//! of this machine's kernel waits for NBD clients on a socket. So a refusal never
//! stops the daemon; it says what to do about it.

use std::io;

use super::mounts;
use crate::control::views::ProtectionsView;
use crate::reclaim;

/// Which protections are in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Safety {
    /// No memory of the daemon is paged out.
    pub memory_locked: bool,
    /// The kernel never kills it to get memory.
    pub oom_protected: bool,
    /// Its I/O threads never wait for writeback to themselves.
    pub io_flusher: bool,
    /// No file system on a device of its own is mounted in its sight.
    pub own_mounts: bool,
}

impl Safety {
    /// Tries everything; `isolate` is whether to get an own view of the mounts.
    /// Call it before any thread exists: they inherit what this thread gets.
    #[must_use]
    pub fn establish(isolate: bool) -> Self {
        let own_mounts = isolate
            && got(
                mounts::isolate(),
                "mounts cannot be kept apart",
                "run csnapd with CAP_SYS_ADMIN under systemd, or with --no-isolation",
            );
        let safety = Self {
            memory_locked: got(
                reclaim::lock_memory(),
                "memory cannot be locked",
                "run csnapd with CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK \
                 (LimitMEMLOCK=infinity)",
            ),
            oom_protected: got(
                reclaim::refuse_oom_kill(),
                "the kernel may kill csnapd when memory runs out",
                "run csnapd with CAP_SYS_RESOURCE, or set OOMScoreAdjust=-1000",
            ),
            io_flusher: got(
                reclaim::io_flusher(),
                "I/O threads may wait for writeback to themselves",
                "run csnapd with CAP_SYS_RESOURCE",
            ),
            own_mounts,
        };
        tracing::info!(
            memory_locked = safety.memory_locked,
            oom_protected = safety.oom_protected,
            io_flusher = safety.io_flusher,
            own_mounts = safety.own_mounts,
            "protections"
        );
        safety
    }
}

impl From<Safety> for ProtectionsView {
    fn from(safety: Safety) -> Self {
        Self {
            memory_locked: safety.memory_locked,
            oom_protected: safety.oom_protected,
            io_flusher: safety.io_flusher,
            own_mounts: safety.own_mounts,
        }
    }
}

/// Whether it worked; says so if not. Only a machine's own block devices need
/// these, and serving those needs privilege: to an ordinary user it is no warning.
fn got(result: io::Result<()>, what: &str, next: &str) -> bool {
    match result {
        Ok(()) => return true,
        Err(error) if nix::unistd::geteuid().is_root() => {
            tracing::warn!("{what}: {error}; {next}");
        }
        Err(error) => tracing::info!("{what}: {error}; for block devices {next}"),
    }
    false
}
