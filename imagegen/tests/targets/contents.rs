//! What is written is there: past the cache and through it, shared, zeroed, and where there is
//! too little room.

use super::*;

/// A file of bytes that say where they lie.
fn numbered(path: &Path, length: u64) -> File {
    let bytes: Vec<u8> = (0..length / 8).flat_map(u64::to_le_bytes).collect();
    fs::write(path, &bytes).unwrap();
    File::open(path).unwrap()
}

#[test]
fn only_what_the_file_system_can_share_is_shared() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let target = create(&dir.path().join("image"), 8 * MIB);
    let source = numbered(&dir.path().join("source"), 3 * MIB);
    for (from, to, count) in [(0, 0, 4096), (1, 8193, 70_001), (0, 300_000, MIB)] {
        let shared = target.share(&source, from, to, count).unwrap();
        assert!(shared <= count);
        let (mut ours, mut theirs) = (vec![0; shared as usize], vec![0; shared as usize]);
        target.read_exact_at(&mut ours, to).unwrap();
        source.read_exact_at(&mut theirs, from).unwrap();
        assert!(ours == theirs, "{from} to {to}");
    }
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let other = numbered(&elsewhere.path().join("source"), MIB);
    assert_eq!(target.share(&other, 0, 0, MIB).unwrap(), 0);
}

/// Large writes go past the page cache, small ones and the ends of odd ones through it:
/// says what must be in the first `size` bytes then.
fn write_both_ways(target: &Target, size: u64) -> Vec<u8> {
    let mut model = vec![0; size as usize];
    let mut memory = vec![0; (3 << 20) + 8192];
    let aligned = memory.as_ptr().align_offset(4096);
    let mut random = ChaCha8Rng::seed_from_u64(0x5eed);
    for step in 1..=200 {
        let unit = [512, 4096, 65536][random.random_range(0..3)];
        let length = random.random_range(1..=3 * MIB / unit / 2) * unit;
        let at = random.random_range(0..=(size - length) / unit) * unit;
        // As far into a page of memory as into one of the image, or not.
        let skew = if random.random_bool(0.2) {
            512
        } else {
            at % 4096
        };
        let begin = aligned + skew as usize;
        let bytes = &mut memory[begin..begin + length as usize];
        bytes.fill(step);
        match random.random_bool(0.1) {
            true => target.write_draft(at, bytes).unwrap(),
            false => target.write(at, bytes).unwrap(),
        }
        model[at as usize..(at + length) as usize].fill(step);
        let probe = random.random_range(0..size as usize - 5000);
        let mut seen = vec![0; 5000];
        target.read_exact_at(&mut seen, probe as u64).unwrap();
        assert!(seen == model[probe..probe + 5000], "step {step}");
    }
    model
}

#[test]
fn writes_past_the_cache_and_through_it_are_one_image() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    for dir in [dir.path(), memory.path()] {
        let path = dir.join("image");
        let target = create(&path, 8 * MIB);
        let model = write_both_ways(&target, 8 * MIB);
        target.finish(true).unwrap();
        assert!(fs::read(&path).unwrap() == model);
    }
}

#[test]
fn zeroing_takes_blocks_away_again() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let target = create(&path, 4 * MIB);
    target.write(0, &vec![7; 4 << 20]).unwrap();
    target.zero(MIB, 2 * MIB).unwrap();
    target.zero(0, 0).unwrap();
    target.finish(true).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == 7).count(), 2 << 20);
}

/// A mount of a tmpfs or file system, undone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], dir: &Path) -> Option<Self> {
        let output = Command::new("mount").args(arguments).arg(dir).output();
        let output = output.unwrap();
        if output.status.success() {
            return Some(Self(dir.to_owned()));
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        tools::skip(&format!("cannot mount: {why}"));
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_file_system_is_named_and_keeps_no_half() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=2m", "none"], dir.path()) else {
        return;
    };
    let path = dir.path().join("image");
    let target = create(&path, 64 * MIB);
    let error = (0..8)
        .find_map(|piece| target.write(piece * MIB, &vec![1; 1 << 20]).err())
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let text = error.to_string();
    assert!(text.contains("no space left"), "{text}");
    assert!(text.contains("image"), "{text}");
    drop(target);
    assert_eq!(entries(dir.path()), Vec::<String>::new());
    fs::write(dir.path().join("free again"), vec![1; 1 << 20]).unwrap();
    drop(mounted);
}

/// Where the file system can, contents take no room a second time.
#[test]
fn contents_are_shared_with_a_source_beside_the_image() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(400 * MIB).unwrap();
    let mut make = Command::new("mkfs.xfs");
    make.args(["-q", "-m", "reflink=1"]).arg(&disk);
    assert!(make.status().unwrap().success());
    let place = dir.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let options = ["-o", "loop", disk.to_str().unwrap()];
    let Some(mounted) = Mounted::new(&options, &place) else {
        return;
    };
    let source = numbered(&place.join("source"), 32 * MIB + 100);
    source.sync_all().unwrap();
    let target = create(&place.join("image"), 64 * MIB);
    let free = || rustix::fs::statvfs(&place).unwrap().f_bfree * 4096;
    let before = free();
    let shared = target.share(&source, 0, 8 * MIB, 32 * MIB + 100).unwrap();
    assert_eq!(shared, 32 * MIB, "whole blocks");
    assert!(before - free() < MIB, "it took {} bytes", before - free());
    // The kernel would copy these without a word.
    assert_eq!(target.share(&source, 512, 4 * MIB, MIB).unwrap(), 0);
    assert_eq!(target.share(&source, 0, 4 * MIB + 1024, MIB).unwrap(), 0);
    let mut bytes = vec![0; 16];
    target.read_exact_at(&mut bytes, 8 * MIB + 1600).unwrap();
    assert_eq!(bytes[..8], 200_u64.to_le_bytes());
    drop((target, source));
    drop(mounted);
}

#[test]
fn a_device_is_written_unless_it_holds_something_or_is_in_use() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = Loop::new(&dir.path().join("disk"), 400 * MIB) else {
        return;
    };
    let path = device.0.as_path();
    assert_eq!(capacity(path).unwrap(), Some(400 * MIB));
    let refused = Target::create(path, 401 * MIB, Overwrite::Force).unwrap_err();
    assert!(matches!(refused, TargetError::TooSmall { .. }), "{refused}");

    let target = create(path, 400 * MIB);
    let mut model = write_both_ways(&target, 8 * MIB);
    target.zero(0, MIB).unwrap();
    model[..1 << 20].fill(0);
    target.finish(true).unwrap();
    let mut written = vec![0; 8 << 20];
    File::open(path).unwrap().read_exact(&mut written).unwrap();
    assert!(written == model);

    assert!(
        Command::new("mkfs.xfs")
            .args(["-q", "-f"])
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
    let refused = Target::create(path, 400 * MIB, Overwrite::Refuse).unwrap_err();
    assert!(refused.to_string().contains("XFS"), "{refused}");
    assert!(refused.to_string().contains("--force"), "{refused}");

    let place = dir.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let device_name = path.to_str().unwrap();
    let Some(mounted) = Mounted::new(&[device_name], &place) else {
        return;
    };
    let refused = Target::create(path, 400 * MIB, Overwrite::Force).unwrap_err();
    assert!(matches!(refused, TargetError::InUse { .. }), "{refused}");
    drop(mounted);

    let target = Target::create(path, 400 * MIB, Overwrite::Force).unwrap();
    target.write(200 * MIB + 5, b"something").unwrap();
    // Nobody else gets it now.
    let second = Target::create(path, 400 * MIB, Overwrite::Force).unwrap_err();
    assert!(matches!(second, TargetError::InUse { .. }), "{second}");
    drop(target);
    let mut at = File::open(path).unwrap();
    let quarters = (0..4).map(|ag| ag * 100 * MIB);
    for superblock in quarters {
        let mut magic = [1; 4];
        at.read_exact_at(&mut magic, superblock).unwrap();
        assert_eq!(magic, [0; 4], "a superblock is left at {superblock}");
    }
    let _ = at.flush();
    create(path, 400 * MIB).finish(false).unwrap();
}
