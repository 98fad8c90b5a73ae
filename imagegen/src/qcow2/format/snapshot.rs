//! Internal snapshots (specification: "Snapshots"): entry, extra data, id, name, each entry
//! padded to 8 bytes.

use super::{U16, U32, U64, on_disk, size};

on_disk! {
    /// What an entry of the snapshot table begins with.
    pub struct SnapshotEntry {
        /// Byte of its level 1 table.
        pub l1_table_offset: U64,
        /// Entries of that table.
        pub l1_size: U32,
        /// Bytes of its id, a number as text.
        pub id_size: U16,
        /// Bytes of its name.
        pub name_size: U16,
        /// When it was taken: seconds since 1970.
        pub date_sec: U32,
        /// And nanoseconds.
        pub date_nsec: U32,
        /// Nanoseconds the guest had run.
        pub vm_clock_nsec: U64,
        /// Bytes of the machine's state, if 32 bits were enough.
        pub vm_state_size: U32,
        /// Bytes of extra data.
        pub extra_size: U32,
    }
}
size!(SnapshotEntry, 40);

on_disk! {
    /// Extra data, as far as it is there; version 3 has the first two.
    pub struct SnapshotExtra {
        /// Bytes of the machine's state.
        pub vm_state_size: U64,
        /// Bytes of the disk when it was taken.
        pub disk_size: U64,
        /// Instructions the guest had run; all ones if unknown.
        pub icount: U64,
    }
}
size!(SnapshotExtra, 24);
