//! An EROFS image of any bytes: opened, checked, listed, read. Reading ends, and what the
//! reader gives is within what the image says.
#![no_main]

use imagegen::erofs::check::check;
use imagegen::erofs::read::{Image, Step};
use imagegen::tree::Progress;
use libfuzzer_sys::fuzz_target;

/// As many objects and bytes are read; the check has no such bound and needs none.
const OBJECTS: usize = 200;
const BYTES: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let report = check(data, Vec::new(), &Progress::default());
    let Ok(image) = Image::open(data) else {
        assert_ne!(report.exit_code(), 0);
        return;
    };
    let Ok(root) = image.root() else { return };
    let mut walk = image.walk(root);
    let mut buffer = vec![0; BYTES];
    for _ in 0..OBJECTS {
        let Some(step) = walk.next() else { break };
        let (Step::Enter(inode) | Step::Node(inode)) = step else {
            continue;
        };
        let _ = image.xattrs(&inode);
        let _ = image.link(&inode);
        let _ = image.lookup(&inode, b"name");
        let Ok(mut contents) = image.contents(&inode) else {
            continue;
        };
        for at in [0, inode.size / 2] {
            if let Ok(got) = contents.read_at(at, &mut buffer) {
                assert!(got as u64 <= inode.size.saturating_sub(at));
            }
        }
    }
});
