//! What is ours: tiny file systems, errors, kernels, and any option at all.

use super::{Change, GIB, KIB, MIB, UUID};
use imagegen::xfs::geometry::{Features, Groups, Kernel, LogSize, Options, Stripe, Used};
use rand::{RngExt, SeedableRng};

#[test]
fn tiny_ones_have_two_groups_where_they_can() {
    let geometry = |size| Options::new(size, UUID).geometry().unwrap();
    let shape = |size| {
        let geometry = geometry(size);
        (
            geometry.ag_count,
            geometry.group_blocks(geometry.ag_count - 1),
        )
    };
    assert_eq!(shape(16 * MIB), (1, 4096));
    assert_eq!(shape(16 * MIB + 252 * KIB), (1, 4096 + 63));
    assert_eq!(shape(16 * MIB + 256 * KIB), (2, 64));
    assert_eq!(shape(32 * MIB - 4 * KIB), (2, 4095));
    assert_eq!(shape(32 * MIB), (2, 4096));
    assert_eq!(shape(64 * MIB), (4, 4096));
    for size in (16 * MIB..64 * MIB).step_by(64 * KIB as usize) {
        let geometry = geometry(size);
        assert!(geometry.holds(geometry.log_start, geometry.log_blocks.into()));
        let (log_ag, log_block) = geometry.group_of(geometry.log_start);
        assert!(log_block >= geometry.root_blocks());
        let chunk = geometry.first_chunk_block();
        let log_end = log_block + geometry.log_blocks;
        assert!(log_ag > 0 || chunk >= log_end, "{size}");
        assert!(chunk + geometry.chunk_blocks() <= geometry.group_blocks(0));
    }
}

#[test]
fn what_cannot_be_names_option_and_bound() {
    let cases: [(&str, &str, Change); 18] = [
        ("--size", "at least 16777216", |o| o.size = 16 * MIB - 1),
        ("--block-size", "from 1024 to 65536", |o| {
            o.block_size = 3000
        }),
        ("--sector-size", "from 512 to 4096", |o| {
            o.sector_size = 8192
        }),
        ("--inode-size", "from 512 to 2048", |o| o.inode_size = 256),
        ("--inode-size", "only 512 is possible", |o| {
            o.block_size = 1024;
            o.inode_size = 1024;
        }),
        ("--dir-block-size", "from 4096 to 65536", |o| {
            o.dir_block_size = Some(2048)
        }),
        ("--feature", "needs finobt", |o| o.features.finobt = false),
        ("--label", "12 bytes", |o| {
            o.label = b"thirteen byte".to_vec()
        }),
        ("--label", "NUL", |o| o.label = b"a\0b".to_vec()),
        ("--imaxpct", "at most 100", |o| o.imax_percent = Some(101)),
        ("--agcount", "less than 16777216", |o| {
            o.groups = Groups::Count(1000)
        }),
        ("--agcount", "at least 1", |o| o.groups = Groups::Count(0)),
        ("--agsize", "larger than the file system", |o| {
            o.groups = Groups::Size(2 * GIB)
        }),
        ("--agsize", "multiple of the block size", |o| {
            o.groups = Groups::Size(17 * MIB + 1)
        }),
        ("--log-size", "at least 8004 KiB", |o| {
            o.log_size = LogSize::Bytes(4 * MIB)
        }),
        ("--log-size", "at most", |o| {
            o.log_size = LogSize::Bytes(GIB)
        }),
        ("--log-group", "4 groups", |o| o.log_group = Some(4)),
        ("--log-unit", "at most 262144", |o| {
            o.log_unit = Some(1 << 20)
        }),
    ];
    for (option, bound, change) in cases {
        let mut options = Options::new(GIB, UUID);
        change(&mut options);
        let error = options.geometry().unwrap_err();
        assert_eq!(error.option, option, "{error}");
        assert!(error.to_string().contains(bound), "{error}");
        assert!(!error.remedy.is_empty());
    }
}

#[test]
fn older_kernels_refuse_what_they_do_not_know() {
    for kernel in [Kernel::Linux6_1, Kernel::Linux6_12, Kernel::Linux7_2] {
        kernel.mounts(&kernel.features()).unwrap();
    }
    let newest = Features::default();
    let error = Kernel::Linux6_1.mounts(&newest).unwrap_err();
    assert_eq!(error.option, "--feature");
    assert!(error.to_string().contains("linux-6.1"), "{error}");
    Kernel::Linux6_12.mounts(&newest).unwrap();
}

#[test]
fn any_option_gives_an_error_or_a_sound_geometry() {
    let seed = std::env::var("CSNAP_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    eprintln!("CSNAP_SEED={seed}");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut sound = 0;
    for _ in 0..20_000 {
        let options = any(&mut rng);
        let Ok(geometry) = options.geometry() else {
            continue;
        };
        sound += 1;
        assert!(
            geometry.holds(geometry.log_start, geometry.log_blocks.into()),
            "{options:?}"
        );
        assert!(
            geometry.blocks << geometry.block_log <= options.size,
            "{options:?}"
        );
        let groups = geometry.blocks.div_ceil(geometry.ag_blocks.into());
        assert_eq!(groups, u64::from(geometry.ag_count), "{options:?}");
        let last = geometry.ag_count - 1;
        assert!(
            geometry.group_blocks(last) >= geometry.own_blocks(),
            "{options:?}"
        );
        let _ = geometry.reserve(last, Used::default());
        let _ = geometry.superblock();
    }
    assert!(sound > 2000, "only {sound} geometries");
}

/// Options that are mostly sensible, at the edges of what may be.
fn any(rng: &mut rand_chacha::ChaCha8Rng) -> Options {
    let mut options = Options::new(0, UUID);
    options.size = (1 << rng.random_range(20..63)) + rng.random_range(0..1_u64 << 24);
    options.block_size = 1 << rng.random_range(9..18);
    options.sector_size = 1 << rng.random_range(8..13);
    options.inode_size = 1 << rng.random_range(8..13);
    if rng.random_bool(0.3) {
        options.dir_block_size = Some(1 << rng.random_range(9..18));
    }
    options.groups = match rng.random_range(0..8) {
        0 => Groups::Count(rng.random_range(0..200)),
        1 => Groups::Size(rng.random_range(0..1 << 30) << rng.random_range(0..12)),
        2 => Groups::Concurrency(rng.random_range(0..u32::MAX)),
        _ => Groups::Default,
    };
    if rng.random_bool(0.3) {
        let unit = rng.random_range(0..1_u32 << 20) << rng.random_range(0..12);
        let disks = rng.random_range(0..20);
        options.stripe = Some(Stripe { unit, disks });
    }
    options.log_size = match rng.random_range(0..5) {
        0 => LogSize::Bytes(rng.random_range(0..1 << 32)),
        1 => LogSize::Concurrency(rng.random_range(0..u32::MAX)),
        _ => LogSize::Default,
    };
    if rng.random_bool(0.2) {
        options.log_group = Some(rng.random_range(0..5));
    }
    let mut flip = || rng.random_bool(0.5);
    options.features = Features {
        finobt: true,
        inobtcount: flip(),
        sparse: flip(),
        rmapbt: flip(),
        reflink: flip(),
        bigtime: flip(),
        nrext64: flip(),
        exchange: flip(),
        parent: flip(),
        ascii_ci: flip(),
    };
    options
}
