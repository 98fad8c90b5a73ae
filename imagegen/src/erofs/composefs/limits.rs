//! What a format cannot hold.

use super::Version;
use super::attributes::{self, MOST_SHARED_V2};
use super::tree::{Body, External, Object};
use crate::tree::Xattr;

/// Bytes of attributes that libcomposefs takes from outside (`LCFS_INODE_EXTERNAL_XATTR_MAX`).
const XATTRS_MAX: usize = 32_767;
/// Most bytes of a file in an image of version 2.
const INLINE_MAX_V2: usize = 512;
/// Longest target of a symbolic link in version 2, as on XFS.
const SYMLINK_MAX_V2: usize = 1024;
/// Largest chunk, in bits, and how many a file may have at most.
const CHUNK_BITS_MAX: u32 = 43;
const CHUNKS_MAX: u64 = 1024;

/// What an image of that version cannot hold.
pub(super) fn check(object: &Object, version: Version) -> Result<(), String> {
    let shown = |xattr: &Xattr| xattr.name.escape_ascii().to_string();
    for xattr in &object.xattrs {
        attributes::check(xattr)
            .map_err(|reason| format!("attribute {}: {reason}", shown(xattr)))?;
    }
    let chunks = match &object.body {
        Body::External(_) => object.size.div_ceil(1 << chunk_bits(object.size)),
        _ => 0,
    };
    match (version, &object.body) {
        (Version::V0 | Version::V1, _) => {
            // As libcomposefs counts: 7 bytes besides name and value, and a header.
            let each = object
                .xattrs
                .iter()
                .map(|x| 7 + x.name.len() + x.value.len());
            let all = each.sum::<usize>() + 12;
            if !object.xattrs.is_empty() && all > XATTRS_MAX {
                return Err(format!(
                    "its attributes take {all} bytes, at most {XATTRS_MAX} may"
                ));
            }
            if chunks > CHUNKS_MAX {
                let most = CHUNKS_MAX << CHUNK_BITS_MAX;
                return Err(format!("{} bytes, at most {most} may be", object.size));
            }
        }
        (_, Body::Inline(bytes)) if bytes.len() > INLINE_MAX_V2 => {
            return Err(format!(
                "{} bytes are inline, at most {INLINE_MAX_V2} may be in version 2; put it into the object store",
                bytes.len()
            ));
        }
        (_, Body::Symlink(target)) if target.len() > SYMLINK_MAX_V2 => {
            return Err(format!(
                "its target has {} bytes, at most {SYMLINK_MAX_V2} may be in version 2",
                target.len()
            ));
        }
        (_, Body::CharDevice(0)) if object.names > 1 => {
            return Err("a whiteout with several names, which version 2 does not know".into());
        }
        // The crate makes an image of such a file, but one without the file's chunk.
        (_, Body::External(External { digest: None, .. })) => {
            return Err("no digest, which version 2 needs; give the file's of fs-verity".into());
        }
        (
            _,
            Body::External(External {
                payload: None,
                by_digest: false,
                ..
            }),
        ) => {
            return Err("a digest without payload, which version 2 does not know".into());
        }
        (_, Body::External(_)) if chunks > 1 => {
            let most = 1_u64 << CHUNK_BITS_MAX;
            return Err(format!(
                "{} bytes, at most {most} may be in version 2",
                object.size
            ));
        }
        _ => {}
    }
    if version == Version::V2 && object.xattrs.len() > MOST_SHARED_V2 {
        return Err(format!(
            "{} attributes, at most {MOST_SHARED_V2} may be in version 2",
            object.xattrs.len()
        ));
    }
    Ok(())
}

/// Logarithm of the chunks a file of `size` bytes has: as few of them as can be.
pub(super) fn chunk_bits(size: u64) -> u32 {
    let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
    bits.clamp(12, CHUNK_BITS_MAX)
}
