//! Real files on a real file system.

use std::fs::File;
use std::path::PathBuf;

use snapstore::{Block, BlockDevice, Checksum, IoError, Origins, VolumeId};

use super::*;

fn file(size: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("file");
    File::create(&path).unwrap().set_len(size).unwrap();
    (dir, path)
}

#[test]
fn a_held_file_is_busy_until_let_go() {
    let (_dir, path) = file(1 << 20);
    let first = StoreDevice::open(&path, false).unwrap();
    let second = OriginDevice::open(&path, false).unwrap_err();
    assert!(second.is_busy(), "{second}");
    drop(first);
    OriginDevice::open(&path, true).unwrap();
}

/// As a lock of POSIX would: closing any other descriptor of the file, a monitor's say,
/// gives that up.
#[test]
fn nothing_else_that_opens_and_closes_a_file_lets_go_of_it() {
    let (_dir, path) = file(1 << 20);
    let held = OriginDevice::open(&path, false).unwrap();
    for _ in 0..2 {
        drop(File::options().read(true).write(true).open(&path).unwrap());
        std::fs::read(&path).unwrap();
        assert!(StoreDevice::open(&path, false).unwrap_err().is_busy());
    }
    // Held is the file that was opened, whatever its name leads to by now.
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    drop(StoreDevice::open(&path, false).unwrap());
    let away = StoreDevice::open(path.with_extension("away"), false);
    assert!(away.unwrap_err().is_busy());
    drop(held);
}

#[test]
fn odd_sizes_directories_and_missing_files_are_refused_by_name() {
    let (dir, path) = file(1000);
    let error = OriginDevice::open(&path, false).unwrap_err();
    assert!(
        matches!(error, DeviceError::Size { size: 1000, .. }),
        "{error}"
    );
    let error = StoreDevice::open(dir.path(), false).unwrap_err();
    assert!(matches!(error, DeviceError::WrongType { .. }), "{error}");
    let error = StoreDevice::open(dir.path().join("none"), false).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[test]
fn blocks_come_back_as_written_and_ranges_are_checked() {
    let (_dir, path) = file(300 * 4096 + 512);
    let mut store = StoreDevice::open(&path, false).unwrap();
    assert_eq!(store.blocks(), 300);
    // More than one batch of the plain calls.
    let data: Vec<Block> = (0..299u32).map(|i| Block([i as u8; 4096])).collect();
    store.write(1, &data).unwrap();
    store.flush().unwrap();
    let mut back = vec![Block::zeroed(); 299];
    store.read(1, &mut back).unwrap();
    assert!(back == data);
    assert_eq!(store.write(2, &data), Err(IoError::OutOfRange));
    assert_eq!(store.read(u64::MAX, &mut back), Err(IoError::OutOfRange));
}

#[test]
fn checksums_of_an_origin_are_zero_padded() {
    let (_dir, path) = file(16384 + 4096);
    std::fs::write(&path, vec![7u8; 16384 + 4096]).unwrap();
    let mut origins = OriginSet::new(16384);
    origins.insert(VolumeId(1), OriginDevice::open(&path, true).unwrap());
    let (mut found, size) = ([0; 4], 16384 + 1024);
    let mut partial = [0u8; 4096];
    partial[..1024].fill(7);
    for by in Checksum::ALL {
        let result = origins.chunk_checksums(by, VolumeId(1), 1, size, &mut found);
        assert_eq!(result, Ok(()));
        let zero = by.of(&[0; 4096]);
        assert_eq!(found, [by.of(&partial), zero, zero, zero]);
    }
    assert_eq!(
        origins.chunk_checksums(Checksum::Crc32c, VolumeId(2), 0, size, &mut found),
        Err(IoError::Absent)
    );
    assert_eq!(
        origins.chunk_checksums(Checksum::Crc32c, VolumeId(1), 2, size, &mut found),
        Err(IoError::OutOfRange)
    );
}

#[test]
fn holes_are_told_from_data() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    let (_dir, path) = file(1 << 20);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&[1; 65536], 65536)
        .unwrap();
    let device = OriginDevice::open(&path, true).unwrap();
    let found = extents(device.as_fd(), 0, 1 << 20, 64);
    assert_eq!(
        found,
        [(65536, false), (65536, true), ((1 << 20) - 131_072, false)]
    );
    assert_eq!(extents(device.as_fd(), 65536, 4096, 64), [(4096, true)]);
}

#[test]
fn a_file_shares_with_itself_only() {
    let (_dir, path) = file(1 << 20);
    let (_other_dir, other) = file(1 << 20);
    let a = StoreDevice::open(&path, false).unwrap();
    let b = OriginDevice::open(&other, false).unwrap();
    a.must_not_share(&b).unwrap();
    assert!(matches!(
        a.must_not_share(&a),
        Err(DeviceError::Stacked { .. })
    ));
}

/// A loop device over a file, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &std::path::Path) -> Option<Self> {
        let mut losetup = std::process::Command::new("losetup");
        let run = losetup.args(["--find", "--show"]).arg(file).output().ok()?;
        run.status.success().then_some(())?;
        Some(Self(String::from_utf8(run.stdout).ok()?.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .arg("-d")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_block_device_is_held_exclusively_and_known_to_lie_on_its_file() {
    let (_dir, path) = file(4 << 20);
    let Some(device) = Loop::over(&path) else {
        eprintln!("COULD NOT RUN: no loop device can be made here");
        return;
    };
    let origin = OriginDevice::open(&device.0, false).unwrap();
    assert_eq!((origin.size(), origin.is_block_device()), (4 << 20, true));
    assert!(
        matches!(origin.logical_block(), 512 | 4096),
        "{}",
        origin.logical_block()
    );
    assert!(StoreDevice::open(&device.0, false).unwrap_err().is_busy());
    let store = StoreDevice::open(&path, false).unwrap();
    let error = origin.must_not_share(&store).unwrap_err();
    assert!(matches!(error, DeviceError::Stacked { .. }), "{error}");
}

#[test]
fn a_file_that_was_extended_is_measured_anew() {
    let (_dir, path) = file(1 << 20);
    let origin = OriginDevice::open(&path, false).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    writer.set_len(3 << 20).unwrap();
    assert_eq!(origin.size(), 1 << 20, "nobody asked");
    assert_eq!(origin.measure().unwrap(), 3 << 20);
    assert_eq!(origin.size(), 3 << 20);
}
