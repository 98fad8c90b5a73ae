//! A QCOW2 image of any bytes: opened, checked, mapped, read, with its snapshots and
//! bitmaps. All of it ends, and nothing panics.
#![no_main]

use imagegen::qcow2::check::check;
use imagegen::qcow2::read::{Disk, Image, Layer};
use libfuzzer_sys::fuzz_target;

/// As many runs and bytes are read; the check has no such bound and needs none.
const RUNS: usize = 200;
const BYTES: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let report = check(data);
    let Ok(image) = Image::open(data) else {
        assert_ne!(report.exit_code(), 0);
        return;
    };
    for bitmap in image.bitmaps().unwrap_or_default().iter().take(4) {
        let _ = image.bits(bitmap);
    }
    for snapshot in image.snapshots().unwrap_or_default().iter().take(4) {
        if let Ok(mut then) = Image::open(data)
            && then.apply(snapshot).is_ok()
        {
            read(then);
        }
    }
    read(image);
});

fn read(image: Image<&[u8]>) {
    let Ok(disk) = Disk::new(vec![Layer::Qcow2(Box::new(image))]) else {
        return;
    };
    let mut buffer = vec![0; BYTES];
    let mut at = 0;
    for _ in 0..RUNS {
        let Ok(run) = disk.run(at, disk.size() - at) else {
            break;
        };
        assert!(run.length <= disk.size() - at);
        if run.length == 0 {
            break;
        }
        let length = run.length.min(BYTES as u64) as usize;
        let _ = disk.read_at(at, &mut buffer[..length]);
        at += run.length;
    }
}
