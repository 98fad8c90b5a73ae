//! Arguments of `imagegen xfs IMAGE [SOURCE...]`, and what they mean to the library.

use super::Failure;
use super::inputs::{self, Content, Inputs, Run};
use super::values::{self, Free, Switch};
use clap::{Args, ValueEnum};
use imagegen::xfs::geometry::{Features, Groups, Kernel, LogSize, Options, Stripe};
use uuid::Uuid;

/// Everything that can be asked of an image.
#[derive(Debug, Args)]
pub(crate) struct Make {
    #[command(flatten)]
    pub(crate) inputs: Inputs,
    #[command(flatten)]
    pub(crate) space: Space,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) content: Content,
    /// Project id of all
    #[arg(long, value_name = "ID", help_heading = inputs::CONTENTS)]
    pub(crate) project: Option<u32>,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// How large.
#[derive(Debug, Args)]
#[command(next_help_heading = "Size (without: all of a device, or a fifth of the image free)")]
pub(crate) struct Space {
    /// Of the file system (mkfs.xfs: -d size=)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    size: Option<u64>,
    /// As large as the tree needs, and so much free: SIZE or PERCENT%
    #[arg(long, value_name = "SIZE", conflicts_with = "size")]
    free: Option<Free>,
    /// The smallest image that holds the tree, from 16 MiB on
    #[arg(long, conflicts_with_all = ["size", "free"])]
    minimal: bool,
    /// So many inodes are allocated and free at least
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) free_inodes: u64,
}

/// How large the image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many bytes.
    Size(u64),
    /// What the tree needs, and so much free.
    Free(Free),
    /// What the tree needs.
    Minimal,
}

/// Percent that are free if nothing is said.
const USUALLY_FREE: u8 = 20;

/// The file system.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "File system (sizes and numbers as mkfs.xfs chooses them, if not given)"
)]
pub(crate) struct Format {
    /// Features that this kernel and later ones mount (mkfs.xfs: -c options=lts_*.conf)
    #[arg(
        long = "for",
        value_name = "KERNEL",
        value_enum,
        default_value = "linux-7.2"
    )]
    kernel: KernelName,
    /// Switch features: NAME=on or NAME=off, several with commas; finobt, inobtcount, sparse,
    /// rmapbt, reflink, bigtime, nrext64, exchange, parent, ascii-ci (mkfs.xfs: -m, -i, -n)
    #[arg(long, value_name = "NAME=on|off", value_delimiter = ',')]
    feature: Vec<Switch>,
    /// At most 12 bytes (mkfs.xfs: -L)
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Identity; derived from the tree and the options if not given (mkfs.xfs: -m uuid=)
    #[arg(long)]
    pub(crate) uuid: Option<Uuid>,
    /// 1k to 64k; before Linux 6.12 at most a page, 4k (mkfs.xfs: -b size=)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size, default_value = "4k")]
    block_size: u32,
    /// 512 to 32k (mkfs.xfs: -s size=)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size, default_value = "512")]
    sector_size: u32,
    /// 512 to 2k, at most half a block (mkfs.xfs: -i size=)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size, default_value = "512")]
    inode_size: u32,
    /// A block to 64k (mkfs.xfs: -n size=)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size)]
    dir_block_size: Option<u32>,
    /// Percent of space for inodes, 0 for all (mkfs.xfs: -i maxpct=)
    #[arg(long, value_name = "PERCENT")]
    imaxpct: Option<u8>,
    /// Number of groups (mkfs.xfs: -d agcount=)
    #[arg(long, value_name = "NUMBER", conflicts_with = "agsize")]
    agcount: Option<u32>,
    /// Of a group, 16m to 1t (mkfs.xfs: -d agsize=)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    agsize: Option<u64>,
    /// Groups and log for so many threads at once (mkfs.xfs: -d and -l concurrency=)
    #[arg(long, value_name = "THREADS", conflicts_with_all = ["agcount", "agsize", "log_size"])]
    concurrency: Option<u32>,
    /// Of the log (mkfs.xfs: -l size=)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    log_size: Option<u64>,
    /// Group the log goes to, from 0 (mkfs.xfs: -l agnum=)
    #[arg(long, value_name = "GROUP")]
    log_group: Option<u32>,
    /// Stripe unit of the log, at most 256k (mkfs.xfs: -l su=)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size)]
    log_unit: Option<u32>,
    /// Bytes in a row on one disk below (mkfs.xfs: -d su=)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size, requires = "stripe_disks")]
    stripe_unit: Option<u32>,
    /// Disks with data below (mkfs.xfs: -d sw=)
    #[arg(long, value_name = "NUMBER", requires = "stripe_unit")]
    stripe_disks: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KernelName {
    #[value(name = "linux-6.1")]
    Linux6_1,
    #[value(name = "linux-6.12")]
    Linux6_12,
    #[value(name = "linux-7.2")]
    Linux7_2,
}

impl From<KernelName> for Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Linux6_1 => Self::Linux6_1,
            KernelName::Linux6_12 => Self::Linux6_12,
            KernelName::Linux7_2 => Self::Linux7_2,
        }
    }
}

impl Make {
    /// What clap does not see: arguments that need or forbid each other by their values.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.inputs.check(&self.content)?;
        inputs::check_uuid(self.format.uuid)?;
        self.features().map(drop)
    }

    /// How large the image gets; `device` are the bytes of the device it goes to.
    pub(crate) fn room(&self, device: Option<u64>) -> Result<Room, Failure> {
        let space = &self.space;
        match (space.size, space.free, space.minimal, device) {
            (Some(size), ..) => Ok(Room::Size(size)),
            (None, Some(free), ..) => Ok(Room::Free(free)),
            (None, None, true, _) => Ok(Room::Minimal),
            (None, None, false, Some(device)) => Ok(Room::Size(device)),
            (None, None, false, None) if self.inputs.sources.is_empty() => Err(Failure::usage(
                "an empty file system needs --size, --free or --minimal",
            )),
            (None, None, false, None) => Ok(Room::Free(Free::Percent(USUALLY_FREE))),
        }
    }

    /// What is switched on.
    fn features(&self) -> Result<Features, Failure> {
        let kernel = Kernel::from(self.format.kernel);
        let mut features = kernel.features();
        let mut inobtcount = false;
        for Switch { feature, on } in &self.format.feature {
            *feature_of(&mut features, feature)? = *on;
            inobtcount |= feature == "inobtcount";
        }
        // Goes with its tree, unless it was asked for: then the geometry says what is wrong.
        features.inobtcount &= features.finobt || inobtcount;
        kernel.mounts(&features)?;
        Ok(features)
    }

    /// The file system of `size` bytes that is asked for.
    pub(crate) fn options(&self, size: u64, uuid: Uuid) -> Result<Options, Failure> {
        let format = &self.format;
        let stripe = format.stripe_unit.zip(format.stripe_disks);
        Ok(Options {
            size,
            sector_size: format.sector_size,
            block_size: format.block_size,
            inode_size: format.inode_size,
            dir_block_size: format.dir_block_size,
            groups: match (format.agcount, format.agsize, format.concurrency) {
                (Some(count), ..) => Groups::Count(count),
                (None, Some(size), _) => Groups::Size(size),
                (None, None, Some(threads)) => Groups::Concurrency(threads),
                (None, None, None) => Groups::Default,
            },
            stripe: stripe.map(|(unit, disks)| Stripe { unit, disks }),
            log_size: match (format.log_size, format.concurrency) {
                (Some(size), _) => LogSize::Bytes(size),
                (None, Some(threads)) => LogSize::Concurrency(threads),
                (None, None) => LogSize::Default,
            },
            log_group: format.log_group,
            log_unit: format.log_unit,
            imax_percent: format.imaxpct,
            label: format.label.clone().into_bytes(),
            uuid,
            features: self.features()?,
        })
    }
}

fn feature_of<'a>(features: &'a mut Features, name: &str) -> Result<&'a mut bool, Failure> {
    Ok(match name {
        "finobt" => &mut features.finobt,
        "inobtcount" => &mut features.inobtcount,
        "sparse" => &mut features.sparse,
        "rmapbt" => &mut features.rmapbt,
        "reflink" => &mut features.reflink,
        "bigtime" => &mut features.bigtime,
        "nrext64" => &mut features.nrext64,
        "exchange" => &mut features.exchange,
        "parent" => &mut features.parent,
        "ascii-ci" => &mut features.ascii_ci,
        _ => {
            return Err(Failure::usage(format!(
                "--feature {name}: there is no such feature; see --help for their names"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use imagegen::xfs::geometry::OptionError;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        make: Make,
    }

    fn parse(words: &[&str]) -> Result<Make, String> {
        let words = ["make", "image"].iter().chain(words);
        let alone = Alone::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(alone.make)
    }

    fn options(words: &[&str]) -> Options {
        parse(words).unwrap().options(1 << 30, Uuid::nil()).unwrap()
    }

    fn refusal(words: &[&str]) -> String {
        let make = parse(words).unwrap();
        let options = make.options(1 << 30, Uuid::nil());
        make.check().err().or(options.err()).unwrap().to_string()
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        assert_eq!(options(&[]), Options::new(1 << 30, Uuid::nil()));
    }

    #[test]
    fn every_option_reaches_its_place() {
        let words = [
            "--block-size=8k",
            "--sector-size=4k",
            "--inode-size=2k",
            "--dir-block-size=64k",
            "--agcount=7",
            "--log-size=64m",
            "--log-group=2",
            "--log-unit=32k",
            "--stripe-unit=64k",
            "--stripe-disks=4",
            "--imaxpct=3",
            "--label=data",
            "--feature=rmapbt=off,parent=off",
            "--feature=ascii-ci=on",
        ];
        let expected = Options {
            sector_size: 4096,
            block_size: 8192,
            inode_size: 2048,
            dir_block_size: Some(65536),
            groups: Groups::Count(7),
            stripe: Some(Stripe {
                unit: 65536,
                disks: 4,
            }),
            log_size: LogSize::Bytes(64 << 20),
            log_group: Some(2),
            log_unit: Some(32768),
            imax_percent: Some(3),
            label: b"data".to_vec(),
            features: Features {
                rmapbt: false,
                parent: false,
                ascii_ci: true,
                ..Features::default()
            },
            ..Options::new(1 << 30, Uuid::nil())
        };
        assert_eq!(options(&words), expected);
        assert_eq!(options(&["--agsize=100m"]).groups, Groups::Size(100 << 20));
        let concurrent = options(&["--concurrency=9"]);
        assert_eq!(concurrent.groups, Groups::Concurrency(9));
        assert_eq!(concurrent.log_size, LogSize::Concurrency(9));
    }

    #[test]
    fn options_that_exclude_or_need_each_other() {
        for words in [
            &["--size=1g", "--free=1g"][..],
            &["--size=1g", "--minimal"],
            &["--free=1g", "--minimal"],
            &["--agcount=4", "--agsize=1g"],
            &["--agcount=4", "--concurrency=4"],
            &["--log-size=64m", "--concurrency=4"],
            &["--stripe-unit=64k"],
            &["--stripe-disks=4"],
            &["--owner=1", "--owner-map=file"],
            &["--json", "--quiet"],
            &["--for=linux-5.4"],
            &["--size=1x"],
            &["--feature=rmapbt"],
            &["--uuid=1234"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(refusal(&["dump:file"]).contains("--objects"));
        assert!(refusal(&["--objects=dir", "a"]).contains("dump:FILE"));
        assert!(refusal(&["-", "dir", "-"]).contains("only once"));
        assert!(refusal(&["--feature=zoned=on"]).contains("zoned"));
        parse(&["dump:file", "--objects=dir", "-"])
            .unwrap()
            .check()
            .unwrap();
    }

    #[test]
    fn kernels_choose_features() {
        let of = |words: &[&str]| options(words).features;
        assert_eq!(of(&["--for=linux-6.1"]), Kernel::Linux6_1.features());
        assert_eq!(of(&["--for=linux-6.12"]), Kernel::Linux6_12.features());
        assert!(of(&["--for=linux-6.1", "--feature=rmapbt=on"]).rmapbt);
        assert!(refusal(&["--for=linux-6.1", "--feature=parent=on"]).contains("linux-6.1"));
        let without = of(&["--feature=finobt=off"]);
        assert!(!without.finobt && !without.inobtcount);
        let asked = options(&["--feature=finobt=off,inobtcount=on"]);
        let refused: OptionError = asked.geometry().unwrap_err();
        assert_eq!(refused.option, "--feature");
    }

    #[test]
    fn room_for_files_and_devices() {
        let room = |words: &[&str], device| parse(words).unwrap().room(device);
        assert_eq!(room(&["--size=20g"], None).unwrap(), Room::Size(20 << 30));
        assert_eq!(
            room(&["--size=20g"], Some(1 << 40)).unwrap(),
            Room::Size(20 << 30)
        );
        assert_eq!(room(&[], Some(1 << 40)).unwrap(), Room::Size(1 << 40));
        assert_eq!(room(&["--minimal"], Some(1 << 40)).unwrap(), Room::Minimal);
        assert_eq!(
            room(&["--free=5%"], None).unwrap(),
            Room::Free(Free::Percent(5))
        );
        assert_eq!(room(&["dir"], None).unwrap(), Room::Free(Free::Percent(20)));
        assert!(room(&[], None).unwrap_err().to_string().contains("--size"));
    }
}
