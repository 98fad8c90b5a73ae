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
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            config,
            violation,
            history,
        } = self;
        let skip = history.len().saturating_sub(12);
        writeln!(f, "seed {}: {violation}", config.seed)?;
        writeln!(f, "world: {config:?}")?;
        writeln!(
            f,
            "after {} actions, the last: {:?}",
            history.len(),
            &history[skip..]
        )?;
        let (seed, kind) = (config.seed, config.kind);
        write!(
            f,
            "again: cargo run -p csnap-tests --bin soak -- --kind {kind} --seed {seed} --worlds 1 --trace"
        )
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
    match config.kind {
        Kind::StandIn => judge::<Runtime>(config, false, |world| world.script(actions)),
        Kind::Lanes => judge::<Threads>(config, false, |world| world.script(actions)),
    }
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
        })
    };
    let made = caught(|| World::new(config.clone(), trace));
    let mut world = made.map_err(|violation| failure(violation, Vec::new()))?;
    match caught(|| run(&mut world)) {
        Ok(()) => Ok(world.stats()),
        Err(violation) => Err(failure(violation, world.history().to_vec())),
    }
}

fn caught<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Violation(format!("panic: {}", text.unwrap_or_default())))
    })
}
