//! What is compared: sizes, and changes of the defaults.

use super::{Change, GIB, KIB, MIB, TIB};
use imagegen::xfs::geometry::{Features, Groups, Kernel, LogSize, Stripe};

/// Sizes at and around every bound.
pub(crate) fn sizes() -> Vec<u64> {
    let mib = [
        32, 33, 40, 63, 64, 65, 100, 127, 128, 129, 200, 299, 300, 301, 511, 1000, 1023,
    ];
    let gib = [
        1, 2, 3, 7, 8, 9, 15, 16, 17, 100, 127, 128, 129, 200, 255, 256, 500, 511, 512, 513,
    ];
    let tib = [1, 2, 3, 4, 5, 10, 31, 32, 33, 49, 50, 51, 100];
    let mut sizes: Vec<u64> = mib.map(|n| n * MIB).into();
    sizes.extend(gib.map(|n| n * GIB));
    sizes.extend(tib.map(|n| n * TIB));
    sizes.extend([
        GIB + 12 * KIB,
        4 * TIB - 4 * KIB,
        4 * TIB + 17 * MIB,
        32 * TIB - 64 * KIB,
        GIB + 1536,
        3 * GIB + 12345 * 512,
    ]);
    sizes
}

/// Every change of the defaults that is tried with every size.
pub(crate) fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("defaults", |_| {}),
        ("linux-6.1", |o| o.features = Kernel::Linux6_1.features()),
        ("linux-6.12", |o| o.features = Kernel::Linux6_12.features()),
        ("no reflink", |o| o.features.reflink = false),
        ("no rmapbt", |o| o.features.rmapbt = false),
        ("no parent", |o| o.features.parent = false),
        ("no parent, no reflink", |o| {
            o.features.parent = false;
            o.features.reflink = false;
        }),
        ("no parent, no rmapbt, no nrext64", |o| {
            o.features.parent = false;
            o.features.rmapbt = false;
            o.features.nrext64 = false;
        }),
        ("plain", |o| {
            o.features = Features {
                finobt: false,
                inobtcount: false,
                sparse: false,
                rmapbt: false,
                reflink: false,
                bigtime: false,
                nrext64: false,
                exchange: false,
                parent: false,
                ascii_ci: true,
            };
        }),
        ("no finobt", |o| {
            o.features.finobt = false;
            o.features.inobtcount = false;
        }),
        ("no sparse", |o| o.features.sparse = false),
        ("1 KiB blocks", |o| o.block_size = 1024),
        ("2 KiB blocks, plain trees", |o| {
            o.block_size = 2048;
            o.features.rmapbt = false;
            o.features.parent = false;
        }),
        ("8 KiB blocks", |o| o.block_size = 8192),
        ("16 KiB blocks, old", |o| {
            o.block_size = 16384;
            o.features = Kernel::Linux6_12.features();
        }),
        ("64 KiB blocks", |o| o.block_size = 65536),
        ("64 KiB blocks, old", |o| {
            o.block_size = 65536;
            o.features.parent = false;
        }),
        ("4 KiB sectors", |o| o.sector_size = 4096),
        ("2 KiB inodes", |o| o.inode_size = 2048),
        ("1 KiB inodes, old", |o| {
            o.inode_size = 1024;
            o.features.parent = false;
        }),
        ("64 KiB directory blocks", |o| {
            o.dir_block_size = Some(65536)
        }),
        ("64 KiB directory blocks, old", |o| {
            o.dir_block_size = Some(65536);
            o.features.parent = false;
        }),
        ("8 KiB directory blocks", |o| o.dir_block_size = Some(8192)),
        ("5 groups", |o| o.groups = Groups::Count(5)),
        ("3 groups", |o| o.groups = Groups::Count(3)),
        ("groups of 16 MiB", |o| o.groups = Groups::Size(16 * MIB)),
        ("groups of 100 GiB", |o| o.groups = Groups::Size(100 * GIB)),
        ("40 threads", |o| {
            o.groups = Groups::Concurrency(40);
            o.log_size = LogSize::Concurrency(40);
        }),
        ("3 threads, log only", |o| {
            o.log_size = LogSize::Concurrency(3)
        }),
        ("log of 64 MiB", |o| o.log_size = LogSize::Bytes(64 * MIB)),
        ("log of 20 MiB in the first group", |o| {
            o.log_size = LogSize::Bytes(20 * MIB);
            o.log_group = Some(0);
        }),
        ("log in the first group", |o| o.log_group = Some(0)),
        ("log unit", |o| o.log_unit = Some(32768)),
        ("stripe", |o| {
            o.stripe = Some(Stripe {
                unit: 65536,
                disks: 4,
            })
        }),
        ("odd stripe", |o| {
            o.stripe = Some(Stripe {
                unit: 12288,
                disks: 3,
            })
        }),
        ("large stripe", |o| {
            o.stripe = Some(Stripe {
                unit: 1 << 20,
                disks: 2,
            })
        }),
        ("stripe of one disk, log unit", |o| {
            o.stripe = Some(Stripe {
                unit: 65536,
                disks: 1,
            });
            o.log_unit = Some(4096);
        }),
        ("stripe, 6 groups", |o| {
            o.stripe = Some(Stripe {
                unit: 65536,
                disks: 4,
            });
            o.groups = Groups::Count(6);
        }),
        ("stripe, group size", |o| {
            o.stripe = Some(Stripe {
                unit: 65536,
                disks: 4,
            });
            o.groups = Groups::Size(100 * MIB + 4096);
        }),
        ("all for inodes", |o| o.imax_percent = Some(0)),
        ("3 percent for inodes", |o| o.imax_percent = Some(3)),
    ]
}
