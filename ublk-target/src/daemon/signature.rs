//! What a device seems to hold: [`snapstore::signature`] over the devices of this crate.

use snapstore::IoError;
pub use snapstore::signature::{Found, find, names};

/// A `read` for [`find`] over a device that is read in whole blocks.
pub fn reader(device: &crate::device::Device) -> impl FnMut(u64, &mut [u8]) -> Result<(), IoError> {
    use snapstore::{BLOCK_SIZE, Block};
    let mut blocks = [Block::zeroed(), Block::zeroed()];
    let mut at = None;
    move |offset, out| {
        let size = BLOCK_SIZE as u64;
        let first = offset / size * size;
        if at != Some(first) {
            at = None;
            device.read_blocks(first, &mut blocks)?;
            at = Some(first);
        }
        let bytes = blocks
            .iter()
            .flat_map(|block| block.0)
            .skip((offset - first) as usize);
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::device::StoreDevice;

    #[test]
    fn tools_of_this_machine_are_recognised() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for (tool, args, name) in [
            ("mkfs.xfs", &["-q", "-f"][..], "an XFS file system"),
            (
                "mkfs.ext4",
                &["-q", "-F"],
                "an ext2, ext3 or ext4 file system",
            ),
            ("mkswap", &["-q"], "a swap area"),
        ] {
            let path = dir.path().join(tool);
            std::fs::File::create(&path)
                .unwrap()
                .set_len(512 << 20)
                .unwrap();
            match Command::new(tool).args(args).arg(&path).output() {
                Err(error) => {
                    eprintln!("could not run: {tool}: {error}");
                    continue;
                }
                Ok(output) => assert!(output.status.success(), "{tool}: {output:?}"),
            }
            let device = StoreDevice::open(&path, true).unwrap();
            let found = find(device.size(), reader(&device)).unwrap();
            assert_eq!(found.iter().map(|f| f.name).collect::<Vec<_>>(), [name]);
        }
    }
}
