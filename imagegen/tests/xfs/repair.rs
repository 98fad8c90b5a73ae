//! xfs_repair as a judge: it must end well and have said nothing beyond what it says of
//! every clean file system.
//!
//! Its exit code alone is not enough: `xfs_repair -n` ends with 0 after an `ERROR` about
//! the log, and with some complaints it would mend silently.

use crate::tools::{Suite, xfsprogs};
use std::path::Path;
use std::process::Command;

/// Lines that a clean file system gets, of the versions used here.
const CLEAN: &[&str] = &[
    "Phase 1 - find and verify superblock...",
    "Phase 2 - using internal log",
    "- zero log...",
    "- scan filesystem freespace and inode maps...",
    "- found root inode chunk",
    "Phase 3 - for each AG...",
    "- scan (but don't clear) agi unlinked lists...",
    "- process known inodes and perform inode discovery...",
    "- agno = ",
    "- process newly discovered inodes...",
    "Phase 4 - check for duplicate blocks...",
    "- setting up duplicate extent list...",
    "- check for inodes claiming duplicate blocks...",
    "No modify flag set, skipping phase 5",
    "Phase 6 - check inode connectivity...",
    "- traversing filesystem ...",
    "- traversal finished ...",
    "- moving disconnected inodes to lost+found ...",
    "Phase 7 - verify link counts...",
    "No modify flag set, skipping filesystem flush and exiting.",
    // About the file system that the image lies on.
    "Cannot get host filesystem geometry.",
    "Repair may fail if there is a sector size mismatch between",
    "the image and the host filesystem.",
];

/// Has an image judged by xfs_repair of both suites; images made for Linux 6.1 also by
/// this machine's own, if it is there.
pub(crate) fn assert_clean(image: &Path, groups: u32) {
    for suite in [Suite::Stable, Suite::Newest] {
        if let Some(command) = xfsprogs(suite, "xfs_repair") {
            judge(command, &format!("{suite:?}"), image, groups);
        }
    }
}

/// By the xfs_repair of this machine (Debian 12: 6.1), as old kernels' users have it.
pub(crate) fn assert_clean_for_old(image: &Path, groups: u32) {
    if Command::new("xfs_repair").arg("-V").output().is_ok() {
        judge(Command::new("xfs_repair"), "this machine", image, groups);
    } else {
        crate::tools::skip("no xfs_repair on this machine");
    }
}

fn judge(mut command: Command, whose: &str, image: &Path, groups: u32) {
    command.env("LC_ALL", "C").args(["-n", "-f"]);
    if groups == 1 {
        // Without a second superblock to compare with it wants to be asked twice.
        command.args(["-o", "force_geometry"]);
    }
    let output = command.arg(image).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let complaints: Vec<&str> = text.lines().filter(|line| !is_clean(line)).collect();
    let complaints = &complaints[..complaints.len().min(20)];
    assert!(
        complaints.is_empty(),
        "xfs_repair -n ({whose}) says:\n{}",
        complaints.join("\n")
    );
    assert!(
        output.status.success(),
        "xfs_repair -n ({whose}) ended with {}:\n{text}",
        output.status
    );
    assert!(
        text.contains("Phase 7"),
        "xfs_repair -n ({whose}) stopped early:\n{text}"
    );
}

/// With many groups it tells how far it is: `- 08:57:09: zeroing log - 8 of 8 blocks done`.
fn is_progress(line: &str) -> bool {
    let told = line.starts_with("- reporting progress in intervals of");
    told || (line.ends_with(" done") && line.contains(" of ") && line.matches(':').count() == 3)
}

fn is_clean(line: &str) -> bool {
    let line = line.trim();
    if is_progress(line) {
        return true;
    }
    let number = |rest: &str| rest.chars().all(|digit| digit.is_ascii_digit());
    CLEAN.iter().any(|clean| match clean.ends_with("= ") {
        true => line.strip_prefix(clean).is_some_and(number),
        false => line == *clean,
    })
}
