//! One run of fio's nbd engine.

use serde_json::Value;

use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

/// A load.
#[derive(Clone, Debug)]
pub struct Job {
    /// The export.
    pub uri: String,
    /// `randread`, `randwrite`, `write`, ...
    pub kind: &'static str,
    /// Bytes per request.
    pub block: u64,
    /// Requests in flight.
    pub depth: u32,
    /// When it ends.
    pub end: End,
    /// Flush after so many writes.
    pub flush_every: Option<u32>,
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
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Requests a second.
    pub iops: f64,
    /// MiB a second.
    pub mib: f64,
}

impl Job {
    /// Random requests at queue depth 32.
    #[must_use]
    pub fn random(uri: &str, kind: &'static str, block: u64, end: End) -> Self {
        Self {
            uri: uri.to_owned(),
            kind,
            block,
            depth: 32,
            end,
            flush_every: None,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// If fio fails or an I/O error was seen.
    pub fn run(&self) -> Outcome<Speed> {
        let mut command = tools::program("fio");
        command.args([
            "--name=bench",
            "--ioengine=nbd",
            "--output-format=json",
            "--eta=never",
        ]);
        command.arg(format!("--uri={}", self.uri));
        command.arg(format!("--rw={}", self.kind));
        command.arg(format!("--bs={}", self.block));
        command.arg(format!("--iodepth={}", self.depth));
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
        let text = tools::run(&mut command)?;
        // The engine prints a line of its own before the JSON.
        let json = text.find('{').map_or("", |start| &text[start..]);
        self.speed(&serde_json::from_str(json)?)
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
        let number = |name: &str| {
            let odd = || Fault::wrong(format!("fio's output lacks {name}"));
            side[name].as_f64().ok_or_else(odd)
        };
        Ok(Speed {
            iops: number("iops")?,
            mib: number("bw_bytes")? / f64::from(1 << 20),
        })
    }
}
