//! What one run in the guest does: sizes, times, and which targets.
//!
//! The plan is made on the host, from the environment, and travels into the guest as
//! JSON, so that both sides speak of the same run.

use serde::{Deserialize, Serialize};
use snapstore::Checksum;

use crate::e2e::files::MIB;
use crate::e2e::{Fault, Outcome};

/// What takes the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The device itself.
    Raw,
    /// `ublk-bare`: our own pass-through without an engine.
    Bare,
    /// `ublk-bare --store`: read, copy, overwrite, with nothing recorded.
    BareCopy,
    /// The kernel's snapshots, a store for each.
    DmSnapshot,
    /// The kernel's thin provisioning.
    DmThin,
    /// csnapd.
    Csnap,
}

impl Kind {
    /// Every kind, in the order of a round.
    pub const ALL: [Self; 6] = [
        Self::Raw,
        Self::DmSnapshot,
        Self::DmThin,
        Self::Bare,
        Self::BareCopy,
        Self::Csnap,
    ];

    /// Its name in the rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Bare => "bare",
            Self::BareCopy => "bare-copy",
            Self::DmSnapshot => "dm-snapshot",
            Self::DmThin => "dm-thin",
            Self::Csnap => "csnap",
        }
    }

    /// The program of ours it needs in the guest.
    #[must_use]
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Raw | Self::DmSnapshot | Self::DmThin => &[],
            Self::Bare | Self::BareCopy => &["ublk-bare"],
            Self::Csnap => &["csnapd", "csnapctl"],
        }
    }
}

/// What the devices below are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// RAM disks.
    Ram,
    /// Devices with a volatile cache.
    Cache,
}

impl Medium {
    /// Every medium, in the order of a run.
    pub const ALL: [Self; 2] = [Self::Ram, Self::Cache];

    /// Its name in the environment.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Cache => "cache",
        }
    }

    /// What the names of its cases end with.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Ram => "",
            Self::Cache => "-cache",
        }
    }

    /// The medium a case was measured on.
    #[must_use]
    pub fn of(case: &str) -> Self {
        match case.ends_with(Self::Cache.suffix()) {
            true => Self::Cache,
            false => Self::Ram,
        }
    }
}

/// One target in one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What takes the requests.
    pub kind: Kind,
    /// Snapshots, the fresh one included.
    pub snapshots: u32,
    /// Bytes of a chunk.
    pub chunk: u64,
}

/// What one run does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// A first look only.
    pub quick: bool,
    /// Rounds; a row is their median. What no bar is about is measured in the first
    /// only: the whole matrix takes a quarter of an hour each time.
    pub rounds: usize,
    /// Bytes of the origin that are used.
    pub origin: u64,
    /// Seconds of a timed case that a bar is about; one that ends by itself is
    /// repeated until it took so long.
    pub seconds: u32,
    /// Seconds of the others.
    pub other_seconds: u32,
    /// Snapshots taken under load.
    pub takes: u32,
    /// What to measure.
    pub kinds: Vec<Kind>,
    /// On what. Rows of a medium left out stay as an earlier run made them.
    pub media: Vec<Medium>,
    /// Memory of the guest in GiB.
    pub memory: u32,
    /// Checksum of csnap's stores, as `csnapctl store create --checksum` takes it.
    pub checksum: String,
}

impl Plan {
    /// The full plan, or the quick one if `BENCH_QUICK=1`. `BENCH_ROUNDS`,
    /// `BENCH_SECONDS`, `BENCH_ORIGIN_MIB`, `BENCH_CHECKSUM`, `BENCH_ONLY` (names of
    /// targets with commas between) and `BENCH_MEDIA` (`ram` or `cache`) change it.
    ///
    /// # Errors
    /// If a variable makes no sense.
    pub fn from_environment() -> Outcome<Self> {
        let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| value == "1");
        let origin = number("BENCH_ORIGIN_MIB", if quick { 64 } else { 256 })? * MIB;
        Ok(Self {
            quick,
            rounds: number("BENCH_ROUNDS", if quick { 1 } else { 5 })? as usize,
            origin,
            seconds: number("BENCH_SECONDS", if quick { 1 } else { 10 })? as u32,
            other_seconds: if quick { 1 } else { 3 },
            takes: if quick { 2 } else { 4 },
            kinds: named("BENCH_ONLY", Kind::ALL, Kind::name)?,
            media: named("BENCH_MEDIA", Medium::ALL, Medium::name)?,
            memory: memory_for(origin),
            checksum: checksum(std::env::var("BENCH_CHECKSUM").ok().as_deref())?.to_string(),
        })
    }

    /// The checksum of csnap's stores.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn checksum(&self) -> Outcome<Checksum> {
        checksum(Some(&self.checksum))
    }

    /// Bytes of every RAM disk. Only what is written takes memory.
    #[must_use]
    pub fn device(&self) -> u64 {
        7 * self.origin
    }

    /// The configurations of a round on RAM disks.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let chunks = [16 << 10, 64 << 10];
        let wanted = |setting: &Setting| {
            !self.quick || setting.kind == Kind::DmThin || setting.chunk == chunks[0]
        };
        let all = chunks.iter().flat_map(|&chunk| {
            let of = move |kind: Kind| {
                let counts = self.counts(kind, chunk).to_vec();
                counts.into_iter().map(move |snapshots| Setting {
                    kind,
                    snapshots,
                    chunk,
                })
            };
            self.kinds.iter().flat_map(move |&kind| of(kind))
        });
        all.filter(wanted).collect()
    }

    /// Whether a bar is about it.
    #[must_use]
    pub fn judged(&self, setting: Setting) -> bool {
        match setting.kind {
            Kind::Raw | Kind::Bare => true,
            Kind::BareCopy | Kind::DmThin => false,
            Kind::DmSnapshot => matches!(setting.snapshots, 1 | 8),
            Kind::Csnap => matches!(setting.snapshots, 1 | 8 | 64),
        }
    }

    /// Few configurations, for devices with a volatile cache.
    #[must_use]
    pub fn cached_settings(&self) -> Vec<Setting> {
        let few = |setting: &Setting| {
            let wanted = matches!(setting.kind, Kind::Raw | Kind::Bare) || setting.snapshots == 1;
            let wanted = wanted || (setting.kind == Kind::Csnap && setting.snapshots == 8);
            let chunk = if setting.kind == Kind::DmThin { 64 } else { 16 } << 10;
            wanted && setting.chunk == chunk
        };
        self.settings().into_iter().filter(few).collect()
    }

    /// Snapshots of a kind. dm-thin has no blocks below 64 KiB.
    fn counts(&self, kind: Kind, chunk: u64) -> &'static [u32] {
        match kind {
            Kind::DmThin if chunk < 64 << 10 => &[],
            Kind::Raw | Kind::Bare => &[0],
            Kind::BareCopy => &[1],
            Kind::DmSnapshot if self.quick => &[0, 1, 8],
            Kind::DmSnapshot => &[0, 1, 4, 8],
            Kind::DmThin | Kind::Csnap if self.quick => &[0, 1, 8, 64],
            Kind::DmThin | Kind::Csnap => &[0, 1, 4, 8, 64],
        }
    }
}

fn number(name: &str, default: u64) -> Outcome<u64> {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(Fault::wrong(format!("{name} is not a number above 0"))),
        },
        Err(_) => Ok(default),
    }
}

/// The guest's processor is emulated, and its CRC instructions bit by bit, so XXH3
/// unless told otherwise.
fn checksum(name: Option<&str>) -> Outcome<Checksum> {
    let known = name.map_or(Ok(Checksum::Xxh3), str::parse);
    known.map_err(|error| Fault::wrong(format!("BENCH_CHECKSUM: {error}")))
}

/// Those of `all` that a variable names, with commas between; all without it.
fn named<T: Copy, const N: usize>(
    variable: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Outcome<Vec<T>> {
    match std::env::var(variable) {
        Ok(text) => chosen(&text, all, name).map_err(|odd| {
            let known = all.map(name).join(", ");
            Fault::wrong(format!("{variable}: {odd:?} is none of {known}"))
        }),
        Err(_) => Ok(all.to_vec()),
    }
}

fn chosen<T: Copy, const N: usize>(
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<Vec<T>, String> {
    let one = |word: &str| {
        let known = all.into_iter().find(|one| name(*one) == word.trim());
        known.ok_or_else(|| word.to_owned())
    };
    text.split(',').map(one).collect()
}

/// Stores of dm-snapshot, the one store of the others, the origin, and the system.
fn memory_for(origin: u64) -> u32 {
    let disks = 15 * origin + origin / 2;
    (disks.div_ceil(1 << 30) + 2) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kinds: Vec<Kind>) -> Plan {
        Plan {
            quick: false,
            rounds: 5,
            origin: 512 << 20,
            seconds: 10,
            other_seconds: 3,
            takes: 4,
            kinds,
            media: Medium::ALL.to_vec(),
            memory: memory_for(512 << 20),
            checksum: "crc32c".into(),
        }
    }

    #[test]
    fn every_count_of_the_issue_is_there() {
        let settings = plan(Kind::ALL.to_vec()).settings();
        for chunk in [16 << 10, 64 << 10] {
            for (kind, counts) in [
                (Kind::DmSnapshot, &[0, 1, 4, 8][..]),
                (Kind::Csnap, &[0, 1, 4, 8, 64]),
            ] {
                for &snapshots in counts {
                    let setting = Setting {
                        kind,
                        snapshots,
                        chunk,
                    };
                    assert!(settings.contains(&setting), "{setting:?}");
                }
            }
        }
    }

    #[test]
    fn thin_blocks_are_never_too_small() {
        let settings = plan(vec![Kind::DmThin]).settings();
        assert!(!settings.is_empty());
        assert!(settings.iter().all(|setting| setting.chunk >= 64 << 10));
    }

    #[test]
    fn targets_are_chosen_by_name() {
        let kinds = |text| chosen(text, Kind::ALL, Kind::name);
        assert_eq!(kinds("csnap, raw"), Ok(vec![Kind::Csnap, Kind::Raw]));
        assert_eq!(kinds("raw,lvm"), Err("lvm".into()));
    }

    #[test]
    fn a_case_tells_its_medium() {
        for medium in Medium::ALL {
            let case = format!("steady-overwrite{}", medium.suffix());
            assert_eq!(Medium::of(&case), medium);
        }
    }

    #[test]
    fn the_checksum_is_chosen_by_name() {
        assert_eq!(checksum(None).unwrap(), Checksum::Xxh3);
        assert_eq!(plan(Vec::new()).checksum().unwrap(), Checksum::Crc32c);
        assert!(checksum(Some("md5")).is_err());
    }

    #[test]
    fn the_guest_fits_the_machine() {
        assert!(plan(Vec::new()).memory <= 10);
    }
}
