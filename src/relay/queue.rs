//! Requests that wait for an account to come back, where the operator wants them to wait rather than
//! be refused. Bounded in number and in time, and fair: keys are served in turn, and when the queue
//! is full it is the key with the most in it that gives way, so that no tenant starves another.

use super::{Relay, millis_from_now};
use crate::account::pool::Choice;
use crate::store::{GatewayKey, KeyId};
use crate::telemetry::metrics;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether an account is back.
const LOOK: Duration = Duration::from_millis(100);

/// How requests may wait.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// How many at once; none, if this is zero.
    pub requests: u32,
    /// For how long, each.
    pub longest: Duration,
}

/// One that waits.
struct Waiter {
    key: Arc<GatewayKey>,
    model: Option<String>,
    go: oneshot::Sender<()>,
}

/// The queue.
pub(super) struct Queue {
    bounds: Waiting,
    lines: Mutex<Lines>,
}

/// A line for each key.
#[derive(Default)]
struct Lines {
    waiting: BTreeMap<KeyId, VecDeque<Waiter>>,
    /// Keys in the order of their turns.
    turns: VecDeque<KeyId>,
}

impl Lines {
    fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Takes out those whose clients are gone.
    fn forget_the_gone(&mut self) {
        self.waiting.retain(|_, line| {
            line.retain(|waiter| !waiter.go.is_closed());
            !line.is_empty()
        });
        self.turns.retain(|key| self.waiting.contains_key(key));
    }

    /// Makes room by sending the last of the longest line away, unless that is the newcomer's own.
    fn make_room(&mut self, newcomer: KeyId) -> bool {
        let own = self.waiting.get(&newcomer).map_or(0, VecDeque::len);
        let longest = self.waiting.iter_mut().max_by_key(|(_, line)| line.len());
        match longest {
            Some((_, line)) if line.len() > own + 1 => line.pop_back().is_some(),
            _ => false,
        }
    }

    fn join(&mut self, waiter: Waiter, in_front: bool) {
        let key = waiter.key.id;
        let line = self.waiting.entry(key).or_default();
        if in_front {
            line.push_front(waiter);
        } else {
            line.push_back(waiter);
        }
        if !self.turns.contains(&key) {
            self.turns.push_back(key);
        }
    }

    /// The first of the key whose turn it is; that key is the last to have its turn again.
    fn next(&mut self, may_go: impl Fn(&Waiter) -> bool) -> Option<Waiter> {
        for _ in 0..self.turns.len() {
            let key = self.turns.pop_front()?;
            self.turns.push_back(key);
            let line = self.waiting.get_mut(&key)?;
            if line.front().is_some_and(&may_go) {
                return line.pop_front();
            }
        }
        None
    }
}

impl Queue {
    pub(super) fn new(bounds: Waiting) -> Self {
        Self { bounds, lines: Mutex::default() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, waiter: Waiter, in_front: bool) -> bool {
        let mut lines = self.lines();
        let limit = usize::try_from(self.bounds.requests).unwrap_or(usize::MAX);
        if lines.len() >= limit {
            lines.forget_the_gone();
        }
        let has_room = lines.len() < limit || lines.make_room(waiter.key.id);
        if has_room {
            lines.join(waiter, in_front);
        }
        metrics::queued(lines.len());
        has_room
    }
}

/// A request's time in the queue.
#[derive(Debug, Default)]
pub(super) struct Patience {
    until: Option<Instant>,
}

impl Relay {
    /// Waits until an account may be back. Says whether it is worth asking again: `false` if requests
    /// do not wait, none is back in time, or the queue is full.
    pub(super) async fn wait_in_line(
        &self,
        key: &Arc<GatewayKey>,
        model: Option<&str>,
        patience: &mut Patience,
    ) -> bool {
        let bounds = self.queue.bounds;
        if bounds.requests == 0 {
            return false;
        }
        let in_front = patience.until.is_some();
        let until = *patience.until.get_or_insert_with(|| Instant::now() + bounds.longest);
        let choice = self.look(key, model);
        if !choice.ordered.is_empty() {
            // Somebody is there who was not a moment ago, or was tried already: once more, soon.
            tokio::time::sleep(LOOK).await;
            return Instant::now() < until;
        }
        if !is_back_by(&choice, until.saturating_duration_since(Instant::now())) {
            return false;
        }
        let (go, gone) = oneshot::channel();
        let waiter = Waiter { key: key.clone(), model: model.map(str::to_owned), go };
        if !self.queue.enter(waiter, in_front) {
            metrics::queue_refused();
            return false;
        }
        matches!(tokio::time::timeout_at(until, gone).await, Ok(Ok(())))
    }

    /// Lets those go for whom an account is back, in turn, until `stop`.
    pub async fn serve_queue(self: Arc<Self>, stop: CancellationToken) {
        if self.queue.bounds.requests == 0 {
            return;
        }
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.let_some_go(),
            }
        }
    }

    /// As many as there are accounts for them: those that go now may use up what came back.
    fn let_some_go(&self) {
        let mut lines = self.queue.lines();
        lines.forget_the_gone();
        let mut free: BTreeMap<KeyId, usize> = BTreeMap::new();
        for line in lines.waiting.values() {
            if let Some(first) = line.front() {
                let accounts = self.look(&first.key, first.model.as_deref()).ordered.len();
                free.insert(first.key.id, accounts);
            }
        }
        let mut left = free.values().copied().max().unwrap_or_default();
        while left > 0
            && let Some(waiter) = lines.next(|waiter| free.get(&waiter.key.id).is_some_and(|accounts| *accounts > 0))
        {
            left -= 1;
            // Gone since: its turn is over all the same.
            let _ = waiter.go.send(());
        }
        metrics::queued(lines.len());
    }
}

/// Whether an account comes back within so long.
fn is_back_by(choice: &Choice, within: Duration) -> bool {
    choice.soonest_back().is_some_and(|(at, _)| at <= millis_from_now(within))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limits;

    fn key(name: &str) -> Arc<GatewayKey> {
        Arc::new(GatewayKey { name: name.to_owned(), ..crate::tenant::testing::key(Limits::default(), None, None) })
    }

    fn queue(requests: u32) -> Queue {
        Queue::new(Waiting { requests, longest: Duration::from_secs(1) })
    }

    /// Enters; `None` if there was no room.
    fn enter(queue: &Queue, key: &Arc<GatewayKey>) -> Option<oneshot::Receiver<()>> {
        let (go, gone) = oneshot::channel();
        queue.enter(Waiter { key: key.clone(), model: None, go }, false).then_some(gone)
    }

    const CLOSED: oneshot::error::TryRecvError = oneshot::error::TryRecvError::Closed;

    fn names(queue: &Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.lines().next(|_| true)).map(|waiter| waiter.key.name.clone()).collect()
    }

    #[test]
    fn keys_have_their_turns_however_many_wait_for_one_of_them() {
        let (queue, ada, bob) = (queue(9), key("ada"), key("bob"));
        let mut held: Vec<_> = (0..4).map(|_| enter(&queue, &ada)).collect();
        held.push(enter(&queue, &bob));
        assert_eq!(names(&queue), ["ada", "bob", "ada", "ada", "ada"]);
    }

    #[test]
    fn a_full_queue_makes_room_at_the_cost_of_the_longest_line() {
        let (queue, ada, bob) = (queue(4), key("ada"), key("bob"));
        let mut adas: Vec<_> = (0..4).map(|_| enter(&queue, &ada).expect("room")).collect();
        assert!(enter(&queue, &ada).is_none(), "not for its own key");
        let bobs = [enter(&queue, &bob), enter(&queue, &bob)];
        assert!(bobs.iter().all(Option::is_some));
        assert!(enter(&queue, &bob).is_none(), "half and half");
        let told: Vec<_> = adas.iter_mut().map(|gone| gone.try_recv().is_err_and(|why| why == CLOSED)).collect();
        assert_eq!(told, [false, false, true, true], "the last ones are told at once");
        assert_eq!(names(&queue), ["ada", "bob", "ada", "bob"]);
    }

    #[test]
    fn those_whose_client_left_take_no_room() {
        let (queue, ada) = (queue(1), key("ada"));
        drop(enter(&queue, &ada));
        assert!(enter(&queue, &ada).is_some());
    }
}
