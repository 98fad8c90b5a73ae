//! The simulated world, the harness of the end-to-end tests, the benchmarks.
//!
//! The world runs the snapshot engine against disks that lose, tear and reorder
//! writes, by one thread, from one seed. It is a pure function of its seed: no
//! threads, no clock, no system calls. What fails once fails again with the seed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`sim::dice`] | every random choice |
//! | [`sim::value`] | contents of sectors, and their short names |
//! | [`sim::disk`] | a disk with a volatile cache, power cuts and faults |
//! | [`sim::daemon`] | what a world needs of whatever runs the engine |
//! | [`sim::runtime`] | a stand-in for csnapd's lanes: carries out the engine's effects |
//! | [`sim::lanes`] | csnapd's own lanes and core, several of them, by one thread |
//! | [`sim::oracle`] | naive: what every view may show |
//! | [`sim::world`] | commands, crashes and comparisons tied together |
//! | [`sim::recovery`] | opening what a crash left |
//! | [`sim::found`] | what is found there, and whether it may be |
//! | [`sim::exhaust`] | tiny worlds, with every crash there can be |
//! | [`sim::defect`] | defects planted on purpose, to prove the world sees them |
//! | [`memory`] | a device in memory |
//! | [`golden`] | small stores kept in the tree, and what they must show |
//! | [`e2e`] | driving the real programs and the tools others wrote |
//! | [`guest`] | the virtual machine with the kernels csnap is for |
//! | [`cut`] | the states a power cut may leave, from a log of writes, and their judge |
//! | [`guest_bed`] | the same on block devices, inside the guest |
//! | [`mod@bench`] | measuring csnapd beside qemu |
//! | [`scale`] | the engine with many snapshots, many exceptions, a large volume |
#![forbid(unsafe_code)]

pub mod bench;
pub mod cut;
pub mod e2e;
pub mod golden;
pub mod guest;
pub mod guest_bed;
pub mod memory;
pub mod scale;
pub mod sim;
