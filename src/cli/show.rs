//! How commands print: aligned tables, times that people read, and a reader who may be gone.

use crate::store::UnixMillis;
use std::fmt::Write;
use std::io::{self, ErrorKind, Write as _};
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::format_description;

/// Prints to standard output. `println!` would panic when the reader has gone away, as `head` does;
/// that is no fault of the command's, and no reason to leave half of its work undone.
pub(super) fn print(text: &str) -> io::Result<()> {
    match hand_over(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Prints to standard output what must arrive.
pub(super) fn hand_over(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line to standard output.
macro_rules! say {
    ($($line:tt)*) => { $crate::cli::show::print(&(format!($($line)*) + "\n")) };
}
pub(super) use say;

/// Columns as wide as their widest cell; the last one is not padded.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `2026-11-23 16:40 (in 3h 5m)`.
pub(super) fn moment(at: UnixMillis, now: UnixMillis) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let absolute = OffsetDateTime::from_unix_timestamp(at / 1000).ok().and_then(|t| t.format(format).ok());
    format!("{} ({})", absolute.unwrap_or_else(|| at.to_string()), distance(at, now))
}

/// `in 3h 5m`, `2d 4h ago`.
pub(super) fn distance(at: UnixMillis, now: UnixMillis) -> String {
    let length = span(Duration::from_millis(at.abs_diff(now)));
    if at >= now { format!("in {length}") } else { format!("{length} ago") }
}

/// The two largest units.
pub(super) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m {}s", seconds % 60),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(["N", "V"], rows), "N     V\na     1\nlong  2\n");
    }

    #[test]
    fn times_are_told_both_ways() {
        assert_eq!(moment(0, 3_600_000), "1970-01-01 00:00 UTC (1h 0m ago)");
        assert_eq!(distance(90_000, 0), "in 1m 30s");
        assert_eq!(span(Duration::from_secs(200_000)), "2d 7h");
    }
}
