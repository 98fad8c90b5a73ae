//! The kernel's interface to ublk, as `include/uapi/linux/ublk_cmd.h` declares it
//! (Linux 7.2): numbers, records, and nothing that does anything.
//!
//! Every record is plain bytes ([`zerocopy`]); its size is asserted here, so a
//! field that moved does not compile.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Codes of control commands, as `_IOR`/`_IOWR('u', nr, struct ublksrv_ctrl_cmd)`.
pub mod command {
    use super::{CtrlCmd, read, read_write};

    /// `UBLK_U_CMD_GET_DEV_INFO`.
    pub const GET_INFO: u32 = read::<CtrlCmd>(0x02);
    /// `UBLK_U_CMD_ADD_DEV`.
    pub const ADD: u32 = read_write::<CtrlCmd>(0x04);
    /// `UBLK_U_CMD_DEL_DEV`: returns when nothing refers to the device any more.
    pub const DELETE: u32 = read_write::<CtrlCmd>(0x05);
    /// `UBLK_U_CMD_START_DEV`.
    pub const START: u32 = read_write::<CtrlCmd>(0x06);
    /// `UBLK_U_CMD_STOP_DEV`.
    pub const STOP: u32 = read_write::<CtrlCmd>(0x07);
    /// `UBLK_U_CMD_SET_PARAMS`.
    pub const SET_PARAMS: u32 = read_write::<CtrlCmd>(0x08);
    /// `UBLK_U_CMD_GET_PARAMS`.
    pub const GET_PARAMS: u32 = read::<CtrlCmd>(0x09);
    /// `UBLK_U_CMD_START_USER_RECOVERY`.
    pub const START_RECOVERY: u32 = read_write::<CtrlCmd>(0x10);
    /// `UBLK_U_CMD_END_USER_RECOVERY`.
    pub const END_RECOVERY: u32 = read_write::<CtrlCmd>(0x11);
    /// `UBLK_U_CMD_GET_DEV_INFO2`: the buffer begins with the path of the
    /// character device, `dev_path_len` bytes long.
    pub const GET_INFO2: u32 = read::<CtrlCmd>(0x12);
    /// `UBLK_U_CMD_GET_FEATURES`.
    pub const GET_FEATURES: u32 = read::<CtrlCmd>(0x13);
    /// `UBLK_U_CMD_DEL_DEV_ASYNC`.
    pub const DELETE_ASYNC: u32 = read::<CtrlCmd>(0x14);
    /// `UBLK_U_CMD_UPDATE_SIZE`: `data` is the new size in sectors.
    pub const UPDATE_SIZE: u32 = read_write::<CtrlCmd>(0x15);
    /// `UBLK_U_CMD_QUIESCE_DEV`: `data` is a time-out in milliseconds.
    pub const QUIESCE: u32 = read_write::<CtrlCmd>(0x16);
    /// `UBLK_U_CMD_TRY_STOP_DEV`: `EBUSY` while somebody has it open.
    pub const TRY_STOP: u32 = read_write::<CtrlCmd>(0x17);
}

/// Codes of I/O commands, as `_IOWR('u', nr, struct ublksrv_io_cmd)`.
pub mod io {
    use super::{IoCmd, read_write};

    /// `UBLK_U_IO_FETCH_REQ`.
    pub const FETCH: u32 = read_write::<IoCmd>(0x20);
    /// `UBLK_U_IO_COMMIT_AND_FETCH_REQ`.
    pub const COMMIT_AND_FETCH: u32 = read_write::<IoCmd>(0x21);
    /// `UBLK_U_IO_NEED_GET_DATA`: where the data of a write is to go.
    pub const NEED_GET_DATA: u32 = read_write::<IoCmd>(0x22);
    /// `UBLK_U_IO_REGISTER_IO_BUF`: `addr` is the index in the ring's table.
    pub const REGISTER_BUFFER: u32 = read_write::<IoCmd>(0x23);
    /// `UBLK_U_IO_UNREGISTER_IO_BUF`: `addr` is the index in the ring's table.
    pub const UNREGISTER_BUFFER: u32 = read_write::<IoCmd>(0x24);
}

/// Bits of `UBLK_F_*`: what driver and server agree on.
pub mod feature {
    /// Registration of request pages by command.
    pub const SUPPORT_ZERO_COPY: u64 = 1 << 0;
    /// The server says where a write's data goes when it has arrived.
    pub const NEED_GET_DATA: u64 = 1 << 2;
    /// The device outlives its server.
    pub const USER_RECOVERY: u64 = 1 << 3;
    /// Requests the old server had are issued again.
    pub const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    /// Made by an unprivileged user.
    pub const UNPRIVILEGED_DEV: u64 = 1 << 5;
    /// Commands carry `ioctl` encodings.
    pub const CMD_IOCTL_ENCODE: u64 = 1 << 6;
    /// Data moves by `pread` and `pwrite` on the character device.
    pub const USER_COPY: u64 = 1 << 7;
    /// A zoned device.
    pub const ZONED: u64 = 1 << 8;
    /// Without a server requests fail at once.
    pub const USER_RECOVERY_FAIL_IO: u64 = 1 << 9;
    /// The size can change while the device is there.
    pub const UPDATE_SIZE: u64 = 1 << 10;
    /// Request pages appear in the ring's buffer table by themselves.
    pub const AUTO_BUF_REG: u64 = 1 << 11;
    /// The server can stand aside in order.
    pub const QUIESCE: u64 = 1 << 12;
    /// Every tag may be served by a task of its own.
    pub const PER_IO_DAEMON: u64 = 1 << 13;
    /// Buffers may be registered by other tasks.
    pub const BUF_REG_OFF_DAEMON: u64 = 1 << 14;
    /// Fetch and commit many at once.
    pub const BATCH_IO: u64 = 1 << 15;
    /// Integrity metadata.
    pub const INTEGRITY: u64 = 1 << 16;
    /// Stop refuses while the device is open.
    pub const SAFE_STOP_DEV: u64 = 1 << 17;
    /// The kernel does not look for partitions.
    pub const NO_AUTO_PART_SCAN: u64 = 1 << 18;
    /// Zero copy from shared memory.
    pub const SHMEM_ZC: u64 = 1 << 19;
}

/// Values of `struct ublksrv_ctrl_dev_info.state`.
pub mod state {
    /// `UBLK_S_DEV_DEAD`: not started, or stopped.
    pub const DEAD: u16 = 0;
    /// `UBLK_S_DEV_LIVE`.
    pub const LIVE: u16 = 1;
    /// `UBLK_S_DEV_QUIESCED`: waits for a server.
    pub const QUIESCED: u16 = 2;
    /// `UBLK_S_DEV_FAIL_IO`.
    pub const FAIL_IO: u16 = 3;
}

/// Operations and flags of `struct ublksrv_io_desc.op_flags`.
pub mod op {
    /// The operation is in the low byte.
    pub const MASK: u32 = 0xff;
    /// `UBLK_IO_OP_READ`.
    pub const READ: u32 = 0;
    /// `UBLK_IO_OP_WRITE`.
    pub const WRITE: u32 = 1;
    /// `UBLK_IO_OP_FLUSH`.
    pub const FLUSH: u32 = 2;
    /// `UBLK_IO_OP_DISCARD`.
    pub const DISCARD: u32 = 3;
    /// `UBLK_IO_OP_WRITE_ZEROES`.
    pub const WRITE_ZEROES: u32 = 5;
    /// `UBLK_IO_F_FUA`.
    pub const FUA: u32 = 1 << 13;
    /// `UBLK_IO_F_NOUNMAP`: zeroes must keep their space.
    pub const NOUNMAP: u32 = 1 << 15;
    /// `UBLK_IO_F_NEED_REG_BUF`: automatic registration failed.
    pub const NEED_REG_BUF: u32 = 1 << 17;
}

/// Types and attributes of [`Params`].
pub mod param {
    /// `UBLK_PARAM_TYPE_BASIC`; mandatory.
    pub const BASIC: u32 = 1 << 0;
    /// `UBLK_PARAM_TYPE_DISCARD`.
    pub const DISCARD: u32 = 1 << 1;
    /// `UBLK_PARAM_TYPE_DMA_ALIGN`.
    pub const DMA_ALIGN: u32 = 1 << 4;
    /// `UBLK_PARAM_TYPE_SEGMENT`.
    pub const SEGMENT: u32 = 1 << 5;
    /// `UBLK_ATTR_READ_ONLY`.
    pub const READ_ONLY: u32 = 1 << 0;
    /// `UBLK_ATTR_ROTATIONAL`.
    pub const ROTATIONAL: u32 = 1 << 1;
    /// `UBLK_ATTR_VOLATILE_CACHE`.
    pub const VOLATILE_CACHE: u32 = 1 << 2;
    /// `UBLK_ATTR_FUA`.
    pub const FUA: u32 = 1 << 3;
}

/// Result of a fetch that brings a request (`UBLK_IO_RES_OK`).
pub const IO_OK: i32 = 0;
/// Result of a fetch that brings a write whose data is still with the driver
/// (`UBLK_IO_RES_NEED_GET_DATA`).
pub const IO_NEED_GET_DATA: i32 = 1;
/// Result of a fetch after which the tag is over (`UBLK_IO_RES_ABORT`).
pub const IO_ABORT: i32 = -libc::ENODEV;
/// `UBLK_AUTO_BUF_REG_FALLBACK`: a failed registration is told, not fatal.
pub const AUTO_BUF_REG_FALLBACK: u8 = 1 << 0;
/// `UBLK_MAX_QUEUE_DEPTH`.
pub const MAX_QUEUE_DEPTH: u16 = 4096;
/// Bytes of a sector everywhere in this interface.
pub const SECTOR: u64 = 512;

/// `struct ublksrv_ctrl_cmd`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtrlCmd {
    /// Which device; `u32::MAX` with ADD: the kernel chooses.
    pub dev_id: u32,
    /// Which queue; `u16::MAX` where none is meant.
    pub queue_id: u16,
    /// Bytes at `addr`.
    pub len: u16,
    /// A buffer of the command.
    pub addr: u64,
    /// A value of the command.
    pub data: u64,
    /// For unprivileged devices.
    pub dev_path_len: u16,
    /// Zero.
    pub pad: u16,
    /// Zero.
    pub reserved: u32,
}

/// `struct ublksrv_ctrl_dev_info`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DevInfo {
    /// Hardware queues.
    pub nr_hw_queues: u16,
    /// Tags of a queue.
    pub queue_depth: u16,
    /// See [`state`].
    pub state: u16,
    /// Zero.
    pub pad0: u16,
    /// Most bytes in one request.
    pub max_io_buf_bytes: u32,
    /// Its number: `/dev/ublkcN`, `/dev/ublkbN`.
    pub dev_id: u32,
    /// Process that serves it, or -1.
    pub ublksrv_pid: i32,
    /// Zero.
    pub pad1: u32,
    /// See [`feature`].
    pub flags: u64,
    /// The server's own; the driver only keeps it.
    pub ublksrv_flags: u64,
    /// User that made it.
    pub owner_uid: u32,
    /// Group that made it.
    pub owner_gid: u32,
    /// Zero.
    pub reserved: [u64; 2],
}

/// `struct ublksrv_io_desc`: one request, in the map shared with the driver.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoDesc {
    /// See [`op`].
    pub op_flags: u32,
    /// Sectors.
    pub nr_sectors: u32,
    /// First sector; see [`Self::bytes`].
    pub start_sector: u64,
    /// Where the server's buffer is.
    pub addr: u64,
}

impl IoDesc {
    /// First byte and number of bytes; `None` if there are no such bytes: a FLUSH
    /// comes with the last sector there could be.
    #[must_use]
    pub const fn bytes(&self) -> Option<(u64, u64)> {
        let len = self.nr_sectors as u64 * SECTOR;
        match self.start_sector.checked_mul(SECTOR) {
            Some(start) if start.checked_add(len).is_some() => Some((start, len)),
            _ => None,
        }
    }
}

/// `struct ublksrv_io_cmd`: the 16 bytes of an I/O command.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoCmd {
    /// Queue.
    pub q_id: u16,
    /// Tag in the queue.
    pub tag: u16,
    /// Bytes carried out, or a negative `errno`.
    pub result: i32,
    /// Where the data is or goes: copying only.
    pub addr: u64,
}

/// `struct ublk_param_basic`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ParamBasic {
    /// See [`param`].
    pub attrs: u32,
    /// Logarithm of the logical block size in bytes.
    pub logical_bs_shift: u8,
    /// Logarithm of the physical block size in bytes.
    pub physical_bs_shift: u8,
    /// Logarithm of the optimal size in bytes.
    pub io_opt_shift: u8,
    /// Logarithm of the least good size in bytes.
    pub io_min_shift: u8,
    /// Most sectors in a request.
    pub max_sectors: u32,
    /// Requests do not cross multiples of this many sectors; 0: they may.
    pub chunk_sectors: u32,
    /// Size in sectors.
    pub dev_sectors: u64,
    /// Segments begin and end at multiples of this plus one; 0: anywhere.
    pub virt_boundary_mask: u64,
}

/// `struct ublk_param_discard`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ParamDiscard {
    /// Bytes.
    pub discard_alignment: u32,
    /// Bytes; not 0.
    pub discard_granularity: u32,
    /// Most sectors in a discard; 0: none.
    pub max_discard_sectors: u32,
    /// Most sectors in a write-zeroes; 0: none.
    pub max_write_zeroes_sectors: u32,
    /// Must be 1.
    pub max_discard_segments: u16,
    /// Zero.
    pub reserved0: u16,
}

/// `struct ublk_params`. The parts csnap does not use are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Params {
    /// Bytes of this record that count.
    pub len: u32,
    /// See [`param`].
    pub types: u32,
    /// The disk itself.
    pub basic: ParamBasic,
    /// Discards and zeroes.
    pub discard: ParamDiscard,
    /// `struct ublk_param_devt`: filled in by the driver.
    pub devt: [u32; 4],
    /// `struct ublk_param_zoned`.
    pub zoned: [u8; 32],
    /// `struct ublk_param_dma_align.alignment`: a mask, size minus one.
    pub dma_alignment: u32,
    /// Zero.
    pub dma_pad: [u8; 4],
    /// Fills up to the next field's alignment.
    pub gap: [u8; 4],
    /// `struct ublk_param_segment.seg_boundary_mask`.
    pub seg_boundary_mask: u64,
    /// Most bytes of a segment.
    pub max_segment_size: u32,
    /// Most segments of a request.
    pub max_segments: u16,
    /// Zero.
    pub seg_pad: [u8; 2],
    /// `struct ublk_param_integrity`.
    pub integrity: [u8; 16],
}

/// Bytes of [`Params`] that Linux 6.12 knows.
pub const PARAMS_LEN_6_12: u32 = 108;

const _: () = {
    assert!(size_of::<CtrlCmd>() == 32);
    assert!(size_of::<DevInfo>() == 64);
    assert!(size_of::<IoDesc>() == 24);
    assert!(size_of::<IoCmd>() == 16);
    assert!(size_of::<ParamBasic>() == 32);
    assert!(size_of::<ParamDiscard>() == 20);
    assert!(size_of::<Params>() == 152);
    assert!(std::mem::offset_of!(Params, discard) == 40);
    assert!(std::mem::offset_of!(Params, dma_alignment) == PARAMS_LEN_6_12 as usize);
    assert!(std::mem::offset_of!(Params, seg_boundary_mask) == 120);
};

/// `_IOC(dir, 'u', nr, size)` of `asm-generic/ioctl.h`.
const fn ioc<T>(direction: u32, number: u32) -> u32 {
    direction << 30 | (size_of::<T>() as u32) << 16 | (b'u' as u32) << 8 | number
}

const fn read<T>(number: u32) -> u32 {
    ioc::<T>(2, number)
}

const fn read_write<T>(number: u32) -> u32 {
    ioc::<T>(3, number)
}

/// What a fetch tells the driver about automatic registration: goes into the
/// submission's own `addr` (`struct ublk_auto_buf_reg`).
#[must_use]
pub const fn auto_buffer(index: u16) -> u64 {
    index as u64 | (AUTO_BUF_REG_FALLBACK as u64) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_covers_no_bytes() {
        let mut flush = IoDesc {
            start_sector: u64::MAX,
            ..IoDesc::default()
        };
        assert_eq!(flush.bytes(), None);
        flush.start_sector = u64::MAX / 512;
        flush.nr_sectors = 1;
        assert_eq!(flush.bytes(), None);
        flush.start_sector = 3;
        assert_eq!(flush.bytes(), Some((1536, 512)));
    }

    /// What a C compiler makes of `_IOR` and `_IOWR` for these.
    #[test]
    fn command_codes_are_the_kernels() {
        assert_eq!(command::ADD, 0xc020_7504);
        assert_eq!(command::GET_FEATURES, 0x8020_7513);
        assert_eq!(command::START_RECOVERY, 0xc020_7510);
        assert_eq!(io::FETCH, 0xc010_7520);
        assert_eq!(io::COMMIT_AND_FETCH, 0xc010_7521);
        assert_eq!(auto_buffer(7), 0x1_0007);
    }
}
