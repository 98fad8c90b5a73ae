//! The harness judged: over a server we trust (qemu's) the load verifies, and a
//! write lost on purpose is found.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::ledger::{BLOCK, Ledger};
use csnap_tests::e2e::load::{self, Load};
use csnap_tests::e2e::{Outcome, tools};
use csnap_tests::{ensure, need_tools};

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_write_lost_on_purpose_is_found() -> Outcome {
    need_tools!("a_write_lost_on_purpose_is_found", "qemu-storage-daemon");
    let dir = tools::target_dir()?
        .join("e2e")
        .join(format!("harness-{}", std::process::id()));
    std::fs::create_dir_all(&dir).trying(|| "make a directory".into())?;
    let (image, socket) = (dir.join("image"), dir.join("nbd.sock"));
    files::make_sparse(&image, 8 * MIB)?;
    let serve = |image: &std::path::Path| {
        let child = Command::new("qemu-storage-daemon")
            .args([
                "--blockdev",
                &format!("driver=file,node-name=f,filename={}", image.display()),
            ])
            .args([
                "--nbd-server",
                &format!("addr.type=unix,addr.path={}", socket.display()),
            ])
            .args(["--export", "nbd,id=e,node-name=f,name=vol,writable=on"])
            .stdin(Stdio::null())
            .spawn();
        child
            .map(Served)
            .trying(|| "start qemu-storage-daemon".into())
    };
    let server = serve(&image)?;
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ledger = Arc::new(Mutex::new(Ledger::new(8 * MIB as usize / BLOCK)));
    let load = Load::start(&socket, "vol", &ledger, super::seed());
    std::thread::sleep(Duration::from_millis(500));
    drop(server); // kill -9 under load
    load.finish(true)?;
    let bytes = std::fs::read(&image).trying(|| "read the image".into())?;
    load::lock(&ledger).settle(0, &bytes)?;

    let written = bytes.chunks(BLOCK).position(|block| block[0] != 0);
    let written = written.unwrap_or(usize::MAX);
    ensure!(written < usize::MAX, "the load wrote nothing");
    files::flip_byte(&image, (written * BLOCK) as u64 + 700)?;
    let bytes = std::fs::read(&image).trying(|| "read the image".into())?;
    ensure!(
        load::lock(&ledger).settle(0, &bytes).is_err(),
        "a flipped byte was not found"
    );
    std::fs::remove_dir_all(&dir).trying(|| "remove the directory".into())
}
