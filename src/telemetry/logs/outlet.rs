//! Lines leave from a thread of their own: whoever reads them may stand still (a full disk, a container's log
//! driver), and requests must not. What has come together leaves in one write.

use crate::telemetry::metrics;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait for a reader; lines on top of them are lost, and counted.
const ROOM: usize = 4 * 1024 * 1024;
/// After a write it is waited so long for more lines: a line that comes alone leaves at once.
const GATHER: Duration = Duration::from_millis(5);

/// Takes lines. Cheap to clone.
#[derive(Clone)]
pub(in crate::telemetry) struct Outlet(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    filled: Condvar,
    /// Something was written.
    emptied: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Whether the thread waits to be told of the next line.
    is_asleep: bool,
    /// Whether lines are on their way that are no longer among `lines`.
    is_writing: bool,
}

impl Outlet {
    /// Writes to there.
    pub(in crate::telemetry) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(out))?;
        Ok(Self(shared))
    }

    /// Waits until all that was taken is written, but no longer than `patience`.
    pub(in crate::telemetry) fn flush(&self, patience: Duration) {
        let is_there = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        drop(self.0.emptied.wait_timeout_while(self.0.lock(), patience, is_there));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, lines: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() + lines.len() > ROOM {
            drop(waiting);
            return metrics::log_line_lost();
        }
        waiting.lines.extend_from_slice(lines);
        if std::mem::take(&mut waiting.is_asleep) {
            self.filled.notify_one();
        }
    }

    /// For ever.
    fn write_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() {
                waiting.is_asleep = true;
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            waiting.is_writing = true;
            drop(waiting);
            // There is nowhere to tell of it.
            let _ = out.write_all(&lines);
            lines.clear();
            lines.shrink_to(ROOM / 64);
            self.lock().is_writing = false;
            self.emptied.notify_all();
            std::thread::sleep(GATHER);
        }
    }
}

impl Write for Outlet {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.take(lines);
        Ok(lines.len())
    }

    /// Nobody waits for a log but who ends.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A reader that takes what it is given only when it is told to.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_gets_all_there_is_room_for_in_its_order() {
        let (go, told) = mpsc::channel();
        let read = Arc::<Mutex<Vec<u8>>>::default();
        let mut outlet = Outlet::to(Slow(told, read.clone())).expect("a thread");
        let lines: Vec<_> = (0..=ROOM / 1024).map(|number| format!("{number:01023}\n")).collect();
        for line in &lines {
            outlet.write_all(line.as_bytes()).expect("taken");
        }
        assert!(read.lock().expect("no panic").is_empty(), "nothing was read, and nobody waited");
        for _ in 0..3 {
            go.send(()).expect("it writes");
        }
        outlet.flush(Duration::from_secs(20));
        let all = read.lock().expect("no panic").clone();
        let whole = lines.concat().into_bytes();
        assert!(all.len() >= ROOM && whole.starts_with(&all), "{} of {}", all.len(), whole.len());
        // There is room again.
        outlet.write_all(b"more\n").expect("taken");
        outlet.flush(Duration::from_secs(20));
        assert!(read.lock().expect("no panic").ends_with(b"more\n"));
    }
}
