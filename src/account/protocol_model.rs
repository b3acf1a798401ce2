//! Every order in which processes can take their steps, be killed, stand still and lose messages, for
//! the very machine that production runs. A search over all reachable states of a small world: what
//! it does not find is not there, within the bounds that each test names.
//!
//! The world has the store's statements as single steps (`store/exchanges.rs`; the store's own tests
//! show that they are), an issuer that rotates and punishes reuse, and one clock. A process that is
//! paused is one that is not scheduled while the clock goes on.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::*;

/// One tick of the clock.
const TICK: Duration = Duration::from_secs(1);
const LEASE: u8 = 2;
const DOUBT: u8 = 4;
/// A pause without bounds.
const FOR_EVER: u8 = u8::MAX;
/// What a login stores: far from every rotated token.
const LOGIN: u8 = 50;

/// A rule that is left out, to show that the search would notice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// A note is written whatever the fencing number.
    NoteWithoutFence,
    /// Credentials are stored whatever the generation.
    KeepWithoutGeneration,
    /// A token is sent however late it is.
    SendLate,
    /// Nobody looks at notes.
    NoDoubt,
    /// An account is condemned whatever the fencing number.
    CondemnWithoutFence,
    /// A token whose sender did not come back is sent again.
    Resend,
    /// An account is condemned for a doubt that is not over.
    Impatience,
}

/// The bounds of a search.
#[derive(Clone, Copy)]
struct Bounds {
    processes: usize,
    /// Turns that each process takes, one after the other.
    turns: u8,
    ticks: u8,
    crashes: u8,
    /// Requests or answers that are lost on the way.
    losses: u8,
    logins: u8,
    /// The longest from a note to its end, in ticks: how long a process stands still that has sent a
    /// token. Elsewhere pauses have no bounds.
    pause: u8,
    /// When new credentials are wanted at once.
    pressing_from: u8,
    /// When the old access token ends.
    ended_from: u8,
    /// `accounts.resend_after_crash`.
    resend: bool,
    flaw: Flaw,
}

const SMALL: Bounds = Bounds {
    processes: 2,
    turns: 2,
    ticks: 9,
    crashes: 1,
    losses: 1,
    logins: 0,
    pause: FOR_EVER,
    pressing_from: 0,
    ended_from: 0,
    resend: false,
    flaw: Flaw::None,
};

/// With the setting by which one careful try is made.
const CAREFUL: Bounds = Bounds { resend: true, ..SMALL };

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Request {
    /// Bytes have left the process.
    Departed,
    /// The issuer has acted; its answer is under way.
    Answered(Sent),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Life {
    Runs,
    Dead,
    Over(Ending),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Process {
    life: Life,
    turns: u8,
    turn: Turn,
    action: Action,
    /// The generation that this turn began with.
    began: i64,
    noted_at: u8,
    request: Option<Request>,
    /// The token in hand, until it is stored.
    token: Option<u8>,
    /// Its last look has shown a sender that does not come back.
    given_up: bool,
}

/// A token that has left a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Departure {
    process: usize,
    generation: i64,
    noted_at: u8,
    /// The sender is known to have no answer, and to get none.
    hopeless: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    now: u8,
    generation: i64,
    token: u8,
    fence: i64,
    lease_ends: u8,
    note: Option<(i64, i64, u8, bool)>,
    condemned: Option<i64>,
    live: u8,
    revoked: bool,
    processes: Vec<Process>,
    departures: Vec<Departure>,
    crashes: u8,
    losses: u8,
    logins: u8,
}

impl Process {
    /// It has noted that its token is about to leave, and what came of it is not in the store yet.
    fn is_sending(&self) -> bool {
        let sends = matches!(self.action, Action::Send { .. } | Action::Keep { .. } | Action::Yield { .. });
        self.life == Life::Runs && sends
    }
}

type Found = Result<World, String>;

fn ticks(count: u8) -> Duration {
    TICK * u32::from(count)
}

fn begin(generation: i64, bounds: &Bounds) -> (Turn, Action) {
    let resend = bounds.resend || bounds.flaw == Flaw::Resend;
    let doubt = if bounds.flaw == Flaw::Impatience { DOUBT - 1 } else { DOUBT };
    Turn::new(Rules { lease: ticks(LEASE), doubt: ticks(doubt), resend }, generation)
}

impl World {
    fn new(bounds: &Bounds) -> Self {
        let (turn, action) = begin(1, bounds);
        let process = Process {
            life: Life::Runs,
            turns: 1,
            turn,
            action,
            began: 1,
            noted_at: 0,
            request: None,
            token: None,
            given_up: false,
        };
        Self {
            now: 0,
            generation: 1,
            token: 1,
            fence: 0,
            lease_ends: 0,
            note: None,
            condemned: None,
            live: 1,
            revoked: false,
            processes: vec![process; bounds.processes],
            departures: Vec::new(),
            crashes: bounds.crashes,
            losses: bounds.losses,
            logins: bounds.logins,
        }
    }

    /// A number for this state, and for every state in which only the names of processes differ.
    fn print(&self) -> u64 {
        let mut each: Vec<u64> = (0..self.processes.len()).map(|number| self.print_of(number)).collect();
        each.sort_unstable();
        let Self { now, generation, token, fence, lease_ends, note, condemned, live, revoked, .. } = self;
        let store = (now, generation, token, fence, lease_ends, note, condemned);
        hash_of(&(store, live, revoked, self.crashes, self.losses, self.logins, each))
    }

    fn print_of(&self, number: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.processes[number].hash(&mut hasher);
        for sent in self.departures.iter().filter(|sent| sent.process == number) {
            (sent.generation, sent.noted_at, sent.hopeless).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn is_over(&self) -> bool {
        self.processes.iter().all(|process| process.life != Life::Runs)
    }

    /// Every state that the next step may lead to.
    fn successors(&self, bounds: &Bounds) -> Vec<Found> {
        let mut next = Vec::new();
        for number in 0..self.processes.len() {
            next.extend(self.steps(number, bounds));
            next.extend(self.faults(number));
        }
        let in_time = |process: &Process| !process.is_sending() || self.now - process.noted_at < bounds.pause;
        if self.now < bounds.ticks && self.processes.iter().all(in_time) {
            next.push(Ok(self.tick()));
        }
        if self.logins > 0 {
            let mut world = self.clone();
            world.logins -= 1;
            world.generation += 1;
            (world.token, world.live, world.revoked) = (LOGIN, LOGIN, false);
            next.push(Ok(world));
        }
        next
    }

    fn tick(&self) -> Self {
        Self { now: self.now + 1, ..self.clone() }
    }

    /// What may go wrong with a process, and with its messages.
    fn faults(&self, number: usize) -> Vec<Found> {
        let process = self.processes[number];
        let mut next = Vec::new();
        if process.life != Life::Runs {
            return next;
        }
        if self.crashes > 0 {
            let mut world = self.clone();
            world.crashes -= 1;
            world.processes[number].life = Life::Dead;
            // What had left it arrives all the same, or it does not.
            if process.request == Some(Request::Departed) {
                next.push(world.clone().arrive(number));
            }
            next.push(Ok(world));
        }
        if self.losses > 0 && process.request.is_some() {
            let mut world = self.clone();
            world.losses -= 1;
            world.departures.iter_mut().filter(|one| one.process == number).for_each(|one| one.hopeless = true);
            world.processes[number].token = None;
            next.push(world.hear(number, Event::Sent(Sent::Unknown)));
        }
        next
    }

    fn steps(&self, number: usize, bounds: &Bounds) -> Vec<Found> {
        let process = self.processes[number];
        match (process.life, process.request) {
            (Life::Over(Ending::Failed | Ending::InDoubt(_)), _) if process.turns < bounds.turns => {
                let mut world = self.clone();
                let (turn, action) = begin(self.generation, bounds);
                let again = Process { life: Life::Runs, turns: process.turns + 1, turn, action, ..process };
                world.processes[number] = Process { began: self.generation, token: None, ..again };
                vec![Ok(world)]
            }
            (Life::Dead | Life::Over(_), _) => Vec::new(),
            (Life::Runs, Some(Request::Departed)) => vec![self.clone().arrive(number)],
            (Life::Runs, Some(Request::Answered(sent))) => vec![self.clone().hear(number, Event::Sent(sent))],
            (Life::Runs, None) => vec![self.clone().act(number, bounds)],
        }
    }

    /// A request reaches the issuer.
    fn arrive(mut self, number: usize) -> Found {
        let Action::Send { generation } = self.processes[number].action else { return Err("no request".into()) };
        let token = self.token_of(generation);
        let answer = if self.revoked || token != self.live {
            // The family of a login is its own.
            self.revoked |= token < self.live && self.live < LOGIN;
            Sent::Refused
        } else {
            self.live += 1;
            self.processes[number].token = Some(self.live);
            Sent::Answered
        };
        self.processes[number].request = Some(Request::Answered(answer));
        Ok(self)
    }

    /// Without a login tokens and generations are counted alike.
    fn token_of(&self, generation: i64) -> u8 {
        if generation == self.generation { self.token } else { u8::try_from(generation).unwrap_or_default() }
    }

    fn hear(mut self, number: usize, event: Event) -> Found {
        let process = &mut self.processes[number];
        process.request = None;
        process.action = process.turn.next(event);
        if let Action::End { ending, release } = process.action {
            process.life = Life::Over(ending);
            if let Some((fence, trace)) = release {
                self.release(fence, trace);
            }
            self.check_end(number)?;
        }
        Ok(self)
    }

    fn check_end(&self, number: usize) -> Result<(), String> {
        let process = self.processes[number];
        let kept = process.token.is_none_or(|token| self.token >= token);
        let known = !matches!(process.life, Life::Over(Ending::Failed)) || kept;
        if process.life == Life::Over(Ending::Renewed) && !kept || !known {
            return Err(format!("process {number} ended with an answer that is not stored"));
        }
        Ok(())
    }

    fn release(&mut self, fence: i64, trace: Trace) {
        if self.fence == fence {
            self.lease_ends = 0;
        }
        if let Some((.., noted, _, lost)) = &mut self.note
            && *noted == fence
        {
            match trace {
                Trace::Stays => {}
                Trace::Goes => self.note = None,
                Trace::Lost => *lost = true,
            }
        }
    }

    /// The store, the clock and the network, as a process's next step meets them.
    fn act(mut self, number: usize, bounds: &Bounds) -> Found {
        let process = self.processes[number];
        let event = match process.action {
            Action::Look => {
                self.processes[number].given_up = self.is_given_up(bounds);
                Event::Seen(self.seen(&process, bounds))
            }
            Action::Wait(_) | Action::SecondLook => Event::Waited,
            Action::Take => Event::Taken((self.lease_ends <= self.now).then(|| {
                self.fence += 1;
                self.lease_ends = self.now + LEASE;
                self.fence
            })),
            Action::Note { fence, generation } => Event::Noted(self.note(number, fence, generation, bounds)),
            Action::Send { generation } => {
                if self.now >= process.noted_at + LEASE / 2 && bounds.flaw != Flaw::SendLate {
                    Event::Sent(Sent::TooLate)
                } else {
                    return self.depart(number, generation, bounds);
                }
            }
            Action::Keep { generation } => Event::Kept(self.keep(number, generation, bounds)?),
            Action::Condemn { fence, generation, cause } => {
                let interrupted = (cause == Cause::Interrupted).then_some(process.given_up);
                Event::Condemned(self.condemn(fence, generation, interrupted, bounds)?)
            }
            Action::Yield { fence, trace, .. } => {
                self.release(fence, trace);
                Event::Waited
            }
            Action::End { .. } => return Err("a step after the end".into()),
        };
        self.hear(number, event)
    }

    fn seen(&self, process: &Process, bounds: &Bounds) -> Seen {
        let note =
            self.note.map(|(generation, fence, at, lost)| Note { generation, fence, age: ticks(self.now - at), lost });
        Seen {
            generation: self.generation,
            usable: self.generation > process.began,
            urgency: match self.now {
                now if now >= bounds.ended_from => Urgency::Ended,
                now if now >= bounds.pressing_from => Urgency::Pressing,
                _ => Urgency::Ahead,
            },
            taken: self.lease_ends > self.now,
            note: note.filter(|_| bounds.flaw != Flaw::NoDoubt),
        }
    }

    fn note(&mut self, number: usize, fence: i64, generation: i64, bounds: &Bounds) -> bool {
        let held = self.fence == fence && self.lease_ends > self.now;
        if !(held || bounds.flaw == Flaw::NoteWithoutFence) || self.generation != generation {
            return false;
        }
        self.lease_ends = self.now + LEASE;
        self.note = Some((generation, fence, self.now, false));
        self.processes[number].noted_at = self.now;
        true
    }

    fn depart(mut self, number: usize, generation: i64, bounds: &Bounds) -> Found {
        for earlier in self.departures.iter().filter(|earlier| earlier.generation == generation) {
            // Its sender has itself seen no answer; nothing else is a reason, if no risk is to be taken.
            if !(earlier.hopeless || bounds.resend && self.is_worth_a_try(number, earlier, bounds)) {
                return Err(format!("process {number} sends what {earlier:?} has sent"));
            }
        }
        let noted_at = self.processes[number].noted_at;
        self.departures.push(Departure { process: number, generation, noted_at, hopeless: false });
        self.processes[number].request = Some(Request::Departed);
        Ok(self)
    }

    /// Whether a token may be sent that was sent before, where one careful try is asked for.
    fn is_worth_a_try(&self, number: usize, earlier: &Departure, bounds: &Bounds) -> bool {
        let dead = self.processes[earlier.process].life == Life::Dead;
        let patient = bounds.pause == FOR_EVER && self.now >= earlier.noted_at + DOUBT;
        // A doubt is a doubt about the one who noted last.
        dead || patient && earlier.noted_at < self.processes[number].noted_at
    }

    fn keep(&mut self, number: usize, generation: i64, bounds: &Bounds) -> Result<Kept, String> {
        if self.generation != generation && bounds.flaw != Flaw::KeepWithoutGeneration {
            return Ok(Kept::Overtaken);
        }
        let token = self.processes[number].token.unwrap_or_default();
        if token <= self.token {
            return Err(format!("process {number} stores {token} over {}", self.token));
        }
        (self.token, self.generation) = (token, self.generation + 1);
        Ok(Kept::Stored)
    }

    /// `interrupted`: the issuer was not asked; whether the last look has shown that there is no hope.
    fn condemn(
        &mut self,
        fence: i64,
        generation: i64,
        interrupted: Option<bool>,
        bounds: &Bounds,
    ) -> Result<bool, String> {
        let held = self.fence == fence && self.lease_ends > self.now;
        if !held && bounds.flaw != Flaw::CondemnWithoutFence {
            return Ok(false);
        }
        if !held && self.lease_ends > self.now {
            return Err("a process that has lost the lease condemns the account".into());
        }
        if self.generation == generation {
            if interrupted == Some(false) {
                return Err("a sender is given up that may come back".into());
            }
            if interrupted.is_none() && self.live == self.token && !self.revoked {
                return Err("a login that works is given up".into());
            }
            self.condemned = Some(generation);
        }
        Ok(true)
    }

    /// A note has been open for as long as a doubt lasts, and the old access token serves no more.
    fn is_given_up(&self, bounds: &Bounds) -> bool {
        self.note.is_some_and(|(noted, fence, at, lost)| {
            let is_current = noted == self.generation && fence < self.fence;
            is_current && !lost && self.now >= (at + DOUBT).max(bounds.ended_from)
        })
    }

    /// Lets everybody who runs go on without further faults; all must come to an end.
    fn comes_to_rest(mut self, bounds: &Bounds) -> Result<(), String> {
        let calm = Bounds { ticks: u8::MAX, crashes: 0, losses: 0, logins: 0, pause: FOR_EVER, ..*bounds };
        for _ in 0..u32::from(DOUBT + LEASE) * 8 {
            for number in 0..self.processes.len() {
                // A turn has fewer steps than this between two waits.
                for _ in 0..12 {
                    if self.processes[number].life != Life::Runs {
                        break;
                    }
                    let waits = matches!(self.processes[number].action, Action::Wait(_));
                    self = self.steps(number, &calm).pop().unwrap_or_else(|| Err("stuck".into()))?;
                    if waits {
                        break;
                    }
                }
            }
            if self.is_over() {
                return Ok(());
            }
            self = self.tick();
        }
        Err(format!("no end in sight: {self:?}"))
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a search has seen.
#[derive(Debug, Default)]
struct Report {
    states: usize,
    ends: usize,
    /// Ends in which the account needs a login.
    condemned: usize,
    /// Ends in which it was said to need one, and a late answer has disproved it.
    healed: usize,
    /// The most tokens that left in one history.
    departures: usize,
}

/// Goes through every state (of two whose 64-bit numbers are the same, one). An error is the first violation found.
fn search(bounds: Bounds) -> Result<Report, String> {
    let first = World::new(&bounds);
    let (mut seen, mut open, mut report) = (HashSet::from([first.print()]), vec![first], Report::default());
    while let Some(world) = open.pop() {
        report.states += 1;
        report.departures = report.departures.max(world.departures.len());
        if world.is_over() {
            report.ends += 1;
            report.condemned += usize::from(world.condemned == Some(world.generation));
            report.healed += usize::from(world.condemned.is_some_and(|condemned| condemned < world.generation));
        }
        // Whoever is stuck before is stuck then.
        if bounds.flaw == Flaw::None && world.now == bounds.ticks {
            world.clone().comes_to_rest(&bounds)?;
        }
        for next in world.successors(&bounds) {
            let next = next?;
            if seen.insert(next.print()) {
                open.push(next);
            }
        }
    }
    Ok(report)
}

fn holds(what: &str, bounds: Bounds) -> Report {
    let report = search(bounds).unwrap_or_else(|violation| panic!("{what}: {violation}"));
    println!("{what}: {report:?}");
    report
}

#[test]
fn nobody_sends_a_token_again_while_its_sender_may_come_back() {
    // Whoever pauses where and how long: as long as a sender comes back before the doubt is over, one
    // token leaves, all have the new one, and no login is given up.
    let paused = Bounds { processes: 3, turns: 1, ticks: 5, crashes: 0, losses: 0, pause: DOUBT - 1, ..SMALL };

    for bounds in [paused, Bounds { resend: true, ..paused }] {
        let report = holds("three with pauses", bounds);

        assert_eq!((report.departures, report.condemned, report.healed), (1, 0, 0));
    }
}

#[test]
fn whatever_dies_or_stands_still_a_token_leaves_once() {
    // Pauses have no bounds here. That no token leaves twice, unless its sender has seen no answer, is
    // looked at whenever one leaves.
    let cut_off = Bounds { losses: 0, ..SMALL };
    let report = holds("two with pauses and a crash", cut_off);
    assert_eq!(report.departures, 1, "no answer was lost on the way");
    assert!(report.condemned > 0, "whoever does not come back costs the login");
    assert!(report.healed > 0, "whoever comes back late with an answer ends that");

    let three = Bounds { processes: 3, turns: 1, ticks: 5, losses: 0, ..SMALL };
    assert_eq!(holds("three with pauses and a crash", three).departures, 1);
}

#[test]
fn a_sender_that_has_seen_no_answer_lets_others_try_again() {
    let report = holds("two with every fault", Bounds { turns: 1, ticks: 6, ..SMALL });
    assert!(report.departures > 1, "an issuer that is out for a while costs no login");
    holds("two that try again", Bounds { ticks: 5, crashes: 0, ..SMALL });
}

#[test]
fn pauses_of_any_length_crashes_and_lost_messages_break_no_rule_of_careful_tries() {
    let report = holds("two with every fault", Bounds { turns: 1, ticks: 6, ..CAREFUL });
    assert!(report.condemned > 0, "an answer that dies with its receiver costs the login");
    holds("two that try again", Bounds { ticks: 5, crashes: 0, ..CAREFUL });
}

#[test]
fn a_crash_frees_the_others() {
    let crash = Bounds { processes: 3, turns: 1, ticks: 4, losses: 0, pause: DOUBT - 1, ..CAREFUL };

    holds("three with a crash", crash);
}

#[test]
fn a_login_in_between_is_never_overwritten() {
    for bounds in [SMALL, CAREFUL] {
        holds("two and a login", Bounds { turns: 1, ticks: 5, logins: 1, losses: 0, ..bounds });
    }
}

#[test]
fn a_doubt_waits_until_the_old_access_token_ends() {
    for bounds in [SMALL, CAREFUL] {
        let ahead = Bounds { pressing_from: 8, ended_from: 8, turns: 1, ticks: 7, losses: 0, ..bounds };
        let report = holds("two ahead of demand", ahead);

        assert_eq!(report.departures, 1, "nobody tries again while there is something to serve with");
        assert_eq!(report.condemned, 0, "nor gives the login up");
    }
}

#[test]
fn a_login_is_not_given_up_while_the_old_access_token_serves() {
    let ending = Bounds { ended_from: 7, turns: 2, ticks: 6, losses: 0, ..SMALL };

    assert_eq!(holds("two near the end", ending).condemned, 0);
    assert!(holds("two at the end", Bounds { ticks: 8, ..ending }).condemned > 0);
}

#[test]
fn every_rule_is_needed_and_the_search_notices_when_it_is_missing() {
    let login = Bounds { logins: 1, losses: 0, ..SMALL };
    let cut_off = Bounds { losses: 0, ..SMALL };
    for (flaw, bounds, words) in [
        (Flaw::NoteWithoutFence, SMALL, "sends what"),
        (Flaw::NoteWithoutFence, CAREFUL, "sends what"),
        (Flaw::KeepWithoutGeneration, login, "stores"),
        // Without careful tries nobody else has sent it.
        (Flaw::SendLate, CAREFUL, "sends what"),
        (Flaw::NoDoubt, SMALL, "sends what"),
        (Flaw::NoDoubt, CAREFUL, "sends what"),
        (Flaw::CondemnWithoutFence, SMALL, "condemns"),
        (Flaw::CondemnWithoutFence, CAREFUL, "condemns"),
        (Flaw::Resend, cut_off, "sends what"),
        (Flaw::Impatience, cut_off, "may come back"),
    ] {
        let found = search(Bounds { flaw, ..bounds }).expect_err(words);

        assert!(found.contains(words), "{found}");
    }
}
