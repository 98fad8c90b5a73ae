//! Running worlds and reporting what they broke, for the tests and for `soak`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::daemon::{Daemon, Kind};
use super::lanes::Threads;
use super::runtime::Runtime;
use super::world::{Action, Config, Stats, World};
use super::{Outcome, Violation};

/// A world that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its shape, seed included.
    pub config: Config,
    /// What it broke.
    pub violation: Violation,
    /// What had been done until then.
    pub history: Vec<Action>,
    /// The actions were given, not rolled.
    pub scripted: bool,
}

impl Failure {
    /// The command that lives the same world once more: none if its seed and its kind do
    /// not say all of it.
    #[must_use]
    pub fn again(&self) -> Option<String> {
        let (seed, kind) = (self.config.seed, self.config.kind);
        let soaks = !self.scripted && self.config == Config::of_kind(seed, kind);
        soaks.then(|| {
            format!(
                "cargo run -p csnap-tests --bin soak -- --kind {kind} --seed {seed} --worlds 1 --trace"
            )
        })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            config,
            violation,
            history,
            scripted: _,
        } = self;
        let skip = history.len().saturating_sub(12);
        writeln!(f, "seed {}: {violation}", config.seed)?;
        writeln!(f, "world: {config:?}")?;
        write!(
            f,
            "after {} actions, the last: {:?}",
            history.len(),
            &history[skip..]
        )?;
        match self.again() {
            Some(command) => write!(f, "\nagain: {command}"),
            None => Ok(()),
        }
    }
}

/// Lives one world. A panic of the engine is a violation like any other.
///
/// # Errors
/// What it broke.
pub fn live(config: Config, trace: bool) -> Result<Stats, Box<Failure>> {
    match config.kind {
        Kind::StandIn => judge(config, trace, World::<Runtime>::run),
        Kind::Lanes => judge(config, trace, World::<Threads>::run),
    }
}

/// Plays a script in one world.
///
/// # Errors
/// What it broke.
pub fn play(config: Config, actions: &[Action]) -> Result<Stats, Box<Failure>> {
    let result = match config.kind {
        Kind::StandIn => judge::<Runtime>(config, false, |world| world.script(actions)),
        Kind::Lanes => judge::<Threads>(config, false, |world| world.script(actions)),
    };
    result.map_err(|mut failure| {
        failure.scripted = true;
        failure
    })
}

fn judge<D: Daemon>(
    config: Config,
    trace: bool,
    run: impl FnOnce(&mut World<D>) -> Outcome,
) -> Result<Stats, Box<Failure>> {
    let failure = |violation, history| {
        Box::new(Failure {
            config: config.clone(),
            violation,
            history,
            scripted: false,
        })
    };
    let made = caught(|| World::new(config.clone(), trace));
    let mut world = made.map_err(|violation| failure(violation, Vec::new()))?;
    match caught(|| run(&mut world)) {
        Ok(()) => Ok(world.stats()),
        Err(violation) => Err(failure(violation, world.history().to_vec())),
    }
}

/// What `run` says; a panic is a violation.
///
/// # Errors
/// What it says, or the panic.
pub(super) fn caught<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Violation(format!("panic: {}", text.unwrap_or_default())))
    })
}
