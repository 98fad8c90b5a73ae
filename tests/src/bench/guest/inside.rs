//! The part of the benchmark that runs in the guest: all rounds over all targets.
//!
//! Standard output carries [`Message`]s for the host, standard error is for people.
//! The first failure ends it; what was told before stays with the host.

use std::path::Path;

use snapstore::Checksum;

use super::bed;
use super::cases::Run;
use super::media::Media;
use super::plan::{Medium, Plan, Setting};
use super::sample::{Key, Machine, Message, Sample};
use crate::bench::parts::checksum;
use crate::e2e::fault::Trying;
use crate::e2e::{Outcome, tools};

/// Runs the plan in a file.
///
/// # Errors
/// If anything fails.
pub fn run(plan: &Path) -> Outcome {
    let text = std::fs::read(plan).trying(|| format!("read {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&text)?;
    tell(Message::Machine(machine(plan.checksum()?)?))?;
    for _ in 0..plan.rounds {
        checksums()?;
    }
    plan.media.iter().try_for_each(|medium| match medium {
        Medium::Ram => on_ram(&plan),
        Medium::Cache => on_cached(&plan),
    })
}

fn on_ram(plan: &Plan) -> Outcome {
    note("filling the RAM disks");
    let media = Media::ram(plan)?;
    rounds(plan, &media, &plan.settings(), |run, bed| run.all(bed))?;
    media.drop_ram()
}

fn on_cached(plan: &Plan) -> Outcome {
    note("filling the devices with a volatile cache");
    let media = Media::cached(plan)?;
    rounds(plan, &media, &plan.cached_settings(), |run, bed| {
        run.cached(bed)
    })
}

/// A B C A B C ...: a slow moment of the machine hits all alike.
fn rounds(
    plan: &Plan,
    media: &Media,
    settings: &[Setting],
    cases: fn(&Run<'_>, &mut dyn bed::Bed) -> Outcome,
) -> Outcome {
    for round in 1..=plan.rounds {
        let again = round > 1;
        for &setting in settings {
            let on_ram = media.suffix == Medium::Ram.suffix();
            let judged = on_ram && plan.judged(setting);
            if again && on_ram && !judged {
                continue;
            }
            note(&format!(
                "round {round} of {}{}: {} with {} snapshots, {} KiB chunks",
                plan.rounds,
                media.suffix,
                setting.kind.name(),
                setting.snapshots,
                setting.chunk >> 10
            ));
            let mut bed = bed::make(setting, media, plan.checksum()?)?;
            let run = Run {
                plan,
                media,
                setting,
                again,
                seconds: if judged {
                    plan.seconds
                } else {
                    plan.other_seconds
                },
            };
            cases(&run, bed.as_mut())?;
            bed.end()?;
        }
    }
    Ok(())
}

/// The figure that all copying of csnap includes.
fn checksums() -> Outcome {
    for (name, nanoseconds) in checksum::measure() {
        let key = Key {
            case: format!("part-crc32c-4k-{name}"),
            target: "parts".into(),
            snapshots: 0,
            chunk_kib: 0,
            unit: "ns".into(),
        };
        tell(Message::Sample(Sample::plain(key, nanoseconds)))?;
    }
    Ok(())
}

fn machine(checksum: Checksum) -> Outcome<Machine> {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let about = std::fs::read_to_string("/proc/cpuinfo").trying(|| "read /proc/cpuinfo".into())?;
    let said = |program: &str, option: &str| -> Outcome<String> {
        let text = tools::run(tools::program(program).arg(option))?;
        Ok(text.trim().to_owned())
    };
    Ok(Machine {
        kernel: said("uname", "-r")?,
        cpu: field(&about, "model name").unwrap_or("unknown").to_owned(),
        cpus,
        crc: checksum_choice(checksum, &about),
        fio: said("fio", "--version")?,
        qemu: String::new(),
    })
}

fn field<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    let line = about.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// How csnap computes what its stores were made with, and CRC32C for its metadata:
/// by the processor's instruction where there is one.
fn checksum_choice(checksum: Checksum, about: &str) -> String {
    let flags = field(about, "flags").unwrap_or("");
    let crc = if flags.split(' ').any(|flag| flag == "sse4_2") {
        "CRC32C by instruction (SSE 4.2)"
    } else {
        "CRC32C by tables"
    };
    match checksum {
        Checksum::Crc32c => format!("csnap's data under {crc}"),
        Checksum::Xxh3 => format!("csnap's data under XXH3, its metadata under {crc}"),
    }
}

#[allow(clippy::print_stdout)] // the host reads it
fn tell(message: Message) -> Outcome {
    println!("{}", message.line()?);
    Ok(())
}

#[allow(clippy::print_stderr)] // progress for the person who waits
fn note(text: &str) {
    eprintln!("bench: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_read() {
        let about = "processor\t: 0\nmodel name\t: QEMU TCG CPU\nflags\t\t: sse4_1 sse4_2 avx\n";
        assert_eq!(field(about, "model name"), Some("QEMU TCG CPU"));
        let choice = checksum_choice(Checksum::Crc32c, about);
        assert!(choice.contains("instruction") && !choice.contains("XXH3"));
        assert!(checksum_choice(Checksum::Crc32c, "flags\t: sse4_1\n").contains("tables"));
        assert!(checksum_choice(Checksum::Xxh3, about).contains("data under XXH3"));
    }
}
