//! POSIX ACLs as text, as tars write them, into the value of `system.posix_acl_*`
//! (linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each entry, all
//! little-endian).
//!
//! GNU tar writes users and groups by name only. As it does when it unpacks, names are
//! looked up on this host, in `/etc/passwd` and `/etc/group`.

const VERSION: u32 = 2;
/// The id of entries that are about nobody by name.
const NOBODY: u32 = u32::MAX;

/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`, entries apart by commas or
/// new lines. A number behind (`user:joe:rw-:1000`) counts before the name.
///
/// # Errors
/// If it is none: the reason.
pub(super) fn parse(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "an ACL that is not text")?;
    let mut entries = Vec::new();
    for line in text.split([',', '\n']) {
        let line = line.split('#').next().unwrap_or(line).trim();
        if !line.is_empty() {
            entries.push(entry(line).ok_or_else(|| {
                format!(
                    "`{line}` is not an entry of an ACL, or about somebody this host does not know"
                )
            })?);
        }
    }
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(value)
}

/// Tag, id and permissions: the order the kernel wants entries in.
fn entry(line: &str) -> Option<(u16, u32, u16)> {
    let line = line.strip_prefix("default:").unwrap_or(line);
    let mut fields = line.split(':');
    let (tag, whom) = (fields.next()?, fields.next()?);
    let permissions = match (tag, fields.next()) {
        // `other:r--` and `mask:r--`, as some write
        ("other" | "o" | "mask" | "m", None) => return special(tag, whom),
        (_, found) => found?,
    };
    let number = fields.next();
    if whom.is_empty() && !matches!(tag, "user" | "u" | "group" | "g") {
        return special(tag, permissions);
    }
    let (own, named) = match tag {
        "user" | "u" => (0x01, 0x02),
        "group" | "g" => (0x04, 0x08),
        _ => return None,
    };
    let permissions = bits(permissions)?;
    match whom {
        "" => Some((own, NOBODY, permissions)),
        _ => {
            let number = number.unwrap_or(whom).parse().ok();
            Some((named, number.or_else(|| look_up(tag, whom))?, permissions))
        }
    }
}

/// The number of a user or group of this host.
fn look_up(tag: &str, whom: &str) -> Option<u32> {
    let list = if tag.starts_with('u') {
        "/etc/passwd"
    } else {
        "/etc/group"
    };
    let list = std::fs::read_to_string(list).ok()?;
    let mut lines = list.lines().map(|line| line.split(':'));
    let mut found = lines.find_map(|mut fields| (fields.next()? == whom).then_some(fields))?;
    found.nth(1)?.parse().ok()
}

fn special(tag: &str, permissions: &str) -> Option<(u16, u32, u16)> {
    let tag = match tag {
        "mask" | "m" => 0x10,
        "other" | "o" => 0x20,
        _ => return None,
    };
    Some((tag, NOBODY, bits(permissions)?))
}

fn bits(permissions: &str) -> Option<u16> {
    permissions
        .bytes()
        .try_fold(0, |bits, letter| match letter {
            b'r' => Some(bits | 4),
            b'w' => Some(bits | 2),
            b'x' => Some(bits | 1),
            b'-' => Some(bits),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_written_as_the_kernel_has_it() {
        let value = parse(
            b"user::rw-,other::---,mask::r-x,user:7:r--,group::-w-,user:joe:--x:3,group:root:r--",
        )
        .unwrap();
        let mut wanted = vec![2, 0, 0, 0];
        let entries: [(u8, u8, u32); 7] = [
            (1, 6, NOBODY),
            (2, 1, 3),
            (2, 4, 7),
            (4, 2, NOBODY),
            (8, 4, 0),
            (16, 5, NOBODY),
            (32, 0, NOBODY),
        ];
        for (tag, bits, id) in entries {
            wanted.extend_from_slice(&[tag, 0, bits, 0]);
            wanted.extend_from_slice(&id.to_le_bytes());
        }
        assert_eq!(value, wanted);
    }

    #[test]
    fn what_is_no_acl_is_refused() {
        for wrong in [
            "user",
            "user::",
            "user:joe:rw-",
            "owner::rw-",
            "user::rq-",
            "user:-1:r--",
        ] {
            match parse(wrong.as_bytes()) {
                Ok(value) if wrong == "user::" => assert_eq!(value[6], 0), // no permissions
                Ok(value) => panic!("{wrong} became {value:?}"),
                Err(reason) => assert!(reason.contains(wrong), "{reason}"),
            }
        }
    }
}
