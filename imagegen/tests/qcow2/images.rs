//! Images that QEMU makes: random options, random writes, snapshots, backing files.

use crate::tools;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// QEMU, and a directory to make images in.
pub(crate) fn begin() -> Option<(Qemu, TempDir)> {
    Some((Qemu::find()?, tempfile::tempdir().unwrap()))
}

/// `qemu-img` and `qemu-io`, if they are here.
pub(crate) struct Qemu {
    img: PathBuf,
    io: PathBuf,
}

impl Qemu {
    pub(crate) fn find() -> Option<Self> {
        let program = |name| Some(PathBuf::from(tools::machine(name)?().get_program()));
        Some(Self {
            img: program("qemu-img")?,
            io: program("qemu-io")?,
        })
    }

    /// Runs `qemu-img` with these words; its output, and its exit code.
    pub(crate) fn img(&self, words: &[&str]) -> (String, i32) {
        let out = Command::new(&self.img).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (text, out.status.code().unwrap())
    }

    /// The same, which must go well.
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let out = Command::new(&self.img).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "qemu-img {words:?}: {said}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Makes an image, as these options, and a size, say.
    pub(crate) fn create(&self, image: impl AsRef<Path>, more: &[&str]) {
        let words = ["create", "-q", "-f", "qcow2", text(image.as_ref())];
        self.done(&[&words, more].concat());
    }

    /// Runs these commands on an image by `qemu-io`.
    pub(crate) fn io(&self, image: &Path, commands: &[String]) {
        let mut command = Command::new(&self.io);
        command.args(["-f", "qcow2"]);
        if commands.is_empty() {
            return;
        }
        for one in commands {
            command.args(["-c", one]);
        }
        let out = command.arg(image).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let failed = said.contains("failed") || said.contains("rror");
        assert!(
            out.status.success() && !failed,
            "qemu-io {commands:?}: {said}"
        );
    }

    /// `qemu-io` with this image open, as a running machine has it.
    pub(crate) fn hold(&self, image: &Path) -> Holder {
        let mut child = Command::new(&self.io)
            .args(["-f", "qcow2"])
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It asks for commands once the image is open.
        let mut asked = [0; 8];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut asked)
            .unwrap();
        Holder(child)
    }

    /// What the disk holds, by `qemu-img convert`.
    pub(crate) fn contents(&self, image: &Path, snapshot: Option<&str>) -> Vec<u8> {
        let raw = image.with_extension("raw");
        let mut words = vec!["convert", "-f", "qcow2", "-O", "raw"];
        words.extend(snapshot.into_iter().flat_map(|name| ["-l", name]));
        words.extend([image.to_str().unwrap(), raw.to_str().unwrap()]);
        self.done(&words);
        std::fs::read(raw).unwrap()
    }
}

/// A program that has an image open until this is dropped.
pub(crate) struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A seed of which every random choice comes, printed.
pub(crate) fn random() -> ChaCha8Rng {
    let given = std::env::var("CSNAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    println!("CSNAP_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// A random image in `dir`, with backing files and snapshots; the names of the latter.
pub(crate) fn make(qemu: &Qemu, dir: &Path, random: &mut ChaCha8Rng) -> (PathBuf, Vec<String>) {
    let mut below: Option<PathBuf> = None;
    for number in 0..random.random_range(0..3) {
        below = Some(layer(qemu, dir, number, below.as_deref(), random));
    }
    let image = layer(qemu, dir, 9, below.as_deref(), random);
    let mut snapshots = Vec::new();
    // Data outside the image has none.
    let most = if dir.join("9.data").exists() { 0 } else { 2 };
    for number in 0..random.random_range(0..=most) {
        let name = format!("snap {number}");
        // Counts of one bit cannot say that two use a cluster.
        if qemu
            .img(&["snapshot", "-c", &name, image.to_str().unwrap()])
            .1
            != 0
        {
            break;
        }
        snapshots.push(name);
        write(qemu, &image, random);
    }
    (image, snapshots)
}

fn layer(
    qemu: &Qemu,
    dir: &Path,
    number: u32,
    below: Option<&Path>,
    random: &mut ChaCha8Rng,
) -> PathBuf {
    let image = dir.join(format!("{number}.qcow2"));
    let (options, can_compress) = options(dir, number, below.is_none(), random);
    let size = (random.random_range(1..6u64) << 20) + 512 * random.random_range(0..9u64);
    let size = size.to_string();
    let mut more = vec!["-o", &options, &size];
    if let Some(below) = below {
        more.extend(["-F", "qcow2", "-b", text(below)]);
    }
    qemu.create(&image, &more);
    if can_compress {
        compress(qemu, &image, random);
    }
    write(qemu, &image, random);
    image
}

/// Options of an image, and whether clusters of it can be compressed.
fn options(dir: &Path, number: u32, alone: bool, random: &mut ChaCha8Rng) -> (String, bool) {
    if random.random_ratio(1, 5) {
        return (
            format!(
                "compat=0.10,cluster_size={}",
                512 << random.random_range(0..9)
            ),
            true,
        );
    }
    let extended = random.random_ratio(1, 3);
    let least = if extended { 14 } else { 9 };
    let bits = random.random_range(least..=18);
    let refcounts = 1 << random.random_range(0..=6);
    let external = alone && random.random_ratio(1, 6);
    let mut options = format!(
        "compat=1.1,cluster_size={},refcount_bits={refcounts}",
        1 << bits
    );
    if extended {
        options.push_str(",extended_l2=on");
    }
    if external {
        let data = dir.join(format!("{number}.data"));
        write!(options, ",data_file={}", data.display()).unwrap();
    } else if random.random_bool(0.5) {
        options.push_str(",compression_type=zstd");
    }
    // Neighbours share clusters, which narrow counts cannot say.
    (options, !external && refcounts >= 16)
}

/// Sizes of the disk and of a cluster.
fn sizes(qemu: &Qemu, image: &Path) -> (u64, u64) {
    let about = qemu.done(&["info", "--output=json", image.to_str().unwrap()]);
    let about: serde_json::Value = serde_json::from_str(&about).unwrap();
    let number = |name: &str| about[name].as_u64().unwrap();
    (number("virtual-size"), number("cluster-size"))
}

/// Some clusters of a fresh image: QEMU compresses none that is there already.
fn compress(qemu: &Qemu, image: &Path, random: &mut ChaCha8Rng) {
    let (size, cluster) = sizes(qemu, image);
    let mut commands = Vec::new();
    for at in (0..size).step_by(cluster as usize) {
        if random.random_ratio(1, 8) && commands.len() < 40 {
            let byte = random.random_range(0..=255u8);
            commands.push(format!(
                "write -c -P {byte} {at} {}",
                cluster.min(size - at)
            ));
        }
    }
    qemu.io(image, &commands);
}

fn write(qemu: &Qemu, image: &Path, random: &mut ChaCha8Rng) {
    let (size, _) = sizes(qemu, image);
    let mut commands = Vec::new();
    for _ in 0..random.random_range(1..25) {
        let at = random.random_range(0..size / 512) * 512;
        let length = (512 * random.random_range(1..600u64)).min(size - at);
        let byte = random.random_range(0..=255u8);
        commands.push(match random.random_range(0..5) {
            0 => format!("write -z {at} {length}"),
            1 => format!("write -z -u {at} {length}"),
            2 => format!("discard {at} {length}"),
            _ => format!("write -P {byte} {at} {length}"),
        });
    }
    qemu.io(image, &commands);
}
