//! Several connections to a backend that speaks HTTP/2.
//!
//! An HTTP client has one connection to an address then, and where the server allows no more streams on it, it
//! lets a request wait until another one has ended: for answers of minutes that is for ever. So there are several
//! clients with a connection each, and the next one is used when those before are busy. What ends a connection
//! then ends only the answers on it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Calls at a time on one lane: servers are asked to allow no fewer (RFC 9113, 6.5.2).
const CALLS: usize = 100;
/// Lanes besides the first; from then on the least busy is used.
const MOST: usize = 1024;

/// Makes another client like the first.
type Make = dyn Fn() -> Result<reqwest::Client, String> + Send + Sync;

/// The lanes. One for the process.
pub struct Lanes {
    first: Lane,
    more: Mutex<Vec<Lane>>,
    make: Arc<Make>,
    /// Held while one more is made, so that a burst makes one.
    making: tokio::sync::Mutex<()>,
}

struct Lane {
    http: reqwest::Client,
    /// One for us and one for each call under way.
    calls: Arc<()>,
}

/// A call under way on a lane, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// The lane's client.
    pub(super) http: reqwest::Client,
    _call: Arc<()>,
}

#[cfg(test)]
impl Place {
    /// On no lane.
    pub(super) fn of(http: reqwest::Client) -> Self {
        Self { http, _call: Arc::default() }
    }
}

impl Lane {
    fn calls(&self) -> usize {
        Arc::strong_count(&self.calls) - 1
    }

    fn place(&self) -> Place {
        Place { http: self.http.clone(), _call: Arc::clone(&self.calls) }
    }
}

impl Lanes {
    /// Begins with one client.
    pub fn new(
        first: reqwest::Client,
        make: impl Fn() -> Result<reqwest::Client, String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let first = Lane { http: first, calls: Arc::default() };
        Arc::new(Self { first, more: Mutex::default(), make: Arc::new(make), making: tokio::sync::Mutex::default() })
    }

    /// A place for a call: on the first lane that has one, so that the later ones empty themselves.
    pub(super) async fn place(&self) -> Place {
        if let Some(place) = self.free() {
            return place;
        }
        let _making = self.making.lock().await;
        if let Some(place) = self.free() {
            return place;
        }
        // It reads the machine's certificates.
        let make = Arc::clone(&self.make);
        let another = tokio::task::spawn_blocking(move || make()).await;
        let mut more = self.more();
        match another.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(http) => more.push(Lane { http, calls: Arc::default() }),
            Err(error) => tracing::warn!(error, "no further connection to the backend can be made"),
        }
        self.least_busy(&more)
    }

    fn free(&self) -> Option<Place> {
        let more = self.more();
        let free = std::iter::once(&self.first).chain(&*more).find(|lane| lane.calls() < CALLS).map(Lane::place);
        free.or_else(|| (more.len() >= MOST).then(|| self.least_busy(&more)))
    }

    fn least_busy(&self, more: &[Lane]) -> Place {
        let least = |least, lane| std::cmp::min_by_key(least, lane, |lane: &&Lane| lane.calls());
        more.iter().fold(&self.first, least).place()
    }

    fn more(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("more", &self.more().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_lane_is_made_when_the_others_are_busy_and_the_first_that_is_free_is_used() {
        let made = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&made);
        let lanes = Lanes::new(reqwest::Client::new(), move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(reqwest::Client::new())
        });
        let busy =
            |lanes: &Lanes| std::iter::once(&lanes.first).chain(&*lanes.more()).map(Lane::calls).collect::<Vec<_>>();
        let mut all: Vec<_> = futures_util::future::join_all((0..250).map(|_| lanes.place())).await;
        assert_eq!((busy(&lanes), made.load(Ordering::SeqCst)), (vec![100, 100, 50], 2));
        drop(all.drain(..60).collect::<Vec<_>>());
        let again = lanes.place().await;
        assert_eq!(busy(&lanes), [41, 100, 50]);
        drop((all, again));
        assert_eq!(busy(&lanes), [0, 0, 0]);
    }

    #[tokio::test]
    async fn where_no_lane_can_be_made_calls_go_over_those_that_there_are() {
        let lanes = Lanes::new(reqwest::Client::new(), || Err("no certificates".to_owned()));
        let mut all = Vec::new();
        for _ in 0..CALLS + 5 {
            all.push(lanes.place().await);
        }
        assert_eq!((lanes.first.calls(), lanes.more().len()), (CALLS + 5, 0));
    }
}
