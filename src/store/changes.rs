//! Follows the database for a process: what others have changed, and whether it answers at all. One
//! look serves everybody who wants to know. Where the database tells of changes by itself it is only
//! looked at now and then, so that nothing that was not told stays unseen.

use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Revision, Store, Topic,
    backend::Backend,
    listener::{self, Heard},
};

/// How long one look may take before the database counts as silent.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon a silent database is looked at again, at the latest.
const SILENT: Duration = Duration::from_secs(1);

/// How the database is followed.
#[derive(Debug, Clone, Copy)]
pub struct Following {
    /// How often it is looked at where it does not tell of changes.
    pub poll: Duration,
    /// How often it is looked at although it does.
    pub check: Duration,
    /// Whether it is asked to tell, where it can.
    pub notify: bool,
}

/// What is known of the database.
#[derive(Debug, Clone, Copy, Default)]
struct Pulse {
    /// None before the first look.
    revision: Option<Revision>,
    silent_since: Option<Instant>,
}

/// Says when something was changed, and whether the database answers. Each clone sees every change.
#[derive(Debug, Clone)]
pub struct Changes(watch::Receiver<Pulse>);

/// The other end of [`Changes`].
#[derive(Debug)]
pub struct Teller(watch::Sender<Pulse>);

impl Changes {
    /// Changes that are told by hand.
    pub fn told() -> (Teller, Self) {
        let (sender, receiver) = watch::channel(Pulse::default());
        (Teller(sender), Self(receiver))
    }

    /// The newest revision; what comes after it is a change.
    pub fn latest(&mut self) -> Option<Revision> {
        self.0.borrow_and_update().revision
    }

    /// Waits until there may be something new.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever follows has stopped, and so does whoever waits.
            std::future::pending::<()>().await;
        }
    }

    /// For how long the database has not answered; `None` while it does.
    pub fn silence(&self) -> Option<Duration> {
        self.0.borrow().silent_since.map(|since| since.elapsed())
    }
}

impl Teller {
    /// The database shows this revision.
    pub fn tell(&self, revision: Revision) {
        self.0.send_if_modified(|pulse| {
            let is_news = pulse.revision != Some(revision) || pulse.silent_since.is_some();
            *pulse = Pulse { revision: Some(revision), silent_since: None };
            is_news
        });
    }

    /// The database told that a topic has come to this revision.
    fn raise(&self, topic: &str, to: i64) {
        self.0.send_if_modified(|pulse| pulse.revision.as_mut().is_some_and(|revision| revision.raise(topic, to)));
    }

    /// The database has not answered since then.
    fn silent(&self, since: Instant) {
        let is_new = |pulse: &mut Pulse| {
            let is_new = pulse.silent_since.is_none();
            pulse.silent_since.get_or_insert(since);
            is_new
        };
        self.0.send_if_modified(is_new);
    }

    fn is_silent(&self) -> bool {
        self.0.borrow().silent_since.is_some()
    }
}

/// Follows until `stop`.
pub(super) async fn follow(store: Store, following: Following, teller: Teller, stop: CancellationToken) {
    let (ear, told) = mpsc::channel(64);
    let renew = Notify::new();
    let listening = async {
        match &store.backend {
            Backend::Postgres(pool) if following.notify => listener::listen(pool.pool.clone(), ear, &renew).await,
            _ => {
                let _held = ear;
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listening => {}
        () = look(&store, following, &teller, told, &renew) => {}
    }
}

async fn look(store: &Store, following: Following, teller: &Teller, mut told: mpsc::Receiver<Heard>, renew: &Notify) {
    let mut hearing = None::<Hearing>;
    loop {
        let began = Instant::now();
        match timeout(PATIENCE, store.revision()).await {
            Ok(Ok(revision)) => {
                if teller.is_silent() {
                    tracing::info!("the database answers again");
                }
                teller.tell(revision);
                if hearing.as_mut().is_some_and(|hearing| hearing.misses(revision)) {
                    hearing = None;
                    renew.notify_one();
                }
            }
            failed => {
                if !teller.is_silent() {
                    let error =
                        failed.err().map_or_else(|| "it refused".to_owned(), |_| format!("{PATIENCE:?} are over"));
                    tracing::error!(error, "the database does not answer; what is known stays in use");
                }
                teller.silent(began);
            }
        }
        let pace = match (teller.is_silent(), &hearing) {
            (true, _) => following.poll.max(SILENT),
            (false, Some(_)) => following.check,
            (false, None) => following.poll,
        };
        let next = Instant::now() + pace;
        loop {
            let heard = tokio::select! {
                () = sleep_until(next) => break,
                heard = told.recv() => heard,
            };
            match heard {
                Some(Heard::Told(topic, revision)) => {
                    teller.raise(&topic, revision);
                    if let Some(hearing) = &mut hearing {
                        hearing.told.raise(&topic, revision);
                    }
                }
                // What came before it was heard shows at once.
                Some(Heard::Listening) => {
                    hearing = Some(Hearing::default());
                    break;
                }
                Some(Heard::Deaf) => {
                    hearing = None;
                    break;
                }
                None => return,
            }
        }
    }
}

/// Checks what is told against what is found.
#[derive(Debug, Default)]
struct Hearing {
    /// What was told; begins with the first look.
    told: Revision,
    /// What the last look found, which must have been told by the next one.
    found: Option<Revision>,
}

impl Hearing {
    /// Takes in what a look has found; says whether something of the look before has never been told.
    fn misses(&mut self, found: Revision) -> bool {
        match self.found.replace(found) {
            None => {
                self.told = found;
                false
            }
            Some(before) => Topic::ALL.into_iter().any(|topic| self.told.of(topic) < before.of(topic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(keys: i64) -> Revision {
        Revision { accounts: 5, keys, models: 1, conditions: 1, homes: 1 }
    }

    #[test]
    fn what_was_found_and_is_not_told_by_the_next_look_was_missed() {
        let mut hearing = Hearing::default();
        assert!(!hearing.misses(at(3)), "the beginning");
        assert!(!hearing.misses(at(4)), "it may be under way");
        hearing.told.raise("keys", 4);
        assert!(!hearing.misses(at(4)), "it was told");
        assert!(!hearing.misses(at(5)));
        assert!(hearing.misses(at(5)), "it was not");
    }

    #[tokio::test]
    async fn everybody_is_told_of_each_change_once() {
        let (teller, mut one) = Changes::told();
        let mut other = one.clone();
        assert_eq!(one.latest(), None);
        teller.raise("keys", 9);
        assert_eq!(one.latest(), None, "nothing is known before the first look");
        teller.tell(at(3));
        teller.raise("keys", 4);
        teller.raise("keys", 2);
        teller.raise("weather", 7);
        for changes in [&mut one, &mut other] {
            changes.next().await;
            assert_eq!(changes.latest(), Some(at(4)));
            assert!(!changes.0.has_changed().unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_from_the_first_failure_to_the_next_answer() {
        let (teller, changes) = Changes::told();
        let began = Instant::now();
        teller.silent(began);
        tokio::time::advance(Duration::from_secs(7)).await;
        teller.silent(Instant::now());
        assert_eq!(changes.silence(), Some(Duration::from_secs(7)));
        teller.tell(at(1));
        assert_eq!(changes.silence(), None);
    }
}
