//! Progress on stderr, for whatever takes longer than a second.

use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use imagegen::tree::Progress;
use indicatif::{ProgressBar, ProgressStyle};

const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar is moved.
const LOOK: Duration = Duration::from_millis(100);

/// A bar that appears after a second. On a pipe nothing is drawn.
#[derive(Debug)]
pub struct Bar {
    what: &'static str,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// A bar for `what`, not yet shown.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            start: Instant::now(),
            bar: None,
        }
    }

    /// `done` of `of` is done.
    pub fn set(&mut self, done: u64, of: u64) {
        if self.bar.is_none() && self.start.elapsed() >= PATIENCE {
            self.bar = Some(styled(
                ProgressBar::new(of),
                "{msg} {wide_bar} {percent} % ({eta} left)",
            ));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.what);
            bar.set_length(of);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Has `work` done, which tells of objects and of bytes, and shows how far of `objects` and
/// `data` that is.
pub fn watched<T: Send>(
    what: &'static str,
    objects: u64,
    data: u64,
    work: impl FnOnce(&Progress) -> T + Send,
) -> T {
    let progress = Progress::default();
    let mut bar = Bar::new(what);
    // An object costs about what a block of data does.
    let weigh = |objects: u64, data: u64| data.saturating_add(objects.saturating_mul(4096));
    let all = weigh(objects, data);
    thread::scope(|scope| {
        let (done, wait) = channel::<()>();
        let progress = &progress;
        let writing = scope.spawn(move || {
            // Dropped at the end, however that comes.
            let _done = done;
            work(progress)
        });
        while wait.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let objects = progress.objects.load(Ordering::Relaxed);
            let data = progress.data.load(Ordering::Relaxed);
            bar.set(weigh(objects, data).min(all), all);
        }
        writing.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// A sign of life that appears after a second, for work that cannot say how far
/// it is. Gone when dropped.
#[derive(Debug)]
pub struct Spinner {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spinner {
    /// A spinner for `what`, not yet shown.
    #[must_use]
    pub fn new(what: String) -> Self {
        let (done, wait) = channel::<()>();
        let thread = thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let spinner = styled(ProgressBar::new_spinner(), "{spinner} {msg} ({elapsed})");
                spinner.set_message(what);
                spinner.enable_steady_tick(Duration::from_millis(100));
                let _ = wait.recv();
                spinner.finish_and_clear();
            }
        });
        Self {
            done: Some(done),
            thread: Some(thread),
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
