//! A volume grows: what that needs, what it may not do, what a crash leaves.

use super::*;

/// Chunks the volume begins with; a chunk is one block here.
const CHUNKS: u64 = 4096;
const CHUNK: u64 = BLOCK_SIZE as u64;

impl Rig {
    fn resize(&mut self, size: u64) -> Option<Result<Reply, CommandError>> {
        let id = self.command(Command::ResizeVolume {
            volume: VOLUME,
            size,
        });
        self.result(id)
    }

    fn size(&self) -> Option<u64> {
        let volumes = self.engine.volumes();
        volumes.iter().find(|v| v.id == VOLUME).map(|v| v.size)
    }
}

#[test]
fn a_volume_grows_when_that_is_durable_and_not_before() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let larger = (CHUNKS + 10) * CHUNK - 512;
    rig.hold_flushes = true;
    let before = Disk(rig.disk.0.clone(), None);
    assert_eq!(rig.resize(larger), None, "answered before the flush");
    assert_eq!(rig.size(), Some(CHUNKS * CHUNK));
    rig.write(1, CHUNKS, 1);
    assert!(rig.granted.is_empty() && rig.failed.len() == 1);
    // A crash here leaves the old size, or the new one if the record landed.
    assert_eq!(Rig::open(before).size(), Some(CHUNKS * CHUNK));
    let landed = Rig::open(Disk(rig.disk.0.clone(), None));
    assert_eq!(landed.size(), Some(larger));
    rig.release();
    assert_eq!(rig.size(), Some(larger));
    let answer = rig.replies.last().map(|(_, result)| result.clone());
    assert_eq!(answer, Some(Ok(Reply::Done)));
    rig.write(2, CHUNKS, 10);
    assert_eq!(rig.granted, [Owner(2)]);
    rig.write(3, CHUNKS + 9, 2);
    assert_eq!(rig.failed.len(), 2, "beyond the new end");
    // Killed: the journal alone knows, and reading it twice changes nothing.
    let mut disk = Disk(rig.disk.0.clone(), None);
    for _ in 0..2 {
        assert_eq!(Rig::open(Disk(disk.0.clone(), None)).size(), Some(larger));
        disk = Rig::open(disk).disk;
    }
    rig.command(Command::Close);
    assert_eq!(Rig::open(rig.disk).size(), Some(larger));
}

#[test]
fn what_a_volume_cannot_become_is_refused() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let size = CHUNKS * CHUNK;
    let shrinks = CommandError::Shrinks {
        volume: "v".to_owned(),
        size,
        wanted: size - 512,
    };
    assert_eq!(rig.resize(size - 512), Some(Err(shrinks)));
    for odd in [0, size + 1, u64::MAX, u64::MAX - 511] {
        let refused = rig.resize(odd);
        let invalid = matches!(refused, Some(Err(CommandError::Invalid(_))));
        assert!(invalid, "{odd}: {refused:?}");
    }
    assert_eq!(rig.resize(size), Some(Ok(Reply::Done)), "it has that size");
    assert_eq!(rig.size(), Some(size));
    let volume = VolumeId(7);
    let nobody = rig.command(Command::ResizeVolume { volume, size });
    let missing = CommandError::NoVolume(volume);
    assert_eq!(rig.result(nobody), Some(Err(missing)));
    // A journal that says a volume shrank is damaged, not obeyed.
    let mut record = rig.engine.state.volumes[&VOLUME].record;
    record.size = (size - 512).into();
    let record = Record::VolumeChanged {
        volume: VOLUME,
        record: Box::new(record),
    };
    assert!(rig.engine.state.apply(&record).is_err());
}

#[test]
fn only_what_a_snapshot_reaches_is_copied() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let odd = CHUNKS * CHUNK + 512;
    assert_eq!(rig.resize(odd), Some(Ok(Reply::Done)));
    rig.take("odd");
    let large = (CHUNKS + 8) * CHUNK;
    assert_eq!(rig.resize(large), Some(Ok(Reply::Done)));
    // The older snapshot ends before this chunk, the newer one in the middle of it.
    rig.write(1, CHUNKS, 1);
    assert_eq!(rig.copies, [(CHUNKS, CHUNK as u32)]);
    // Wholly beyond both: nothing to keep, and no need to ask again.
    rig.write(2, CHUNKS + 1, 7);
    assert_eq!(rig.copies.len(), 1);
    let map = rig.engine.unique_map(VOLUME).unwrap();
    assert!(map.all_unique(CHUNKS, 8));
    rig.take("large");
    assert!(!map.all_unique(CHUNKS + 1, 1), "a take clears new bits too");
    rig.write(3, CHUNKS + 1, 7);
    assert_eq!(rig.copies.last(), Some(&(CHUNKS + 1, 7 * CHUNK as u32)));
    assert_eq!(rig.granted, [1, 2, 3].map(Owner));
    let snapshots = rig.engine.snapshots(VOLUME);
    let sizes: Vec<u64> = snapshots.iter().map(|s| s.size).collect();
    assert_eq!(sizes, [CHUNKS * CHUNK, odd, large]);
}

#[test]
fn a_copyout_stops_where_the_volume_ends() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let odd = CHUNKS * CHUNK + 1024;
    assert_eq!(rig.resize(odd), Some(Ok(Reply::Done)));
    rig.take("odd");
    rig.write(1, CHUNKS - 1, 2);
    assert_eq!(rig.copies, [(CHUNKS - 1, CHUNK as u32 + 1024)]);
}
