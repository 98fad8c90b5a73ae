//! One tree in many geometries: block, inode, directory-block and sector sizes, numbers
//! of groups, features one by one, and the sets for kernels.

use crate::image::{Image, MIB, sized};
use crate::kinds::all_kinds;
use crate::model::{ROOT, Tree};
use crate::{judge, repair};
use imagegen::xfs::geometry::{Features, Groups, Kernel, LogSize, Options, Stripe};

/// Something of every kind, and enough of it that groups get a few of each.
fn tree() -> Tree {
    let mut tree = all_kinds();
    for number in 0..40 {
        let dir = tree.dir(ROOT, format!("dir{number:03}"));
        for size in 0..number {
            let file = tree.file(dir, format!("file-{size:010}"), size * 997);
            if size % 7 == 0 {
                tree.xattr(file, "user.some", vec![b's'; 50 * size as usize]);
                tree.link(ROOT, format!("{number}-{size}"), file);
            }
        }
    }
    tree
}

fn with(change: impl FnOnce(&mut Options)) {
    let mut options = sized(300 * MIB);
    change(&mut options);
    judge(&tree(), &options);
}

#[test]
fn block_sizes() {
    for block_size in [1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        with(|options| (options.block_size, options.size) = (block_size, 800 * MIB));
    }
}

#[test]
fn inode_sizes() {
    for inode_size in [512, 1024, 2048] {
        for block_size in [4096, 8192] {
            with(|options| (options.inode_size, options.block_size) = (inode_size, block_size));
        }
    }
    with(|options| (options.inode_size, options.block_size) = (512, 1024));
}

#[test]
fn directory_block_sizes() {
    for dir_block_size in [4096, 8192, 16384, 32768, 65536] {
        with(|options| options.dir_block_size = Some(dir_block_size));
    }
    with(|options| (options.dir_block_size, options.block_size) = (Some(2048), 2048));
}

#[test]
fn sectors_of_4_kibibytes() {
    with(|options| options.sector_size = 4096);
    with(|options| (options.sector_size, options.block_size) = (4096, 16384));
}

#[test]
fn stripes_and_log_units() {
    with(|options| {
        options.stripe = Some(Stripe {
            unit: 64 << 10,
            disks: 4,
        })
    });
    with(|options| options.log_unit = Some(32 << 10));
}

#[test]
fn one_group_and_many() {
    with(|options| options.groups = Groups::Count(1));
    with(|options| options.groups = Groups::Count(2));
    with(|options| (options.groups, options.size) = (Groups::Size(16 * MIB), 4096 * MIB));
}

#[test]
fn sizes_that_do_not_divide() {
    for size in [300 * MIB + 4096 * 3 + 17, 333 * MIB + 512, 301 * MIB - 1] {
        with(|options| options.size = size);
    }
}

#[test]
fn labels_and_limits_of_inodes() {
    with(|options| options.label = b"twelve bytes".to_vec());
    with(|options| options.imax_percent = Some(0));
    with(|options| options.log_size = LogSize::Bytes(70 * MIB));
    with(|options| options.log_group = Some(0));
}

#[test]
fn each_feature_off_by_itself() {
    let off: [fn(&mut Features); 9] = [
        |features| (features.finobt, features.inobtcount) = (false, false),
        |features| features.inobtcount = false,
        |features| features.sparse = false,
        |features| features.rmapbt = false,
        |features| features.reflink = false,
        |features| features.bigtime = false,
        |features| features.nrext64 = false,
        |features| features.exchange = false,
        |features| features.parent = false,
    ];
    for change in off {
        with(|options| change(&mut options.features));
    }
}

#[test]
fn everything_that_can_be_off_is_off() {
    with(|options| {
        options.features = Features {
            finobt: false,
            inobtcount: false,
            sparse: false,
            rmapbt: false,
            reflink: false,
            bigtime: false,
            nrext64: false,
            exchange: false,
            parent: false,
            ascii_ci: false,
        };
    });
}

#[test]
fn feature_sets_of_kernels() {
    for kernel in [Kernel::Linux6_1, Kernel::Linux6_12, Kernel::Linux7_2] {
        let mut options = sized(300 * MIB);
        options.features = kernel.features();
        let image = judge(&tree(), &options);
        if kernel == Kernel::Linux6_1 {
            repair::assert_clean_for_old(&image.path(), image.geometry.ag_count);
        }
    }
}

/// The smallest log the kernel takes, which depends on features and sizes: mounting says
/// whether it is.
#[test]
fn smallest_logs() {
    for (rmapbt, reflink, parent) in [
        (true, false, false),
        (false, true, false),
        (false, false, true),
        (true, true, false),
    ] {
        for block_size in [1024, 4096, 65536] {
            let mut options = sized(1200 * MIB);
            (options.block_size, options.log_size) = (block_size, LogSize::Smallest);
            let features = &mut options.features;
            (features.rmapbt, features.reflink, features.parent) = (rmapbt, reflink, parent);
            judge(&Tree::new(), &options);
        }
    }
}

/// Names that differ in nothing but case are refused where they count as one. Few kernels
/// are still built so that they mount such a file system.
#[test]
fn names_without_case() {
    let mut options = sized(300 * MIB);
    options.features.ascii_ci = true;
    let mut tree = Tree::new();
    let dir = tree.dir(ROOT, "Directory");
    for number in 0..700 {
        tree.file(dir, format!("Some Name {number}"), 0);
    }
    let image = Image::make(&tree, &options).unwrap_or_else(|error| panic!("{error}"));
    repair::assert_clean(&image.path(), image.geometry.ag_count);
    tree.file(dir, "some name 5", 0);
    let Err(error) = Image::make(&tree, &options) else {
        panic!("both were taken")
    };
    assert!(error.to_string().contains("Directory"), "{error}");
}
