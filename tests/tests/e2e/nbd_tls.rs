//! NBD over the network: libnbd's and qemu's tools within TLS, and everybody who is to be
//! kept out.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::daemon::Daemon;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::{Bed, Outcome, Setup, tools};
use csnap_tests::{ensure, need_tools};

const SIZE: u64 = 16 * MIB;
const TLS_REQD: u32 = (1 << 31) + 5;

/// Certificates, made for one test.
struct Pki(PathBuf);

impl Pki {
    fn new(test: &str) -> Outcome<Self> {
        let dir = tools::target_dir()?.join("e2e").join(format!("{test}-pki"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).trying(|| format!("make {}", dir.display()))?;
        let this = Self(dir);
        for authority in ["ca", "other"] {
            this.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "3650",
                "-subj",
                &format!("/CN={authority}"),
                "-keyout",
                &format!("{authority}-key.pem"),
                "-out",
                &format!("{authority}-cert.pem"),
            ])?;
        }
        this.sign("server", "ca", "serverAuth\nsubjectAltName=IP:127.0.0.1")?;
        this.sign("client", "ca", "clientAuth")?;
        this.sign("stranger", "other", "clientAuth")?;
        // Each in a directory as libnbd and qemu want it: theirs, and our authority.
        for who in ["client", "stranger"] {
            let own = this.path(who);
            std::fs::create_dir(&own).trying(|| format!("make {}", own.display()))?;
            for (from, to) in [
                ("ca-cert.pem".to_owned(), "ca-cert.pem"),
                (format!("{who}-cert.pem"), "client-cert.pem"),
                (format!("{who}-key.pem"), "client-key.pem"),
            ] {
                std::fs::copy(this.path(&from), own.join(to)).trying(|| format!("copy {from}"))?;
            }
        }
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, args: &[&str]) -> Outcome {
        tools::run(tools::program("openssl").args(args).current_dir(&self.0)).map(drop)
    }

    fn sign(&self, who: &str, authority: &str, purpose: &str) -> Outcome {
        let extensions = format!("basicConstraints=CA:FALSE\nextendedKeyUsage={purpose}\n");
        std::fs::write(self.path("extensions"), extensions).trying(|| "note extensions".into())?;
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/CN={who}"),
            "-keyout",
            &format!("{who}-key.pem"),
            "-out",
            "request.pem",
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            &format!("{authority}-cert.pem"),
            "-CAkey",
            &format!("{authority}-key.pem"),
            "-CAcreateserial",
            "-days",
            "3650",
            "-extfile",
            "extensions",
            "-out",
            &format!("{who}-cert.pem"),
        ])
    }

    /// What csnapd is started with.
    fn options(&self, port: u16) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        vec![
            "--nbd-listen".into(),
            format!("127.0.0.1:{port}"),
            "--nbd-tls-cert".into(),
            file("server-cert.pem"),
            "--nbd-tls-key".into(),
            file("server-key.pem"),
            "--nbd-tls-ca".into(),
            file("ca-cert.pem"),
        ]
    }

    fn uri(&self, who: &str, port: u16, export: &str) -> String {
        let dir = self.path(who);
        format!(
            "nbds://127.0.0.1:{port}/{export}?tls-certificates={}",
            dir.display()
        )
    }
}

/// A port nobody uses now.
fn free_port() -> Outcome<u16> {
    let story = || "find a free port".to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").trying(story)?;
    Ok(listener.local_addr().trying(story)?.port())
}

fn setup(options: Vec<String>) -> Setup {
    Setup {
        origin_bytes: SIZE,
        noise: Some(8),
        options,
        ..Setup::default()
    }
}

fn nbdinfo(uri: &str) -> std::process::Command {
    let mut command = tools::program("nbdinfo");
    command.args(["--json", uri]);
    command
}

#[test]
fn a_client_with_a_certificate_is_served_within_tls() -> Outcome {
    let name = "a_client_with_a_certificate_is_served_within_tls";
    need_tools!(name, "openssl", "nbdinfo", "nbdcopy", "qemu-img");
    let (pki, port) = (Pki::new("nbd-tls")?, free_port()?);
    let bed = Bed::new("nbd-tls", &setup(pki.options(port)))?;
    let snapshot = bed.take_mapped("before")?;
    let before = bed.digest(&snapshot)?;
    let said = tools::run(&mut nbdinfo(&pki.uri("client", port, VOLUME)))?;
    let info: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(info["TLS"] == true, "not encrypted: {said}");
    ensure!(info["exports"][0]["export-size"] == SIZE, "{said}");

    let (image, back) = (bed.path("new.img"), bed.path("back.img"));
    files::make_noise(&image, SIZE, 77)?;
    let fast = ["--connections=4", "--requests=32", "--flush"];
    let copy = |from: &str, to: &str| {
        tools::run(tools::program("nbdcopy").args(fast).args([from, to])).map(drop)
    };
    let volume = pki.uri("client", port, VOLUME);
    copy(&image.display().to_string(), &volume)?;
    copy(&volume, &back.display().to_string())?;
    let written = files::digest(&image)?;
    ensure!(files::digest(&back)? == written, "not what was copied in");
    ensure!(
        bed.digest(VOLUME)? == written,
        "not what the Unix socket shows"
    );
    ensure!(bed.digest(&snapshot)? == before, "{snapshot} changed");

    let creds = format!(
        "tls-creds-x509,id=tls,endpoint=client,dir={}",
        pki.path("client").display()
    );
    let image = format!(
        "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={port},\
         export={snapshot},tls-creds=tls,x-dirty-bitmap=qemu:dirty-bitmap:none"
    );
    // qemu gets as far as the metadata contexts, and names the one there is not.
    let refused = ["map", "--object", &creds, "--image-opts", &image];
    let said = tools::run_failing(tools::program("qemu-img").args(refused))?;
    ensure!(said.contains("qemu:dirty-bitmap:none"), "{said}");
    let image = image.replace(",x-dirty-bitmap=qemu:dirty-bitmap:none", "");
    let info = ["info", "--object", &creds, "--image-opts", &image];
    let said = tools::run(tools::program("qemu-img").args(info))?;
    ensure!(said.contains("16 MiB"), "{said}");
    bed.finish()
}

/// An option on a TCP connection that is not encrypted, and the kind of its answer;
/// `None`: hung up.
fn ask_plainly(port: u16, option: u32, data: &[u8]) -> Outcome<Option<u32>> {
    let story = || "speak without TLS".to_owned();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).trying(story)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .trying(story)?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).trying(story)?;
    let length = (data.len() as u32).to_be_bytes();
    let message = [
        &[0, 0, 0, 3],
        &b"IHAVEOPT"[..],
        &option.to_be_bytes(),
        &length,
        data,
    ];
    stream.write_all(&message.concat()).trying(story)?;
    let mut reply = [0; 20];
    Ok(stream.read_exact(&mut reply).ok().map(|()| {
        let kind = [reply[12], reply[13], reply[14], reply[15]];
        u32::from_be_bytes(kind)
    }))
}

#[test]
fn nobody_else_learns_or_changes_anything() -> Outcome {
    let name = "nobody_else_learns_or_changes_anything";
    need_tools!(name, "openssl", "nbdinfo", "nbdcopy");
    let (pki, port) = (Pki::new("nbd-tls-strangers")?, free_port()?);
    let bed = Bed::new("nbd-tls-strangers", &setup(pki.options(port)))?;
    let before = bed.digest(VOLUME)?;
    tools::run(&mut nbdinfo(&pki.uri("client", port, VOLUME)))?;
    tools::run_failing(&mut nbdinfo(&pki.uri("stranger", port, VOLUME)))?;
    tools::run_failing(&mut nbdinfo(&format!("nbd://127.0.0.1:{port}/{VOLUME}")))?;
    let nobody = format!("nbds://127.0.0.1:{port}/{VOLUME}");
    tools::run_failing(&mut nbdinfo(&nobody))?;
    // Every option but the wish for TLS and the farewell.
    let go = [&[0, 0, 0, 3][..], b"vol", &[0, 0]].concat();
    for option in [3, 6, 7, 8, 9, 10, 11, 99] {
        let kind = ask_plainly(port, option, &go)?;
        ensure!(kind == Some(TLS_REQD), "option {option}: {kind:?}");
    }
    ensure!(
        ask_plainly(port, 1, b"vol")?.is_none(),
        "an export without TLS"
    );
    ensure!(ask_plainly(port, 2, &[])? == Some(1), "no farewell");
    ensure!(ask_plainly(port, 5, &[])? == Some(1), "no TLS");
    ensure!(bed.digest(VOLUME)? == before, "the volume changed");
    bed.finish()
}

#[test]
fn what_would_be_open_by_mistake_does_not_start() -> Outcome {
    let name = "what_would_be_open_by_mistake_does_not_start";
    need_tools!(name, "openssl", "nbdinfo");
    let (pki, port) = (Pki::new("nbd-tls-options")?, free_port()?);
    let listen = ["--nbd-listen".to_owned(), format!("127.0.0.1:{port}")];
    let full = pki.options(port);
    let mut bed = Bed::new("nbd-tls-options", &setup(Vec::new()))?;
    bed.stop()?;
    let refused = [
        listen.to_vec(),
        full[..4].to_vec(),
        full[..6].to_vec(),
        full[2..].to_vec(),
        vec!["--nbd-plaintext".to_owned()],
        [&full[..], &["--nbd-plaintext".to_owned()]].concat(),
        full.iter().map(|o| o.replace("ca-cert", "none")).collect(),
        full.iter()
            .map(|o| o.replace("server-key", "client-key"))
            .collect(),
        full.iter()
            .map(|o| o.replace("ca-cert.pem", "extensions"))
            .collect(),
    ];
    for options in refused {
        let status = Daemon::start_refused(&bed.places, &options)?;
        ensure!(!status.success(), "{options:?}: {status}");
    }
    let plain = [&listen[..], &["--nbd-plaintext".to_owned()]].concat();
    let daemon = Daemon::start(&bed.places, &plain)?;
    tools::run(&mut nbdinfo(&format!("nbd://127.0.0.1:{port}/{VOLUME}")))?;
    daemon.stop()?;
    bed.start()?;
    bed.finish()
}

/// Idle, half-closed, talking garbage where TLS belongs, and many.
#[test]
fn hostile_clients_of_the_network_harm_nobody() -> Outcome {
    let name = "hostile_clients_of_the_network_harm_nobody";
    need_tools!(name, "openssl", "nbdinfo", "nbdcopy");
    let (pki, port) = (Pki::new("nbd-tls-hostile")?, free_port()?);
    let bed = Bed::new("nbd-tls-hostile", &setup(pki.options(port)))?;
    let connect = || TcpStream::connect(("127.0.0.1", port)).ok();
    let mut held: Vec<TcpStream> = Vec::new();
    for number in 0..600_u32 {
        let Some(mut stream) = connect() else {
            continue;
        };
        let starttls = [&[0, 0, 0, 3], &b"IHAVEOPT"[..], &[0, 0, 0, 5, 0, 0, 0, 0]].concat();
        let _ = match number % 4 {
            0 => stream
                .write_all(&starttls)
                .and_then(|()| stream.write_all(&[0xff; 4000])),
            1 => stream.write_all(&starttls),
            2 => stream.shutdown(std::net::Shutdown::Write),
            _ => Ok(()),
        };
        held.push(stream);
    }
    // The Unix socket knows nothing of it.
    let mut local = Client::connect(&bed.nbd_socket(), VOLUME)?;
    local.write(0, vec![5; 4096])?;
    ensure!(
        local.read(0, 4096)? == vec![5; 4096],
        "not what was written"
    );
    bed.ctl.ok("status")?;
    // They are cut off while they still hold on, and others get in again.
    let until = Instant::now() + Duration::from_secs(60);
    while tools::run(&mut nbdinfo(&pki.uri("client", port, VOLUME))).is_err() {
        ensure!(Instant::now() < until, "nobody is let in any more");
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(held);
    let descriptors = || -> Outcome<usize> {
        let dir = format!("/proc/{}/fd", bed.pid()?);
        Ok(std::fs::read_dir(&dir).trying(|| dir.clone())?.count())
    };
    while descriptors()? > 200 {
        ensure!(Instant::now() < until, "connections are never closed");
        std::thread::sleep(Duration::from_millis(200));
    }
    bed.finish()
}
