//! What tokens would cost: a dated price table, a data file that operators may replace. Pure.

use crate::store::{UnixMillis, Used};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use time::macros::format_description;
use time::{Date, Time};

/// The table that comes with the program.
const OWN: &str = include_str!("prices.json");

/// Millionths of the currency in one.
const MICRO: f64 = 1e6;

/// What is wrong with a price table.
#[derive(Debug, thiserror::Error)]
pub enum PriceFault {
    /// It is not of the form that it should be.
    #[error("the price table is not legible: {0}")]
    Illegible(#[from] serde_json::Error),
    /// A price that is none.
    #[error("the price of {model} from {from} is not a number of at least 0")]
    Negative {
        /// The model's pattern.
        model: String,
        /// The date.
        from: String,
    },
    /// A date that is none.
    #[error("the price of {model} is from {from:?}, which is no date like 2026-04-01")]
    Date {
        /// The model's pattern.
        model: String,
        /// What stands there.
        from: String,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default = "dollars")]
    currency: String,
    prices: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    #[serde(default)]
    tier: Option<String>,
    from: String,
    input: f64,
    #[serde(default)]
    cached_input: Option<f64>,
    #[serde(default)]
    cache_write: Option<f64>,
    output: f64,
}

fn dollars() -> String {
    "USD".to_owned()
}

/// What one million tokens cost, millionths of the currency: what one token costs in a millionth of
/// a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Price {
    input: u64,
    cached: u64,
    cache_write: u64,
    output: u64,
}

#[derive(Debug, Clone)]
struct Row {
    model: String,
    tier: Option<String>,
    from: UnixMillis,
    price: Price,
}

/// A model and a tier.
type Priced = (String, Option<String>);

/// Models and tiers whose price was looked up, at most.
const REMEMBERED: usize = 1000;

/// The price table.
#[derive(Debug)]
pub struct Prices {
    currency: String,
    /// The best fit first: longer patterns before shorter, a tier before none, later before earlier.
    rows: Vec<Row>,
    /// Rows that fit a model and a tier, whatever the date: looking them up is a walk over the table.
    found: Mutex<HashMap<Priced, Vec<usize>>>,
}

impl Prices {
    /// Reads a table.
    pub fn read(text: &str) -> Result<Self, PriceFault> {
        let file: File = serde_json::from_str(text)?;
        let mut rows = file.prices.into_iter().map(Entry::into_row).collect::<Result<Vec<_>, _>>()?;
        rows.sort_by_key(|row| {
            let is_pattern = row.model.ends_with('*');
            (is_pattern, std::cmp::Reverse((row.model.len(), row.tier.is_some(), row.from)))
        });
        Ok(Self { currency: file.currency, rows, found: Mutex::default() })
    }

    /// The table that comes with the program.
    pub fn own() -> Result<Self, PriceFault> {
        Self::read(OWN)
    }

    /// What the prices are in: `USD`.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// What this would cost, millionths of the currency, rounded; `None` for a model without a price.
    pub fn cost(&self, model: &str, tier: Option<&str>, used: &Used, at: UnixMillis) -> Option<u64> {
        let price = self.price(model, tier, at)?;
        let plain = used.input.saturating_sub(used.cached).saturating_sub(used.cache_write);
        let parts = [
            (plain, price.input),
            (used.cached, price.cached),
            (used.cache_write, price.cache_write),
            (used.output, price.output),
        ];
        let sum: u128 = parts.into_iter().map(|(tokens, price)| u128::from(tokens) * u128::from(price)).sum();
        u64::try_from((sum + 500_000) / 1_000_000).ok()
    }

    /// A tier without a price of its own costs what the standard one does.
    fn price(&self, model: &str, tier: Option<&str>, at: UnixMillis) -> Option<Price> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = (model.to_owned(), tier.map(str::to_owned));
        if found.len() >= REMEMBERED && !found.contains_key(&asked) {
            found.clear();
        }
        let fits = found.entry(asked).or_insert_with(|| {
            let fits = |row: &Row| {
                let is_named = row.model.strip_suffix('*').map_or(row.model == model, |stem| model.starts_with(stem));
                is_named && (row.tier.is_none() || row.tier.as_deref() == tier)
            };
            self.rows.iter().enumerate().filter(|(_, row)| fits(row)).map(|(number, _)| number).collect()
        });
        fits.iter().map(|number| &self.rows[*number]).find(|row| row.from <= at).map(|row| row.price)
    }
}

impl Entry {
    fn into_row(self) -> Result<Row, PriceFault> {
        let date = Date::parse(&self.from, format_description!("[year]-[month]-[day]"));
        let date = date.map_err(|_| PriceFault::Date { model: self.model.clone(), from: self.from.clone() })?;
        let micro = |price: f64| micro(price, &self);
        Ok(Row {
            price: Price {
                input: micro(self.input)?,
                cached: micro(self.cached_input.unwrap_or(self.input))?,
                cache_write: micro(self.cache_write.unwrap_or(self.input))?,
                output: micro(self.output)?,
            },
            from: date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() * 1000,
            tier: self.tier,
            model: self.model,
        })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the line before")]
fn micro(price: f64, entry: &Entry) -> Result<u64, PriceFault> {
    let micro = (price * MICRO).round();
    if !(0.0..1e15).contains(&micro) {
        return Err(PriceFault::Negative { model: entry.model.clone(), from: entry.from.clone() });
    }
    Ok(micro as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn table(prices: &str) -> Result<Prices, PriceFault> {
        Prices::read(&format!("{{\"prices\":[{prices}]}}"))
    }

    fn at(moment: time::OffsetDateTime) -> UnixMillis {
        moment.unix_timestamp() * 1000
    }

    #[test]
    fn the_best_fit_wins_and_each_kind_of_token_has_its_price() {
        let prices = table(
            r#"{"model":"*","from":"2025-01-01","input":9,"output":9},
               {"model":"gpt-5*","from":"2025-01-01","input":1,"cached_input":0.1,"cache_write":1.25,"output":10},
               {"model":"gpt-5*","from":"2026-01-01","input":2,"output":20},
               {"model":"gpt-5*","tier":"priority","from":"2025-01-01","input":4,"output":40},
               {"model":"gpt-5.5","from":"2026-06-01","input":5,"output":30}"#,
        )
        .unwrap();
        let used = Used { input: 1_000_000, cached: 400_000, cache_write: 100_000, output: 50_000, reasoning: 10_000 };
        let cost = |model, tier, moment| prices.cost(model, tier, &used, at(moment));
        let (old, new) = (datetime!(2025-06-01 0:00 UTC), datetime!(2026-06-01 0:00 UTC));
        assert_eq!(cost("gpt-5.1", None, old), Some(500_000 + 40_000 + 125_000 + 500_000));
        assert_eq!(cost("gpt-5.1", None, new), Some(2_000_000 + 1_000_000));
        assert_eq!(cost("gpt-5.1", Some("priority"), old), Some(4_000_000 + 2_000_000));
        assert_eq!(cost("gpt-5.1", Some("flex"), new), Some(3_000_000), "the standard price");
        assert_eq!(cost("gpt-5.5", None, new), Some(5_000_000 + 1_500_000));
        assert_eq!(cost("gpt-5.5", None, old), cost("gpt-5.1", None, old), "not yet dearer");
        assert_eq!(cost("o9", None, old), Some(9_450_000));
        assert_eq!(cost("o9", None, datetime!(2024-12-31 23:59 UTC)), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (entry, words) in [
            (r#"{"model":"m","from":"soon","input":1,"output":1}"#, "no date"),
            (r#"{"model":"m","from":"2026-01-01","input":-1,"output":1}"#, "at least 0"),
            (r#"{"model":"m","from":"2026-01-01","inptu":1,"output":1}"#, "inptu"),
        ] {
            let fault = table(entry).unwrap_err().to_string();
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn the_table_that_comes_along_is_legible_and_knows_every_model() {
        let prices = Prices::own().unwrap();
        assert_eq!(prices.currency(), "USD");
        let used = Used { input: 1_000_000, output: 1_000_000, ..Used::default() };
        let now = at(datetime!(2026-11-24 0:00 UTC));
        assert_eq!(prices.cost("gpt-5.5", None, &used, now), Some(35_000_000));
        assert_eq!(prices.cost("gpt-5.5", Some("priority"), &used, now), Some(87_500_000));
        assert!(prices.cost("never-heard-of", None, &used, now).is_some());
    }
}
