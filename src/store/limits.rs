//! What a team, a user or a key may use: plain data, kept as JSON. What it means is the tenants'
//! business.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AccountId, PoolId, UnixMillis};

/// Limits of one of the three; all that are set on a key, its user and its team hold.
///
/// A field that an older version does not know is not lost to it silently where people write limits
/// (they are checked against [`Limits::FIELDS`]), but it is where they are read back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Requests within any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Tokens, input and output, within any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Requests that are answered at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// What may be used in longer periods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
    /// The models that may be asked, as they go upstream; a name may end in `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The APIs that may be spoken: `responses`, `chat`, `messages`, `images`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialects: Option<Vec<String>>,
    /// The highest reasoning effort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_effort: Option<Effort>,
    /// Only accounts of these pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<PoolId>>,
    /// Only these accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Vec<AccountId>>,
    /// Only from these networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<IpNet>>,
    /// From then on everything is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
}

impl Limits {
    /// Every field, for those who judge what people write.
    pub const FIELDS: [&str; 11] = [
        "requests_per_minute",
        "tokens_per_minute",
        "concurrent_requests",
        "budgets",
        "models",
        "dialects",
        "max_effort",
        "pools",
        "accounts",
        "networks",
        "expires_at",
    ];
}

/// How much may be used in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// What is counted.
    pub unit: BudgetUnit,
    /// How much of it: tokens, or millionths of the price table's currency.
    pub amount: u64,
    /// In which time.
    pub per: Period,
}

/// `5000000 tokens/day`, `20.50 money/month`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { amount, per, .. } = self;
        match self.unit {
            BudgetUnit::Tokens => write!(f, "{amount} tokens/{per}"),
            BudgetUnit::Cost => {
                // As many digits as it has, and two at least: it is read back as it was.
                let fraction = format!("{:06}", amount % 1_000_000);
                let (cents, rest) = fraction.split_at(2);
                write!(f, "${}.{cents}{}/{per}", amount / 1_000_000, rest.trim_end_matches('0'))
            }
        }
    }
}

/// The text is no budget.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownBudget {
    /// Not of the form.
    #[error("expected an amount and a period: 500000/day or 5M/week (tokens), $20/month (money)")]
    Form,
    /// The part behind the slash.
    #[error(transparent)]
    Period(#[from] UnknownPeriod),
}

/// `5M/day` are tokens; `$20.50/month` is money, in the price table's currency, whichever it is.
impl FromStr for Budget {
    type Err = UnknownBudget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (amount, per) = text.split_once('/').ok_or(UnknownBudget::Form)?;
        let per = per.trim().parse()?;
        let amount = amount.trim();
        let (unit, number, digits) = if let Some(money) = amount.strip_prefix('$') {
            (BudgetUnit::Cost, money, 6)
        } else {
            let tokens = amount.strip_suffix("tokens").unwrap_or(amount).trim();
            let (number, digits) = match tokens.char_indices().next_back() {
                Some((at, 'k' | 'K')) => (&tokens[..at], 3),
                Some((at, 'M')) => (&tokens[..at], 6),
                Some((at, 'G')) => (&tokens[..at], 9),
                _ => (tokens, 0),
            };
            (BudgetUnit::Tokens, number, digits)
        };
        Ok(Self { unit, amount: scaled(number, digits).ok_or(UnknownBudget::Form)?, per })
    }
}

/// A decimal number times ten to the power of `digits`, if that is a whole one.
fn scaled(number: &str, digits: usize) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > digits || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse().ok()
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetUnit {
    /// Input and output tokens.
    Tokens,
    /// Notional money, in millionths.
    Cost,
}

impl BudgetUnit {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cost => "cost",
        }
    }
}

/// The period of a budget. Days, weeks and months are calendar ones in UTC; weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
    /// The last so many hours, counted by the hour.
    Rolling {
        /// From 1 to [`Period::LONGEST`].
        hours: u32,
    },
}

impl Period {
    /// The longest rolling period, hours.
    pub const LONGEST: u32 = 90 * 24;
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day => f.write_str("day"),
            Self::Week => f.write_str("week"),
            Self::Month => f.write_str("month"),
            Self::Rolling { hours } => write!(f, "{hours}h"),
        }
    }
}

/// The text is no period.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected day, week, month, or a rolling period of whole hours or days such as 5h or 30d, of at most 90 days")]
pub struct UnknownPeriod;

impl FromStr for Period {
    type Err = UnknownPeriod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "day" => return Ok(Self::Day),
            "week" => return Ok(Self::Week),
            "month" => return Ok(Self::Month),
            _ => {}
        }
        let (number, factor) = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, 24),
            _ => return Err(UnknownPeriod),
        };
        let hours = number.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
        match hours.filter(|hours| (1..=Self::LONGEST).contains(hours)) {
            Some(hours) => Ok(Self::Rolling { hours }),
            None => Err(UnknownPeriod),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A reasoning effort; a higher one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// No reasoning.
    None,
    /// The least.
    Minimal,
    /// Little.
    Low,
    /// What the backend does unless asked, as a rule.
    Medium,
    /// Much.
    High,
    /// Very much.
    Xhigh,
    /// As much as there is.
    Max,
    /// More than that.
    Ultra,
}

impl Effort {
    /// Every effort, the lowest first.
    pub const ALL: [Self; 8] =
        [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max, Self::Ultra];

    /// The name in JSON, as the backend knows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
            Self::Ultra => "ultra",
        }
    }
}

/// The text is no effort.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected none, minimal, low, medium, high, xhigh, max or ultra")]
pub struct UnknownEffort;

impl FromStr for Effort {
    type Err = UnknownEffort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|effort| effort.as_str() == text).ok_or(UnknownEffort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_were_written_and_every_field_is_named() {
        let text = r#"{"requests_per_minute":60,"tokens_per_minute":100000,"concurrent_requests":4,
            "budgets":[{"unit":"tokens","amount":5000000,"per":"day"},{"unit":"cost","amount":20000000,"per":"720h"}],
            "models":["gpt-5*"],"dialects":["messages"],"max_effort":"high","pools":[],"accounts":[],
            "networks":["10.0.0.0/8","2001:db8::/32"],"expires_at":1}"#;
        let limits: Limits = serde_json::from_str(text).unwrap();
        let written = serde_json::to_value(&limits).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(text).unwrap());
        let mut names: Vec<_> = written.as_object().unwrap().keys().map(String::as_str).collect();
        let mut fields = Limits::FIELDS.to_vec();
        names.sort_unstable();
        fields.sort_unstable();
        assert_eq!(names, fields);
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
    }

    #[test]
    fn budgets_are_written_in_tokens_or_in_money() {
        for (text, unit, amount, written) in [
            ("500000/day", BudgetUnit::Tokens, 500_000, "500000 tokens/day"),
            ("1.5M/week", BudgetUnit::Tokens, 1_500_000, "1500000 tokens/week"),
            ("20k tokens/5h", BudgetUnit::Tokens, 20_000, "20000 tokens/5h"),
            ("$20.50/month", BudgetUnit::Cost, 20_500_000, "$20.50/month"),
            ("$0.1234/day", BudgetUnit::Cost, 123_400, "$0.1234/day"),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!((budget.unit, budget.amount, budget.to_string().as_str()), (unit, amount, written));
        }
        for wrong in
            ["5M", "5M/year", "$/day", "-5/day", "1.5/day", "$1.2345678/day", "99999999999999999999/day", "ä/day"]
        {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn periods_are_calendar_ones_or_whole_hours() {
        for (text, period) in [
            ("day", Some(Period::Day)),
            ("month", Some(Period::Month)),
            ("5h", Some(Period::Rolling { hours: 5 })),
            ("30d", Some(Period::Rolling { hours: 720 })),
            ("0h", None),
            ("91d", None),
            ("5m", None),
            ("99999999999d", None),
            ("h", None),
        ] {
            assert_eq!(text.parse::<Period>().ok(), period, "{text}");
        }
    }

    #[test]
    fn efforts_have_an_order_and_a_name_each() {
        assert!(Effort::High < Effort::Xhigh && Effort::None < Effort::Minimal);
        assert!(Effort::ALL.is_sorted());
        for effort in Effort::ALL {
            assert_eq!(effort.as_str().parse(), Ok(effort));
            assert_eq!(serde_json::to_value(effort).unwrap(), effort.as_str());
        }
    }
}
