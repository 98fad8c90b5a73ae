//! Extended attributes of an object, through its descriptor or, for what must not be
//! opened, through its name.

use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

use super::lister::lost;
use crate::tree::attributes::kept;
use crate::tree::{TreeError, Xattr};

/// Most bytes of a list of names, and of a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` of
/// linux/limits.h).
const LONGEST: usize = 64 << 10;

/// Where attributes are read from.
#[derive(Clone, Copy)]
pub(super) enum From<'a> {
    Open(BorrowedFd<'a>),
    /// A path that leads to the object, which is not followed if it is a link.
    Named(&'a [u8]),
}

/// The attributes that are kept, sorted. `buffer` is reused from call to call.
pub(super) fn read(
    from: From<'_>,
    path: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<Vec<Xattr>, TreeError> {
    buffer.clear();
    buffer.reserve(LONGEST);
    let listed = match from {
        From::Open(fd) => flistxattr(fd, spare_capacity(buffer)),
        From::Named(name) => llistxattr(name, spare_capacity(buffer)),
    };
    match listed {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(cause) => return Err(lost(path, "list the attributes of it", cause)),
    }
    let names = buffer.split(|&byte| byte == 0).filter(|name| kept(name));
    let names: Vec<Box<[u8]>> = names.map(Box::from).collect();
    let mut xattrs = Vec::with_capacity(names.len());
    for name in names {
        buffer.clear();
        let value = match from {
            From::Open(fd) => fgetxattr(fd, &*name, spare_capacity(buffer)),
            From::Named(object) => lgetxattr(object, &*name, spare_capacity(buffer)),
        };
        match value {
            Ok(_) => {}
            Err(Errno::NODATA) => {
                let what = format!("attribute {} is gone", name.escape_ascii());
                return Err(TreeError::changed(path, what));
            }
            Err(cause) => return Err(lost(path, "read an attribute of it", cause)),
        }
        let value = buffer.as_slice().into();
        xattrs.push(Xattr { name, value });
    }
    xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(xattrs)
}
