//! Every report there is, over every kind of range, with and without each filter, and what is done
//! beside them: appending and forgetting.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tollway::store::{AttemptRow, Dimension, Holder, Store, UsageFilter, UsageRow, Used};

use crate::MASTER_KEY;
use crate::fill::{DAY, END, FIRST, HOUR, Kind, id, model};

/// What is measured together: one line of the table.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) times: Vec<Duration>,
    /// What took longest.
    pub(crate) slowest: String,
}

/// The table: whether a line is a report, its name, and its times.
pub(crate) type Table = BTreeMap<(u8, String), Line>;

/// How often each is done.
const RUNS: usize = 3;
/// A page of the admin API is at most this long, and one more tells whether there are others.
const PAGE: u32 = 501;

const RANGES: [(&str, i64, i64); 7] = [
    ("1 d", END - DAY, END),
    ("7 d", END - 7 * DAY, END),
    ("30 d", END - 30 * DAY, END),
    ("90 d", FIRST, END),
    ("7 h, over midnight", END - DAY - 3 * HOUR, END - DAY + 4 * HOUR),
    ("29 d 14 h", END - 30 * DAY + 5 * HOUR, END - 5 * HOUR),
    ("89 d 7 h", FIRST + 5 * HOUR, END - 12 * HOUR),
];

fn filters() -> Vec<(&'static str, UsageFilter)> {
    let none = UsageFilter::default;
    let team = |number| Some(id(Kind::Team, number));
    let user = |number| Some(id(Kind::User, number));
    let key = |number| Some(id(Kind::Key, number));
    let account = |number| Some(id(Kind::Account, number));
    vec![
        ("everything", none()),
        ("a team", UsageFilter { team_id: team(1), ..none() }),
        ("a user", UsageFilter { user_id: user(1), ..none() }),
        ("a busy key", UsageFilter { key_id: key(0), ..none() }),
        ("an account", UsageFilter { account_id: account(3), ..none() }),
        ("a model", UsageFilter { model: Some(model(6)), ..none() }),
        ("a rare team", UsageFilter { team_id: team(11), ..none() }),
        ("a rare user", UsageFilter { user_id: user(59), ..none() }),
        ("a rare key", UsageFilter { key_id: key(199), ..none() }),
        ("a rare account", UsageFilter { account_id: account(19), ..none() }),
        ("a rare model", UsageFilter { model: Some(model(7)), ..none() }),
        ("a key that is not there", UsageFilter { key_id: Some("none".to_owned()), ..none() }),
        ("a team and a rare model", UsageFilter { team_id: team(1), model: Some(model(7)), ..none() }),
        ("a user and an account", UsageFilter { user_id: user(1), account_id: account(3), ..none() }),
        ("a team and a rare account", UsageFilter { team_id: team(2), account_id: account(19), ..none() }),
    ]
}

/// Where what is measured goes.
pub(crate) struct Bench<'a> {
    pub(crate) store: &'a Store,
    pub(crate) table: Table,
}

impl Bench<'_> {
    fn note(&mut self, kind: u8, name: String, what: &str, time: Duration) {
        let line = self.table.entry((kind, name)).or_default();
        if line.times.iter().all(|known| *known < time) {
            what.clone_into(&mut line.slowest);
        }
        line.times.push(time);
    }

    pub(crate) async fn reports(&mut self) -> Result<()> {
        for (number, (range, from, until)) in (0..).zip(RANGES) {
            for by in std::iter::once(None).chain(Dimension::ALL.map(Some)) {
                for (what, filter) in filters() {
                    let filter = UsageFilter { from, until, ..filter };
                    for _ in 0..RUNS {
                        let begun = Instant::now();
                        let sums = self.store.ledger().report(&filter, by).await?;
                        let time = begun.elapsed();
                        ensure!(
                            what.contains("not there") != sums.iter().any(|sum| sum.requests > 0) || range != "90 d"
                        );
                        let by = by.map_or("in all", Dimension::as_str);
                        self.note(number, format!("usage, {range}"), &format!("by {by}, {what}"), time);
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn lists(&mut self) -> Result<()> {
        for (range, from, until) in [("1 d", END - DAY, END), ("90 d", FIRST, END)] {
            for (what, filter) in filters() {
                let filter = UsageFilter { from, until, ..filter };
                let mut before: Option<String> = None;
                // The first page, the ones after it, and one from the middle.
                for page in 0..4 {
                    if page == 3 {
                        let half = UsageFilter { until: i64::midpoint(from, until), ..UsageFilter::default() };
                        let middle = self.store.ledger().requests(&half, None, 1).await?;
                        before = middle.into_iter().next().map(|row| row.id);
                    }
                    let begun = Instant::now();
                    let rows = self.store.ledger().requests(&filter, before.as_deref(), PAGE).await?;
                    self.note(10, format!("requests, {range}"), &format!("{what}, page {page}"), begun.elapsed());
                    if let Some(last) = rows.last() {
                        let begun = Instant::now();
                        self.store.ledger().request(&last.id).await?;
                        self.note(11, "one request".to_owned(), what, begun.elapsed());
                        before = Some(last.id.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// What budgets are read from: of a month, and of all that there is.
    pub(crate) async fn budgets(&mut self) -> Result<()> {
        let holders = [(Holder::Team, Kind::Team), (Holder::User, Kind::User), (Holder::Key, Kind::Key)];
        for (days, since) in [("31 d", END - 31 * DAY), ("90 d", FIRST)] {
            for (holder, kind) in holders {
                for number in [0, 1, 5] {
                    let begun = Instant::now();
                    let hours = self.store.ledger().hours(holder, &id(kind, number), since / HOUR).await?;
                    ensure!(!hours.is_empty());
                    let time = begun.elapsed();
                    self.note(12, format!("hours for budgets, {days}"), &format!("{kind:?} {number}"), time);
                }
            }
        }
        Ok(())
    }

    /// A month as a file, by the program itself, from its start to its end.
    pub(crate) fn exports(&mut self, url: &str, directory: &Path) -> Result<()> {
        for by in Dimension::ALL {
            for _ in 0..RUNS {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tollway"));
                command.args(["usage", "--since", "2026-02-01", "--until", "2026-03-01", "--format", "csv", "--by"]);
                command.arg(by.as_str()).current_dir(directory).env_clear();
                command.env("TOLLWAY_DATABASE_URL", url).env("TOLLWAY_MASTER_KEY", MASTER_KEY);
                let begun = Instant::now();
                let output = command.stdin(Stdio::null()).output()?;
                let time = begun.elapsed();
                let lines = String::from_utf8_lossy(&output.stdout).lines().count();
                ensure!(output.status.success() && lines > 1, "{}", String::from_utf8_lossy(&output.stderr));
                self.note(13, "tollway usage --format csv, a month".to_owned(), &format!("by {}", by.as_str()), time);
            }
        }
        Ok(())
    }

    /// Batches as the writer makes them when it is busy, each of a second's requests.
    pub(crate) async fn appends(&mut self, name: &str) -> Result<()> {
        let last = UsageFilter { from: END, until: i64::MAX, ..UsageFilter::default() };
        let last = self.store.ledger().requests(&last, None, 1).await?;
        let first = last.first().map_or(END, |row| row.at + 1);
        for batch in 0..20 {
            let rows: Vec<UsageRow> = (0..1000).map(|number| row(first + batch * 1000 + number)).collect();
            let begun = Instant::now();
            self.store.ledger().append(&rows).await?;
            self.note(20, name.to_owned(), "", begun.elapsed());
        }
        Ok(())
    }

    /// The step that pruning is made of.
    pub(crate) async fn forgets(&mut self) -> Result<()> {
        let filter = UsageFilter { until: i64::MAX, ..UsageFilter::default() };
        let oldest = self.store.ledger().report(&filter, Some(Dimension::Hour)).await?;
        let oldest: i64 = oldest.first().context("no hours")?.group.parse()?;
        for _ in 0..20 {
            let begun = Instant::now();
            let gone = self.store.ledger().forget(FIRST + 3 * DAY, (oldest + 60) * HOUR, 5000).await?;
            self.note(21, "forget 5000 requests and 4 hours".to_owned(), &format!("{gone:?}"), begun.elapsed());
        }
        Ok(())
    }
}

fn row(at: i64) -> UsageRow {
    let pick = |most: i64| u8::try_from(at * 7919 % most).unwrap_or(0);
    let user = pick(58);
    let account_id = id(Kind::Account, pick(19));
    UsageRow {
        id: format!("req_{at:012x}7000{:016x}", at * 2_654_435_761 % 4_294_967_296),
        at,
        team_id: id(Kind::Team, user % 11),
        user_id: id(Kind::User, user),
        key_id: id(Kind::Key, pick(198)),
        account_id: account_id.clone(),
        dialect: "responses".to_owned(),
        endpoint: "/v1/responses".to_owned(),
        model_asked: model(pick(6)),
        model: model(pick(6)),
        status: 200,
        outcome: "ok".to_owned(),
        used: Used { input: 1000, output: 100, ..Used::default() },
        cost: Some(100),
        first_byte_ms: Some(300),
        duration_ms: 3000,
        attempts: vec![AttemptRow { account_id, at, outcome: "ok".to_owned(), ..AttemptRow::default() }],
        ..UsageRow::default()
    }
}
