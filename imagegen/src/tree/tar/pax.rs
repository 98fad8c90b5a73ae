//! Records of pax headers, `LENGTH KEY=VALUE\n` each (POSIX.1-2017, pax, "pax Extended
//! Header").

use crate::tree::{Time, Xattr, attributes};

use super::acl;

/// What headers said beside the 512 bytes, of all files after or of the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct Extra {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) ctime: Option<Time>,
    pub(super) device: (Option<u32>, Option<u32>),
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: SparseRecords,
}

/// `GNU.sparse.*` of the formats 0.0, 0.1 and 1.0 (GNU tar's manual, "PAX Format").
#[derive(Debug, Clone, Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Size of the file, holes included.
    pub(super) size: Option<u64>,
    /// Where pieces begin and how long they are, one after the other.
    pub(super) map: Vec<u64>,
}

impl Extra {
    /// Takes the records of a header.
    ///
    /// # Errors
    /// If they are none: the reason.
    pub(super) fn take(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let malformed = || "a record of its pax header is malformed".to_owned();
            let space = records.iter().take(20).position(|&byte| byte == b' ');
            let space = space.ok_or_else(malformed)?;
            let length = decimal(&records[..space]).ok_or_else(malformed)?;
            let length = usize::try_from(length).map_err(|_| malformed())?;
            if length > records.len() || length < space + 3 {
                return Err(malformed());
            }
            let (record, rest) = records.split_at(length);
            let record = record[space + 1..]
                .strip_suffix(b"\n")
                .ok_or_else(malformed)?;
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or_else(malformed)?;
            let key = &record[..equals];
            self.record(key, &record[equals + 1..])
                .map_err(|why| format!("pax record {}: {why}", key.escape_ascii()))?;
            records = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let number = || decimal(value).ok_or("not a number");
        let small = || u32::try_from(number()?).map_err(|_| "more than 32 bits");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(small()?),
            b"gid" => self.gid = Some(small()?),
            b"mtime" => self.mtime = Some(time(value).ok_or("not a time")?),
            b"ctime" => self.ctime = Some(time(value).ok_or("not a time")?),
            b"SCHILY.devmajor" => self.device.0 = Some(small()?),
            b"SCHILY.devminor" => self.device.1 = Some(small()?),
            b"SCHILY.acl.access" => self.acl(b"system.posix_acl_access", value)?,
            b"SCHILY.acl.default" => self.acl(b"system.posix_acl_default", value)?,
            b"RHT.security.selinux" => {
                let text = value.strip_suffix(b"\0").unwrap_or(value);
                self.xattr(b"security.selinux", &[text, b"\0"].concat(), true)?;
            }
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(number()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal);
                let map: Option<Vec<u64>> = numbers.collect();
                self.sparse.map = map.ok_or("not a list of numbers")?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value, true)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = unescape(name).ok_or("its name is malformed")?;
                    let value = base64(value).ok_or("not base64")?;
                    self.xattr(&name, &value, false)?;
                }
            }
        }
        Ok(())
    }

    fn acl(&mut self, name: &[u8], text: &[u8]) -> Result<(), String> {
        let value = acl::parse(text)?;
        // Of owner, group and others alone it says what the mode does; the kernel would
        // not keep it either.
        match value.len() == 4 + 3 * 8 && name.ends_with(b"access") {
            true => Ok(()),
            false => self.xattr(name, &value, false),
        }
    }

    /// Keeps an attribute, which may have come in another notation already.
    fn xattr(&mut self, name: &[u8], value: &[u8], replace: bool) -> Result<(), String> {
        let known = self
            .xattrs
            .binary_search_by(|one| (*one.name).cmp(name))
            .is_ok();
        if !attributes::kept(name) || (known && !replace) {
            return Ok(());
        }
        match attributes::fault(name, value) {
            Some(fault) => Err(fault),
            None => {
                attributes::set(&mut self.xattrs, name, value);
                Ok(())
            }
        }
    }
}

/// A number of decimal digits alone.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    match text {
        [] => None,
        _ if !text.iter().all(u8::is_ascii_digit) => None,
        _ => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

/// Decimal seconds, with or without a fraction, which is cut to nanoseconds (downwards).
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = (0..9).map(|at| fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    let mut nanoseconds = digits.fold(0, |number, digit| number * 10 + digit);
    let mut seconds = seconds;
    if negative {
        let rest = fraction.iter().skip(9).any(|&digit| digit != b'0');
        nanoseconds += u32::from(rest);
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Some(Time {
        seconds,
        nanoseconds,
    })
}

/// Undoes `%41`, by which names of attributes are written.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut found = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            found.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            found.push(*first);
            rest = after;
        }
    }
    Some(found)
}

/// Undoes base64 with or without `=` at its end.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.split(|&byte| byte == b'=').next()?;
    let mut found = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0);
    for &digit in text {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            found.push((bits >> held) as u8);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Option<Time> {
        Some(Time {
            seconds,
            nanoseconds,
        })
    }

    #[test]
    fn times_before_and_after_1970() {
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"12.0000000019"), at(12, 1));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-0.0000000001"), at(-1, 999_999_999));
        assert_eq!(time(b"-0.9999999999"), at(-1, 0));
        for wrong in ["", "-", "x", "1.x", "1e5", "99999999999999999999", "+1"] {
            assert_eq!(time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    /// A record with its length.
    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let digits = |length: usize| length.to_string().len();
        let mut length = rest.len() + 1;
        length = rest.len() + digits(length);
        length = rest.len() + digits(length);
        [length.to_string().into_bytes(), rest].concat()
    }

    #[test]
    fn records_are_read_by_their_lengths() {
        let mut extra = Extra::default();
        let two = [record("path", b"a\nb"), record("size", b"12345")].concat();
        extra.take(&two).unwrap();
        assert_eq!(extra.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(extra.size, Some(12345));
        for wrong in [
            "5 a=b",
            "6 ab\n",
            "8 path=a\n",
            "99 path=a\n",
            "path=a\n",
            "0 \n",
            "3 \n",
            "2 ",
            "12 size=-1x\n",
            "99999999999999999999 a=b\n",
            "10 size=1x\n",
            "9 uid=-1\n",
        ] {
            assert!(Extra::default().take(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_notations_of_attributes() {
        let mut extra = Extra::default();
        for (key, value) in [
            ("LIBARCHIVE.xattr.user.a%3D", &b"AP8="[..]),
            ("SCHILY.xattr.user.b", b"a=b\nc"),
            ("LIBARCHIVE.xattr.user.b", b"AP8="), // the same again, which does not count
            ("SCHILY.xattr.system.nfs4_acl", b"x"),
            ("RHT.security.selinux", b"a:b:c"),
        ] {
            extra.take(&record(key, value)).unwrap();
        }
        let found = extra.xattrs.iter().map(|x| (&*x.name, &*x.value));
        let wanted: [(&[u8], &[u8]); 3] = [
            (b"security.selinux", b"a:b:c\0"),
            (b"user.a=", b"\0\xff"),
            (b"user.b", b"a=b\nc"),
        ];
        assert_eq!(found.collect::<Vec<_>>(), wanted);
        let long = record("SCHILY.xattr.user.c", &[1; 65537]);
        assert!(
            extra
                .take(&long)
                .unwrap_err()
                .contains("65537 bytes, at most 65536")
        );
        assert!(
            extra
                .take(&record("LIBARCHIVE.xattr.user.d", b"A?"))
                .is_err()
        );
        assert!(
            extra
                .take(&record("LIBARCHIVE.xattr.user.%4", b"AA"))
                .is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn records_of_anything_do_not_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = Extra::default().take(&bytes);
            let _ = (time(&bytes), unescape(&bytes), base64(&bytes));
        }
    }
}
