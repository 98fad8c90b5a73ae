//! The host's side: boots the guest, passes its progress on, collects what it tells.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::plan::{Medium, Plan};
use super::sample::{self, Message, Row, Told};
use super::table;
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};

/// The kernel series measured: it has all of ublk that csnap uses.
const KERNEL: &str = "7.2";
/// Where everything lies in the guest.
const PLACE: &str = "/root/bench/";
/// Silence of which no case is capable; the guest then hangs.
const IDLE_SECONDS: u64 = 1200;
const TOTAL_SECONDS: u64 = 24 * 3600;

/// Runs the plan in the guest, writes `guest.json` and `guest.md` below `results`, and
/// hands back the page. What was measured until a failure is written too.
///
/// # Errors
/// If a program is missing, or anything in the guest fails.
pub fn run(plan: &Plan, results: &Path) -> Outcome<String> {
    std::fs::create_dir_all(results).trying(|| format!("make {}", results.display()))?;
    let plan_file = results.join("guest-plan.json");
    let text = serde_json::to_string_pretty(plan)?;
    std::fs::write(&plan_file, text).trying(|| format!("write {}", plan_file.display()))?;
    let mut told = Told::default();
    let file = results.join("guest.json");
    let mut kept = sample::read(&file);
    kept.retain(|row| !plan.media.contains(&Medium::of(&row.sample.key.case)));
    // After each sample: a run that is broken off has something to show.
    let ended = listen(guest(plan, &plan_file)?, &mut told, &|told| {
        sample::write(&together(told, &kept), &file)
    });
    told.machine.qemu = qemu();
    let page = write(plan, &told, &kept, results)?;
    ended.map(|()| page)
}

/// The rows of this run and of earlier ones.
fn together(told: &Told, kept: &[Row]) -> Vec<Row> {
    let mut rows = told.rows();
    rows.extend_from_slice(kept);
    rows.sort_by(|a, b| a.sample.key.cmp(&b.sample.key));
    rows
}

fn write(plan: &Plan, told: &Told, kept: &[Row], results: &Path) -> Outcome<String> {
    let rows = together(told, kept);
    let conditions = table::conditions(&rows, &told.machine, plan);
    let page = table::markdown(&rows, &conditions);
    sample::write(&rows, &results.join("guest.json"))?;
    let path = results.join("guest.md");
    std::fs::write(&path, &page).trying(|| format!("write {}", path.display()))?;
    Ok(page)
}

/// The command line that runs this very program in the guest.
fn guest(plan: &Plan, plan_file: &Path) -> Outcome<Command> {
    let me = std::env::current_exe().trying(|| "find this program's path".into())?;
    let mut puts: Vec<PathBuf> = vec![me.clone(), plan_file.to_path_buf()];
    for name in programs(plan) {
        puts.push(tools::csnap_program(name)?);
    }
    let mut command = Command::new(tools::csnap_program("guest")?);
    command.args(["run", "--kernel", KERNEL, "--bare"]);
    command.arg(format!("--memory={}G", plan.memory));
    command.arg(format!("--timeout={TOTAL_SECONDS}"));
    command.arg(format!("--idle-timeout={IDLE_SECONDS}"));
    for put in puts {
        command.arg(format!("--put={}:{PLACE}", put.display()));
    }
    command.arg("--").arg(inside(&me)?).arg("in-guest");
    command.arg(inside(plan_file)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// Our programs that the plan's targets need, each once.
fn programs(plan: &Plan) -> Vec<&'static str> {
    let mut names: Vec<_> = plan.kinds.iter().flat_map(|kind| kind.programs()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().copied().collect()
}

fn inside(path: &Path) -> Outcome<PathBuf> {
    let nameless = || Fault::wrong(format!("{} has no name", path.display()));
    Ok(Path::new(PLACE).join(path.file_name().ok_or_else(nameless)?))
}

#[allow(clippy::print_stdout)] // what is no message is for the person who waits
fn listen(mut command: Command, told: &mut Told, keep: &dyn Fn(&Told) -> Outcome) -> Outcome {
    let mut child = command.spawn().trying(|| "start the guest".into())?;
    let mut heard = Ok(());
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.trying(|| "read what the guest says".into())?;
            match Message::parse(&line) {
                Ok(Some(message)) => {
                    told.add(message);
                    heard = heard.and(keep(told));
                }
                Ok(None) => println!("{line}"),
                // Go on listening: one bad line must not cost hours.
                Err(fault) => heard = Err(fault),
            }
        }
    }
    let status = child.wait().trying(|| "wait for the guest".into())?;
    if status.success() {
        return heard;
    }
    Err(Fault::wrong(format!(
        "the benchmark in the guest ended with {status}; what it had measured is in \
         target/bench/guest.json"
    )))
}

fn qemu() -> String {
    let version = tools::run(tools::program("qemu-system-x86_64").arg("--version"));
    let version = version.unwrap_or_default();
    let first = version.lines().next().unwrap_or("qemu, version unknown");
    first.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::guest::plan::Kind;

    #[test]
    fn each_program_goes_in_once() {
        let plan = Plan {
            quick: true,
            rounds: 1,
            origin: 64 << 20,
            seconds: 1,
            other_seconds: 1,
            takes: 2,
            kinds: Kind::ALL.to_vec(),
            media: Medium::ALL.to_vec(),
            memory: 3,
            checksum: "xxh3".into(),
        };
        assert_eq!(programs(&plan), ["csnapctl", "csnapd", "ublk-bare"]);
    }

    #[test]
    fn everything_lies_together_in_the_guest() {
        let path = inside(Path::new("/a/b/plan.json")).unwrap();
        assert_eq!(path, Path::new("/root/bench/plan.json"));
        assert!(inside(Path::new("/")).is_err());
    }

    #[test]
    fn a_guest_that_fails_keeps_its_rows() {
        let line = r#"@bench {"sample":{"case":"a","target":"raw","snapshots":0,"chunk_kib":16,"unit":"x","value":1.0,"lat_median_us":null,"lat_max_us":null}}"#;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo '{line}'; exit 3")]);
        command.stdout(Stdio::piped());
        let mut told = Told::default();
        assert!(listen(command, &mut told, &|_| Ok(())).is_err());
        assert_eq!(told.rows().len(), 1);
    }
}
