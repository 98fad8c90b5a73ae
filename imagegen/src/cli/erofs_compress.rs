//! Arguments about compression, and what they mean to the library.

use super::{Failure, values};
use clap::Args;
use imagegen::erofs::compress::algorithm::Algorithm;
use imagegen::erofs::compress::choice::{Compression, Fragments, Method, Rule};
use imagegen::erofs::write::Metadata;
use std::str::FromStr;

/// How contents are compressed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Compression")]
pub(crate) struct Compress {
    /// lz4, lz4hc, zstd, deflate or lzma, with a level as in zstd,3; or auto: lz4hc or zstd
    /// for each file that gains by it, after a trial [default: none] (mkfs.erofs: -z)
    #[arg(long, value_name = "ALGORITHM[,LEVEL]")]
    compress: Option<MethodName>,
    /// Bytes that are read and decompressed together, up to 1m: larger ones make smaller
    /// images and slower access in the middle of files [default: 64k] (mkfs.erofs: -C)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size)]
    cluster_size: Option<u32>,
    /// Files otherwise, the first that matches: *.so=lz4hc,12 or /usr/share/**=zstd,9:128k
    /// or *.jpg=none; patterns as those of --exclude
    #[arg(
        long = "compress-rule",
        value_name = "PATTERN=ALGORITHM[,LEVEL][:SIZE]"
    )]
    rules: Vec<RuleText>,
    /// Last clusters of less than a block beside inodes, with fragments only that of all of
    /// them together: from Linux 5.17 on (mkfs.erofs: -E ztailpacking)
    #[arg(long)]
    ztailpacking: bool,
    /// Ends of files that do not fill a cluster are compressed together: from Linux 6.1 on
    /// (mkfs.erofs: -E fragments)
    #[arg(long)]
    fragments: bool,
    /// All contents are compressed together: smallest, slow to read (mkfs.erofs:
    /// -E all-fragments)
    #[arg(long, conflicts_with = "fragments")]
    all_fragments: bool,
    /// Inodes with what lies beside them, in clusters of SIZE (4k, or a block): smaller where
    /// there are many files, slower to look at. Turns on --48bit; from Linux 6.17 on
    /// (mkfs.erofs: -m)
    #[arg(long, value_name = "ALGORITHM[,LEVEL][:SIZE]")]
    metadata_compress: Option<MetadataText>,
}

/// A method by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MethodName(Method);

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(Method::Plain)),
            "auto" => Ok(Self(Method::Auto)),
            text => {
                let algorithm = Algorithm::from_str(text).map_err(|error| error.to_string())?;
                Ok(Self(Method::By(algorithm)))
            }
        }
    }
}

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RuleText(Rule);

impl FromStr for RuleText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((pattern, how)) = text.rsplit_once('=') else {
            return Err(format!("{text:?} is no rule; write PATTERN=ALGORITHM"));
        };
        let (method, cluster) = match how.split_once(':') {
            Some((method, size)) => (method, Some(values::small_size(size)?)),
            None => (how, None),
        };
        let MethodName(method) = method.parse()?;
        Ok(Self(Rule {
            pattern: pattern.to_owned(),
            method,
            cluster,
        }))
    }
}

/// How inodes are compressed, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MetadataText {
    algorithm: Algorithm,
    cluster: Option<u32>,
}

impl FromStr for MetadataText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (algorithm, cluster) = match text.split_once(':') {
            Some((algorithm, size)) => (algorithm, Some(values::small_size(size)?)),
            None => (text, None),
        };
        let algorithm = Algorithm::from_str(algorithm).map_err(|error| error.to_string())?;
        Ok(Self { algorithm, cluster })
    }
}

/// Bytes of a cluster, unless said otherwise.
const CLUSTER: u32 = 64 << 10;

impl Compress {
    /// Refuses what would have no effect.
    pub(crate) fn check(&self, block: u32) -> Result<(), Failure> {
        if let Some(size) = self.cluster_size.filter(|size| *size < block) {
            return Err(Failure::usage(format!(
                "--cluster-size {size}: a cluster has at least a block, {block} bytes"
            )));
        }
        if self.compress.is_some() || !self.rules.is_empty() {
            return Ok(());
        }
        let about = [
            ("--cluster-size", self.cluster_size.is_some()),
            ("--ztailpacking", self.ztailpacking),
            ("--fragments", self.fragments),
            ("--all-fragments", self.all_fragments),
        ];
        match about.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((name, _)) => Err(Failure::usage(format!(
                "{name} is about compressed contents; say how to compress them (--compress)"
            ))),
        }
    }

    /// How to ask the library to compress inodes in blocks of `block` bytes, if it is to.
    pub(crate) fn metadata(&self, block: u32) -> Option<Metadata> {
        let asked = self.metadata_compress?;
        let usual = Metadata::new(asked.algorithm, block);
        Some(Metadata {
            cluster: asked.cluster.unwrap_or(usual.cluster),
            ..usual
        })
    }

    /// What to ask of the library in blocks of `block` bytes; none if nothing is compressed.
    pub(crate) fn request(&self, block: u32) -> Option<Compression> {
        let usual = self.compress.map(|MethodName(method)| method);
        let rules: Vec<Rule> = self.rules.iter().map(|rule| rule.0.clone()).collect();
        if matches!(usual, None | Some(Method::Plain)) && rules.is_empty() {
            return None;
        }
        Some(Compression {
            usual: usual.unwrap_or(Method::Plain),
            rules,
            cluster: self.cluster_size.unwrap_or(CLUSTER.max(block)),
            inline_tails: self.ztailpacking,
            fragments: match (self.all_fragments, self.fragments) {
                (true, _) => Fragments::All,
                (false, true) => Fragments::Tails,
                (false, false) => Fragments::None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        compress: Compress,
    }

    fn parsed(words: &[&str]) -> Result<Compress, clap::Error> {
        let words = ["make"].iter().chain(words);
        Alone::try_parse_from(words).map(|alone| alone.compress)
    }

    fn request(words: &[&str]) -> Option<Compression> {
        parsed(words).unwrap().request(4096)
    }

    #[test]
    fn inodes() {
        let asked = |text: &str| {
            let compress = parsed(&["--metadata-compress", text]).unwrap();
            assert_eq!(compress.request(4096), None);
            let metadata = compress.metadata(4096).unwrap();
            (metadata.algorithm.to_string(), metadata.cluster)
        };
        assert_eq!(asked("zstd"), ("zstd,3".into(), 4096));
        assert_eq!(asked("lz4hc,12:16k"), ("lz4hc,12".into(), 16_384));
        for wrong in ["none", "auto", "zstd,99", "zstd:", "zstd:x"] {
            assert!(parsed(&["--metadata-compress", wrong]).is_err(), "{wrong}");
        }
        assert_eq!(parsed(&[]).unwrap().metadata(4096), None);
    }

    #[test]
    fn nothing_is_compressed_unless_it_is_asked_for() {
        assert_eq!(request(&[]), None);
        assert_eq!(request(&["--compress", "none", "--fragments"]), None);
        let asked = request(&["--compress=zstd,7", "--ztailpacking"]).unwrap();
        assert_eq!(asked.usual, Method::By("zstd,7".parse().unwrap()));
        assert_eq!((asked.cluster, asked.inline_tails), (65536, true));
    }

    #[test]
    fn ends_beside_inodes_go_with_fragments() {
        let asked = |word| request(&["--compress=lz4", "--ztailpacking", word]).unwrap();
        for (word, fragments) in [
            ("--fragments", Fragments::Tails),
            ("--all-fragments", Fragments::All),
        ] {
            let asked = asked(word);
            assert!(asked.inline_tails && asked.fragments == fragments, "{word}");
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let check = |words: &[&str]| parsed(words).unwrap().check(4096).is_ok();
        assert!(check(&[]) && check(&["--compress=lz4", "--cluster-size=4k"]));
        assert!(check(&["--compress-rule=*.so=lz4", "--fragments"]));
        assert!(!check(&["--fragments"]) && !check(&["--all-fragments"]));
        assert!(!check(&["--ztailpacking"]) && !check(&["--cluster-size=8k"]));
        assert!(!check(&["--compress=lz4", "--cluster-size=512"]));
    }

    #[test]
    fn rules() {
        let words = [
            "--compress-rule",
            "a=b/*.so=lz4hc,12:8k",
            "--compress-rule=*.jpg=none",
        ];
        let rules = request(&words).unwrap().rules;
        assert_eq!(rules[0].pattern, "a=b/*.so");
        assert_eq!(rules[0].method, Method::By("lz4hc,12".parse().unwrap()));
        assert_eq!(rules[0].cluster, Some(8192));
        assert_eq!((rules[1].method, rules[1].cluster), (Method::Plain, None));
        for wrong in ["*.so", "*.so=lzo", "*.so=lz4,99", "*.so=lz4:x"] {
            assert!(wrong.parse::<RuleText>().is_err(), "{wrong}");
        }
    }
}
