//! Which extended attributes are kept, and what a list of them must be like.

use super::Xattr;

/// Longest name and value (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX` of linux/limits.h).
const NAME: usize = 255;
const VALUE: usize = 64 << 10;

/// Whether an attribute belongs to the object rather than to the file system it lies on.
pub(crate) fn kept(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."]
        .iter()
        .any(|space| name.starts_with(space))
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// Puts a value into a sorted list, in place of another of the same name.
pub(crate) fn set(list: &mut Vec<Xattr>, name: &[u8], value: &[u8]) {
    let (name, value) = (Box::from(name), Box::from(value));
    match list.binary_search_by(|one| one.name.cmp(&name)) {
        Ok(at) => list[at].value = value,
        Err(at) => list.insert(at, Xattr { name, value }),
    }
}

/// What is wrong with an attribute from a file somebody made.
pub(crate) fn fault(name: &[u8], value: &[u8]) -> Option<String> {
    let shown = name.escape_ascii();
    if name.len() > NAME {
        let length = name.len();
        return Some(format!(
            "attribute {shown}: its name has {length} bytes, at most {NAME} fit"
        ));
    }
    if name.contains(&0) || name.ends_with(b".") {
        return Some(format!("attribute {shown}: not a name"));
    }
    let length = value.len();
    (length > VALUE).then(|| format!("attribute {shown} has {length} bytes, at most {VALUE} fit"))
}
