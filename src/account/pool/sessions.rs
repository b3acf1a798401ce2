//! Where conversations live. The prompt cache and encrypted reasoning belong to the account that
//! made them (lessons.md 6, 7), so a conversation stays while its account may serve it. Bounded in
//! number and in time.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest;

use crate::store::{AccountId, IdMap, KeyId, UnixMillis};

/// Conversations that were active within this time, milliseconds, count as living on their account.
const AWAKE: i64 = 15 * 60 * 1000;
/// A home is written again when its conversation has gone on for so long, milliseconds: a crash
/// then shortens its life by no more.
const REWRITE: i64 = 5 * 60 * 1000;

/// A conversation, as the gateway knows it: a digest of its key and of what the client calls it, so
/// that tenants cannot meet and what clients send is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(u128);

impl Session {
    /// The conversation that `key`'s client calls `name`.
    pub fn of(key: KeyId, name: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(key.to_string().as_bytes());
        context.update(b"/");
        context.update(name.as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(u128::from_be_bytes(half))
    }

    /// As text: 32 hexadecimal digits.
    pub fn to_text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Back from [`Session::to_text`].
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())?.map(Self)
    }
}

/// A conversation's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The account.
    pub account: AccountId,
    /// When the conversation was last there.
    pub last: UnixMillis,
    /// How many of the conversation's items were there when it came: reasoning among them is
    /// another account's, which this one cannot read. Zero for one that was born here.
    pub foreign_items: u32,
    /// Who served last: its home, or another account during a detour.
    pub served_by: AccountId,
    /// Since when it has been away from home, if it is.
    pub away_since: Option<UnixMillis>,
}

/// Every conversation's place.
#[derive(Debug)]
pub struct Sessions {
    homes: HashMap<Session, Home>,
    /// Conversations that are awake, by account; counted anew at each [`Sessions::sweep`].
    awake: IdMap<AccountId, u32>,
    /// Homes that are to be written.
    unwritten: HashSet<Session>,
    /// Those of them that were elsewhere before: others may remember that.
    moved: HashSet<Session>,
    /// How long a conversation is remembered after its last turn, milliseconds.
    lifetime: i64,
    /// How many are remembered.
    capacity: usize,
}

impl Sessions {
    /// None yet; at most `capacity`, each for `lifetime` milliseconds after its last turn.
    pub fn new(capacity: usize, lifetime: i64) -> Self {
        let (homes, awake, unwritten, moved) = <_>::default();
        Self { homes, awake, unwritten, moved, lifetime, capacity }
    }

    /// Where the conversation lives, if that is known.
    pub fn home(&self, session: Session, now: UnixMillis) -> Option<Home> {
        self.homes.get(&session).filter(|home| self.is_alive(home, now)).copied()
    }

    /// The conversation was served by `account`, where it lived or which is its first. One that has moved
    /// while it was served there stays where it is now.
    pub fn stay(&mut self, session: Session, account: AccountId, now: UnixMillis) {
        if self.home(session, now).is_none_or(|home| home.account == account) {
            self.settle(session, account, 0, now);
        }
    }

    /// The conversation was served by `account`, where it lives from now on; `items` is how long it
    /// was when it was sent there.
    pub fn settle(&mut self, session: Session, account: AccountId, items: u32, now: UnixMillis) {
        self.make_room(session, now);
        let known = self.homes.get(&session).copied();
        let stays = known.filter(|known| known.account == account);
        let foreign_items = match (stays, known) {
            (Some(home), _) => home.foreign_items,
            (None, Some(_)) => items,
            (None, None) => 0,
        };
        if stays.is_none_or(|home| now.saturating_sub(home.last) > AWAKE) {
            *self.awake.entry(account).or_default() += 1;
        }
        if stays.is_none_or(|home| now.saturating_sub(home.last) > REWRITE) {
            self.unwritten.insert(session);
        }
        if known.is_some() && stays.is_none() {
            self.moved.insert(session);
        }
        let home = Home { account, last: now, foreign_items, served_by: account, away_since: None };
        self.homes.insert(session, home);
    }

    /// The conversation, `items` long, was served by `account` while its home could not: its next
    /// turns carry reasoning that its home did not make. A detour that lasts becomes a move; says
    /// whether it did.
    pub fn note_detour(&mut self, session: Session, account: AccountId, items: u32, now: UnixMillis) -> bool {
        let away_since = self.homes.get(&session).and_then(|home| home.away_since).unwrap_or(now);
        if now.saturating_sub(away_since) > AWAY {
            self.settle(session, account, items, now);
            return true;
        }
        if let Some(home) = self.homes.get_mut(&session) {
            home.away_since = Some(away_since);
            // What the detour answered comes behind what was sent.
            home.foreign_items = home.foreign_items.max(items.saturating_add(DETOUR));
            home.served_by = account;
            home.last = now;
            self.unwritten.insert(session);
        }
        false
    }

    /// Takes over a home that was kept.
    pub fn restore(&mut self, session: Session, home: Home) {
        if self.homes.len() < self.capacity {
            self.homes.entry(session).or_insert(home);
        }
    }

    /// Takes over where a conversation that is remembered lives by another process's word, unless it has
    /// moved here and that was not written yet: then ours will be the last word.
    pub fn adopt(&mut self, session: Session, new: Home) {
        if self.moved.contains(&session) {
            return;
        }
        let Some(home) = self.homes.get_mut(&session) else { return };
        if home.account == new.account {
            home.foreign_items = home.foreign_items.max(new.foreign_items);
            return;
        }
        *home = Home { last: home.last.max(new.last), ..new };
        *self.awake.entry(new.account).or_default() += 1;
    }

    /// Whether a conversation has moved and others do not know.
    pub fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Conversations living on an account that were active of late.
    pub fn living_on(&self, account: AccountId) -> u32 {
        self.awake.get(&account).copied().unwrap_or_default()
    }

    /// Forgets what is over and counts what is awake.
    pub fn sweep(&mut self, now: UnixMillis) {
        let lifetime = self.lifetime;
        self.homes.retain(|_, home| age(home, now) < lifetime);
        self.awake.clear();
        for home in self.homes.values().filter(|home| age(home, now) < AWAKE) {
            *self.awake.entry(home.account).or_default() += 1;
        }
    }

    /// The homes that are to be written, and are now taken to be; but those of conversations that have moved.
    pub fn take_unwritten(&mut self) -> Vec<(Session, Home)> {
        let mut sessions = std::mem::take(&mut self.unwritten);
        sessions.retain(|session| !self.moved.contains(session));
        self.homes_of(sessions)
    }

    /// The homes of conversations that have moved, which are now taken to be written.
    pub fn take_moved(&mut self) -> Vec<(Session, Home)> {
        let sessions = std::mem::take(&mut self.moved);
        self.unwritten.retain(|session| !sessions.contains(session));
        self.homes_of(sessions)
    }

    fn homes_of(&self, sessions: HashSet<Session>) -> Vec<(Session, Home)> {
        sessions.into_iter().filter_map(|session| Some((session, *self.homes.get(&session)?))).collect()
    }

    /// Takes homes back that could not be written.
    pub fn put_back(&mut self, sessions: impl Iterator<Item = Session>) {
        self.unwritten.extend(sessions.filter(|session| self.homes.contains_key(session)));
    }

    /// Takes homes of conversations back that have moved, and could not be written.
    pub fn put_back_moved(&mut self, sessions: impl Iterator<Item = Session>) {
        self.moved.extend(sessions.filter(|session| self.homes.contains_key(session)));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    fn is_alive(&self, home: &Home, now: UnixMillis) -> bool {
        age(home, now) < self.lifetime
    }

    fn make_room(&mut self, coming: Session, now: UnixMillis) {
        if self.homes.len() < self.capacity || self.homes.contains_key(&coming) {
            return;
        }
        self.sweep(now);
        if self.homes.len() >= self.capacity {
            // All of them live: forget the older half rather than refuse the newest.
            let mut times: Vec<_> = self.homes.values().map(|home| home.last).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.homes.retain(|_, home| home.last > median);
            self.unwritten.retain(|session| self.homes.contains_key(session));
            self.moved.retain(|session| self.homes.contains_key(session));
        }
    }
}

/// A conversation that has been away for so long, milliseconds, does not come back: by then the
/// prompt cache of its home has gone cold, and that of its host is warm.
const AWAY: i64 = 5 * 60 * 1000;
/// Items that one answer adds to a conversation at most, as a rule: reasoning, messages and calls.
const DETOUR: u32 = 16;

/// How long ago the conversation was there. A clock that was set back makes nobody younger than new.
fn age(home: &Home, now: UnixMillis) -> i64 {
    now.saturating_sub(home.last).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn sessions() -> Sessions {
        Sessions::new(1000, HOUR)
    }

    fn named(name: &str) -> Session {
        Session::of(KeyId::nobody(), name)
    }

    #[test]
    fn a_conversation_is_found_by_its_own_key_only_and_not_for_ever() {
        let (ada, bob, account) = (KeyId::new(), KeyId::new(), AccountId::new());
        let mut sessions = sessions();
        sessions.settle(Session::of(ada, "s"), account, 1, 0);
        let home = |key, now| sessions.home(Session::of(key, "s"), now).map(|home| home.account);
        assert_eq!(home(ada, 0), Some(account));
        assert_eq!(home(bob, 0), None);
        assert_eq!(home(ada, HOUR), None);
        assert_eq!(home(ada, -HOUR), Some(account), "a clock that was set back");
    }

    #[test]
    fn the_number_of_conversations_is_bounded_and_the_newest_stay() {
        let mut sessions = sessions();
        for n in 0..5_000_i64 {
            sessions.settle(named(&n.to_string()), AccountId::new(), 1, n);
            assert!(sessions.len() <= 1000 && sessions.unwritten.len() <= 1001);
        }
        assert!(sessions.home(named("4999"), 5_000).is_some());
    }

    #[test]
    fn what_came_before_a_move_is_foreign_and_what_follows_is_not() {
        let (mut sessions, s) = (sessions(), named("s"));
        let (first, second) = (AccountId::new(), AccountId::new());
        sessions.settle(s, first, 3, 0);
        sessions.settle(s, first, 7, 1);
        assert_eq!(sessions.home(s, 1).map(|home| home.foreign_items), Some(0));
        sessions.settle(s, second, 9, 2);
        sessions.settle(s, second, 12, 3);
        assert_eq!(sessions.home(s, 3).map(|home| home.foreign_items), Some(9));
    }

    #[test]
    fn a_detour_that_lasts_becomes_a_move_and_one_that_ends_does_not() {
        let (mut sessions, s) = (sessions(), named("s"));
        let (home, host) = (AccountId::new(), AccountId::new());
        sessions.settle(s, home, 1, 0);
        assert!(!sessions.note_detour(s, host, 5, 1_000));
        let known = sessions.home(s, 1_000).expect("a home");
        assert_eq!((known.account, known.served_by, known.foreign_items), (home, host, 5 + DETOUR));
        sessions.settle(s, home, 0, 2_000);
        assert!(!sessions.note_detour(s, host, 9, 3_000 + AWAY), "the first one was over");
        assert!(sessions.note_detour(s, host, 11, 3_001 + 2 * AWAY));
        let known = sessions.home(s, 4_000 + 2 * AWAY).expect("a home");
        assert_eq!((known.account, known.foreign_items), (host, 11));
    }

    #[test]
    fn a_move_is_told_and_another_processs_is_taken_over_unless_ours_comes_later() {
        let (mut sessions, s) = (sessions(), named("s"));
        let (first, second, third) = (AccountId::new(), AccountId::new(), AccountId::new());
        let home =
            |account, foreign_items| Home { account, last: 1, foreign_items, served_by: account, away_since: None };
        sessions.adopt(s, home(first, 0));
        assert!(sessions.is_empty(), "what is not remembered is looked for when it comes");
        sessions.settle(s, first, 1, 0);
        assert!(!sessions.has_moved(), "nobody knows of another home");
        assert_eq!(sessions.take_unwritten().len(), 1);

        sessions.adopt(s, home(second, 7));
        assert_eq!(sessions.home(s, 1).map(|home| (home.account, home.foreign_items)), Some((second, 7)));
        assert!(!sessions.has_moved(), "whoever said so has told it");
        sessions.stay(s, first, 2);
        assert_eq!(sessions.home(s, 2).map(|home| home.account), Some(second), "an answer from before the move");

        sessions.settle(s, third, 9, 3);
        sessions.adopt(s, home(first, 8));
        assert_eq!(sessions.home(s, 3).map(|home| home.account), Some(third), "ours is still to be told");
        assert!(sessions.take_unwritten().is_empty(), "a move is written as one");
        assert_eq!(sessions.take_moved(), [(s, sessions.home(s, 3).expect("a home"))]);
        sessions.adopt(s, home(first, 8));
        assert_eq!(sessions.home(s, 3).map(|home| home.account), Some(first), "the last word");
    }

    #[test]
    fn those_that_are_awake_are_counted_where_they_live() {
        let mut sessions = sessions();
        let (old, new) = (AccountId::new(), AccountId::new());
        for name in ["a", "b", "c"] {
            sessions.settle(named(name), old, 1, 0);
            sessions.settle(named(name), old, 1, 1);
        }
        assert_eq!(sessions.living_on(old), 3);
        sessions.settle(named("a"), new, 1, AWAKE);
        sessions.sweep(AWAKE + 1);
        assert_eq!((sessions.living_on(old), sessions.living_on(new)), (0, 1));
    }

    #[test]
    fn a_home_is_written_when_it_is_new_and_now_and_then() {
        let mut sessions = sessions();
        let account = AccountId::new();
        sessions.settle(named("a"), account, 1, 0);
        assert_eq!(sessions.take_unwritten().len(), 1);
        sessions.settle(named("a"), account, 1, 1000);
        assert_eq!(sessions.take_unwritten().len(), 0);
        sessions.settle(named("a"), account, 1, REWRITE + 1001);
        assert_eq!(sessions.take_unwritten().len(), 1);
    }

    #[test]
    fn a_session_can_be_written_and_read() {
        let session = named("x");
        assert_eq!(Session::parse(&session.to_text()), Some(session));
        assert_eq!(Session::parse("zz"), None);
    }
}
