//! The whole data path on real files: rings, lanes, engine, NBD connections.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use snapstore::create::{CreateOptions, create};
use snapstore::engine::{Command, Config, Engine, Notice, Policy, Reply};
use snapstore::recover::load;
use snapstore::{IoError, Tag, VolumeId};

use super::*;
use crate::device::{OriginDevice, OriginSet, Tally};

mod replaced;
mod starving;

const CHUNK: usize = 16384;

struct Quiet;

impl StoreHandlers for Quiet {
    fn origin_failed(&self, _: VolumeId, _: i32) {}

    fn notice(&self, _: Notice) {}
    fn record_invalid(&self, _: &[VolumeId]) -> Result<(), IoError> {
        Ok(())
    }
}

/// A store and one origin of `size` bytes, served by two lanes.
struct Rig {
    runtime: Runtime,
    store: Arc<StoreHandle<Engine>>,
    volume: VolumeId,
    origin: PathBuf,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new(contents: &[u8]) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let origin = dir.path().join("origin");
        let store = dir.path().join("store");
        std::fs::write(&origin, contents).unwrap();
        File::create(&store).unwrap().set_len(256 << 20).unwrap();
        let mut device = StoreDevice::open(&store, false).unwrap();
        let options = CreateOptions {
            uuid: [7; 16],
            chunk_size: CHUNK as u32,
            checksum: snapstore::Checksum::default(),
            created_ms: 1,
            journal_blocks: None,
        };
        create(&mut device, &options).unwrap();
        let loaded = load(&mut device).unwrap();
        let mut origins = OriginSet::new(CHUNK as u32);
        let (engine, _) = loaded
            .recover(&mut device, &mut origins, Config::default())
            .unwrap();
        let config = RuntimeConfig {
            lanes: 2,
            ..RuntimeConfig::default()
        };
        let runtime = Runtime::start(config).unwrap();
        let store = runtime
            .attach_store(engine, device, Arc::new(Quiet))
            .unwrap();
        let command = Command::CreateVolume {
            name: "vol".into(),
            uuid: [9; 16],
            size: contents.len() as u64,
            origin: origin.display().to_string(),
            policy: Policy::OriginFirst,
            created_ms: 2,
        };
        let Reply::Volume(volume) = store.command(command).unwrap() else {
            panic!("no volume")
        };
        store
            .attach_origin(volume, OriginDevice::open(&origin, false).unwrap().into())
            .unwrap();
        Self {
            runtime,
            store,
            volume,
            origin,
            _dir: dir,
        }
    }

    fn export(&self, target: ExportTarget) -> Arc<Export> {
        self.runtime.open_export(&self.store, target).unwrap()
    }

    fn connect(&self, export: &Arc<Export>) -> Client {
        self.connect_with(export, nbd::Options::default())
    }

    fn connect_with(&self, export: &Arc<Export>, options: nbd::Options) -> Client {
        self.connect_from(None, export, options)
    }

    fn connect_from(
        &self,
        address: Option<IpAddr>,
        export: &Arc<Export>,
        options: nbd::Options,
    ) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        self.runtime
            .serve(
                theirs.into(),
                export.clone(),
                (export.info(), options),
                self.runtime.seat().unwrap(),
                Peer {
                    address,
                    place: None,
                },
            )
            .unwrap();
        Client {
            socket: ours,
            cookie: 0,
        }
    }

    fn take(&self, name: &str) -> Tag {
        let targets = vec![(self.volume, name.to_owned())];
        let command = Command::Take {
            targets,
            priority: 0,
            created_ms: 3,
        };
        match self.store.command(command).unwrap() {
            Reply::Taken(tag) => tag,
            other => panic!("{other:?}"),
        }
    }
}

/// The least NBD client: simple replies, one or many requests at a time.
struct Client {
    socket: UnixStream,
    cookie: u64,
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const ZEROES: u16 = 6;
const FUA: u16 = 1;

impl Client {
    fn send(&mut self, flags: u16, command: u16, offset: u64, len: usize, data: &[u8]) -> u64 {
        self.cookie += 1;
        let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend(data);
        self.socket.write_all(&bytes).unwrap();
        self.cookie
    }

    /// Cookie and error of the next reply.
    fn reply(&mut self) -> (u64, u32) {
        let mut header = [0; 16];
        self.socket.read_exact(&mut header).unwrap();
        assert_eq!(header[..4], 0x6744_6698u32.to_be_bytes());
        let error = u32::from_be_bytes(header[4..8].try_into().unwrap());
        (u64::from_be_bytes(header[8..].try_into().unwrap()), error)
    }

    fn ask(&mut self, flags: u16, command: u16, offset: u64, len: usize, data: &[u8]) -> u32 {
        let cookie = self.send(flags, command, offset, len, data);
        let (answered, error) = self.reply();
        assert_eq!(answered, cookie);
        error
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, u32> {
        match self.ask(0, READ, offset, len, &[]) {
            0 => {
                let mut data = vec![0; len];
                self.socket.read_exact(&mut data).unwrap();
                Ok(data)
            }
            error => Err(error),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.ask(0, WRITE, offset, data.len(), data)
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len / 8).flat_map(|_| next().to_le_bytes()).collect()
}

#[test]
fn an_origin_passes_through_and_a_snapshot_stays() {
    let before = pattern(1, 4 << 20);
    let rig = Rig::new(&before);
    let origin = rig.export(ExportTarget::Origin(rig.volume));
    assert_eq!((origin.size(), origin.read_only()), (4 << 20, false));
    let mut client = rig.connect(&origin);
    assert_eq!(
        client.read(512, 70_000 / 512 * 512).unwrap(),
        before[512..][..70_000 / 512 * 512]
    );

    let tag = rig.take("one");
    let mut now = before.clone();
    for (seed, offset, len) in [(2, 0, 4096), (3, 20_480, 512), (4, 1 << 20, 1 << 20)] {
        let data = pattern(seed, len);
        assert_eq!(client.write(offset as u64, &data), 0);
        now[offset..][..len].copy_from_slice(&data);
    }
    assert_eq!(client.ask(FUA, ZEROES, 3 << 20, 100 << 10, &[]), 0);
    now[3 << 20..][..100 << 10].fill(0);
    assert_eq!(client.ask(0, FLUSH, 0, 0, &[]), 0);
    assert!(
        client.read(0, 4 << 20).unwrap() == now,
        "the origin is not what was written"
    );

    let snapshot = rig.export(ExportTarget::Snapshot(rig.volume, tag));
    assert!(snapshot.read_only());
    let mut reader = rig.connect(&snapshot);
    assert!(
        reader.read(0, 4 << 20).unwrap() == before,
        "the snapshot changed"
    );
    for (offset, len) in [
        (512, 512),
        (4096 - 512, 1024),
        (16384 - 512, 33_280),
        (1 << 20, 1536),
    ] {
        let found = reader.read(offset as u64, len).unwrap();
        assert!(
            found == before[offset..][..len],
            "snapshot at {offset}+{len}"
        );
    }
    assert_eq!(reader.write(0, &[0; 512]), 1, "a snapshot takes no write");

    drop((client, reader));
    origin.close(Duration::from_secs(5)).unwrap();
    snapshot.close(Duration::from_secs(5)).unwrap();
    assert_eq!(rig.store.command(Command::Close), Ok(Reply::Done));
    rig.store.close().unwrap();
    assert!(
        std::fs::read(&rig.origin).unwrap() == now,
        "the origin alone differs"
    );
}

#[test]
fn a_damaged_chunk_of_the_store_is_an_error_and_no_data() {
    let before = pattern(1, 1 << 20);
    let rig = Rig::new(&before);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut client = rig.connect(&export);
    let tag = rig.take("one");
    assert_eq!(client.write(0, &pattern(2, CHUNK)), 0);
    let snapshot = rig.export(ExportTarget::Snapshot(rig.volume, tag));
    let mut reader = rig.connect(&snapshot);
    assert!(reader.read(0, CHUNK).unwrap() == before[..CHUNK]);
    // Find the copy in the store and flip one bit of its second block.
    let path = rig.store.device().path().to_owned();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .chunks(4096)
        .position(|block| block == &before[..4096])
        .unwrap()
        * 4096;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at + 5000] ^ 4], at as u64 + 5000)
        .unwrap();
    file.sync_all().unwrap();
    assert_eq!(reader.read(4096, 4096), Err(5));
    assert!(
        reader.read(0, 4096).unwrap() == before[..4096],
        "blocks are verified one by one"
    );
    assert_eq!(reader.read(0, CHUNK), Err(5));
}

#[test]
fn snapshots_taken_under_load_are_whole_and_still() {
    // Every write writes one generation number over a whole region; a snapshot
    // must hold one generation per chunk and never change.
    let rig = Rig::new(&vec![0; 2 << 20]);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let mut client = rig.connect(&export);
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut round = 0u8;
                while !stop.load(Ordering::Relaxed) {
                    round = round.wrapping_add(1);
                    for part in 0..8 {
                        let offset = writer * (512 << 10) + part * (64 << 10);
                        client.send(0, WRITE, offset, 64 << 10, &[round; 64 << 10]);
                    }
                    for _ in 0..8 {
                        assert_eq!(client.reply().1, 0);
                    }
                }
                round
            })
        })
        .collect();
    let mut kept = Vec::new();
    for n in 0..12 {
        let tag = rig.take(&format!("s{n}"));
        let snapshot = rig.export(ExportTarget::Snapshot(rig.volume, tag));
        let contents = rig.connect(&snapshot).read(0, 2 << 20).unwrap();
        for (chunk, bytes) in contents.chunks(CHUNK).enumerate() {
            assert!(
                bytes.iter().all(|b| *b == bytes[0]),
                "snapshot {n} has a torn chunk {chunk}"
            );
        }
        kept.push((snapshot, contents));
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    let rounds: Vec<_> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();
    for (n, (snapshot, contents)) in kept.iter().enumerate() {
        let again = rig.connect(snapshot).read(0, 2 << 20).unwrap();
        assert!(again == *contents, "snapshot {n} changed");
    }
    let last = rig.connect(&export).read(0, 2 << 20).unwrap();
    for (region, round) in last.chunks(512 << 10).zip(rounds) {
        assert!(
            region.iter().all(|b| *b == round),
            "the origin lost a write"
        );
    }
}

#[test]
fn trim_spares_shared_chunks_and_zeroes_do_not() {
    let before = vec![0xaa; 1 << 20];
    let rig = Rig::new(&before);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut client = rig.connect(&export);
    let tag = rig.take("one");
    // Chunk 2 becomes unique; the others stay shared.
    assert_eq!(client.write(2 * CHUNK as u64, &[0xbb; CHUNK]), 0);
    assert_eq!(client.ask(0, TRIM, 0, 1 << 20, &[]), 0);
    let now = client.read(0, 1 << 20).unwrap();
    for (chunk, bytes) in now.chunks(CHUNK).enumerate() {
        let want = if chunk == 2 { 0 } else { 0xaa };
        assert!(
            bytes.iter().all(|b| *b == want),
            "chunk {chunk} after the trim"
        );
    }
    assert_eq!(client.ask(0, ZEROES, 0, 1 << 20, &[]), 0);
    assert!(client.read(0, 1 << 20).unwrap().iter().all(|b| *b == 0));
    let snapshot = rig.export(ExportTarget::Snapshot(rig.volume, tag));
    assert!(rig.connect(&snapshot).read(0, 1 << 20).unwrap() == before);
}

#[test]
fn closing_an_export_answers_what_is_owed_and_disconnects() {
    let rig = Rig::new(&pattern(5, 1 << 20));
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut client = rig.connect(&export);
    client.read(0, 512).unwrap();
    assert_eq!(export.connections(), 1);
    export.close(Duration::from_secs(5)).unwrap();
    assert_eq!(
        client.socket.read(&mut [0; 16]).unwrap(),
        0,
        "the socket is still open"
    );
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let refused = rig.runtime.serve(
        theirs.into(),
        export.clone(),
        (export.info(), nbd::Options::default()),
        rig.runtime.seat().unwrap(),
        Peer::default(),
    );
    assert_eq!(refused, Err(ExportClosed));
    rig.store.detach_origin(rig.volume).unwrap();
    let target = ExportTarget::Origin(rig.volume);
    let error = rig.runtime.open_export(&rig.store, target).unwrap_err();
    assert!(matches!(error, AttachError::NotAttached(_)), "{error}");
    OriginDevice::open(&rig.origin, false).expect("the device was let go");
}

#[test]
fn garbage_and_leaving_clients_disturb_nobody() {
    let rig = Rig::new(&pattern(6, 1 << 20));
    let export = rig.export(ExportTarget::Origin(rig.volume));
    let mut good = rig.connect(&export);
    for n in 0..20 {
        let mut bad = rig.connect(&export);
        match n % 4 {
            0 => bad.socket.write_all(&pattern(n, 4096)).unwrap(),
            1 => {
                bad.send(0, WRITE, 0, 1 << 20, &[1; 1000]);
            }
            2 => (0..100).for_each(|_| {
                bad.send(0, READ, 0, 256 << 10, &[]);
            }),
            _ => {
                bad.send(0, DISCONNECT, 0, 0, &[]);
            }
        }
        drop(bad);
        assert_eq!(good.read(0, 4096).unwrap().len(), 4096);
    }
    let until = Instant::now() + Duration::from_secs(10);
    while export.connections() > 1 {
        assert!(
            Instant::now() < until,
            "{} connections stay",
            export.connections()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(good.read(0, 1 << 20).unwrap() == pattern(6, 1 << 20));
}

#[test]
fn a_client_that_does_not_read_its_replies_starves_nobody() {
    let contents = pattern(7, 4 << 20);
    let rig = Rig::new(&contents);
    let export = rig.export(ExportTarget::Origin(rig.volume));
    // More than all buffers of both lanes together would hold.
    let mut lazy: Vec<_> = (0..8).map(|_| rig.connect(&export)).collect();
    for client in &mut lazy {
        (0..100).for_each(|n| {
            client.send(0, READ, n % 16 * (256 << 10), 256 << 10, &[]);
        });
    }
    for _ in 0..2 {
        let mut good = rig.connect(&export);
        assert!(good.read(0, 4 << 20).unwrap() == contents);
    }
    // Those that read after all get everything they asked for.
    for client in &mut lazy {
        for n in 0..100 {
            let mut data = vec![0; 256 << 10];
            let (cookie, error) = client.reply();
            assert_eq!(error, 0);
            client.socket.read_exact(&mut data).unwrap();
            let at = ((cookie - 1) % 16 * (256 << 10)) as usize;
            assert!(data == contents[at..][..256 << 10], "reply {n}");
        }
    }
}

#[test]
fn a_stop_with_clients_and_work_in_flight_ends() {
    let rig = Rig::new(&pattern(8, 4 << 20));
    let export = rig.export(ExportTarget::Origin(rig.volume));
    rig.take("one");
    let mut client = rig.connect(&export);
    for n in 0..64 {
        client.send(0, WRITE, n * (64 << 10), 64 << 10, &[1; 64 << 10]);
    }
    drop(rig);
    // Whatever was answered was; then the socket is closed.
    let mut rest = Vec::new();
    let _ = client.socket.read_to_end(&mut rest);
    assert_eq!(rest.len() % 16, 0);
}
