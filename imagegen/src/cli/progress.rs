//! The progress bar: bytes, rate and time left, on a terminal only.

use imagegen::tree::{Progress, Survey};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

const LINE: &str = "{wide_bar} {bytes} of {total_bytes} {msg}, {binary_bytes_per_sec}, {eta} left";

/// A bar for `bytes` bytes on standard error; without effect if that is no terminal, or
/// with `quiet`.
fn bar(bytes: u64, quiet: bool) -> ProgressBar {
    let shown = !quiet && std::io::stderr().is_terminal();
    let target = match shown {
        true => ProgressDrawTarget::stderr_with_hz(8),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    match ProgressStyle::with_template(LINE) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How much there is to do, about.
pub(crate) struct Work {
    /// Bytes of contents.
    pub(crate) data: u64,
    pub(crate) objects: u64,
}

impl From<&Survey> for Work {
    fn from(survey: &Survey) -> Self {
        Self {
            data: survey.data,
            objects: survey.objects,
        }
    }
}

/// Does `work` while a bar shows how far it is, unless it shall be `quiet`.
pub(crate) fn shown<T>(all: &Work, quiet: bool, work: impl FnOnce(&Progress) -> T) -> T {
    let bar = bar(all.data, quiet);
    let progress = Progress::default();
    let made = watch(&bar, &progress, all.objects, || work(&progress));
    bar.finish_and_clear();
    made
}

/// How often the bar looks.
const EVERY: Duration = Duration::from_millis(125);

/// Does `work` while `bar` shows how far it is; `objects` are to be expected.
fn watch<T>(bar: &ProgressBar, progress: &Progress, objects: u64, work: impl FnOnce() -> T) -> T {
    if bar.is_hidden() {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, ended) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let seen = progress.objects.load(Ordering::Relaxed);
                bar.set_position(progress.data.load(Ordering::Relaxed));
                bar.set_message(format!("({seen} of {objects} objects)"));
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_though_it_is_hidden() {
        assert!(ProgressStyle::with_template(LINE).is_ok());
        let bar = bar(100, true);
        bar.inc(40);
        assert_eq!((bar.position(), bar.length()), (40, Some(100)));
        assert!(bar.is_hidden());
    }
}
