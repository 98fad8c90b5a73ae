//! What is measured on one target in one round.
//!
//! "First overwrite" is a whole pass over the origin after a fresh snapshot, each
//! chunk once, in random order. A pass is repeated, after a fresh snapshot again,
//! until the plan's time is over; what lies between the passes does not count.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::bed::Bed;
use super::media::Media;
use super::plan::{Kind, Plan, Setting};
use super::sample::{Key, Message, STALL, Sample};
use crate::bench::fio::{End, Job, Speed};
use crate::bench::report::median;
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};

const SMALL: u64 = 4096;
const LARGE: u64 = 256 << 10;
/// More passes would only make a fast target's setup the longest part.
const PASSES: usize = 5;
/// fio needs a moment before it writes.
const STARTED: Duration = Duration::from_secs(1);

/// A load on a device; a fresh server may serve at another one.
type MakeJob<'a> = &'a dyn Fn(&Path) -> Outcome<Job>;

/// One target and what it is measured with.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Sizes and times.
    pub plan: &'a Plan,
    /// The devices.
    pub media: &'a Media,
    /// The target.
    pub setting: Setting,
    /// It was all measured once: only what a bar is about is again.
    pub again: bool,
    /// Seconds of a timed case.
    pub seconds: u32,
}

impl Run<'_> {
    /// Every case of this target on RAM disks.
    ///
    /// # Errors
    /// If the target or fio fails.
    pub fn all(&self, bed: &mut dyn Bed) -> Outcome {
        self.first(bed, "first-overwrite", &|device| self.whole_chunks(device))?;
        self.steady(bed)?;
        if !self.again {
            let seconds = self.plan.other_seconds;
            Run { seconds, ..*self }.others(bed)?;
        }
        if self.takes() {
            self.under_load(bed)?;
        }
        Ok(())
    }

    /// What no bar is about.
    fn others(&self, bed: &mut dyn Bed) -> Outcome {
        if let Some(snapshot) = bed.newest()? {
            self.measure("snapshot-read", &self.timed(&snapshot, "randread"))?;
        }
        self.sequential(bed)?;
        if self.parts() {
            self.first(bed, "first-overwrite-4k", &|device| {
                self.part_of_each_chunk(device)
            })?;
        }
        self.pass_through(bed)
    }

    /// The few of them that a volatile cache changes.
    ///
    /// # Errors
    /// If the target or fio fails.
    pub fn cached(&self, bed: &mut dyn Bed) -> Outcome {
        self.first(bed, "first-overwrite", &|device| self.whole_chunks(device))?;
        self.steady(bed)?;
        let flushing = Job {
            flush_every: Some(32),
            ..self.timed(bed.device(), "randwrite")
        };
        self.measure("steady-overwrite-flush32", &flushing)
    }

    /// Without snapshots, and once: the chunks do not matter there.
    fn pass_through(&self, bed: &dyn Bed) -> Outcome {
        let once = self.setting.chunk == 16 << 10 || self.setting.kind == Kind::DmThin;
        if self.setting.snapshots > 0 || !once {
            return Ok(());
        }
        for (kind, word) in [("randread", "read"), ("randwrite", "write")] {
            let job = self.timed(bed.device(), kind);
            self.measure(&format!("pass-through-{word}"), &job)?;
            let alone = Job {
                depth: 1,
                ..job.clone()
            };
            self.measure(&format!("pass-through-{word}-qd1"), &alone)?;
            if !self.plan.quick {
                let four = Job { jobs: 4, ..job };
                self.measure(&format!("pass-through-{word}-4-jobs"), &four)?;
            }
        }
        Ok(())
    }

    fn first(&self, bed: &mut dyn Bed, case: &str, job: MakeJob<'_>) -> Outcome {
        let passes = self.passes(bed, job)?;
        self.tell(Sample::requests(
            self.key(case, "requests/s"),
            &together(&passes),
        ))
    }

    fn steady(&self, bed: &dyn Bed) -> Outcome {
        let job = self.timed(bed.device(), "randwrite");
        self.measure("steady-overwrite", &job)
    }

    fn sequential(&self, bed: &mut dyn Bed) -> Outcome {
        let job = |device: &Path| {
            let end = End::Once;
            Ok(Job {
                depth: 8,
                ..Job::device(device, self.media.used, "write", LARGE, end)
            })
        };
        let speed = together(&self.passes(bed, &job)?);
        let sample = Sample {
            value: speed.mib,
            ..Sample::requests(self.key("sequential-overwrite", "MiB/s"), &speed)
        };
        self.tell(sample)
    }

    /// Takes while random 4 KiB writes go on.
    fn under_load(&self, bed: &mut dyn Bed) -> Outcome {
        bed.stale()?;
        let seconds = self.seconds.max(4);
        let job = Job {
            end: End::Seconds(seconds),
            ..self.timed(bed.device(), "randwrite")
        };
        let pause = (Duration::from_secs(seconds.into()) - STARTED) / (self.plan.takes + 1);
        let (speed, times) = std::thread::scope(|scope| -> Outcome<(Speed, Vec<f64>)> {
            let load = scope.spawn(|| job.run());
            std::thread::sleep(STARTED);
            let mut times = Vec::new();
            for _ in 0..self.plan.takes {
                std::thread::sleep(pause);
                let clock = Instant::now();
                bed.take()?;
                times.push(clock.elapsed().as_secs_f64() * 1e3);
            }
            let panicked = |_| Fault::wrong("the load panicked");
            Ok((load.join().map_err(panicked)??, times))
        })?;
        // dm-snapshot's were removed first: those taken here are all it has.
        let snapshots = match self.setting.kind {
            Kind::DmSnapshot => self.plan.takes,
            _ => self.setting.snapshots,
        };
        let key = |case, unit| Key {
            snapshots,
            ..self.key(case, unit)
        };
        let stall = speed.max_us / speed.median_us;
        self.tell(Sample::requests(
            key("take-under-load", "requests/s"),
            &speed,
        ))?;
        self.tell(Sample::plain(key("take-stall", STALL), stall))?;
        self.tell(Sample::plain(key("take-time", "ms"), median(&times)))
    }

    /// Whether parts of chunks are overwritten too: where copies of whole chunks are
    /// compared with dm-snapshot's.
    fn parts(&self) -> bool {
        self.setting.chunk == 16 << 10 && matches!(self.setting.snapshots, 1 | 8)
    }

    /// Whether snapshots are taken under load: for dm-snapshot once, because there
    /// the older ones are removed first.
    fn takes(&self) -> bool {
        match self.setting.kind {
            Kind::Raw | Kind::Bare | Kind::BareCopy => false,
            Kind::DmSnapshot => self.setting.snapshots == 8,
            Kind::DmThin | Kind::Csnap => matches!(self.setting.snapshots, 1 | 8 | 64),
        }
    }

    fn passes(&self, bed: &mut dyn Bed, job: MakeJob<'_>) -> Outcome<Vec<Speed>> {
        let enough = f64::from(self.seconds);
        let mut passes: Vec<Speed> = Vec::new();
        while passes.len() < PASSES && passes.iter().map(|p| p.seconds).sum::<f64>() < enough {
            bed.fresh()?;
            passes.push(job(bed.device())?.run()?);
        }
        Ok(passes)
    }

    fn timed(&self, device: &Path, kind: &'static str) -> Job {
        let end = End::Seconds(self.seconds);
        Job::device(device, self.media.used, kind, SMALL, end)
    }

    fn whole_chunks(&self, device: &Path) -> Outcome<Job> {
        let (used, chunk) = (self.media.used, self.setting.chunk);
        Ok(Job::device(device, used, "randwrite", chunk, End::Once))
    }

    /// The first 4 KiB of every chunk. fio itself visits each place once only when
    /// its requests lie side by side, so it gets a recorded order.
    fn part_of_each_chunk(&self, device: &Path) -> Outcome<Job> {
        let path = PathBuf::from("/tmp/csnap-bench-order");
        let text = order(
            device,
            self.media.used / self.setting.chunk,
            self.setting.chunk,
        );
        std::fs::write(&path, text).trying(|| format!("write {}", path.display()))?;
        let job = Job::device(device, self.media.used, "randwrite", SMALL, End::Once);
        Ok(Job {
            order: Some(path),
            ..job
        })
    }

    fn measure(&self, case: &str, job: &Job) -> Outcome {
        let speed = job.run()?;
        self.tell(Sample::requests(self.key(case, "requests/s"), &speed))
    }

    fn key(&self, case: &str, unit: &str) -> Key {
        Key {
            case: format!("{case}{}", self.media.suffix),
            target: self.setting.kind.name().into(),
            snapshots: self.setting.snapshots,
            chunk_kib: self.setting.chunk >> 10,
            unit: unit.into(),
        }
    }

    #[allow(clippy::print_stdout)] // the host reads it
    fn tell(&self, sample: Sample) -> Outcome {
        println!("{}", Message::Sample(sample).line()?);
        Ok(())
    }
}

/// Several passes as one.
fn together(passes: &[Speed]) -> Speed {
    let sum = |field: fn(&Speed) -> f64| passes.iter().map(field).sum::<f64>();
    let middle = |field: fn(&Speed) -> f64| -> f64 {
        let all: Vec<f64> = passes.iter().map(field).collect();
        median(&all)
    };
    let seconds = sum(|pass| pass.seconds);
    Speed {
        iops: sum(|pass| pass.requests) / seconds,
        mib: sum(|pass| pass.mib * pass.seconds) / seconds,
        requests: sum(|pass| pass.requests),
        seconds,
        median_us: middle(|pass| pass.median_us),
        p99_us: middle(|pass| pass.p99_us),
        max_us: passes.iter().map(|pass| pass.max_us).fold(0.0, f64::max),
    }
}

/// fio's "iolog", version 2.
fn order(device: &Path, chunks: u64, chunk: u64) -> String {
    let mut places: Vec<u64> = (0..chunks).collect();
    places.shuffle(&mut ChaCha8Rng::seed_from_u64(chunks));
    let device = device.display();
    let mut text = format!("fio version 2 iolog\n{device} add\n{device} open\n");
    for place in places {
        text += &format!("{device} write {} {SMALL}\n", place * chunk);
    }
    text + &format!("{device} close\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn passes_count_by_their_time() {
        let pass = |requests: f64, seconds: f64, max_us| Speed {
            iops: requests / seconds,
            mib: 10.0,
            requests,
            seconds,
            median_us: 5.0,
            p99_us: 6.0,
            max_us,
        };
        let all = together(&[pass(100.0, 1.0, 8.0), pass(100.0, 3.0, 9.0)]);
        assert_eq!((all.iops, all.mib, all.max_us), (50.0, 10.0, 9.0));
    }

    #[test]
    fn the_order_visits_each_chunk_once() {
        let text = order(Path::new("/dev/x"), 100, 16 << 10);
        let writes: Vec<u64> = text
            .lines()
            .filter_map(|line| line.strip_prefix("/dev/x write "))
            .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
            .collect();
        let places: BTreeSet<u64> = writes.iter().copied().collect();
        assert_eq!((writes.len(), places.len()), (100, 100));
        assert!(places.iter().all(|place| place % (16 << 10) == 0));
        assert!(!writes.is_sorted());
    }
}
