//! Records of the volume and snapshot tables as a journal brings them, whatever
//! they say and in whatever order: the state they amount to can be looked at and
//! written out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapstore::format::Kind;
use snapstore::format::journal::Record;
use snapstore::format::tables::{SHARING_LEN, SNAPSHOT_LEN, VOLUME_LEN, text};
use snapstore::state::{State, TableShapes};
use snapstore::tree::Shape;
use snapstore::{Tag, VolumeId};

const CHUNK: u64 = 4096;

fn shape(kind: Kind, value_len: usize) -> Shape {
    let store = 1;
    Shape {
        kind,
        value_len,
        store,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut state = State::new(CHUNK);
    let mut rest = data;
    while let Ok((record, length)) = Record::decode(rest, 1) {
        if state.apply(&record).is_err() {
            break;
        }
        look(&state);
        rest = rest.get(length..).unwrap_or(&[]);
    }
    let shapes = TableShapes {
        volumes: shape(Kind::VolumeNode, VOLUME_LEN),
        snapshots: shape(Kind::SnapshotNode, SNAPSHOT_LEN),
        sharing: shape(Kind::SharingNode, SHARING_LEN),
    };
    state
        .freeze(&shapes)
        .expect("what was applied can be written");
    assert_eq!(state.dirty_entries(), (0, 0, 0));
    assert!(!state.dirty.any);
});

fn look(state: &State) {
    for (id, volume) in &state.volumes {
        assert_eq!((*id, volume.id), (volume.id, *id));
        assert_ne!(*id, VolumeId(0));
        assert!(text(&volume.record.name).len() <= 3 * volume.record.name.len());
        let newest = volume.newest();
        assert!(
            volume
                .live()
                .all(|tag| tag <= newest && volume.snapshots.contains_key(&tag))
        );
        assert!(
            volume
                .unpurged()
                .all(|tag| volume.snapshots.contains_key(&tag))
        );
        assert_eq!(
            volume.live_in(Tag(0), Tag(u64::MAX)).is_some(),
            volume.live().any(|t| t.0 > 0)
        );
        let _ = volume.is_beyond_snapshots(volume.chunks, CHUNK);
        assert!(
            volume
                .sharing
                .iter()
                .all(|((first, last), _)| first <= last)
        );
    }
}
