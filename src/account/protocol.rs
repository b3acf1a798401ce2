//! The protocol by which one of many processes spends a refresh token: a pure state machine.
//!
//! `refresh.rs` does what it says, over the real store and issuer; `protocol_model.rs` does the same
//! in a simulated world and tries every order of steps, crashes and pauses. The reasons are in
//! docs/scaling.md, "Refresh across replicas". In short:
//!
//! - Nothing is sent without the account's lease *and* a durable note of the generation that is being
//!   spent, written under the lease's current fencing number. Whoever comes next sees the note.
//! - A token is sent in the first half of the lease only, checked when its bytes leave. A process that
//!   was paused in between wakes up too late to send.
//! - A note without an outcome is a doubt: the token may have been used. A sender that has itself seen
//!   no answer says so, and the token is tried again. One that has died or stands still says nothing:
//!   its token is never sent again. When it has had time to come back, and the old access token serves
//!   no more, the account needs a login. The setting `accounts.resend_after_crash` makes one careful
//!   try instead.
//! - New credentials are stored over the generation that they came from, whatever the fencing number:
//!   a refresh token works once, so the one answer that there is to a generation is never older than
//!   what is stored over it. A late answer is kept if nobody has got further.
//! - Only the holder of the lease may say that an account needs a login. An answer that is stored later
//!   all the same disproves it.

use std::time::Duration;

use crate::store::Trace;

/// The times by which processes stay out of each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    /// How long a lease lasts from the note on; longer than an exchange may take.
    pub(super) lease: Duration,
    /// How long after the note the sender of a token may still come back with its answer.
    pub(super) doubt: Duration,
    /// A token whose sender did not come back is tried once more, at the risk of a reuse.
    pub(super) resend: bool,
}

impl Rules {
    /// The rules for an issuer whose exchanges take at most `exchange`. A doubt is never over while a
    /// token that left at the last moment may still be on its way.
    pub(super) fn new(exchange: Duration, doubt: Duration, resend: bool) -> Self {
        let slack = (exchange / 2).clamp(Duration::from_secs(1), Duration::from_secs(5));
        let lease = exchange + slack;
        Self { lease, doubt: doubt.max(lease / 2 + exchange), resend }
    }

    /// Until how long after the note a token may leave: half of the lease, so that clocks may differ in
    /// their pace and jump a little without two processes sending at once.
    pub(super) fn departure(&self) -> Duration {
        self.lease / 2
    }
}

/// An exchange that somebody has noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Note {
    pub(super) generation: i64,
    pub(super) fence: i64,
    pub(super) age: Duration,
    /// Its sender has said that it has seen no answer, and sees none any more.
    pub(super) lost: bool,
}

/// How urgently new credentials are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Urgency {
    /// The old access token serves for a while.
    Ahead,
    /// It soon will not, or an operator asks.
    Pressing,
    /// It does not serve any more.
    Ended,
}

/// What the store shows at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// The generation that is stored.
    pub(super) generation: i64,
    /// It is newer than the one this turn began with and can be used: there is nothing left to do.
    pub(super) usable: bool,
    pub(super) urgency: Urgency,
    /// Somebody has the lease.
    pub(super) taken: bool,
    pub(super) note: Option<Note>,
}

/// What the issuer did with the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sent {
    /// It gave new ones.
    Answered,
    /// It refuses it for good.
    Refused,
    /// Certainly nothing.
    Untouched,
    /// Nobody knows.
    Unknown,
    /// It was too late to send.
    TooLate,
}

/// What the store did with new credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kept {
    Stored,
    /// Those that they came from are not the stored ones any more.
    Overtaken,
}

/// What happened to what the machine has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Event {
    Seen(Seen),
    Waited,
    /// The fencing number, if the lease was free.
    Taken(Option<i64>),
    Noted(bool),
    Sent(Sent),
    Kept(Kept),
    Condemned(bool),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// Read the store: [`Event::Seen`].
    Look,
    /// Let others work, for this long at most: [`Event::Waited`]. No lease is held meanwhile.
    Wait(Waiting),
    /// Let a commit that is under way arrive: [`Event::Waited`]. The lease is held.
    SecondLook,
    /// Try to take the lease: [`Event::Taken`].
    Take,
    /// Note durably, under this number of the lease, that this generation is being spent:
    /// [`Event::Noted`].
    Note { fence: i64, generation: i64 },
    /// Send the refresh token of this generation, if it is not too late: [`Event::Sent`].
    Send { generation: i64 },
    /// Store what the issuer gave over this generation: [`Event::Kept`].
    Keep { generation: i64 },
    /// Say that this generation needs a login, if this number of the lease is the current one:
    /// [`Event::Condemned`].
    Condemn { fence: i64, generation: i64, cause: Cause },
    /// Release the lease and go on with [`Event::Waited`], after waiting for others.
    Yield { fence: i64, trace: Trace, waiting: Waiting },
    /// It is over; the lease, if there is one, is to be released.
    End { ending: Ending, release: Option<(i64, Trace)> },
}

/// Why an account needs a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// The issuer has refused the token. `doubtful`: somebody of us may have used it before.
    Refused { doubtful: bool },
    /// Whoever sent the token, or was about to, did not come back.
    Interrupted,
}

/// What is known of an earlier exchange of the generation that is to be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Past {
    /// There was none.
    Clean,
    /// Its sender has seen no answer.
    Lost,
    /// Its sender did not come back.
    Open,
}

/// For what a process waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Waiting {
    /// For another process's exchange.
    Turn,
    /// For the end of a doubt.
    Doubt(Duration),
}

/// How a turn ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    /// New credentials are stored.
    Renewed,
    /// Others have stored newer ones.
    Adopted,
    /// The issuer could not be asked, or did not answer.
    Failed,
    /// Somebody else may have spent the token, and the old access token still serves.
    InDoubt(Duration),
    /// The account needs a login.
    Condemned,
}

/// Where a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Looking,
    Taking,
    /// The lease is there, and the store is read again: another may have been faster.
    Checking,
    Noting,
    Sending,
    Keeping,
    /// The issuer has refused; so many looks show whether another process was faster.
    Refused {
        looks: u8,
    },
    Condemning,
    Waiting,
    Over,
}

/// One process's turn, from the wish for new credentials to their being there, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Turn {
    rules: Rules,
    place: Place,
    /// The generation to be spent.
    generation: i64,
    /// The number of the lease that is held, as far as is known.
    fence: Option<i64>,
    /// Whether somebody may have spent this generation before.
    past: Past,
    /// The issuer has refused this generation to us.
    refused: Option<i64>,
}

impl Turn {
    /// A turn that begins with credentials of this generation; the first action is [`Action::Look`].
    pub(super) fn new(rules: Rules, generation: i64) -> (Self, Action) {
        let turn = Self { rules, place: Place::Looking, generation, fence: None, past: Past::Clean, refused: None };
        (turn, Action::Look)
    }

    /// The next action.
    pub(super) fn next(&mut self, event: Event) -> Action {
        match (self.place, event) {
            (Place::Looking, Event::Seen(seen)) => self.looked(&seen),
            (Place::Taking, Event::Taken(fence)) => self.taken(fence),
            (Place::Checking, Event::Seen(seen)) => self.checked(&seen),
            (Place::Noting, Event::Noted(noted)) => self.noted(noted),
            (Place::Sending, Event::Sent(sent)) => self.sent(sent),
            (Place::Keeping, Event::Kept(kept)) => self.kept(kept),
            (Place::Refused { looks }, Event::Seen(seen)) => self.refused(looks, &seen),
            (Place::Refused { .. } | Place::Waiting, Event::Waited) => self.look(),
            (Place::Condemning, Event::Condemned(condemned)) => self.condemned(condemned),
            // Not an answer to what was asked: a fault of the driver, which must cost no token.
            _ => self.end(Ending::Failed, Trace::Stays),
        }
    }

    fn look(&mut self) -> Action {
        if !matches!(self.place, Place::Refused { .. }) {
            self.place = Place::Looking;
        }
        Action::Look
    }

    fn looked(&mut self, seen: &Seen) -> Action {
        if seen.usable {
            return self.end(Ending::Adopted, Trace::Stays);
        }
        if seen.taken {
            return self.wait(Waiting::Turn);
        }
        match self.doubt(seen) {
            Some(left) if seen.urgency != Urgency::Ahead => self.wait(Waiting::Doubt(left)),
            Some(left) => self.end(Ending::InDoubt(left), Trace::Stays),
            None => {
                self.place = Place::Taking;
                Action::Take
            }
        }
    }

    fn taken(&mut self, fence: Option<i64>) -> Action {
        self.fence = fence;
        if fence.is_none() {
            return self.wait(Waiting::Turn);
        }
        self.place = Place::Checking;
        Action::Look
    }

    fn checked(&mut self, seen: &Seen) -> Action {
        if seen.usable {
            return self.end(Ending::Adopted, Trace::Stays);
        }
        let Some(fence) = self.fence else { return self.wait(Waiting::Turn) };
        self.generation = seen.generation;
        if let Some(left) = self.doubt(seen) {
            if seen.urgency != Urgency::Ahead {
                return self.give_way(Trace::Stays, Waiting::Doubt(left));
            }
            return self.end(Ending::InDoubt(left), Trace::Stays);
        }
        self.past = match seen.note.filter(|note| note.generation == seen.generation) {
            None => Past::Clean,
            Some(note) if note.lost => Past::Lost,
            Some(_) => Past::Open,
        };
        if self.refused == Some(seen.generation) {
            return self.condemn(fence, Cause::Refused { doubtful: self.past != Past::Clean });
        }
        if self.past == Past::Open && !self.rules.resend {
            return self.interrupted(fence, seen);
        }
        self.place = Place::Noting;
        Action::Note { fence, generation: self.generation }
    }

    /// A note is left of somebody who does not come back: its token must not leave a second time.
    fn interrupted(&mut self, fence: i64, seen: &Seen) -> Action {
        if seen.urgency == Urgency::Ended {
            return self.condemn(fence, Cause::Interrupted);
        }
        self.end(Ending::InDoubt(self.rules.lease), Trace::Stays)
    }

    fn noted(&mut self, noted: bool) -> Action {
        if !noted {
            // Too slow: somebody else has taken the lease, or stored credentials.
            return self.give_way(Trace::Stays, Waiting::Turn);
        }
        self.place = Place::Sending;
        Action::Send { generation: self.generation }
    }

    fn sent(&mut self, sent: Sent) -> Action {
        match sent {
            Sent::Answered => {
                self.place = Place::Keeping;
                Action::Keep { generation: self.generation }
            }
            Sent::Refused => {
                self.refused = Some(self.generation);
                self.place = Place::Refused { looks: 0 };
                Action::Look
            }
            Sent::Untouched => self.end(Ending::Failed, self.unsent()),
            Sent::Unknown => self.end(Ending::Failed, Trace::Lost),
            Sent::TooLate => self.give_way(self.unsent(), Waiting::Turn),
        }
    }

    /// What becomes of the note of a token that was not sent: an older doubt must not go with it.
    fn unsent(&self) -> Trace {
        match self.past {
            Past::Clean => Trace::Goes,
            Past::Lost => Trace::Lost,
            Past::Open => Trace::Stays,
        }
    }

    fn kept(&mut self, kept: Kept) -> Action {
        match kept {
            Kept::Stored => self.end(Ending::Renewed, Trace::Stays),
            Kept::Overtaken => self.end(Ending::Adopted, Trace::Stays),
        }
    }

    fn refused(&mut self, looks: u8, seen: &Seen) -> Action {
        if seen.usable {
            return self.end(Ending::Adopted, Trace::Stays);
        }
        if seen.generation != self.generation {
            return self.give_way(Trace::Stays, Waiting::Turn);
        }
        match self.fence {
            Some(fence) if looks > 0 => self.condemn(fence, Cause::Refused { doubtful: self.past != Past::Clean }),
            _ => {
                self.place = Place::Refused { looks: looks + 1 };
                Action::SecondLook
            }
        }
    }

    fn condemn(&mut self, fence: i64, cause: Cause) -> Action {
        self.place = Place::Condemning;
        Action::Condemn { fence, generation: self.generation, cause }
    }

    fn condemned(&mut self, condemned: bool) -> Action {
        if condemned {
            return self.end(Ending::Condemned, Trace::Stays);
        }
        self.give_way(Trace::Stays, Waiting::Turn)
    }

    /// How long the generation must be left alone, because somebody may have spent it.
    fn doubt(&self, seen: &Seen) -> Option<Duration> {
        let others = |note: &Note| note.generation == seen.generation && Some(note.fence) != self.fence;
        let note = seen.note.filter(others)?;
        let left = self.rules.doubt.saturating_sub(note.age);
        match (note.lost, seen.urgency != Urgency::Ahead) {
            (true, true) => None,
            (true, false) | (false, true) => Some(left).filter(|left| !left.is_zero()),
            // While the old access token serves, waiting costs nothing; the sender may yet come back.
            (false, false) => Some(left.max(self.rules.lease)),
        }
    }

    /// Gives up from outside, where the store cannot be used or forbids the rest. What there is to
    /// release.
    pub(super) fn abandon(&mut self) -> Option<(i64, Trace)> {
        let trace = if self.place == Place::Noting { self.unsent() } else { Trace::Stays };
        self.place = Place::Over;
        self.fence.take().map(|fence| (fence, trace))
    }

    fn wait(&mut self, waiting: Waiting) -> Action {
        self.place = Place::Waiting;
        Action::Wait(waiting)
    }

    fn give_way(&mut self, trace: Trace, waiting: Waiting) -> Action {
        self.place = Place::Waiting;
        match self.fence.take() {
            Some(fence) => Action::Yield { fence, trace, waiting },
            None => Action::Wait(waiting),
        }
    }

    fn end(&mut self, ending: Ending, trace: Trace) -> Action {
        self.place = Place::Over;
        Action::End { ending, release: self.fence.take().map(|fence| (fence, trace)) }
    }
}

#[cfg(test)]
#[path = "protocol_model.rs"]
mod model;
