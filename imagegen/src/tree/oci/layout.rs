//! The files of an OCI image layout that say which layers an image has (OCI image
//! specification 1.1: image-layout.md, image-index.md, manifest.md, descriptor.md), with
//! Docker's names for the same things.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256, Sha512};

use super::OciOptions;
use crate::tree::TreeError;

/// Longest file that is parsed.
const LONGEST: u64 = 16 << 20;
/// How deep an index may lie in another.
const DEPTH: u32 = 8;
/// The name of an image in an index.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The same with the registry before it, as containerd writes it.
const FULL_NAME: &str = "io.containerd.image.name";

/// What another file is.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    fn show(&self) -> String {
        let variant = self.variant.as_deref().filter(|own| !own.is_empty());
        let variant = variant.map(|variant| format!("/{variant}"));
        format!(
            "{}/{}{}",
            self.os,
            self.architecture,
            variant.unwrap_or_default()
        )
    }

    /// Whether it is another than `wanted`; a variant that either leaves out is any.
    fn differs(&self, wanted: &str) -> bool {
        let mut parts = wanted.splitn(3, '/');
        let bare = [parts.next(), parts.next()];
        let variant = self.variant.as_deref().filter(|own| !own.is_empty());
        let both = variant.zip(parts.next());
        bare != [Some(&*self.os), Some(&*self.architecture)] || both.is_some_and(|(a, b)| a != b)
    }

    /// Whether it is `wanted`, which may leave out the variant.
    fn is(&self, wanted: &str) -> bool {
        let bare = format!("{}/{}", self.os, self.architecture);
        wanted == bare || wanted == self.show()
    }
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

/// What an image's configuration says of where it runs (config.md).
#[derive(Debug, Deserialize)]
struct Config {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

/// A directory that holds images.
pub(super) struct Layout {
    path: PathBuf,
}

/// An image that may be meant.
struct Candidate {
    names: Vec<String>,
    manifest: Descriptor,
}

impl Candidate {
    fn show(&self) -> String {
        let name = self.names.first().map_or("without name", String::as_str);
        let platform = self.manifest.platform.as_ref().map(Platform::show);
        format!(
            "{name} ({})",
            platform.unwrap_or_else(|| "no platform given".into())
        )
    }
}

impl Layout {
    pub(super) fn new(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    /// The layers of the image that is meant, the lowest first.
    pub(super) fn layers(&self, options: &OciOptions) -> Result<Vec<Descriptor>, TreeError> {
        let path = self.path.join("index.json");
        let file = File::open(&path).map_err(|cause| {
            let cause = format!("{cause}; an OCI image layout has this file");
            io_error(&path, "open", io::Error::other(cause))
        })?;
        let index: Index = parse(file, &path)?;
        let mut candidates = Vec::new();
        self.collect(index, &[], 0, &mut candidates)?;
        let chosen = self.choose(candidates, options)?;
        let (file, path) = self.blob(&chosen)?;
        let manifest: Manifest = parse(file, &path)?;
        if let (Some(wanted), None) = (&options.platform, &chosen.platform) {
            self.check_platform(&manifest, &path, wanted)?;
        }
        Ok(manifest.layers)
    }

    /// Holds a manifest at `path`, of which the index does not say for which machines it is,
    /// against those that are wanted.
    fn check_platform(
        &self,
        manifest: &Manifest,
        path: &Path,
        wanted: &str,
    ) -> Result<(), TreeError> {
        let Some(config) = &manifest.config else {
            return Ok(());
        };
        let (file, at) = self.blob(config)?;
        let config: Config = parse(file, &at)?;
        let (Some(os), Some(architecture)) = (config.os, config.architecture) else {
            return Ok(());
        };
        let platform = Platform {
            os,
            architecture,
            variant: config.variant,
        };
        if !platform.differs(wanted) {
            return Ok(());
        }
        let own = platform.show();
        let reason = format!(
            "the image is for {own}, as its configuration says, and not for {wanted}; fetch that one, or ask for {own}"
        );
        Err(invalid(path, &reason))
    }

    /// All images of an index and of those in it.
    fn collect(
        &self,
        index: Index,
        names: &[String],
        depth: u32,
        found: &mut Vec<Candidate>,
    ) -> Result<(), TreeError> {
        for manifest in index.manifests {
            let own = [NAME, FULL_NAME]
                .iter()
                .filter_map(|key| manifest.annotations.get(*key));
            let names: Vec<String> = names.iter().chain(own).cloned().collect();
            let kind = &manifest.media_type;
            if !kind.contains("image.index") && !kind.contains("manifest.list") {
                found.push(Candidate { names, manifest });
                continue;
            }
            let (file, path) = self.blob(&manifest)?;
            if depth == DEPTH {
                return Err(invalid(&path, "indexes lie too deep in one another"));
            }
            self.collect(parse(file, &path)?, &names, depth + 1, found)?;
        }
        Ok(())
    }

    fn choose(
        &self,
        mut candidates: Vec<Candidate>,
        options: &OciOptions,
    ) -> Result<Descriptor, TreeError> {
        let shown: Vec<String> = candidates.iter().map(Candidate::show).collect();
        if let Some(wanted) = &options.reference {
            candidates.retain(|one| one.names.contains(wanted));
        }
        let is = |one: &Candidate, wanted: &str| {
            one.manifest
                .platform
                .as_ref()
                .is_some_and(|platform| platform.is(wanted))
        };
        match &options.platform {
            // An image that is alone need not say what it is for.
            Some(wanted) => {
                candidates.retain(|one| one.manifest.platform.is_none() || is(one, wanted))
            }
            None if candidates.len() > 1 => {
                let own = own_platform();
                if candidates.iter().any(|one| is(one, &own)) {
                    candidates.retain(|one| is(one, &own));
                }
            }
            None => {}
        }
        let count = candidates.len();
        match candidates.pop() {
            Some(one) if count == 1 => Ok(one.manifest),
            _ => {
                let reason = format!(
                    "{count} images are meant by name and platform; there are: {}",
                    shown.join(", ")
                );
                Err(invalid(&self.path, &reason))
            }
        }
    }

    /// Opens the file a descriptor is of, if it is what the descriptor says.
    pub(super) fn blob(&self, of: &Descriptor) -> Result<(File, PathBuf), TreeError> {
        let known = of.digest.split_once(':').filter(|(algorithm, digits)| {
            let length = match *algorithm {
                "sha256" => 64,
                "sha512" => 128,
                _ => 0,
            };
            let hexadecimal = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            digits.len() == length && digits.bytes().all(hexadecimal)
        });
        let Some((algorithm, digits)) = known else {
            let reason = format!("`{}` is not a digest by sha256 or sha512", of.digest);
            return Err(invalid(&self.path, &reason));
        };
        let path = self.path.join("blobs").join(algorithm).join(digits);
        let mut file = File::open(&path).map_err(|cause| io_error(&path, "open", cause))?;
        let about = file
            .metadata()
            .map_err(|cause| io_error(&path, "stat", cause))?;
        if !about.is_file() || about.len() != of.size {
            let reason = format!(
                "it should be a file of {} bytes, this has {}",
                of.size,
                about.len()
            );
            return Err(invalid(&path, &reason));
        }
        let hashed = match algorithm {
            "sha256" => hash::<Sha256>(&mut file),
            _ => hash::<Sha512>(&mut file),
        };
        if hashed.map_err(|cause| io_error(&path, "read", cause))? != digits {
            return Err(invalid(
                &path,
                "its contents do not match its digest; fetch the image again",
            ));
        }
        Ok((file, path))
    }
}

/// Hashes a file and goes back to its beginning.
fn hash<D: Digest>(file: &mut File) -> io::Result<String> {
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    file.rewind()?;
    let digits = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(digits)
}

fn parse<T: DeserializeOwned>(file: File, path: &Path) -> Result<T, TreeError> {
    let mut text = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut text);
    read.map_err(|cause| io_error(path, "read", cause))?;
    if text.len() as u64 > LONGEST {
        return Err(invalid(path, "too large for what it should be"));
    }
    serde_json::from_slice(&text)
        .map_err(|cause| invalid(path, &format!("not as it should be: {cause}")))
}

/// What images call this machine.
fn own_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    };
    format!("linux/{architecture}")
}

pub(super) fn invalid(path: &Path, reason: &str) -> TreeError {
    TreeError::invalid(path.as_os_str().as_encoded_bytes(), reason)
}

fn io_error(path: &Path, action: &'static str, cause: io::Error) -> TreeError {
    TreeError::io(path.as_os_str().as_encoded_bytes(), action, cause)
}
