//! csnapd on a disk that is logged or cut off ([`crate::cut`]): a load that keeps a diary,
//! and a look at what is left after a power cut.
//!
//! One disk holds origin, store and diary as three linear mappings. Between them and device
//! mapper's log lies a loop device: it sends one flush at a time and turns forced writes
//! into a write and a flush. Of two flushes under way at once, the log would show what the
//! first has made durable behind what was written after the second; and forced writes
//! before older plain ones.
//!
//! Writers overwrite the origin all the time, each block by one of them at a time; one
//! thread flushes and forces; the main thread takes, reads and deletes snapshots. Whatever
//! is answered goes into the diary, and is told on stdout when it is there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::device::Aligned;
use super::disk::{await_node, dmsetup};
use super::rig::device_of;
use super::{Device, kernel};
use crate::cut::diary::{BLOCKS, Event, Numbers, Promises, SLOT, SLOTS};
use crate::cut::disk::{ORIGIN, PARTS, SECTOR, WHOLE};
use crate::cut::judge::{name_of, number_of};
use crate::e2e::bed::VOLUME;
use crate::e2e::fault::Trying;
use crate::e2e::ledger::{BLOCK, stamp_in, stamped};
use crate::e2e::{Bed, Fault, Outcome, tools};
use crate::ensure;

const WRITERS: u64 = 3;
/// Most blocks in one write.
const MOST: usize = 16;
/// Snapshots beyond these are deleted.
const SNAPSHOTS: usize = 2;
/// The mappings, as PARTS, behind these letters.
const PREFIX: &str = "cut-";
const LOGGER: &str = "cut-log";

/// The disk split, with an empty directory for a daemon.
#[derive(Debug)]
pub struct Cut {
    bed: Bed,
    diary: Device,
    /// The loop device over the log.
    logged: Option<PathBuf>,
}

impl Cut {
    /// Splits a disk, under a log of its writes on another one if given.
    ///
    /// # Errors
    /// If device mapper refuses.
    pub fn on(disk: &Path, log: Option<&Path>) -> Outcome<Self> {
        kernel::inside()?;
        kernel::load("dm_mod")?;
        kernel::load("ublk_drv ublks_max=128")?;
        let sectors = WHOLE / SECTOR as u64;
        let mut logged = None;
        if let Some(log) = log {
            kernel::load("dm_log_writes")?;
            kernel::load("loop")?;
            let table = format!(
                "0 {sectors} log-writes {} {}",
                disk.display(),
                log.display()
            );
            dmsetup(&["create", LOGGER, "--table", &table])?;
            let above = losetup(&["--direct-io=on", "--find", "--show"], &mapping(LOGGER))?;
            logged = Some(PathBuf::from(above.trim()));
        }
        let below = logged.as_deref().unwrap_or(disk);
        for (part, start, bytes) in PARTS {
            let [start, length] = [start, bytes].map(|bytes| bytes / SECTOR as u64);
            let table = format!("0 {length} linear {} {start}", below.display());
            dmsetup(&["create", &format!("{PREFIX}{part}"), "--table", &table])?;
        }
        let [origin, store, diary] = PARTS.map(|(part, ..)| mapping(&format!("{PREFIX}{part}")));
        let dir = PathBuf::from("/run/csnap-cut");
        let (origin, store) = (await_node(&origin)?.path, await_node(&store)?.path);
        Ok(Self {
            bed: Bed::on(dir, origin, store, &[])?,
            diary: await_node(&diary)?,
            logged,
        })
    }

    /// Fills the origin, makes the store and serves.
    ///
    /// # Errors
    /// If something is refused.
    pub fn first(mut self) -> Outcome<Served> {
        Device::new(&self.bed.origin)?.fill(1)?;
        self.bed.serve("16K")?;
        let mut diary = Diary::open(&self.diary, 0)?;
        diary.add(&Event::Durable(vec![1; BLOCKS]), true)?;
        self.served(diary, vec![1; BLOCKS], BTreeSet::new())
    }

    /// Recovers what a power cut left and judges it by its diary.
    ///
    /// # Errors
    /// If a promise is broken, or something is refused.
    pub fn again(mut self) -> Outcome<Served> {
        let (promises, records) = read_diary(&self.diary)?;
        ensure!(promises.records > 0, "the disk has no diary");
        self.bed.start()?;
        let store = self.bed.store.display().to_string();
        self.bed.ctl.ok(&format!("store attach {store}"))?;
        let live = device_of(&self.bed.ctl.json(&format!("volume show {VOLUME}"))?)?;
        let bytes = live.read(0, ORIGIN as usize)?;
        let mut shown = promises.check_origin(&bytes)?;
        let listed = self.bed.ctl.snapshots(VOLUME)?;
        let mut numbers = Vec::new();
        for row in &listed {
            ensure!(row.live, "{} is not live", row.full_name);
            let name = row.full_name.split('@').next_back().unwrap_or_default();
            numbers.push(number_of(name)?);
        }
        promises.check_list(&numbers)?;
        for number in &numbers {
            promises.check_snapshot(*number, &look(&self.bed, *number)?)?;
        }
        let names: Vec<String> = numbers.iter().map(u32::to_string).collect();
        say(&format!(
            "judged {} records, live {}",
            promises.records,
            names.join(" ")
        ))?;
        mend(&live, &bytes, &mut shown, round(&promises))?;
        let diary = Diary::open(&self.diary, records)?;
        let used = promises.snapshots.keys().chain(&numbers).copied().collect();
        self.served(diary, shown, used)
    }

    fn served(self, diary: Diary, shown: Numbers, used: BTreeSet<u32>) -> Outcome<Served> {
        let listed = self.bed.ctl.snapshots(VOLUME)?;
        let names = listed
            .iter()
            .filter_map(|row| row.full_name.split('@').next_back());
        let snapshots = names.map(number_of).collect::<Outcome<Vec<u32>>>()?;
        let device = device_of(&self.bed.ctl.json(&format!("volume show {VOLUME}"))?)?;
        // Above every number that a write of an earlier round can have had.
        let newest = shown.iter().max().copied().unwrap_or(1);
        let next = ((newest >> 20) + 1) << 20;
        Ok(Served {
            cut: self,
            device,
            snapshots,
            number: used.last().copied().unwrap_or(0) + 1,
            shared: Shared {
                blocks: Mutex::new(Blocks {
                    durable: shown.clone(),
                    acked: shown,
                    busy: vec![false; BLOCKS],
                    next,
                }),
                diary: Mutex::new(diary),
                stop: AtomicBool::new(false),
            },
        })
    }

    fn remove(&mut self) -> Outcome {
        let parts = PARTS.map(|(part, ..)| format!("{PREFIX}{part}"));
        for name in &parts {
            dmsetup(&["remove", "--retry", name])?;
        }
        if let Some(above) = &self.logged {
            losetup(&["--detach"], above)?;
            dmsetup(&["remove", "--retry", LOGGER])?;
        }
        self.bed.discard()
    }
}

fn losetup(words: &[&str], device: &Path) -> Outcome<String> {
    tools::run(tools::program("losetup").args(words).arg(device))
}

fn mapping(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// A number above all of this disk's writes.
fn round(promises: &Promises) -> u32 {
    let newest = promises.floor.iter().max().copied().unwrap_or(1);
    ((newest >> 20) + 2) << 20
}

/// Blocks that the cut tore are written anew, as their users would: a snapshot shows
/// whole blocks from now on.
fn mend(live: &Device, bytes: &[u8], shown: &mut Numbers, number: u32) -> Outcome {
    for (block, piece) in bytes.chunks(BLOCK).enumerate() {
        if stamp_in(block, piece).is_none() {
            live.write((block * BLOCK) as u64, &stamped(block, number.into()))?;
            shown[block] = number;
        }
    }
    live.open(true)?
        .sync_all()
        .trying(|| "flush what was mended".into())
}

/// All of a snapshot.
fn look(bed: &Bed, number: u32) -> Outcome<Vec<u8>> {
    let name = format!("{VOLUME}@{}", name_of(number));
    bed.ctl.ok(&format!("snapshot map {name}"))?;
    let device = device_of(&bed.ctl.json(&format!("snapshot show {name}"))?)?;
    let bytes = device.read(0, ORIGIN as usize)?;
    bed.ctl.ok(&format!("snapshot unmap {name}"))?;
    Ok(bytes)
}

/// A word for the host.
///
/// # Errors
/// If nobody listens.
#[allow(clippy::print_stdout)] // that is where the host listens
pub fn say(words: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{words}").and_then(|()| out.flush());
    said.trying(|| "tell the host".into())
}

/// A record and all before it, from the device.
fn read_diary(device: &Device) -> Outcome<(Promises, usize)> {
    let mut promises = Promises::default();
    let (mut records, mut absent) = (0, 0);
    // A cut may leave a hole, but no longer one than there were writers of the diary.
    for slot in 0..SLOTS {
        let bytes = device.read((slot * SLOT) as u64, SLOT)?;
        match Event::decode(slot as u32, &bytes) {
            Some(event) => {
                promises.add(event);
                (records, absent) = (slot + 1, 0);
            }
            None => absent += 1,
        }
        if absent > 16 {
            break;
        }
    }
    Ok((promises, records))
}

/// The diary, written record by record.
#[derive(Debug)]
struct Diary {
    plain: File,
    synced: File,
    next: usize,
    buffer: Aligned,
}

impl Diary {
    fn open(device: &Device, next: usize) -> Outcome<Self> {
        Ok(Self {
            plain: device.open(true)?,
            synced: forcing(device)?,
            next,
            buffer: Aligned::new(SLOT),
        })
    }

    fn add(&mut self, event: &Event, synced: bool) -> Outcome {
        ensure!(self.next < SLOTS, "the diary is full");
        let bytes = event.encode(self.next as u32);
        self.buffer.bytes_mut().copy_from_slice(&bytes);
        let file = if synced { &self.synced } else { &self.plain };
        let at = (self.next * SLOT) as u64;
        file.write_all_at(self.buffer.bytes(), at)
            .trying(|| "write the diary".into())?;
        self.next += 1;
        Ok(())
    }
}

/// A file whose writes are forced, each.
fn forcing(device: &Device) -> Outcome<File> {
    let mut options = File::options();
    let flags = OFlag::O_DIRECT | OFlag::O_DSYNC;
    options.write(true).custom_flags(flags.bits());
    let story = || format!("open {}", device.path.display());
    options.open(&device.path).trying(story)
}

/// What the writers know together.
#[derive(Debug)]
struct Blocks {
    durable: Numbers,
    acked: Numbers,
    busy: Vec<bool>,
    next: u32,
}

impl Blocks {
    /// Some blocks nobody else writes, and the number of the write.
    fn begin(&mut self, random: &mut ChaCha8Rng) -> Option<(usize, usize, u32)> {
        let count = random.random_range(1..=MOST);
        let first = random.random_range(0..=BLOCKS - count);
        let range = first..first + count;
        if self.busy[range.clone()].contains(&true) {
            return None;
        }
        self.busy[range].fill(true);
        self.next += 1;
        Some((first, count, self.next - 1))
    }

    fn end(&mut self, first: usize, count: usize, number: u32) {
        self.busy[first..first + count].fill(false);
        self.acked[first..first + count].fill(number);
    }

    /// What is durable now, beyond what was.
    fn settle(&mut self, numbers: &Numbers) -> Event {
        for (durable, number) in self.durable.iter_mut().zip(numbers) {
            *durable = (*durable).max(*number);
        }
        Event::Durable(self.durable.clone())
    }
}

#[derive(Debug)]
struct Shared {
    blocks: Mutex<Blocks>,
    diary: Mutex<Diary>,
    stop: AtomicBool,
}

impl Shared {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: &Event, synced: bool) -> Outcome {
        let mut diary = self.diary.lock().unwrap_or_else(PoisonError::into_inner);
        diary.add(event, synced)
    }

    fn write(&self, file: &File, random: &mut ChaCha8Rng) -> Outcome<Option<(usize, usize, u32)>> {
        let Some((first, count, number)) = self.blocks().begin(random) else {
            return Ok(None);
        };
        let mut buffer = Aligned::new(count * BLOCK);
        for (index, block) in buffer.bytes_mut().chunks_mut(BLOCK).enumerate() {
            block.copy_from_slice(&stamped(first + index, number.into()));
        }
        file.write_all_at(buffer.bytes(), (first * BLOCK) as u64)
            .trying(|| format!("write {count} blocks at block {first}"))?;
        self.blocks().end(first, count, number);
        Ok(Some((first, count, number)))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn writer(&self, device: &Device, seed: u64) -> Outcome<u64> {
        let (file, mut random) = (device.open(true)?, ChaCha8Rng::seed_from_u64(seed));
        let mut writes = 0;
        while !self.stopped() {
            writes += u64::from(self.write(&file, &mut random)?.is_some());
        }
        Ok(writes)
    }

    /// Flushes and forced writes in turn, each noted.
    fn flusher(&self, device: &Device, seed: u64) -> Outcome<u64> {
        let (file, forced) = (device.open(true)?, forcing(device)?);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut flushes = 0;
        while !self.stopped() {
            std::thread::sleep(Duration::from_millis(random.random_range(10..100)));
            let before = self.blocks().acked.clone();
            let durable = if random.random_bool(0.5) {
                file.sync_data().trying(|| "flush the volume".into())?;
                before
            } else {
                let Some((first, count, number)) = self.write(&forced, &mut random)? else {
                    continue;
                };
                let mut durable = vec![0; BLOCKS];
                durable[first..first + count].fill(number);
                durable
            };
            let event = self.blocks().settle(&durable);
            self.note(&event, false)?;
            flushes += 1;
        }
        Ok(flushes)
    }
}

/// csnapd serving it.
#[derive(Debug)]
pub struct Served {
    cut: Cut,
    device: Device,
    snapshots: Vec<u32>,
    number: u32,
    shared: Shared,
}

impl Served {
    /// Writers, flushes, takes and deletes, for so long. With `cut` the power is cut at
    /// the end, in the middle of all that.
    ///
    /// # Errors
    /// If a request fails, or a snapshot does not show what it should.
    pub fn load(&mut self, seed: u64, time: Duration, cut: bool) -> Outcome {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (shared, device) = (&self.shared, &self.device);
        let end = Instant::now() + time;
        let (bed, snapshots, number) = (&self.cut.bed, &mut self.snapshots, &mut self.number);
        std::thread::scope(|scope| {
            let writers = (0..WRITERS).map(|n| seed ^ (n + 1) << 32);
            let writers: Vec<_> = writers
                .map(|seed| scope.spawn(move || shared.writer(device, seed)))
                .collect();
            let flusher = scope.spawn(move || shared.flusher(device, seed ^ 1 << 60));
            let mut ended = Ok(());
            while ended.is_ok() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
                ended = if snapshots.len() > SNAPSHOTS {
                    let gone = snapshots.remove(random.random_range(0..snapshots.len()));
                    delete(bed, shared, gone)
                } else {
                    snapshots.push(*number);
                    *number += 1;
                    take(bed, shared, *number - 1)
                };
            }
            if cut && ended.is_ok() {
                // It takes a moment to start: the load goes on till it is dark.
                ended = dark();
            }
            shared.stop.store(true, Ordering::Relaxed);
            let panicked = |_| Fault::wrong("a thread of the load panicked");
            let mut writes = 0;
            for writer in writers {
                writes += writer.join().map_err(panicked)??;
            }
            let flushes = flusher.join().map_err(panicked)??;
            say(&format!("load {writes} writes, {flushes} flushes"))?;
            ended
        })
    }

    /// An orderly stop, the store checked, the mappings gone.
    ///
    /// # Errors
    /// If one of these fails.
    pub fn finish(mut self) -> Outcome {
        drop(self.shared);
        self.cut.bed.stop()?;
        self.cut.bed.check_store()?;
        self.cut.remove()
    }
}

fn take(bed: &Bed, shared: &Shared, number: u32) -> Outcome {
    let before = shared.blocks().acked.clone();
    bed.ctl
        .ok(&format!("snapshot take {VOLUME}@{}", name_of(number)))?;
    let limit = shared.blocks().next;
    shared.note(&Event::Taken(number, before.clone(), limit), false)?;
    say(&format!("taken {number}"))?;
    let taken = Promises::of([Event::Taken(number, before, limit)]);
    let seen = taken.check_snapshot(number, &look(bed, number)?)?;
    shared.note(&Event::Seen(number, seen), false)
}

fn delete(bed: &Bed, shared: &Shared, number: u32) -> Outcome {
    say(&format!("deleting {number}"))?;
    shared.note(&Event::Deleting(number), true)?;
    bed.ctl.ok(&format!(
        "snapshot delete {VOLUME}@{} --yes",
        name_of(number)
    ))?;
    shared.note(&Event::Deleted(number), false)?;
    say(&format!("deleted {number}"))
}

/// Cuts the power. Never comes back.
fn dark() -> Outcome {
    let ended = std::process::Command::new("guest-power-cut").status();
    ended.trying(|| "cut the power".into())?;
    Err(Fault::wrong("the power was cut and it is still light"))
}
