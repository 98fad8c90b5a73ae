//! What is measured in the guest, on its way to the host, and the rows made of it.
//!
//! The program in the guest prints a line for each sample as soon as it has it. A
//! guest that dies has lost nothing it measured.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::fio::Speed;
use crate::bench::report::median;
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};

/// Begins a line that holds a [`Message`].
const MARK: &str = "@bench ";
/// The unit of stalls: the longest time of a request, in medians. No request may take
/// longer, so a row holds the worst of the rounds.
pub const STALL: &str = "longest/median";

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// `first-overwrite`, ...
    pub case: String,
    /// `raw`, `dm-snapshot`, `dm-thin`, `bare`, `bare-copy`, `csnap`, `parts`.
    pub target: String,
    /// Snapshots, the fresh one included.
    pub snapshots: u32,
    /// KiB of a chunk.
    pub chunk_kib: u64,
    /// What the value counts.
    pub unit: String,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Of what.
    #[serde(flatten)]
    pub key: Key,
    /// The value.
    pub value: f64,
    /// Median time of a request in microseconds, where fio measured.
    pub lat_median_us: Option<f64>,
    /// Time of the slowest request in microseconds, where fio measured.
    pub lat_max_us: Option<f64>,
}

impl Sample {
    /// A sample of fio's, in requests a second.
    #[must_use]
    pub fn requests(key: Key, speed: &Speed) -> Self {
        Self {
            key,
            value: speed.iops,
            lat_median_us: Some(speed.median_us),
            lat_max_us: Some(speed.max_us),
        }
    }

    /// Any other.
    #[must_use]
    pub fn plain(key: Key, value: f64) -> Self {
        Self {
            key,
            value,
            lat_median_us: None,
            lat_max_us: None,
        }
    }
}

/// What it is measured on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the guest's kernel.
    pub kernel: String,
    /// Processor the guest sees.
    pub cpu: String,
    /// Processors the guest has.
    pub cpus: usize,
    /// Which checksums csnap uses on it, and how they are computed.
    pub crc: String,
    /// Version of fio.
    pub fio: String,
    /// Version of qemu; the host fills it in.
    pub qemu: String,
}

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// What it is measured on.
    Machine(Machine),
    /// A measurement.
    Sample(Sample),
}

impl Message {
    /// As a line, without its end.
    ///
    /// # Errors
    /// If it cannot be JSON, which is a defect.
    pub fn line(&self) -> Outcome<String> {
        Ok(format!("{MARK}{}", serde_json::to_string(self)?))
    }

    /// From a line of output; `None` if it is an ordinary one.
    ///
    /// # Errors
    /// If it is marked as a message and is none.
    pub fn parse(line: &str) -> Outcome<Option<Self>> {
        let json = line.trim_end().strip_prefix(MARK);
        let parse = |json| {
            serde_json::from_str(json)
                .map_err(|error| Fault::wrong(format!("the guest sent {line:?}: {error}")))
        };
        json.map(parse).transpose()
    }
}

/// A line of `target/bench/guest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Median of the samples; of stalls the worst.
    #[serde(flatten)]
    pub sample: Sample,
    /// How many samples.
    pub rounds: usize,
    /// What it was measured on.
    #[serde(flatten)]
    pub machine: Machine,
}

/// Everything the guest told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What it was measured on.
    pub machine: Machine,
    samples: BTreeMap<Key, Vec<Sample>>,
}

impl Told {
    /// Notes a message.
    pub fn add(&mut self, message: Message) {
        match message {
            Message::Machine(machine) => self.machine = machine,
            Message::Sample(sample) => {
                let samples = self.samples.entry(sample.key.clone()).or_default();
                samples.push(sample);
            }
        }
    }

    /// The medians. The longest time is the median of the rounds' longest, too: one
    /// hiccup of the emulator in one round is not the target's.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let row = |(key, samples): (&Key, &Vec<Sample>)| Row {
            sample: Sample {
                key: key.clone(),
                value: value_of(key, samples),
                lat_median_us: median_of(samples, |sample| sample.lat_median_us),
                lat_max_us: median_of(samples, |sample| sample.lat_max_us),
            },
            rounds: samples.len(),
            machine: self.machine.clone(),
        };
        self.samples.iter().map(row).collect()
    }
}

fn value_of(key: &Key, samples: &[Sample]) -> f64 {
    let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    match key.unit == STALL {
        true => values.into_iter().fold(0.0, f64::max),
        false => median(&values),
    }
}

fn median_of(samples: &[Sample], field: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = samples.iter().filter_map(field).collect();
    (!values.is_empty()).then(|| median(&values))
}

/// Writes the rows as JSON.
///
/// # Errors
/// If the file cannot be written.
pub fn write(rows: &[Row], path: &Path) -> Outcome {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text + "\n").trying(|| format!("write {}", path.display()))
}

/// The rows an earlier run wrote; none if there was none, or its rows were others.
#[must_use]
pub fn read(path: &Path) -> Vec<Row> {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: f64, longest: f64) -> Sample {
        let key = Key {
            case: "steady-overwrite".into(),
            target: "csnap".into(),
            snapshots: 8,
            chunk_kib: 16,
            unit: "requests/s".into(),
        };
        Sample {
            lat_max_us: Some(longest),
            ..Sample::plain(key, value)
        }
    }

    #[test]
    fn a_message_survives_its_line() {
        for message in [
            Message::Sample(sample(1.5, 2.0)),
            Message::Machine(Machine::default()),
        ] {
            let line = message.line().unwrap() + "\r\n";
            assert_eq!(Message::parse(&line).unwrap(), Some(message));
        }
        assert_eq!(Message::parse("fio: done").unwrap(), None);
        assert!(Message::parse("@bench {").is_err());
    }

    #[test]
    fn a_row_is_the_median_of_each_column() {
        let mut told = Told::default();
        for (value, longest) in [(1.0, 70.0), (3.0, 90.0), (2.0, 1e9)] {
            told.add(Message::Sample(sample(value, longest)));
        }
        let rows = told.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].rounds, 3);
        assert_eq!(rows[0].sample.value, 2.0);
        assert_eq!(rows[0].sample.lat_max_us, Some(90.0));
        assert_eq!(rows[0].sample.lat_median_us, None);
    }

    #[test]
    fn of_stalls_the_worst_counts() {
        let mut told = Told::default();
        for value in [3.0, 30.0, 4.0] {
            let mut stall = sample(value, 1.0);
            stall.key.unit = STALL.into();
            told.add(Message::Sample(stall));
        }
        assert_eq!(told.rows()[0].sample.value, 30.0);
    }

    #[test]
    fn a_row_is_flat_json() {
        let mut told = Told::default();
        told.add(Message::Sample(sample(1.0, 2.0)));
        let json = serde_json::to_value(told.rows()).unwrap();
        for field in [
            "case",
            "snapshots",
            "value",
            "lat_max_us",
            "rounds",
            "kernel",
            "crc",
        ] {
            assert!(json[0].get(field).is_some(), "{field} is not in {json}");
        }
    }
}
