//! Dumps made up at random, biased to what decides how an image is laid out.

use rand::{Rng, RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::fmt::Write;

/// What a dump may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Everything that `mkcomposefs` takes.
    C,
    /// Everything that the crate takes too.
    Crate,
    /// Everything that `composefs-info` shows as it is.
    Info,
}

/// A dump in the making.
struct Maker {
    random: ChaCha8Rng,
    wanted: For,
    text: String,
    directories: Vec<Vec<u8>>,
    /// Objects that may get further names.
    targets: Vec<Vec<u8>>,
    taken: HashSet<Vec<u8>>,
    /// Times and attributes that several objects have.
    times: Vec<String>,
    shared: Vec<String>,
}

/// A dump that follows from `seed`.
pub(crate) fn random(seed: u64, wanted: For) -> String {
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut maker = Maker {
        random,
        wanted,
        text: String::new(),
        directories: vec![Vec::new()],
        targets: Vec::new(),
        taken: HashSet::new(),
        times: Vec::new(),
        shared: Vec::new(),
    };
    maker.prepare();
    let root = maker.rest(0o40000, &Told::default());
    writeln!(maker.text, "/ {root}").unwrap();
    let objects = [0, 3, 30, 300][maker.below(4)];
    // Some dumps have one directory of many names, others a deep tree.
    let wide = maker.chance(3);
    for _ in 0..objects {
        maker.object(wide);
    }
    maker.text
}

/// What of a line depends on the kind.
#[derive(Default)]
struct Told {
    size: u64,
    rdev: u64,
    payload: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    digest: Option<String>,
}

impl Maker {
    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    /// Once in `times`.
    fn chance(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn prepare(&mut self) {
        let common = "1000000000.5".to_owned();
        self.times = vec![common, "0.0".into(), "1695372970.944925700".into()];
        if self.wanted != For::Crate && self.chance(2) {
            self.times.push("-3.999999999".into());
            self.times.push("9223372036854775807.1".into());
        }
        if self.chance(2) {
            self.times.truncate(1);
        }
        for number in 0..self.below(200) {
            let length = [0, 1, 5, 40][self.below(4)];
            let field = self.field(number, length);
            self.shared.push(field);
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    /// Name of an attribute.
    fn key(&mut self, number: usize) -> String {
        let prefixes = [
            "user.",
            "trusted.",
            "security.",
            "lustre.",
            "system.posix_acl_access",
            "system.posix_acl_default",
            "trusted.overlay.",
            "trusted.overlay.overlay.",
            "other.",
        ];
        let prefix = prefixes[self.below(prefixes.len())];
        match (self.below(8), prefix.ends_with('.')) {
            (0, true) if prefix == "trusted.overlay." => {
                let known = ["opaque", "redirect", "metacopy", "whiteout"];
                // What has the last is shown as one.
                let kinds = if self.wanted == For::Info { 3 } else { 4 };
                format!("{prefix}{}", known[self.below(kinds)])
            }
            (1, true) => format!("{prefix}{}", "k".repeat(255 - prefix.len())),
            (2, true) => format!("{prefix}a\\x3db\\x20{number}"),
            (_, true) => format!("{prefix}key{number}"),
            (_, false) => prefix.to_owned(),
        }
    }

    fn field(&mut self, number: usize, length: usize) -> String {
        let key = self.key(number);
        // libcomposefs counts wrongly, and gives up, where it replaces a longer value by its
        // own.
        let value = match key.strip_prefix("trusted.overlay.") {
            Some("opaque") => b"y".to_vec(),
            Some("whiteout") => Vec::new(),
            // composefs-info does not see an entry without name and value that is the last.
            _ => self.bytes(length.max(usize::from(self.wanted == For::Info))),
        };
        format!("{key}={}", escaped(&value, true))
    }

    fn xattrs(&mut self) -> String {
        let mut list: Vec<String> = Vec::new();
        let count = [0, 0, 0, 1, 3, 150][self.below(6)];
        for number in 0..count {
            let own = self.shared.is_empty() || self.chance(4);
            let field = if own {
                let most = if count < 10 && self.chance(5) {
                    3000
                } else {
                    30
                };
                let length = self.below(most);
                self.field(number, length)
            } else {
                self.shared[self.random.random_range(0..self.shared.len())].clone()
            };
            let key = |field: &str| field.split('=').next().unwrap().to_owned();
            if list.iter().all(|one| key(one) != key(&field)) {
                list.push(field);
            }
        }
        // What libcomposefs takes in one inode, with its escapes and its line.
        while list.iter().map(|field| field.len() + 8).sum::<usize>() > 30_000 {
            list.pop();
        }
        list.iter().map(|field| format!(" {field}")).collect()
    }

    /// All of a line but the path.
    fn rest(&mut self, kind: u32, told: &Told) -> String {
        let permissions = [0o644, 0o755, 0o7777, 0][self.below(4)];
        let nlink = match self.wanted {
            For::C | For::Info => [1, 2, 65535, 65536, u32::MAX][self.below(5)],
            For::Crate => 1,
        };
        let id = |maker: &mut Self| [0, 0, 0, 1000, 65535, 65536, u32::MAX][maker.below(7)];
        let (uid, gid) = (id(self), id(self));
        let time = self.times.choose(&mut self.random).unwrap().clone();
        let optional = |field: &Option<Vec<u8>>| match field {
            None => "-".to_owned(),
            Some(bytes) if bytes == b"-" => "\\x2d".to_owned(),
            Some(bytes) => escaped(bytes, false),
        };
        format!(
            "{} {:o} {nlink} {uid} {gid} {} {time} {} {} {}{}",
            told.size,
            kind | permissions,
            told.rdev,
            optional(&told.payload),
            optional(&told.content),
            told.digest.as_deref().unwrap_or("-"),
            self.xattrs()
        )
    }

    fn name(&mut self) -> Vec<u8> {
        let length = match self.below(6) {
            0 => 1,
            1 => 255,
            2 => 2,
            3 => self.below(255) + 1,
            _ => self.below(20) + 1,
        };
        loop {
            let mut name: Vec<u8> = match self.chance(4) && self.wanted != For::Crate {
                true => self.bytes(length),
                false => (0..length)
                    .map(|_| b"abcxyz0123.- !~"[self.below(15)])
                    .collect(),
            };
            if length == 2 && self.chance(2) {
                name = format!("{:02x}", self.below(256)).into_bytes();
            }
            let wrong = name.iter().any(|byte| matches!(byte, 0 | b'/'));
            if !wrong && name != b"." && name != b".." {
                return name;
            }
        }
    }

    fn object(&mut self, wide: bool) {
        let parent = match wide && !self.chance(5) {
            true => self.directories[self.directories.len().min(2) - 1].clone(),
            false => self.directories.choose(&mut self.random).unwrap().clone(),
        };
        let name = self.name();
        let path = [&parent[..], b"/", &name].concat();
        // The crate checks paths against PATH_MAX, we need not.
        if path.len() > 3000 || !self.taken.insert(path.clone()) {
            return;
        }
        let shown = escaped(&path, false);
        let line = match self.below(12) {
            0..=2 => {
                self.directories.push(path);
                self.rest(0o40000, &Told::default())
            }
            3 if !self.targets.is_empty() => {
                let target = self.targets.choose(&mut self.random).unwrap();
                let target = escaped(target, false);
                format!("0 @100644 1 0 0 0 0.0 {target} - -")
            }
            4 | 5 => {
                let told = self.symlink();
                self.rest(0o120000, &told)
            }
            6 => {
                let told = self.device();
                let kind = [0o20000, 0o60000][self.below(2)];
                if told.rdev != 0 || self.wanted != For::Crate {
                    self.targets.push(path);
                }
                self.rest(kind, &told)
            }
            7 => {
                let kind = [0o10000, 0o140000][self.below(2)];
                self.targets.push(path);
                self.rest(kind, &Told::default())
            }
            _ => {
                self.targets.push(path);
                let told = self.file();
                self.rest(0o100000, &told)
            }
        };
        writeln!(self.text, "{shown} {line}").unwrap();
    }

    fn symlink(&mut self) -> Told {
        let most = match self.wanted {
            For::C | For::Info => 4095,
            For::Crate => 1024,
        };
        let length = [1, 7, 30, 1024, self.below(most) + 1, most][self.below(6)];
        let target: Vec<u8> = (0..length).map(|_| b"ab/-\\ "[self.below(6)]).collect();
        Told {
            size: length as u64,
            payload: Some(target),
            ..Told::default()
        }
    }

    fn device(&mut self) -> Told {
        let rdev = [0, 0, 259, 0xffff_ffff, 0x8_0001][self.below(5)];
        Told {
            rdev,
            ..Told::default()
        }
    }

    fn file(&mut self) -> Told {
        match self.below(4) {
            0 => Told::default(),
            1 => {
                let most = match self.wanted {
                    For::C | For::Info => 5000,
                    For::Crate => 512,
                };
                let length =
                    [1, 64, 65, self.below(most) + 1, 2048, 2049, 4096, most][self.below(8)];
                let content = self.bytes(length.min(most));
                Told {
                    size: content.len() as u64,
                    content: Some(content),
                    ..Told::default()
                }
            }
            _ => self.external(),
        }
    }

    fn external(&mut self) -> Told {
        let edge = 1_u64 << (self.below(43) + 1);
        let size = match self.below(6) {
            0 => edge - 1,
            1 => edge,
            2 if self.wanted != For::Crate => edge + 1,
            // Tables of chunks that fill a block, or nearly.
            3 if self.wanted != For::Crate => (1 << 53) - (self.below(12) as u64) * (1 << 43),
            4 if self.wanted != For::Crate => (1 << 43) * (self.below(1024) as u64 + 1),
            _ => self.below(1 << 30) as u64 + 1,
        };
        let digest: String = self.bytes(32).iter().map(|b| format!("{b:02x}")).collect();
        let path = format!("{}/{}", &digest[..2], &digest[2..]).into_bytes();
        let (payload, digest) = match (self.below(8), self.wanted) {
            (0, For::C | For::Info) => (Some(path), None),
            (1, For::C | For::Info) => (None, None),
            (2, For::C | For::Info) => (None, Some(digest)),
            (3, For::C | For::Info) => (Some(b"any/where else".to_vec()), Some(digest)),
            _ => (Some(path), Some(digest)),
        };
        Told {
            size,
            payload,
            digest,
            ..Told::default()
        }
    }
}

/// A field with its escapes.
fn escaped(bytes: &[u8], equals: bool) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'=' if equals => text.push_str("\\x3d"),
            0x21..=0x7e => text.push(byte.into()),
            _ => write!(text, "\\x{byte:02x}").unwrap(),
        }
    }
    text
}
