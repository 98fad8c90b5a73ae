//! What a tree holds, seen through the reader as [`observe`](crate::trees::observe) sees
//! one on disk: to be compared.

use crate::trees::model::rounded;
use crate::trees::observe::{Contents, Seen, View, observe_bytes};
use imagegen::erofs::read::{Image, Inode, Step};
use imagegen::medium::Source;
use std::collections::HashMap;
use std::path::Path;

/// Blocks by which zeroes are told from data, whatever the image's are.
const BLOCK: usize = 4096;

/// Through the reader; contents are read in pieces of a size that fits nothing.
pub(crate) fn of_image<S: Source>(image: &Image<S>) -> View {
    let mut view = View::new();
    let mut first = HashMap::new();
    let mut walk = image.walk(image.root().unwrap());
    while let Some(step) = walk.next() {
        let path = walk.path().to_vec();
        let inode = match step {
            Step::Enter(inode) | Step::Node(inode) => inode,
            Step::Leave => continue,
            Step::Broken(error) => panic!("{}: {error}", path.escape_ascii()),
        };
        let first = first.entry(inode.nid).or_insert_with(|| path.clone());
        view.insert(path, seen(image, &inode, first.clone()));
    }
    view
}

fn seen<S: Source>(image: &Image<S>, inode: &Inode, first: Vec<u8>) -> Seen {
    let xattrs = image.xattrs(inode).unwrap().list.into_iter();
    let xattrs = xattrs.map(|xattr| (xattr.name.unwrap(), xattr.value));
    let contents = match inode.device() {
        Some(device) => Contents::Device(device.major, device.minor),
        None if inode.is_symlink() => Contents::Symlink(image.link(inode).unwrap()),
        None if inode.is_file() => file(&read(image, inode)),
        None => Contents::Nothing,
    };
    let mut seen = Seen {
        mode: inode.mode.into(),
        uid: inode.uid,
        gid: inode.gid,
        links: inode.links.into(),
        mtime: (inode.mtime.seconds, inode.mtime.nanoseconds),
        ctime: (0, 0),
        xattrs: xattrs.collect(),
        contents,
        first,
    };
    leave_out(&mut seen);
    seen
}

fn read<S: Source>(image: &Image<S>, inode: &Inode) -> Vec<u8> {
    let mut contents = image.contents(inode).unwrap();
    let mut buffer = vec![0xaa; 77_777];
    let mut bytes = Vec::new();
    loop {
        match contents.read_at(bytes.len() as u64, &mut buffer).unwrap() {
            0 => break,
            got => bytes.extend_from_slice(&buffer[..got]),
        }
    }
    assert_eq!(bytes.len() as u64, inode.size);
    bytes
}

fn file(bytes: &[u8]) -> Contents {
    let (mut sum, mut data) = (0, Vec::new());
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            sum = crc32c::crc32c_append(sum, block);
            let at = (number * BLOCK) as u64;
            data.push(at..at + 1);
        }
    }
    Contents::File {
        size: bytes.len() as u64,
        data: rounded(&data, BLOCK as u64),
        sum,
    }
}

/// Through system calls.
pub(crate) fn of_directory(root: &Path) -> View {
    let mut view = observe_bytes(root, BLOCK as u64);
    view.values_mut().for_each(leave_out);
    view
}

/// An image keeps one time, and not every file system counts the links of directories.
fn leave_out(seen: &mut Seen) {
    seen.ctime = (0, 0);
    if seen.mode & 0o170_000 == 0o040_000 {
        seen.links = 0;
    }
}
