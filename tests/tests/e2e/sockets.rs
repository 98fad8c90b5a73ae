//! Hostile bytes on the control and the NBD socket: the daemon answers or hangs
//! up, and goes on serving everyone else.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl};
use csnap_tests::ensure;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn small() -> Setup {
    Setup {
        origin_bytes: 8 * MIB,
        store_bytes: 64 * MIB,
        ..Setup::default()
    }
}

/// Sends bytes, then hangs up or waits for an answer. Whatever happens is fine:
/// the daemon's well-being is judged afterwards.
fn throw(socket: &Path, bytes: &[u8], wait: bool) -> Outcome {
    let mut stream = UnixStream::connect(socket).trying(|| "connect to be rude".into())?;
    let _ = stream.write_all(bytes);
    if wait {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(30)));
        let mut answer = [0; 4096];
        let _ = stream.read(&mut answer);
    }
    Ok(())
}

fn still_well(bed: &Bed, number: u64) -> Outcome {
    bed.ctl.ok("status")?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    client.write(0, vec![number as u8; 4096])?;
    let back = client.read(0, 4096)?;
    ensure!(back == vec![number as u8; 4096], "the volume is not well");
    Ok(())
}

#[test]
fn garbage_on_the_control_socket() -> Outcome {
    let bed = Bed::new("control-garbage", &small())?;
    let socket = bed.places.run_dir.join("control.sock");
    let mut random = ChaCha8Rng::seed_from_u64(super::seed());
    for round in 0..200_u64 {
        let mut bytes = vec![0; random.random_range(0..3000)];
        random.fill_bytes(&mut bytes);
        let length = bytes.len() as u32;
        let head = match round % 5 {
            0 => u32::MAX.to_le_bytes(),       // a huge length
            1 => length.to_le_bytes(),         // a whole frame of noise
            2 => (length + 100).to_le_bytes(), // half a frame
            3 => 0_u32.to_le_bytes(),          // an empty frame
            _ => [b'G', b'E', b'T', b' '],     // another protocol
        };
        throw(&socket, &[&head, bytes.as_slice()].concat(), round % 3 == 0)?;
        if round % 50 == 49 {
            still_well(&bed, round)?;
        }
    }
    let json = [
        "{}".into(),
        "[".repeat(10_000),
        r#"{"version":99,"id":1,"request":{"verb":"status"}}"#.into(),
        r#"{"version":1,"id":1,"request":{"verb":"store.format"}}"#.into(),
        r#"{"version":1,"id":-1,"request":null}"#.into(),
        format!(
            r#"{{"version":1,"id":1,"request":{{"verb":"volume.show","name":"{}"}}}}"#,
            "x".repeat(100_000)
        ),
    ];
    for text in &json {
        let head = (text.len() as u32).to_le_bytes();
        throw(&socket, &[&head, text.as_bytes()].concat(), true)?;
    }
    still_well(&bed, 200)?;
    bed.finish()
}

#[test]
fn many_and_slow_control_clients() -> Outcome {
    let bed = Bed::new("control-slow", &small())?;
    let socket = bed.places.run_dir.join("control.sock");
    let connect = |_| UnixStream::connect(&socket);
    let idle: Vec<_> = (0..300).map_while(|number| connect(number).ok()).collect();
    for mut stream in &idle {
        let _ = stream.write_all(&[1]); // and never the rest
    }
    // The daemon may refuse to listen meanwhile, but not for ever, and must not
    // touch the volume.
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![3; 4096])?;
    drop(idle);
    std::thread::sleep(Duration::from_millis(500));
    still_well(&bed, 1)?;
    bed.finish()
}

#[test]
fn garbage_on_the_nbd_socket() -> Outcome {
    let bed = Bed::new("nbd-garbage", &small())?;
    let mut random = ChaCha8Rng::seed_from_u64(super::seed());
    for round in 0..200_u64 {
        let mut bytes = vec![0; random.random_range(0..3000)];
        random.fill_bytes(&mut bytes);
        let start: &[u8] = match round % 4 {
            0 => &[],
            1 => &[0, 0, 0, 3], // our flags, then noise
            2 => b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff", // a huge option
            _ => b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03vol", // in, then noise as requests
        };
        throw(
            &bed.nbd_socket(),
            &[start, bytes.as_slice()].concat(),
            round % 3 == 0,
        )?;
        if round % 50 == 49 {
            still_well(&bed, round)?;
        }
    }
    bed.finish()
}

#[test]
fn requests_that_do_not_fit_get_an_error_and_nothing_else() -> Outcome {
    let bed = Bed::new("nbd-bounds", &small())?;
    bed.take_mapped("s")?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let size = client.size();
    let bad = [
        (size, Ask::Read(512)),
        (size - 512, Ask::Read(1024)),
        (size, Ask::Write(vec![1; 512], false)),
        (u64::MAX - 511, Ask::Read(512)),
        (u64::MAX - 511, Ask::Write(vec![1; 4096], false)),
        (size - 4096, Ask::Zero(8192)),
        (0, Ask::Trim(u32::MAX)),
    ];
    for (offset, ask) in &bad {
        let done = client.call(*offset, ask)?;
        ensure!(done.error != 0, "{ask:?} at {offset} was accepted");
    }
    client.write(4096, vec![7; 4096])?; // the same connection is still in step
    ensure!(
        client.read(4096, 4096)? == vec![7; 4096],
        "the volume is not well"
    );
    let mut frozen = Client::connect(&bed.nbd_socket(), "vol@s")?;
    ensure!(frozen.read_only(), "a snapshot is offered for writing");
    for ask in [
        Ask::Write(vec![1; 4096], false),
        Ask::Zero(4096),
        Ask::Trim(4096),
    ] {
        let done = frozen.call(0, &ask)?;
        ensure!(done.error != 0, "{ask:?} of a snapshot was accepted");
    }
    ensure!(
        frozen.read(0, 4096)? == vec![0; 4096],
        "the snapshot was written"
    );
    ensure!(
        Client::connect(&bed.nbd_socket(), "nothere").is_err(),
        "an export of any name"
    );
    bed.finish()
}

#[test]
fn the_control_socket_is_private() -> Outcome {
    let bed = Bed::new("private", &small())?;
    for (name, wanted) in [(".", 0o700), ("control.sock", 0o600), ("nbd.sock", 0o600)] {
        let path = bed.places.run_dir.join(name);
        let meta = std::fs::metadata(&path).trying(|| format!("look at {}", path.display()))?;
        let mode = meta.permissions().mode() & 0o777;
        ensure!(mode & !wanted == 0, "{} has mode {mode:o}", path.display());
    }
    bed.finish()
}

/// Connections that got in and say nothing more: who is served stays so, those too many
/// are hung up on, and there is room again when they have gone.
#[test]
fn a_flood_of_idle_nbd_clients() -> Outcome {
    let bed = Bed::new("nbd-flood", &small())?;
    let mut early = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let enter = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03vol";
    let mut idle = Vec::new();
    for _ in 0..3000 {
        let Ok(mut stream) = UnixStream::connect(bed.nbd_socket()) else {
            break;
        };
        let _ = stream.write_all(enter);
        idle.push(stream);
    }
    ensure!(idle.len() > 300, "only {} got as far", idle.len());
    for round in 0..50_u8 {
        early.write(0, vec![round; 4096])?;
        ensure!(early.read(0, 4096)? == vec![round; 4096], "round {round}");
    }
    bed.ctl.ok("status")?;
    drop(idle);
    let until = Instant::now() + Duration::from_secs(30);
    while still_well(&bed, 9).is_err() {
        ensure!(Instant::now() < until, "nobody is let in any more");
        std::thread::sleep(Duration::from_millis(200));
    }
    bed.finish()
}

#[test]
fn whoever_is_too_many_is_told_so() -> Outcome {
    let setup = Setup {
        options: vec!["--threads".into(), "1".into()],
        ..small()
    };
    let bed = Bed::new("nbd-full-house", &setup)?;
    bed.ctl.ok("snapshot take vol@a")?;
    let mut all = Vec::new();
    for _ in 0..256 {
        let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
        client.read(0, 4096)?;
        all.push(client);
    }
    let image = bed.path("a.qcow2");
    let export = format!("snapshot export vol@a -o {}", image.display());
    bed.ctl
        .refuses(&export, ctl::exit::ERROR, "as many connections")?;
    // One is enough, however many threads there are.
    all.truncate(255);
    let export = format!("{export} --threads 8");
    let until = Instant::now() + Duration::from_secs(20);
    while bed.ctl.any(&export)?.code != 0 {
        ensure!(Instant::now() < until, "nobody is let in any more");
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in &mut all {
        client.read(0, 4096)?;
    }
    drop(all);
    bed.finish()
}
