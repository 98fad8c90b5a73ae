//! Paths of archives: relative to the root of the tree, whatever they begin with.

use super::NAME_MAX;

/// The names on a path. Leading, doubled and trailing slashes and `.` mean nothing.
///
/// # Errors
/// If a name on it cannot be one, or it leads upwards: the reason.
pub(crate) fn names(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut found = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err("its path leads upwards by `..`; remove it from the source".into()),
            _ => {}
        }
        if name.len() > NAME_MAX {
            let length = name.len();
            return Err(format!(
                "a name on its path has {length} bytes, at most {NAME_MAX} fit"
            ));
        }
        if name.contains(&0) {
            return Err("a name on its path holds a zero byte".into());
        }
        found.push(name);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_remain() {
        let long = [b'x'; 255];
        assert_eq!(names(b"//a/./b//").unwrap(), [b"a", b"b"]);
        assert_eq!(names(b"./").unwrap(), Vec::<&[u8]>::new());
        assert_eq!(names(&long).unwrap(), [&long[..]]);
        assert!(names(b"a/../b").is_err() && names(&[b'x'; 256]).is_err());
        assert!(names(b"a/b\0c").is_err() && names(b"..a").is_ok());
    }
}
