//! The runs as a page.

use std::fmt::Write as _;

use anyhow::Result;

use crate::beside::{Beside, Grown};
use crate::client::Dialect;
use crate::contender::BARE;
use crate::full::Ledger;
use crate::held::Held;
use crate::replicas::Shared;
use crate::soak::Soaked;
use crate::{Measured, Run, Runs, Scenario};

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Ratios to nginx are taken round by round, and their median is shown.
fn ratio(runs: &[Run], nginx: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut ratios: Vec<f64> = runs.iter().zip(nginx).map(|(run, nginx)| of(run) / of(nginx)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of milliseconds")]
fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

pub(crate) fn write(measured: &Measured) -> Result<String> {
    let mut page = String::new();
    write_runs(&mut page, &measured.runs)?;
    write_secure(&mut page, &measured.secure)?;
    write_held(&mut page, &measured.held)?;
    write_beside(&mut page, &measured.beside, &measured.grown)?;
    write_ledgers(&mut page, &measured.ledgers)?;
    if let Some(soaked) = &measured.soaked {
        write_soaked(&mut page, soaked)?;
    }
    write_shared(&mut page, &measured.shared)?;
    if !measured.failed.is_empty() {
        writeln!(page, "\n### What failed\n")?;
        for (name, why) in &measured.failed {
            // An error may carry an answer, which has lines of its own.
            let why: String = why.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect();
            writeln!(page, "- {name}: {why}")?;
        }
    }
    writeln!(
        page,
        "\nFrom its start to readiness on an existing database the gateway took {} ms.",
        measured.ready_after.as_millis()
    )?;
    Ok(page)
}

fn write_runs(page: &mut String, runs: &Runs) -> std::fmt::Result {
    for scenario in Scenario::ALL {
        let Some(nginx) = runs.get(&(scenario, "nginx")) else { continue };
        writeln!(page, "\n### {}: {}\n", scenario.name(), scenario.words())?;
        writeln!(
            page,
            "| in front of the backend | CPU a request, µs | to nginx | µs a delta | first delta p50 / p99, ms | after the head, ms | transit p50 / p99, ms |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|")?;
        for who in ["nginx", BARE].into_iter().chain(Dialect::ALL.map(Dialect::name)) {
            let Some(own) = runs.get(&(scenario, who)) else { continue };
            let of = |pick: fn(&Run) -> u64| median(own, |run| ms(pick(run)));
            writeln!(
                page,
                "| {who} | {:.0} | {:.2} | {:.2} | {:.2} / {:.2} | {:.2} | {:.3} / {:.2} |",
                median(own, |run| run.cpu) / 1e3,
                ratio(own, nginx, |run| run.cpu),
                median(own, |run| run.cpu_delta) / 1e3,
                of(|run| run.first.0),
                of(|run| run.first.1),
                of(|run| run.after_head),
                of(|run| run.transit.0),
                of(|run| run.transit.1),
            )?;
        }
    }
    Ok(())
}

fn write_secure(page: &mut String, runs: &[(Scenario, Dialect, Run)]) -> std::fmt::Result {
    if !runs.is_empty() {
        writeln!(page, "\n### HTTP/2 and TLS to the backend, as in production\n")?;
        writeln!(
            page,
            "| | API | CPU a request, µs | µs a delta | first delta p50 / p99, ms | transit p50 / p99, ms |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|")?;
    }
    for scenario in Scenario::ALL {
        for dialect in Dialect::ALL {
            let of_these = runs.iter().filter(|(of, by, _)| *of == scenario && *by == dialect);
            let own: Vec<Run> = of_these.map(|(_, _, run)| run.clone()).collect();
            if own.is_empty() {
                continue;
            }
            let of = |pick: fn(&Run) -> u64| median(&own, |run| ms(pick(run)));
            writeln!(
                page,
                "| {} | {} | {:.0} | {:.2} | {:.2} / {:.2} | {:.3} / {:.2} |",
                scenario.words(),
                dialect.name(),
                median(&own, |run| run.cpu) / 1e3,
                median(&own, |run| run.cpu_delta) / 1e3,
                of(|run| run.first.0),
                of(|run| run.first.1),
                of(|run| run.transit.0),
                of(|run| run.transit.1),
            )?;
        }
    }
    Ok(())
}

fn write_held(page: &mut String, held: &[Held]) -> std::fmt::Result {
    if !held.is_empty() {
        writeln!(page, "\n### Streams that are held\n")?;
        writeln!(
            page,
            "| who | streams | before its first request, MiB | idle after 16, MiB | each, KiB |\n|---|---|---|---|---|"
        )?;
        #[expect(clippy::cast_precision_loss, reason = "KiB")]
        let mib = |kib: u64| kib as f64 / 1024.0;
        for Held { who, streams, fresh_kib, idle_kib, each_kib } in held {
            let (fresh, idle) = (mib(*fresh_kib), mib(*idle_kib));
            writeln!(page, "| {who} | {streams} | {fresh:.1} | {idle:.1} | {each_kib:.1} |")?;
        }
    }
    Ok(())
}

fn write_shared(page: &mut String, shared: &[Shared]) -> std::fmt::Result {
    if !shared.is_empty() {
        writeln!(page, "\n### Replicas over one Postgres, all on one core\n")?;
        writeln!(page, "| replicas | API | requests a second | CPU a request, µs | statements a request |")?;
        writeln!(page, "|---|---|---|---|---|")?;
        for Shared { replicas, dialect, rate, cpu, statements } in shared {
            writeln!(page, "| {replicas} | {dialect} | {rate:.0} | {:.0} | {statements:.3} |", cpu / 1e3)?;
        }
    }
    Ok(())
}

fn write_ledgers(page: &mut String, ledgers: &[Ledger]) -> std::fmt::Result {
    if !ledgers.is_empty() {
        writeln!(page, "\n### In front of a ledger: 2 deltas, 32 clients, Codex paths\n")?;
        writeln!(page, "| rows in SQLite | CPU a request, µs | ready after, ms |\n|---|---|---|")?;
        for Ledger { rows, ready_after, runs } in ledgers {
            let cpu = median(runs, |run| run.cpu) / 1e3;
            writeln!(page, "| {rows} | {cpu:.0} | {} |", ready_after.as_millis())?;
        }
    }
    Ok(())
}

fn write_soaked(page: &mut String, soaked: &Soaked) -> std::fmt::Result {
    let Soaked { minutes, requests, left, failed, early_after, .. } = soaked;
    writeln!(page, "\n### A soak of {minutes} minutes, HTTP/2 to the backend\n")?;
    writeln!(
        page,
        "| requests | clients that left in the middle | failed | MiB after {early_after} s | at the half | at the end | at most |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    #[expect(clippy::cast_precision_loss, reason = "KiB")]
    let mib = |kib: u64| kib as f64 / 1024.0;
    let [early, half, end, largest] = [soaked.early, soaked.half, soaked.end, soaked.largest].map(mib);
    writeln!(page, "| {requests} | {left} | {failed} | {early:.1} | {half:.1} | {end:.1} | {largest:.1} |")
}

fn write_beside(page: &mut String, beside: &[Beside], grown: &[Grown]) -> std::fmt::Result {
    if !beside.is_empty() {
        writeln!(page, "\n### Beside trouble: a delta's transit in four paced streams, p99 / longest, ms\n")?;
        writeln!(page, "| beside | alone | then | p99 grown by | |\n|---|---|---|---|---|")?;
        for Beside { what, alone, then, note } in beside {
            let told = |(most, longest): (u64, u64)| format!("{:.2} / {:.2}", ms(most), ms(longest));
            let by = ms(then.0) - ms(alone.0);
            writeln!(page, "| {what} | {} | {} | {by:.2} | {note} |", told(*alone), told(*then))?;
        }
    }
    if !grown.is_empty() {
        writeln!(page, "\n### Among more: 2 deltas, 32 clients, Codex paths\n")?;
        writeln!(page, "| accounts | keys | CPU a request, µs |\n|---|---|---|")?;
        for Grown { accounts, keys, cpu } in grown {
            writeln!(page, "| {accounts} | {keys} | {:.0} |", cpu / 1e3)?;
        }
    }
    Ok(())
}

/// What is written by hand begins here.
const NOTES: &str = "\n## Notes\n";

/// With where it comes from, and with what people have written below the page that was there before.
pub(crate) fn page(report: &str, before: &str) -> Result<String> {
    let notes = before.find(NOTES).map_or("", |at| &before[at..]);
    let output = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    Ok(format!(
        "# Performance\n\nWritten by `cargo bench --bench speed -- --write` on {}, commit {}, {model}, one core for the \
         program that is measured and one for the kit. nginx copies bytes; the bare program reads \
         each event between the same libraries that the gateway stands on, and does nothing else; Tollway checks the key, holds limits, \
         chooses the account, translates, counts, and writes the ledger, as it does by default.\n{report}{notes}",
        output("date", &["-u", "+%Y-%m-%d"]),
        output("git", &["rev-parse", "--short", "HEAD"]),
    ))
}
