//! What mkfs.xfs 7.2 prints for hundreds of sizes and options, and the superblock it
//! writes for some of them.

use super::matrix::{changes, sizes};
use super::tools::{Suite, xfsprogs};
use super::{GIB, MIB, TIB, UUID};
use imagegen::xfs::format::group::Agf;
use imagegen::xfs::format::superblock::{Superblock, version};
use imagegen::xfs::geometry::{Features, Geometry, Groups, LogSize, Options, Stripe};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use zerocopy::{FromBytes, IntoBytes};

/// The options as arguments of mkfs.xfs.
pub(crate) fn arguments(options: &Options, image: &Path) -> Vec<String> {
    let on = |feature: bool| u8::from(feature);
    let Features {
        finobt,
        inobtcount,
        sparse,
        rmapbt,
        reflink,
        bigtime,
        nrext64,
        exchange,
        parent,
        ascii_ci,
    } = options.features;
    let mut data = format!("file,name={},size={}", image.display(), options.size);
    let mut log = vec!["internal=1".to_owned()];
    match options.groups {
        Groups::Default => {}
        Groups::Count(count) => data += &format!(",agcount={count}"),
        Groups::Size(bytes) => data += &format!(",agsize={bytes}"),
        Groups::Concurrency(threads) => data += &format!(",concurrency={threads}"),
    }
    if let Some(Stripe { unit, disks }) = options.stripe {
        data += &format!(",su={unit},sw={disks}");
    }
    match options.log_size {
        LogSize::Default => {}
        LogSize::Bytes(bytes) => log.push(format!("size={bytes}")),
        LogSize::Smallest => unreachable!("mkfs.xfs has no word for it"),
        LogSize::Concurrency(threads) => log.push(format!("concurrency={threads}")),
    }
    log.extend(options.log_group.map(|group| format!("agnum={group}")));
    log.extend(options.log_unit.map(|unit| format!("su={unit}")));
    let mut inode = format!(
        "size={},sparse={},nrext64={},exchange={}",
        options.inode_size,
        on(sparse),
        on(nrext64),
        on(exchange)
    );
    if let Some(percent) = options.imax_percent {
        inode += &format!(",maxpct={percent}");
    }
    let mut naming = format!("parent={}", on(parent));
    if ascii_ci {
        naming += ",version=ci";
    }
    if let Some(size) = options.dir_block_size {
        naming += &format!(",size={size}");
    }
    let metadata = format!(
        "finobt={},inobtcount={},rmapbt={},reflink={},bigtime={},uuid={}",
        on(finobt),
        on(inobtcount),
        on(rmapbt),
        on(reflink),
        on(bigtime),
        options.uuid
    );
    let label = String::from_utf8(options.label.clone()).unwrap();
    let (block, sector) = (
        format!("size={}", options.block_size),
        format!("size={}", options.sector_size),
    );
    let words = [
        "--unsupported",
        "-b",
        &block,
        "-s",
        &sector,
        "-m",
        &metadata,
        "-i",
        &inode,
        "-n",
        &naming,
        "-d",
        &data,
        "-l",
        &log.join(","),
        "-L",
        &label,
    ];
    words.map(str::to_owned).to_vec()
}

/// What mkfs.xfs prints of a geometry, numbers in order.
#[derive(Debug, PartialEq, Eq)]
struct Printed(Vec<(&'static str, u64)>);

fn printed(geometry: &Geometry) -> Printed {
    let features = &geometry.features;
    let log_unit = match geometry.log_unit {
        1 => 0,
        bytes => u64::from(bytes) >> geometry.block_log,
    };
    Printed(vec![
        ("isize", geometry.inode_size() as u64),
        ("agcount", geometry.ag_count.into()),
        ("agsize", geometry.ag_blocks.into()),
        ("sectsz", geometry.sector_size() as u64),
        ("finobt", features.finobt.into()),
        ("sparse", features.sparse.into()),
        ("rmapbt", features.rmapbt.into()),
        ("reflink", features.reflink.into()),
        ("bigtime", features.bigtime.into()),
        ("inobtcount", features.inobtcount.into()),
        ("nrext64", features.nrext64.into()),
        ("exchange", features.exchange.into()),
        ("bsize", geometry.block_size() as u64),
        ("blocks", geometry.blocks),
        ("imaxpct", geometry.imax_percent.into()),
        ("sunit", geometry.stripe_unit.into()),
        ("swidth", geometry.stripe_width.into()),
        ("bsize", geometry.dir_block_size() as u64),
        ("ascii-ci", features.ascii_ci.into()),
        ("parent", features.parent.into()),
        ("bsize", geometry.block_size() as u64),
        ("blocks", geometry.log_blocks.into()),
        ("sectsz", geometry.sector_size() as u64),
        ("sunit", log_unit),
    ])
}

/// Finds the same names in the same order in what mkfs.xfs says.
fn parse(text: &str, like: &Printed) -> Printed {
    let mut words = text.split_whitespace();
    let mut value = |name: &'static str| {
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
        (name, value.trim_end_matches(',').parse().unwrap())
    };
    Printed(like.0.iter().map(|(name, _)| value(name)).collect())
}

/// What mkfs.xfs answers to these options without writing: text, or why not.
fn ask(mut mkfs: Command, options: &Options, image: &Path) -> Result<String, String> {
    let output = mkfs
        .arg("-N")
        .args(arguments(options, image))
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn geometry_is_that_of_mkfs() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for (name, change) in changes() {
        for size in sizes() {
            let Some(mkfs) = xfsprogs(Suite::Newest, "mkfs.xfs") else {
                return;
            };
            let mut options = Options::new(size, UUID);
            change(&mut options);
            let theirs = ask(mkfs, &options, &image);
            match (options.geometry(), theirs) {
                (Ok(ours), Ok(text)) => {
                    let ours = printed(&ours);
                    let theirs = parse(&text, &ours);
                    match ours == theirs {
                        true => same += 1,
                        false => wrong.push(format!("{name}, {size}: {}", first(&ours, &theirs))),
                    }
                }
                (Err(_), Err(_)) => refused += 1,
                (Ok(_), Err(why)) => {
                    let why = why.lines().next().unwrap_or_default().to_owned();
                    wrong.push(format!("{name}, {size}: mkfs.xfs refuses: {why}"));
                }
                (Err(why), Ok(_)) => wrong.push(format!("{name}, {size}: we refuse: {why}")),
            }
        }
    }
    eprintln!("{same} alike, {refused} refused by both");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(same > 1500, "only {same} compared");
}

fn first(ours: &Printed, theirs: &Printed) -> String {
    let pairs = ours.0.iter().zip(&theirs.0);
    let differ = pairs.filter(|(a, b)| a != b);
    differ
        .map(|((name, ours), (_, theirs))| format!("{name} {ours}, mkfs.xfs {theirs}"))
        .collect::<Vec<_>>()
        .join("; ")
}

/// The superblock mkfs.xfs writes, its counters set as ours, and the mark that there are
/// attributes: ours is always set.
fn written(image: &Path, ours: &Superblock) -> Superblock {
    let mut bytes = [0; size_of::<Superblock>()];
    File::open(image).unwrap().read_exact(&mut bytes).unwrap();
    let theirs = Superblock::read_from_bytes(&bytes).unwrap();
    Superblock {
        icount: ours.icount,
        ifree: ours.ifree,
        fdblocks: ours.fdblocks,
        crc: ours.crc,
        lsn: ours.lsn,
        version: (theirs.version.get() | version::ATTR).into(),
        ..theirs
    }
}

fn first_agf(image: &Path, sector_size: u32) -> Agf {
    let mut bytes = [0; size_of::<Agf>()];
    let file = File::open(image).unwrap();
    file.read_exact_at(&mut bytes, sector_size.into()).unwrap();
    Agf::read_from_bytes(&bytes).unwrap()
}

#[test]
fn superblock_is_that_of_mkfs() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let mut same = 0;
    for (name, change) in changes() {
        for size in [32 * MIB, 300 * MIB, GIB + 64 * MIB, 5 * TIB] {
            let Some(mut mkfs) = xfsprogs(Suite::Newest, "mkfs.xfs") else {
                return;
            };
            let mut options = Options::new(size, UUID);
            change(&mut options);
            options.label = b"twelve bytes"[..12.min(size as usize / 5000)].to_vec();
            let Ok(geometry) = options.geometry() else {
                continue;
            };
            if geometry.ag_count > 64 {
                continue;
            }
            let _ = std::fs::remove_file(&image);
            let made = mkfs.arg("-q").args(arguments(&options, &image)).output();
            let made = made.unwrap();
            let said = String::from_utf8_lossy(&made.stderr);
            assert!(made.status.success(), "{name}, {size}: {said}");
            let ours = geometry.superblock();
            let theirs = written(&image, &ours);
            assert_eq!(ours, theirs, "{name}, {size}");
            assert_eq!(ours.as_bytes(), theirs.as_bytes());
            let agf = first_agf(&image, options.sector_size);
            assert_eq!(agf.fl_count.get(), geometry.fresh_agfl_blocks(), "{name}");
            assert_eq!(agf.length.get(), geometry.group_blocks(0), "{name}");
            same += 1;
        }
    }
    assert!(same > 100, "only {same} compared");
}
