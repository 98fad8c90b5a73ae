//! One run of fio, on an NBD export or on a block device.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

/// Every run asks for the same offsets.
const SEED: &str = "--randseed=20261121";

/// What a load runs on.
#[derive(Clone, Debug)]
pub enum On {
    /// An NBD export, by its URI.
    Nbd(String),
    /// The first `bytes` of a block device, with direct I/O through io_uring.
    Device {
        /// Its node.
        path: PathBuf,
        /// Bytes from its start.
        bytes: u64,
    },
}

/// A load.
#[derive(Clone, Debug)]
pub struct Job {
    /// The export or device.
    pub on: On,
    /// `randread`, `randwrite`, `write`, ...
    pub kind: &'static str,
    /// Bytes per request.
    pub block: u64,
    /// Requests in flight, of each process.
    pub depth: u32,
    /// Processes that do the same at once.
    pub jobs: u32,
    /// When it ends.
    pub end: End,
    /// Flush after so many writes.
    pub flush_every: Option<u32>,
    /// A recorded order of requests (fio's "iolog"), done once instead of `kind`'s.
    pub order: Option<PathBuf>,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// When every block was touched once.
    Once,
    /// After so many requests, no block twice.
    Requests(u64),
    /// After so many seconds.
    Seconds(u32),
}

/// What came out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speed {
    /// Requests a second.
    pub iops: f64,
    /// MiB a second.
    pub mib: f64,
    /// Requests done.
    pub requests: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Median time of a request, in microseconds.
    pub median_us: f64,
    /// All but one in a hundred took no longer, in microseconds.
    pub p99_us: f64,
    /// Time of the slowest request, in microseconds.
    pub max_us: f64,
}

impl Job {
    /// Random requests to an NBD export at queue depth 32.
    #[must_use]
    pub fn random(uri: &str, kind: &'static str, block: u64, end: End) -> Self {
        Self::on(On::Nbd(uri.to_owned()), kind, block, end)
    }

    /// Requests to the first `bytes` of a device at queue depth 32.
    #[must_use]
    pub fn device(path: &Path, bytes: u64, kind: &'static str, block: u64, end: End) -> Self {
        let path = path.to_path_buf();
        Self::on(On::Device { path, bytes }, kind, block, end)
    }

    fn on(on: On, kind: &'static str, block: u64, end: End) -> Self {
        Self {
            on,
            kind,
            block,
            depth: 32,
            jobs: 1,
            end,
            flush_every: None,
            order: None,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// If fio fails or an I/O error was seen.
    pub fn run(&self) -> Outcome<Speed> {
        let text = tools::run(&mut self.command())?;
        // The nbd engine prints a line of its own before the JSON.
        let json = text.find('{').map_or("", |start| &text[start..]);
        self.speed(&serde_json::from_str(json)?)
    }

    fn command(&self) -> Command {
        let mut command = tools::program("fio");
        command.args(["--name=bench", "--output-format=json", "--eta=never"]);
        match &self.on {
            On::Nbd(uri) => {
                command.args(["--ioengine=nbd", &format!("--uri={uri}")]);
            }
            On::Device { path, bytes } => {
                command.args(["--ioengine=io_uring", "--direct=1", SEED]);
                // A RAM disk works inside the submission, which the completion's
                // time leaves out.
                command.args(["--lat_percentiles=1", "--clat_percentiles=0"]);
                command.arg(format!("--filename={}", path.display()));
                command.arg(format!("--size={bytes}"));
            }
        }
        command.arg(format!("--rw={}", self.kind));
        command.arg(format!("--bs={}", self.block));
        command.arg(format!("--iodepth={}", self.depth));
        if self.jobs > 1 {
            command.arg(format!("--numjobs={}", self.jobs));
            command.arg("--group_reporting");
        }
        match self.end {
            End::Once => {}
            End::Requests(count) => {
                command.arg(format!("--number_ios={count}"));
            }
            End::Seconds(seconds) => {
                command.args(["--time_based".into(), format!("--runtime={seconds}")]);
            }
        }
        if let Some(writes) = self.flush_every {
            command.arg(format!("--fsync={writes}"));
        }
        if let Some(order) = &self.order {
            command.arg(format!("--read_iolog={}", order.display()));
        }
        command
    }

    /// Which of fio's times has the median.
    fn times(&self) -> &'static str {
        match self.on {
            On::Nbd(_) => "clat_ns",
            On::Device { .. } => "lat_ns",
        }
    }

    fn speed(&self, output: &Value) -> Outcome<Speed> {
        let job = &output["jobs"][0];
        ensure!(
            job["error"] == 0,
            "fio saw error {} with {self:?}",
            job["error"]
        );
        let side = &job[if self.kind.contains("read") {
            "read"
        } else {
            "write"
        }];
        let number = |value: &Value, name: &str| {
            let odd = || Fault::wrong(format!("fio's output lacks {name} with {self:?}"));
            value.as_f64().ok_or_else(odd)
        };
        let percentile = |which: &str| {
            let value = &side[self.times()]["percentile"][which];
            Ok::<f64, Fault>(number(value, "the times' percentiles")? / 1e3)
        };
        let speed = Speed {
            iops: number(&side["iops"], "iops")?,
            mib: number(&side["bw_bytes"], "bw_bytes")? / f64::from(1 << 20),
            requests: number(&side["total_ios"], "total_ios")?,
            seconds: number(&side["runtime"], "runtime")? / 1e3,
            median_us: percentile("50.000000")?,
            p99_us: percentile("99.000000")?,
            max_us: number(&side["lat_ns"]["max"], "the longest time")? / 1e3,
        };
        if speed.requests < 1.0 {
            return Err(Fault::wrong(format!("fio did nothing with {self:?}")));
        }
        Ok(speed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device() -> Job {
        Job::device(Path::new("/dev/x"), 1 << 20, "randwrite", 4096, End::Once)
    }

    #[test]
    fn a_device_is_asked_directly() {
        let command = device().command();
        let words: Vec<_> = command
            .get_args()
            .filter_map(|word| word.to_str())
            .collect();
        for wanted in [
            "--direct=1",
            "--ioengine=io_uring",
            "--filename=/dev/x",
            "--size=1048576",
        ] {
            assert!(words.contains(&wanted), "{wanted} is not in {words:?}");
        }
    }

    #[test]
    fn the_answer_is_read() {
        let side = json!({
            "iops": 100.5, "bw_bytes": 2 << 20, "total_ios": 201, "runtime": 2000,
            "lat_ns": {"max": 90_000, "percentile": {"50.000000": 5_000, "99.000000": 9_000}},
        });
        let speed = device().speed(&json!({"jobs": [{"error": 0, "write": side}]}));
        let speed = speed.unwrap();
        assert_eq!((speed.iops, speed.mib, speed.seconds), (100.5, 2.0, 2.0));
        let times = (speed.median_us, speed.p99_us, speed.max_us);
        assert_eq!(times, (5.0, 9.0, 90.0));
        assert!(device().speed(&json!({"jobs": [{"error": 5}]})).is_err());
    }
}
