//! A virtual machine boots from what was exported: an XFS that `volume create` filled, in a
//! QCOW2 of a snapshot, while the volume itself has been overwritten. Needs
//! `guest prepare`; run by `make guest-test`.
#![allow(clippy::unwrap_used)] // all of it is a test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Setup};
use csnap_tests::guest::cache::Cache;
use csnap_tests::guest::cpio::Archive;
use csnap_tests::guest::kernels::{Kernel, TESTED, cached};
use csnap_tests::guest::machine::{CPU, read};

/// What the first program of the exported disk does: it reads, and it writes.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox cp /etc/marker /etc/copy && /bin/busybox sync
echo \"exported: $(/bin/busybox cat /etc/copy) $(/bin/busybox grep -c ' / xfs rw' /proc/mounts)\"
/bin/busybox poweroff -f
";

/// The initramfs: nothing but the way to the disk.
const WAY: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /dev /root
/bin/busybox mount -t devtmpfs dev /dev
for module in MODULES; do /bin/busybox insmod /$module; done
/bin/busybox mount -t xfs /dev/vda /root && exec /bin/busybox switch_root /root /sbin/init
/bin/busybox poweroff -f
";

const WITHIN: Duration = Duration::from_secs(180);

#[test]
fn a_virtual_machine_boots_from_an_exported_disk() {
    let setup = Setup {
        origin_bytes: 512 * MIB,
        ..Setup::default()
    };
    let mut bed = Bed::bare("boot", &setup).unwrap();
    let tree = bed.path("tree");
    make_tree(&tree);
    bed.start().unwrap();
    let (store, origin) = (bed.store.display(), bed.origin.display());
    for line in [
        format!("store create {store} --yes"),
        format!("store attach {store}"),
        format!(
            "volume create vol {origin} --format xfs --for linux-6.12 --from {}",
            tree.display()
        ),
        "snapshot take vol@root".to_owned(),
    ] {
        bed.ctl.ok(&line).unwrap();
    }
    let mut client = Client::connect(&bed.nbd_socket(), "vol").unwrap();
    // The file system's beginning, and the files: there is little in it.
    for piece in 0..64 {
        client.write(piece * MIB, vec![0xe5; 1 << 20]).unwrap();
    }
    drop(client);
    let image = bed.path("root.qcow2");
    let export = format!("snapshot export vol@root -o {} -c zstd", image.display());
    bed.ctl.ok(&export).unwrap();

    let kernel = cached(&Cache::open().unwrap(), TESTED[0]).unwrap();
    let initramfs = bed.path("initramfs.img");
    fs::write(&initramfs, way(&kernel)).unwrap();
    let mut said = boot(&kernel, &initramfs, &image, &bed.path("serial.log"));
    if !said.contains("exported:") {
        // The emulator now and then loses an interrupt that a boot waits for.
        eprintln!("the boot hung; once more: {said}");
        said = boot(&kernel, &initramfs, &image, &bed.path("serial.log"));
    }
    assert!(said.contains("exported: from a tree 1"), "{said}");
    bed.finish().unwrap();
}

fn make_tree(tree: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sbin", "sys"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    fs::write(tree.join("etc/marker"), "from a tree").unwrap();
    fs::write(tree.join("sbin/init"), INIT).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(tree.join("sbin/init"), executable).unwrap();
}

/// An initramfs that mounts the disk.
fn way(kernel: &Kernel) -> Vec<u8> {
    let needed = ["kernel/drivers/block/virtio_blk.ko", "kernel/fs/xfs/xfs.ko"];
    let all: String = from_modules(kernel, "modules.dep", String::from_utf8);
    let mut modules: Vec<String> = Vec::new();
    for module in needed {
        let line = all
            .lines()
            .find_map(|line| line.strip_prefix(module))
            .unwrap();
        // What is needed last is named last.
        let below = line.trim_start_matches(':').split_whitespace().rev();
        for path in below.chain([module]) {
            if !modules.iter().any(|known| known == path) {
                modules.push(path.to_owned());
            }
        }
    }
    let name = |path: &String| path.rsplit('/').next().unwrap().to_owned();
    let names: Vec<String> = modules.iter().map(name).collect();
    let mut archive = Archive::default();
    archive.directory("bin");
    archive.file("bin/busybox", &fs::read("/bin/busybox").unwrap());
    archive.file("init", WAY.replace("MODULES", &names.join(" ")).as_bytes());
    for (path, name) in modules.iter().zip(&names) {
        let module: Vec<u8> = from_modules(kernel, path, Ok::<_, std::convert::Infallible>);
        archive.file(name, &module);
    }
    archive.finish()
}

/// A file of the kernel's modules, out of their image without mounting it.
fn from_modules<T, E: std::fmt::Debug>(
    kernel: &Kernel,
    path: &str,
    read: impl FnOnce(Vec<u8>) -> Result<T, E>,
) -> T {
    let request = format!("cat /{}/{path}", kernel.release);
    let mut debugfs = Command::new("/sbin/debugfs");
    let output = debugfs.args(["-R", &request]).arg(&kernel.modules);
    let output = output.output().unwrap();
    assert!(!output.stdout.is_empty(), "{path}: {output:?}");
    read(output.stdout).unwrap()
}

/// What a machine with this disk says until it is off, or has had its time.
fn boot(kernel: &Kernel, initramfs: &Path, image: &Path, serial: &Path) -> String {
    let arguments = "console=ttyS0 panic=-1 no_timer_check nohz=off highres=off \
                     random.trust_cpu=on mitigations=off";
    let value = |start: &str, path: &Path| format!("{start}{}", path.display());
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-m",
            "512M",
        ])
        .args(["-machine", "pc,usb=off", "-accel", "tcg", "-cpu", CPU])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", arguments])
        .args(["-serial", &value("file:", serial)])
        .args([
            "-drive",
            &value("if=none,id=disk,format=qcow2,file=", image),
        ])
        .args(["-device", "virtio-blk-pci,drive=disk"]);
    let mut machine = Machine(qemu.stdin(Stdio::null()).spawn().unwrap());
    let begin = Instant::now();
    while machine.0.try_wait().unwrap().is_none() && begin.elapsed() < WITHIN {
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(machine);
    read(&PathBuf::from(serial))
}

/// qemu, gone when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
