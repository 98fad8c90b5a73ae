//! The limits of the devices below as parameters of a ublk device.
//!
//! Contract: what is made here the driver takes (`ublk_validate_params` and the
//! block layer's `blk_validate_limits`), from Linux 6.1 on.
//!
//! Where the pages of a request go straight to the device below, they must suit
//! it: alignment and boundaries are then the origin's. Only the origin's, because
//! only the origin ever sees those pages: what is copied out to the store passes
//! through csnap's own buffers, which suit everything. Where data is copied none
//! of that is set: the driver's own defaults make the least fragments.

use zerocopy::FromZeros;

use super::UblkError;
use super::features::Features;
use super::limits::{LARGEST_BLOCK, Limits};
use super::uapi::{DevInfo, PARAMS_LEN_6_12, ParamBasic, ParamDiscard, Params, SECTOR, param};

/// The block layer refuses a largest request below a page.
const PAGE: u32 = 4096;
/// Most bytes in one discard or write of zeroes: in the worst case each chunk of
/// it is copied out first, and the request holds its tag that long.
const MAX_ZEROES: u64 = 32 << 20;
/// `UBLK_MIN_SEGMENT_SIZE`.
const MIN_SEGMENT: u32 = 4096;
/// Up to and with `struct ublk_param_segment`.
const LEN_SEGMENT: u32 = std::mem::offset_of!(Params, integrity) as u32;

/// Parameters for a device of `size_bytes` over one with `limits`, of which
/// `agreed` was agreed.
#[must_use]
pub fn params(limits: &Limits, size_bytes: u64, read_only: bool, agreed: &DevInfo) -> Params {
    let mut params = Params::new_zeroed();
    let zero_copy = Features(agreed.flags).is_zero_copy();
    params.len = PARAMS_LEN_6_12;
    params.types = param::BASIC;
    params.basic = basic(limits, size_bytes, read_only, agreed);
    if !read_only && (limits.max_discard_bytes != 0 || limits.max_write_zeroes_bytes != 0) {
        params.types |= param::DISCARD;
        params.discard = discard(limits);
    }
    // Every driver that can do without copies (6.15) knows these two types.
    if zero_copy {
        params.len = LEN_SEGMENT;
        params.types |= param::DMA_ALIGN | param::SEGMENT;
        params.basic.virt_boundary_mask = limits.virt_boundary_mask;
        params.dma_alignment = mask(limits.dma_alignment).min(PAGE - 1);
        segment(&mut params, limits);
    }
    params
}

/// Types of `asked` the driver ignored.
#[must_use]
pub fn ignored(asked: &Params, got: &Params) -> u32 {
    asked.types & !got.types
}

/// Names of what device `id` was asked for and the driver ignored, without harm.
///
/// # Errors
/// [`UblkError::Ignored`] when data would suffer: another size or block size,
/// writes to what nobody may write, flushes that never come, pages that the device
/// below refuses.
pub fn heeded(id: u32, asked: &Params, got: &Params) -> Result<Vec<&'static str>, UblkError> {
    let (ours, theirs) = (&asked.basic, &got.basic);
    let lost = |attrs: u32| ours.attrs & attrs != theirs.attrs & attrs;
    let ignored = ignored(asked, got);
    let needed = [
        ("its size and block size", ignored & param::BASIC != 0),
        (
            "block size",
            ours.logical_bs_shift != theirs.logical_bs_shift,
        ),
        ("size", ours.dev_sectors != theirs.dev_sectors),
        ("read-only", lost(param::READ_ONLY)),
        ("volatile cache", lost(param::VOLATILE_CACHE)),
        ("forced writes", lost(param::FUA)),
        ("alignment of memory", ignored & param::DMA_ALIGN != 0),
        ("pieces of memory", ignored & param::SEGMENT != 0),
    ];
    let wished = [
        (
            "physical block size",
            ours.physical_bs_shift != theirs.physical_bs_shift,
        ),
        (
            "least good request",
            ours.io_min_shift != theirs.io_min_shift,
        ),
        ("best request", ours.io_opt_shift != theirs.io_opt_shift),
        ("largest request", ours.max_sectors != theirs.max_sectors),
        ("rotational", lost(param::ROTATIONAL)),
        ("discard and write-zeroes", ignored & param::DISCARD != 0),
    ];
    let names = |all: &[(&'static str, bool)]| -> Vec<&'static str> {
        let differ = all.iter().filter(|(_, differs)| *differs);
        differ.map(|(name, _)| *name).collect()
    };
    let missing = names(&needed);
    if missing.is_empty() {
        return Ok(names(&wished));
    }
    Err(UblkError::Ignored {
        id,
        what: missing.join(", "),
    })
}

/// Names of what a device that was made with `got` promises its users and the
/// device below, as `asked` tells of it, refuses.
#[must_use]
pub fn unsuited(asked: &Params, got: &Params) -> Vec<&'static str> {
    let looser = |asked: u64, got: u64| asked & !got != 0;
    let alignment = |params: &Params| match params.types & param::DMA_ALIGN {
        0 => 0,
        _ => u64::from(params.dma_alignment),
    };
    let (ours, theirs) = (&asked.basic, &got.basic);
    let differ = [
        (
            "its block size",
            theirs.logical_bs_shift < ours.logical_bs_shift,
        ),
        (
            "its alignment of memory",
            looser(alignment(asked), alignment(got)),
        ),
        (
            "its pieces of memory",
            looser(ours.virt_boundary_mask, theirs.virt_boundary_mask),
        ),
    ];
    let unsuited = differ.iter().filter(|(_, differs)| *differs);
    unsuited.map(|(name, _)| *name).collect()
}

fn basic(limits: &Limits, size_bytes: u64, read_only: bool, agreed: &DevInfo) -> ParamBasic {
    let logical = block(limits.logical_block);
    let physical = power(limits.physical_block).max(logical);
    let io_min = power(limits.io_min).max(physical);
    // Sizes of stripes that are no power of two cannot be told.
    let io_opt = Some(limits.io_opt).filter(|size| size.is_power_of_two());
    // As much as fits, whatever the device below takes at once: the kernel splits
    // there, which costs less than a request here. (A RAM disk says 127 KiB, which
    // would cut every request of 128 in two.)
    let most = agreed.max_io_buf_bytes / SECTOR as u32;
    let mut attrs = if read_only {
        param::READ_ONLY
    } else {
        // Always: without them no flush would ever arrive, and what the device
        // below says of its cache cannot be relied on.
        param::VOLATILE_CACHE | param::FUA
    };
    if limits.rotational {
        attrs |= param::ROTATIONAL;
    }
    ParamBasic {
        attrs,
        logical_bs_shift: shift(logical),
        physical_bs_shift: shift(physical),
        io_opt_shift: shift(io_opt.unwrap_or(io_min)),
        io_min_shift: shift(io_min),
        max_sectors: most,
        chunk_sectors: 0,
        dev_sectors: size_bytes / SECTOR,
        virt_boundary_mask: 0,
    }
}

fn discard(limits: &Limits) -> ParamDiscard {
    let block = block(limits.logical_block);
    let sectors = |bytes: u64| {
        let bytes = bytes.min(MAX_ZEROES);
        ((bytes - bytes % u64::from(block)) / SECTOR) as u32
    };
    ParamDiscard {
        discard_alignment: 0,
        discard_granularity: limits.discard_granularity.max(block),
        max_discard_sectors: sectors(limits.max_discard_bytes),
        max_write_zeroes_sectors: sectors(limits.max_write_zeroes_bytes),
        max_discard_segments: 1,
        reserved0: 0,
    }
}

fn segment(params: &mut Params, limits: &Limits) {
    // The driver computes mask + 1: all ones would be no power of two.
    let boundary = limits.seg_boundary_mask.min(u64::MAX >> 1);
    let boundary = (boundary + 1).next_power_of_two() - 1;
    params.seg_boundary_mask = boundary.max(u64::from(MIN_SEGMENT) - 1);
    params.max_segment_size = if limits.virt_boundary_mask == 0 {
        limits.max_segment_size.max(MIN_SEGMENT)
    } else {
        // The block layer refuses both limits together.
        u32::MAX
    };
    params.max_segments = limits.max_segments.max(1);
}

/// The power of two at or below, at least a sector.
fn power(bytes: u32) -> u32 {
    1 << bytes.max(SECTOR as u32).ilog2()
}

fn block(bytes: u32) -> u32 {
    power(bytes).min(LARGEST_BLOCK)
}

fn shift(bytes: u32) -> u8 {
    bytes.ilog2() as u8
}

/// All ones from the highest one of `mask` down.
fn mask(mask: u32) -> u32 {
    u32::MAX.checked_shr(mask.leading_zeros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ublk::uapi::feature;

    fn agreed(flags: u64, max_io_buf_bytes: u32) -> DevInfo {
        DevInfo {
            flags,
            max_io_buf_bytes,
            ..DevInfo::default()
        }
    }

    prop_compose! {
        fn limits()(
            blocks in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()),
            max_sectors: u32, dma_alignment: u32,
            segments in (any::<u64>(), any::<u32>(), any::<u16>(), any::<bool>()),
            rotational: bool,
            discard in (any::<u64>(), any::<u32>(), any::<u64>(), any::<u8>()),
        ) -> Limits {
            Limits {
                logical_block: blocks.0,
                physical_block: blocks.1,
                io_min: blocks.2,
                io_opt: blocks.3,
                max_sectors,
                dma_alignment,
                seg_boundary_mask: segments.0,
                max_segment_size: segments.1,
                max_segments: segments.2,
                virt_boundary_mask: if segments.3 { 4095 } else { 0 },
                rotational,
                max_discard_bytes: if discard.3 & 1 == 0 { 0 } else { discard.0 },
                discard_granularity: discard.1,
                max_write_zeroes_bytes: if discard.3 & 2 == 0 { 0 } else { discard.2 },
            }
        }
    }

    /// The rules of `ublk_validate_params` and `blk_validate_limits`.
    fn accepted(params: &Params, max_io: u32) -> Result<(), String> {
        let basic = &params.basic;
        let no = |what: &str| Err(format!("{what}: {params:?}"));
        if !(9..=12).contains(&basic.logical_bs_shift) {
            return no("logical block");
        }
        if basic.logical_bs_shift > basic.physical_bs_shift {
            return no("physical block");
        }
        if basic.max_sectors > max_io >> 9 || basic.max_sectors < 8 {
            return no("largest request");
        }
        if basic.io_min_shift > 31 || basic.io_opt_shift > 31 {
            return no("shifts");
        }
        let discard = &params.discard;
        if params.types & param::DISCARD != 0
            && (discard.discard_granularity == 0 || discard.max_discard_segments != 1)
        {
            return no("discard");
        }
        if params.types & param::DMA_ALIGN != 0
            && (params.dma_alignment >= PAGE || !(params.dma_alignment + 1).is_power_of_two())
        {
            return no("alignment");
        }
        if params.types & param::SEGMENT != 0 {
            let boundary = params.seg_boundary_mask.wrapping_add(1);
            if !boundary.is_power_of_two() || boundary < 4096 || params.max_segment_size < 4096 {
                return no("segments");
            }
            if basic.virt_boundary_mask != 0 && params.max_segment_size != u32::MAX {
                return no("segments and boundary");
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_driver_takes_what_is_made_of_any_limits(
            limits in limits(), size: u64, read_only: bool, zero_copy: bool,
            pages in 1u32..1024,
        ) {
            let flags = if zero_copy { feature::SUPPORT_ZERO_COPY } else { 0 };
            let max_io = pages * 4096;
            let made = params(&limits, size, read_only, &agreed(flags, max_io));
            prop_assert_eq!(accepted(&made, max_io), Ok(()));
            prop_assert_eq!(made.basic.dev_sectors, size / 512);
            prop_assert_eq!(made.types & param::SEGMENT != 0, zero_copy);
        }
    }

    const NVME: Limits = Limits {
        logical_block: 512,
        physical_block: 4096,
        io_min: 4096,
        io_opt: 1536 << 10,
        max_sectors: 256,
        dma_alignment: 3,
        seg_boundary_mask: u64::MAX,
        max_segment_size: u32::MAX,
        max_segments: 127,
        virt_boundary_mask: 4095,
        rotational: false,
        max_discard_bytes: 2 << 40,
        discard_granularity: 512,
        max_write_zeroes_bytes: 128 << 10,
    };

    #[test]
    fn writable_devices_have_a_cache_and_forced_writes() {
        let made = params(&NVME, 1 << 30, false, &agreed(0, 1 << 20));
        assert_eq!(made.basic.attrs, param::VOLATILE_CACHE | param::FUA);
        assert_eq!(made.len, PARAMS_LEN_6_12);
        assert_eq!(made.types, param::BASIC | param::DISCARD);
        assert_eq!(made.basic.max_sectors, 2048);
        assert_eq!(made.basic.virt_boundary_mask, 0);
        assert_eq!(made.basic.io_opt_shift, 12, "no power of two below");
        assert_eq!(made.discard.max_discard_sectors, 65_536);
        assert_eq!(made.discard.max_write_zeroes_sectors, 256);
        let made = params(&NVME, 1 << 30, true, &agreed(0, 1 << 20));
        assert_eq!(made.basic.attrs, param::READ_ONLY);
        assert_eq!(made.types, param::BASIC);
    }

    #[test]
    fn pages_that_go_straight_down_suit_the_device_below() {
        let made = params(
            &NVME,
            1 << 30,
            false,
            &agreed(feature::AUTO_BUF_REG, 1 << 20),
        );
        assert_eq!(made.len, 136);
        assert_eq!(made.dma_alignment, 3);
        assert_eq!(made.basic.virt_boundary_mask, 4095);
        assert_eq!(made.max_segments, 127);
        let mut got = made;
        got.types &= !param::SEGMENT;
        assert_eq!(ignored(&made, &got), param::SEGMENT);
    }

    #[test]
    fn a_device_that_waits_suits_an_origin_that_takes_as_much() {
        let zero_copy = agreed(feature::AUTO_BUF_REG, 1 << 20);
        let of = |limits: &Limits, agreed| params(limits, 1 << 30, false, agreed);
        let blocks = Limits {
            logical_block: 4096,
            ..NVME
        };
        let aligned = Limits {
            dma_alignment: 511,
            ..NVME
        };
        let anywhere = Limits {
            virt_boundary_mask: 0,
            ..NVME
        };
        let between = |asked: &Limits, got: &Limits| {
            unsuited(&of(asked, &zero_copy), &of(got, &zero_copy)).join(", ")
        };
        assert_eq!(between(&NVME, &NVME), "");
        assert_eq!(between(&blocks, &NVME), "its block size");
        assert_eq!(between(&aligned, &NVME), "its alignment of memory");
        assert_eq!(between(&NVME, &anywhere), "its pieces of memory");
        for stricter in [&blocks, &aligned] {
            assert_eq!(between(&NVME, stricter), "");
        }
        assert_eq!(between(&anywhere, &NVME), "");
        // What is copied lies in buffers that suit everything.
        let copied = agreed(0, 1 << 20);
        let (asked, got) = (of(&aligned, &copied), of(&NVME, &copied));
        assert_eq!(unsuited(&asked, &got), [""; 0]);
    }

    #[test]
    fn what_the_driver_ignores_is_named_and_what_data_needs_is_refused() {
        let asked = params(&NVME, 1 << 30, false, &agreed(0, 1 << 20));
        assert_eq!(heeded(3, &asked, &asked).unwrap(), [""; 0]);
        let mut got = asked;
        got.types &= !param::DISCARD;
        got.basic.max_sectors /= 2;
        let ignored = heeded(3, &asked, &got).unwrap();
        assert_eq!(ignored, ["largest request", "discard and write-zeroes"]);
        let refused = |change: fn(&mut Params)| {
            let mut got = asked;
            change(&mut got);
            heeded(3, &asked, &got).unwrap_err().to_string()
        };
        for (error, name) in [
            (refused(|got| got.basic.logical_bs_shift = 12), "block size"),
            (refused(|got| got.basic.dev_sectors -= 1), "size"),
            (
                refused(|got| got.basic.attrs |= param::READ_ONLY),
                "read-only",
            ),
            (
                refused(|got| got.basic.attrs ^= param::VOLATILE_CACHE),
                "volatile cache",
            ),
            (
                refused(|got| got.basic.attrs ^= param::FUA),
                "forced writes",
            ),
        ] {
            assert!(
                error.contains("device 3") && error.contains(name),
                "{error}"
            );
        }
    }
}
