//! fsck.erofs and dump.erofs of both suites.

use crate::tools::{Suite, erofs_utils};
use imagegen::erofs::write::Options;
use std::path::Path;
use std::process::Command;

/// Bytes of files that are read.
const READ: u64 = 256 << 20;

/// fsck.erofs finds nothing wrong, with all contents read if they have no more than `size`
/// bytes together: it reads holes, too.
pub(crate) fn assert_clean(image: &Path, device: Option<&Path>, options: &Options, size: u64) {
    // Both were built for blocks up to a page.
    if options.block_size > 4096 {
        return;
    }
    for suite in [Suite::Stable, Suite::Newest] {
        // The stable one (1.8.6) refuses superblocks with little after them in their block,
        // and knows no 48-bit layout and no metabox.
        let new = options.block_size < 2048 || options.bit48 || options.metadata.is_some();
        if suite == Suite::Stable && new {
            continue;
        }
        if let Some(mut fsck) = erofs_utils(suite, "fsck.erofs") {
            match device {
                Some(device) => fsck.arg(format!("--device={}", device.display())),
                // With devices it loses the last hole of a file.
                None if size < READ => fsck.arg("--extract"),
                None => &mut fsck,
            };
            let said = said(fsck.arg(image));
            assert!(!said.contains("<E>"), "fsck.erofs of {suite:?}: {said}");
        }
    }
}

/// What dump.erofs of the newest suite says of the superblock, and that of the stable one as
/// far as it says it (not of blocks of 512 bytes): the value of a line.
pub(crate) fn superblock(image: &Path, name: &str) -> Option<String> {
    let dump = |suite| Some(said(erofs_utils(suite, "dump.erofs")?.arg("-s").arg(image)));
    let line = |said: &str| {
        let line = said.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':').unwrap().1.trim().to_owned())
    };
    let said = dump(Suite::Newest)?;
    let newest = line(&said).unwrap_or_else(|| panic!("no {name} in {said}"));
    if let Some(stable) = dump(Suite::Stable).and_then(|said| line(&said)) {
        assert_eq!(stable, newest, "{name}, by the two suites");
    }
    Some(newest)
}

/// What a command says that has to succeed.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let status = output.status;
    assert!(status.success(), "{command:?}: {status}: {said}");
    said
}
