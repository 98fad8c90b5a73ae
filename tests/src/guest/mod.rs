//! A virtual machine that has what this machine lacks: ublk, device mapper, a
//! kernel that may crash. Debian's cloud kernels in qemu without KVM, on a root
//! that holds the same libc as the host, any program inside, its output live.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cache`] | where everything fetched, built and logged is kept |
//! | [`host`] | what this machine must have installed |
//! | [`sources`], [`apt`] | packages of other suites, the machine's own apt untouched |
//! | [`kernels`], [`cpio`] | kernels, their modules and initramfs |
//! | [`root`] | the root image |
//! | [`payload`] | what changes from run to run |
//! | [`machine`] | qemu |
//! | [`console`] | what the guest says, live |
//! | [`mod@run`] | one run from start to end |
//! | [`judges`] | besides: programs of other suites that judge images |
//! | [`libnbd`] | besides: libnbd's own tests of servers |

pub mod apt;
pub mod cache;
pub mod console;
pub mod cpio;
pub mod error;
pub mod host;
pub mod judges;
pub mod kernels;
pub mod libnbd;
pub mod machine;
pub mod payload;
pub mod root;
pub mod run;
pub mod sources;
mod tool;
