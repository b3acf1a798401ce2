//! The other side: accounts with windows, an outage, and users with bursts of work. Nothing here
//! knows the gateway.

use fastrand::Rng;

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const WEEK: i64 = 7 * DAY;
/// Windows and outages begin and end on such a boundary, so that the omniscient scheduler's slices
/// are exact.
pub(crate) const SLICE: i64 = 15 * MINUTE;
/// When the simulated week begins, Unix milliseconds.
pub(crate) const START: i64 = 1_790_000_000_000 / SLICE * SLICE;
/// For how long the prompt cache of an account holds a conversation.
pub(crate) const CACHE: i64 = HOUR;
/// What a turn costs of the quota when its prompt is not in the cache.
pub(crate) const COLD: f64 = 1.5;

/// What a plan allows, in units of an average warm turn: in five hours, and in a week.
const PLANS: [(&str, f64, f64, usize); 3] =
    [("plus", 300.0, 1_500.0, 4), ("business", 400.0, 2_000.0, 2), ("pro", 2_000.0, 10_000.0, 2)];

/// A window of an account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) length: i64,
    pub(crate) capacity: f64,
    pub(crate) used: f64,
    pub(crate) resets_at: i64,
}

impl Window {
    pub(crate) fn roll(&mut self, now: i64) {
        while self.resets_at <= now {
            self.resets_at += self.length;
            self.used = 0.0;
        }
    }

    pub(crate) fn percent(&self) -> f64 {
        (self.used / self.capacity * 100.0).min(100.0)
    }

    fn is_full(&self) -> bool {
        self.used >= self.capacity
    }
}

/// What an account answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    Served,
    /// Used up until then.
    UsedUp(i64),
    /// A server error.
    Broken,
    /// At capacity, for a moment.
    Overloaded,
    /// Too many at once; after so many milliseconds.
    Slower(i64),
}

#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) windows: [Window; 2],
    /// More at once are told to slow down.
    pub(crate) at_once: u32,
    pub(crate) in_flight: u32,
    /// From when to when every call fails.
    pub(crate) outage: Option<(i64, i64)>,
    /// Until when it has said that it is used up.
    pub(crate) stopped_until: i64,
    /// Until when it has asked to be left alone.
    slower_until: i64,
}

impl Account {
    fn new(rng: &mut Rng, five_hours: f64, week: f64) -> Self {
        let mut window = |length: i64, capacity: f64, share: f64| Window {
            length,
            capacity,
            used: capacity * share * rng.f64(),
            resets_at: START + SLICE * rng.i64(1..=length / SLICE),
        };
        Self {
            windows: [window(5 * HOUR, five_hours, 0.5), window(WEEK, week, 0.6)],
            at_once: if five_hours > 1000.0 { 40 } else { 12 },
            in_flight: 0,
            outage: None,
            stopped_until: 0,
            slower_until: 0,
        }
    }

    pub(crate) fn is_out(&self, now: i64) -> bool {
        self.outage.is_some_and(|(from, to)| (from..to).contains(&now))
    }

    pub(crate) fn could_serve(&mut self, now: i64) -> bool {
        self.windows.iter_mut().for_each(|window| window.roll(now));
        !self.is_out(now)
            && !self.windows.iter().any(Window::is_full)
            && self.in_flight < self.at_once
            && self.slower_until <= now
    }

    /// A request comes; what it takes is taken at once.
    pub(crate) fn ask(&mut self, cost: f64, now: i64, rng: &mut Rng) -> Answer {
        self.windows.iter_mut().for_each(|window| window.roll(now));
        if self.is_out(now) {
            return Answer::Broken;
        }
        let full = self.windows.iter().filter(|window| window.is_full()).map(|window| window.resets_at).max();
        if let Some(until) = full {
            self.stopped_until = until;
            return Answer::UsedUp(until);
        }
        if self.in_flight >= self.at_once {
            self.slower_until = now + 2_000;
            return Answer::Slower(2_000);
        }
        match rng.u32(0..1000) {
            0 => return Answer::Broken,
            1 | 2 => return Answer::Overloaded,
            _ => {}
        }
        self.in_flight += 1;
        self.windows.iter_mut().for_each(|window| window.used += cost);
        Answer::Served
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) at: i64,
    pub(crate) session: usize,
    /// In units of an average warm turn.
    pub(crate) work: f64,
    pub(crate) takes: i64,
    /// Whether nobody's cache can hold the conversation: it is new, or has rested for too long.
    pub(crate) is_cold_anyway: bool,
}

impl Turn {
    /// The least that it can cost.
    pub(crate) fn least(&self) -> f64 {
        if self.is_cold_anyway { self.work * COLD } else { self.work }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) accounts: Vec<Account>,
    /// In the order of their time.
    pub(crate) turns: Vec<Turn>,
    pub(crate) sessions: usize,
}

impl World {
    /// Accounts, and work for them that costs `load` times what they can serve in the week.
    pub(crate) fn new(seed: u64, load: f64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut accounts = Vec::new();
        for (_, five_hours, week, count) in PLANS {
            accounts.extend((0..count).map(|_| Account::new(&mut rng, five_hours, week)));
        }
        let ill = rng.usize(0..accounts.len());
        let from = START + DAY + SLICE * rng.i64(36..60);
        accounts[ill].outage = Some((from, from + 3 * HOUR));
        let usable: f64 = accounts.iter().map(|account| account.windows[1].capacity).sum();
        let (turns, sessions) = work(&mut rng, usable * load);
        Self { accounts, turns, sessions }
    }
}

/// Sessions of fifty users, most of them in working hours, until their turns cost so much.
fn work(rng: &mut Rng, cost: f64) -> (Vec<Turn>, usize) {
    const USERS: usize = 50;
    let zones: Vec<i64> = (0..USERS).map(|_| rng.i64(0..3) * 5 * HOUR / 2).collect();
    let keenness: Vec<f64> = (0..USERS).map(|_| 0.3 + rng.f64() * rng.f64() * 4.0).collect();
    let most: f64 = keenness.iter().copied().fold(0.0, f64::max);
    let (mut turns, mut sessions, mut spent) = (Vec::new(), 0, 0.0);
    while spent < cost {
        let user = rng.usize(0..USERS);
        if rng.f64() * most > keenness[user] {
            continue;
        }
        let day = if rng.u32(0..20) == 0 { rng.i64(5..7) } else { rng.i64(0..5) };
        // Two humps, before and after lunch.
        let hump = if rng.bool() { 2 * HOUR } else { 6 * HOUR };
        let hour = hump + ((rng.f64() + rng.f64() + rng.f64() - 1.5) * 2.0 * HOUR as f64) as i64;
        let begin = START + day * DAY + zones[user] + hour.max(0);
        // Some begin with several agents side by side.
        let agents = if rng.u32(0..6) == 0 { rng.usize(2..5) } else { 1 };
        for _ in 0..agents {
            spent += session(rng, sessions, begin, &mut turns);
            sessions += 1;
        }
    }
    turns.retain(|turn| turn.at < START + WEEK);
    turns.sort_by_key(|turn| (turn.at, turn.session));
    (turns, sessions)
}

fn session(rng: &mut Rng, session: usize, begin: i64, turns: &mut Vec<Turn>) -> f64 {
    let (mut at, mut spent, mut is_cold_anyway) = (begin + rng.i64(0..30_000), 0.0, true);
    loop {
        let work = 0.25 + rng.f64() * rng.f64() * 3.0;
        let takes = 3_000 + (rng.f64() * rng.f64() * 60_000.0) as i64;
        let turn = Turn { at, session, work, takes, is_cold_anyway };
        spent += turn.least();
        turns.push(turn);
        if rng.u32(0..16) == 0 {
            return spent;
        }
        // Agents go on at once; people think, and now and then have lunch.
        let pause = match rng.u32(0..100) {
            0 => 90 * MINUTE,
            1..15 => rng.i64(MINUTE..12 * MINUTE),
            _ => rng.i64(200..8_000),
        };
        at += takes + pause;
        is_cold_anyway = pause >= CACHE;
    }
}
