//! The kernel of this machine as a judge: it must have nothing to say about an image but
//! that it mounted it.

pub(crate) use crate::trees::mount::run;

use crate::image::Image;
use crate::trees::mount;
use std::path::Path;

/// How to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    ReadOnly,
    ReadWrite,
}

/// Whether this machine can mount XFS, else the test is noted as skipped.
pub(crate) fn possible() -> bool {
    mount::possible("xfs")
}

/// A mounted image.
pub(crate) struct Mounted(mount::Mounted);

impl Mounted {
    /// Mounts `image`.
    pub(crate) fn new(image: &Image, how: How) -> Self {
        let options = match how {
            How::ReadOnly => "ro",
            How::ReadWrite => "rw",
        };
        let point = image.dir().join("mnt");
        let mounted = mount::Mounted::new("xfs", &image.path(), &[], &point, options);
        Self(mounted.unwrap_or_else(|said| panic!("{said}")))
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        self.0.root()
    }

    /// Unmounts; the kernel must not have complained.
    pub(crate) fn end(self) {
        let said = self.0.end();
        let harmless = [
            "Mounting V5 Filesystem",
            "Ending clean mount",
            "Unmounting Filesystem",
            "EXPERIMENTAL",
        ];
        let complaints: Vec<&String> = said
            .iter()
            .filter(|line| !harmless.iter().any(|harmless| line.contains(harmless)))
            .collect();
        assert!(complaints.is_empty(), "the kernel says: {complaints:#?}");
        assert!(
            said.iter().any(|line| line.contains("Ending clean mount")),
            "no clean mount: {said:#?}"
        );
    }
}
