//! Plays a rendered stream to one client: pauses, faults in its middle, and who left early.
//!
//! The schedule is pure; only [`body`] touches sockets and clocks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use crate::events::Event;
use crate::faults::{Fate, Kind, Stall};
use crate::state::Sim;
use crate::usage::Usage;

/// One step of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Bytes to send.
    Send(Bytes),
    /// The same, and with them the answer is complete.
    Finish(Bytes),
    /// A pause.
    Wait(Duration),
    /// Nothing ever again.
    Hang,
    /// The connection tears.
    Tear,
}

/// Lays out the steps of a stream under a fate. `delay` is the pause before each delta.
pub(crate) fn schedule(events: &[Event], delay: Duration, fate: &Fate) -> VecDeque<Step> {
    let stop = match &fate.end {
        Some(Kind::Cut { after_events, clean }) => Some((*after_events, if *clean { None } else { Some(Step::Tear) })),
        Some(Kind::Stall { at: Stall::Created }) => Some((1, Some(Step::Hang))),
        Some(Kind::Stall { at: Stall::Mid }) => Some((events.len() / 2, Some(Step::Hang))),
        _ => None,
    };
    let broken = match &fate.end {
        Some(Kind::Malformed { after_events }) => Some(*after_events),
        _ => None,
    };
    let mut steps = VecDeque::new();
    for (sequence, event) in events.iter().enumerate() {
        if stop.as_ref().is_some_and(|(after, _)| *after == sequence) {
            break;
        }
        if broken == Some(sequence) {
            steps.push_back(Step::Send(Bytes::from_static(b"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"bro\n\n")));
        }
        if event.delta() && !delay.is_zero() {
            steps.push_back(Step::Wait(delay));
        }
        spell(event.frame(sequence), event.terminal(), fate.slow, &mut steps);
    }
    let last = stop.and_then(|(_, last)| last);
    if last == Some(Step::Tear) {
        // What was sent must be on the wire before the connection goes.
        steps.push_back(Step::Wait(Duration::from_millis(20)));
    }
    steps.extend(last);
    steps
}

/// Adds one frame, in slow chunks if need be.
fn spell(mut frame: Bytes, terminal: bool, slow: Option<(u64, Option<usize>)>, steps: &mut VecDeque<Step>) {
    if let Some((ms, bytes)) = slow {
        let pause = Step::Wait(Duration::from_millis(ms));
        let chunk = bytes.unwrap_or(frame.len()).max(1);
        while frame.len() > chunk {
            steps.extend([pause.clone(), Step::Send(frame.split_to(chunk))]);
        }
        steps.push_back(pause);
    }
    steps.push_back(if terminal { Step::Finish(frame) } else { Step::Send(frame) });
}

/// What becomes of one response, told to the counters exactly once, also when the client leaves.
#[derive(Debug)]
pub(crate) struct Watch {
    sim: Arc<Sim>,
    account: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// Still running; dropped like this, the client left.
    Running,
    /// Sent to its end, or refused: nothing to tell.
    Told,
}

impl Watch {
    /// Starts watching a response of this account.
    pub(crate) fn new(sim: &Arc<Sim>, account: &str) -> Self {
        sim.traffic.take_off();
        if let Some(account) = sim.world().accounts.get_mut(account) {
            let counters = &mut account.counters;
            counters.responses += 1;
            counters.in_flight += 1;
            counters.max_in_flight = counters.max_in_flight.max(counters.in_flight);
        }
        Self { sim: Arc::clone(sim), account: account.to_owned(), outcome: Outcome::Running }
    }

    /// The answer was short and has been given.
    pub(crate) fn answered(mut self) {
        self.outcome = Outcome::Told;
    }

    /// The final event has gone out.
    pub(crate) fn completed(&mut self, usage: Usage) {
        self.outcome = Outcome::Told;
        let settings = self.sim.settings();
        let ceiling = if settings.rate_limits { 100.0 } else { 99.0 };
        if let Some(account) = self.sim.world().accounts.get_mut(&self.account) {
            account.counters.completed += 1;
            account.counters.tokens.add(usage);
            account.limits.grow(settings.percent_per_response, ceiling);
        }
    }

    /// It was ended by a fault.
    pub(crate) fn broken(&mut self) {
        if self.outcome == Outcome::Running {
            self.outcome = Outcome::Told;
            if let Some(account) = self.sim.world().accounts.get_mut(&self.account) {
                account.counters.broken += 1;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.sim.traffic.land();
        if let Some(account) = self.sim.world().accounts.get_mut(&self.account) {
            account.counters.in_flight = account.counters.in_flight.saturating_sub(1);
            if self.outcome == Outcome::Running {
                account.counters.cancelled += 1;
            }
        }
    }
}

struct Player {
    steps: VecDeque<Step>,
    watch: Watch,
    /// Booked when the final event goes out; none when the stream fails by script.
    usage: Option<Usage>,
}

/// The body that plays the steps.
pub(crate) fn body(steps: VecDeque<Step>, watch: Watch, usage: Option<Usage>) -> Body {
    Body::from_stream(stream::unfold(Player { steps, watch, usage }, play))
}

async fn play(mut player: Player) -> Option<(std::io::Result<Bytes>, Player)> {
    loop {
        match player.steps.pop_front() {
            Some(Step::Send(bytes)) => return Some((Ok(bytes), player)),
            Some(Step::Finish(bytes)) => {
                match player.usage {
                    Some(usage) => player.watch.completed(usage),
                    None => player.watch.broken(),
                }
                return Some((Ok(bytes), player));
            }
            Some(Step::Wait(pause)) => tokio::time::sleep(pause).await,
            Some(Step::Hang) => std::future::pending::<()>().await,
            Some(Step::Tear) => {
                player.watch.broken();
                return Some((Err(std::io::Error::other("cut on command")), player));
            }
            None => {
                player.watch.broken();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn events() -> Vec<Event> {
        ["response.created", "response.output_text.delta", "response.output_text.delta", "response.completed"]
            .iter()
            .map(|kind| Event::new(kind, json!({})))
            .collect()
    }

    fn with(end: Kind) -> VecDeque<Step> {
        let mut fate = Fate::default();
        fate.end = Some(end);
        schedule(&events(), Duration::ZERO, &fate)
    }

    #[test]
    fn an_untroubled_stream_ends_with_its_final_event() {
        let steps = schedule(&events(), Duration::from_millis(3), &Fate::default());
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Wait(_))).count(), 2);
        assert!(matches!(steps.back(), Some(Step::Finish(_))));
    }

    #[test]
    fn cuts_and_stalls_come_where_they_were_ordered() {
        let cut = with(Kind::Cut { after_events: 2, clean: false });
        assert_eq!((cut.len(), cut.back()), (4, Some(&Step::Tear)));
        assert_eq!(with(Kind::Cut { after_events: 2, clean: true }).len(), 2);
        let stalled = with(Kind::Stall { at: Stall::Created });
        assert_eq!((stalled.len(), stalled.back()), (2, Some(&Step::Hang)));
    }

    #[test]
    fn slow_streams_lose_no_byte() {
        let mut fate = Fate::default();
        fate.slow = Some((1, Some(7)));
        let bytes = |steps: VecDeque<Step>| -> Vec<u8> {
            let sent = steps.into_iter().filter_map(|step| match step {
                Step::Send(bytes) | Step::Finish(bytes) => Some(bytes),
                _ => None,
            });
            sent.flatten().collect()
        };
        assert_eq!(
            bytes(schedule(&events(), Duration::ZERO, &fate)),
            bytes(schedule(&events(), Duration::ZERO, &Fate::default()))
        );
    }
}
