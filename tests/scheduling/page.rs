//! The table in docs/scheduling.md.

use crate::gateway::Policy;
use crate::week::Report;
use std::fmt::Write as _;
use std::path::Path;
use tollway::store::Strategy;

const BEGIN: &str = "<!-- the table: written by the simulation -->\n";
const END: &str = "<!-- the end of the table -->\n";

/// Fails if the page has another table; writes it with `UPDATE_GOLDEN`.
pub(crate) fn check(rows: &[Report]) {
    check_part("docs/scheduling.md", BEGIN, END, &table(rows));
}

/// The same for what stands between two marks on any page.
pub(crate) fn check_part(page: &str, begin: &str, end: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).expect("the page");
    let (head, rest) = text.split_once(begin).expect("the table's begin");
    let (_, tail) = rest.split_once(end).expect("the table's end");
    let wanted = format!("{head}{begin}{wanted}{end}{tail}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, wanted).expect("the page can be written");
        return;
    }
    assert!(text == wanted, "{page} has an old table; UPDATE_GOLDEN=1 writes it. It should be:\n{wanted}");
}

fn table(rows: &[Report]) -> String {
    let mut out = String::from(
        "| load | strategy | served, of the most that could be | refused | of these avoidable | turns in a warm cache | moves a session |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(
            out,
            "| {:.0} % | {} | {:.1} % | {:.2} % | {} | {:.1} % | {:.2} |",
            row.load * 100.0,
            name(row.policy),
            row.served_share() * 100.0,
            row.refused as f64 / row.turns as f64 * 100.0,
            row.avoidable,
            row.warm_share() * 100.0,
            row.moves as f64 / row.sessions as f64,
        );
    }
    out
}

fn name(policy: Policy) -> String {
    match policy {
        Policy { strategy: Strategy::Quota, .. } => "**`quota`** (the default)".to_owned(),
        Policy { strategy, stays: true } => format!("`{}`", strategy.as_str()),
        Policy { strategy, stays: false } => format!("`{}`, conversations not kept together", strategy.as_str()),
    }
}
