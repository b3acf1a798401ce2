//! One declaration a setting: its type, default, meaning and whether it is secret stand in one
//! place, and the struct, the check, `config show` and the reference page all come from there.

use super::fault::Fault;
use figment::Figment;
use figment::value::Value;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// What is known of a setting without any value.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The full key, `server.listen`.
    pub key: &'static str,
    /// The default as one writes it in the file; `None` for a setting that may be absent.
    pub default: Option<&'static str>,
    /// What a value looks like.
    pub kind: &'static str,
    /// What the setting is for.
    pub doc: &'static str,
    /// Whether the value is never shown, and may come from a file named by `…_FILE`.
    pub secret: bool,
    /// Whether the setting is a table with free keys.
    pub table: bool,
}

/// A type that a setting can have. Values come from TOML, from the environment and from flags: each
/// reads what it is given, so that text is understood wherever a file would hold a number.
pub(super) trait Setting: Sized {
    /// What a value looks like, for messages and the reference page.
    const KIND: &'static str;
    /// Never shown.
    const SECRET: bool = false;
    /// A table with free keys.
    const TABLE: bool = false;

    /// The value, or what is wrong with it; nothing of a secret may be in the message.
    fn read(value: &Value) -> Result<Self, String>;

    /// What stands in when there is no value.
    fn absent() -> Option<Self> {
        None
    }
}

/// Reads settings out of the layers and collects every fault on the way.
pub(super) struct Reader<'a> {
    layers: &'a Figment,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Figment) -> Self {
        Self { layers, faults: Vec::new() }
    }

    /// The value of a setting; when it is not usable the fault is noted, and the default stands in
    /// so that the other settings can be checked too.
    pub(super) fn get<T: Setting>(&mut self, key: &'static str, default: Option<&'static str>) -> Option<T> {
        if let Ok(value) = self.layers.find_value(key) {
            match T::read(&value) {
                Ok(read) => return Some(read),
                Err(problem) => self.faults.push(Fault::new(key, origin(self.layers, key), problem)),
            }
        }
        default.map_or_else(T::absent, |text| T::read(&default_value(text)).ok())
    }
}

/// Where the value in force comes from.
pub(super) fn origin(layers: &Figment, key: &str) -> String {
    layers.find_metadata(key).map_or_else(|| "not set".to_owned(), |metadata| metadata.name.to_string())
}

/// A default, written as in the file.
pub(super) fn default_value(text: &str) -> Value {
    text.parse().unwrap_or_else(|_: std::convert::Infallible| Value::from(text))
}

/// Declares one section: `name: Type = "default", "meaning";` for each setting.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident in $prefix:literal {
        $( $field:ident : $type:ty $(= $default:literal)? , $meaning:literal ; )*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( #[doc = $meaning] pub $field: $type, )*
        }

        impl $name {
            /// The settings of this section.
            pub const FIELDS: &'static [$crate::config::Field] = &[ $( $crate::config::Field {
                key: concat!($prefix, stringify!($field)),
                default: section!(@default $($default)?),
                kind: <$type as $crate::config::field::Setting>::KIND,
                doc: $meaning,
                secret: <$type as $crate::config::field::Setting>::SECRET,
                table: <$type as $crate::config::field::Setting>::TABLE,
            }, )* ];

            pub(super) fn read(reader: &mut $crate::config::field::Reader<'_>) -> Option<Self> {
                $( let $field = reader.get::<$type>(concat!($prefix, stringify!($field)), section!(@default $($default)?)); )*
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
    (@default $default:literal) => { Some($default) };
    (@default) => { None };
}
pub(super) use section;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(usize);

impl Size {
    /// In bytes.
    pub fn bytes(self) -> usize {
        self.0
    }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Num(_, number) => Ok(number
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| number.to_i128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default()),
        Value::Bool(_, truth) => Ok(truth.to_string()),
        _ => Err("is a table or a list, not a single value".to_owned()),
    }
}

fn parsed<T: std::str::FromStr>(value: &Value, kind: &str) -> Result<T, String> {
    let text = text(value)?;
    text.trim().parse().map_err(|_| format!("`{text}` is not {kind}"))
}

macro_rules! parsed_setting {
    ($($type:ty: $kind:literal),* $(,)?) => { $(
        impl Setting for $type {
            const KIND: &'static str = $kind;

            fn read(value: &Value) -> Result<Self, String> {
                parsed(value, Self::KIND)
            }
        }
    )* };
}

parsed_setting! {
    SocketAddr: "an address with a port, such as 127.0.0.1:8787",
    bool: "true or false",
    u16: "a number from 0 to 65535",
    u32: "a whole number",
    f64: "a number",
}

impl Setting for String {
    const KIND: &'static str = "text";

    fn read(value: &Value) -> Result<Self, String> {
        text(value)
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "a path";

    fn read(value: &Value) -> Result<Self, String> {
        match text(value)? {
            path if path.is_empty() => Err("is empty".to_owned()),
            path => Ok(path.into()),
        }
    }
}

impl Setting for Url {
    const KIND: &'static str = "an http or https address";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value)?;
        // Addresses are shown and logged, so neither they nor their faults may hold a password.
        if text.contains('@') {
            return Err("holds an `@`: a user name or password has no place in this address".to_owned());
        }
        match Self::parse(text.trim()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            _ => Err(format!("`{text}` is not {}", Self::KIND)),
        }
    }
}

impl Setting for Duration {
    const KIND: &'static str = "a duration, such as 30s, 5m or 1h";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value)?;
        humantime::parse_duration(text.trim()).map_err(|_| format!("`{text}` is not {}", Self::KIND))
    }
}

impl Setting for Size {
    const KIND: &'static str = "a size, such as 64MiB";

    fn read(value: &Value) -> Result<Self, String> {
        let text = text(value)?;
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(format!("`{text}` is not {}", Self::KIND)),
        };
        let number: usize = number.parse().map_err(|_| format!("`{text}` is not {}", Self::KIND))?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("`{text}` is too large"))
    }
}

impl Setting for SecretString {
    const KIND: &'static str = "secret text";
    const SECRET: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        // Not the general message: it would repeat the value.
        match text(value) {
            Ok(secret) if !secret.trim().is_empty() => Ok(secret.into()),
            Ok(_) => Err("is empty".to_owned()),
            Err(problem) => Err(problem),
        }
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    const SECRET: bool = T::SECRET;
    const TABLE: bool = T::TABLE;

    fn read(value: &Value) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Setting> Setting for BTreeMap<String, T> {
    const KIND: &'static str = "a table";
    const SECRET: bool = T::SECRET;
    const TABLE: bool = true;

    fn read(value: &Value) -> Result<Self, String> {
        let table = value.as_dict().ok_or_else(|| "is not a table".to_owned())?;
        let mut problems = Vec::new();
        let mut read = Self::new();
        for (name, value) in table {
            match T::read(value) {
                Ok(value) => drop(read.insert(name.clone(), value)),
                Err(problem) => problems.push(format!("`{name}` {problem}")),
            }
        }
        if problems.is_empty() { Ok(read) } else { Err(problems.join("; ")) }
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// A setting with a few named values.
macro_rules! choice {
    ($type:ty: $kind:literal { $($name:literal => $value:expr),* $(,)? }) => {
        impl Setting for $type {
            const KIND: &'static str = $kind;

            fn read(value: &Value) -> Result<Self, String> {
                match text(value)?.as_str() {
                    $( $name => Ok($value), )*
                    other => Err(format!("`{other}` is not {}", Self::KIND)),
                }
            }
        }
    };
}

choice!(crate::telemetry::logs::Format: "human or json" {
    "human" => Self::Human,
    "json" => Self::Json,
});
choice!(crate::config::WebSocket: "auto, on or off" {
    "auto" => Self::Auto,
    "on" => Self::On,
    "off" => Self::Off,
});
choice!(crate::config::Notify: "auto or off" {
    "auto" => Self::Auto,
    "off" => Self::Off,
});
choice!(crate::store::Strategy: "quota, round_robin, fill_first or least_loaded" {
    "quota" => Self::Quota,
    "round_robin" => Self::RoundRobin,
    "fill_first" => Self::FillFirst,
    "least_loaded" => Self::LeastLoaded,
});
choice!(crate::telemetry::traces::Protocol: "grpc or http/protobuf" {
    "grpc" => Self::Grpc,
    "http/protobuf" => Self::Http,
});
choice!(crate::telemetry::traces::Sampling: "always_on, always_off, traceidratio, or one of these with parentbased_ before it" {
    "always_on" => Self::AlwaysOn,
    "always_off" => Self::AlwaysOff,
    "traceidratio" => Self::TraceIdRatio,
    "parentbased_always_on" => Self::ParentBasedAlwaysOn,
    "parentbased_always_off" => Self::ParentBasedAlwaysOff,
    "parentbased_traceidratio" => Self::ParentBasedTraceIdRatio,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(value: impl Into<Value>) -> Result<T, String> {
        T::read(&value.into())
    }

    #[test]
    fn values_are_read_from_text_and_from_numbers() {
        assert_eq!(read::<Duration>("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(read::<Size>("2MiB"), Ok(Size(2 << 20)));
        assert_eq!(read::<Size>(512u32), Ok(Size(512)));
        assert_eq!(read::<u16>("80"), Ok(80));
        assert_eq!(read::<String>(7u32), Ok("7".to_owned()));
    }

    #[test]
    fn a_wrong_value_is_told_with_what_was_expected() {
        assert_eq!(read::<Duration>("soon"), Err("`soon` is not a duration, such as 30s, 5m or 1h".to_owned()));
        assert!(read::<Url>("ftp://x").is_err());
        assert!(read::<Size>("99999999999999999999GiB").is_err());
    }

    #[test]
    fn a_secret_is_not_in_its_own_fault() {
        let fault = SecretString::read(&Value::from(vec!["hunter2"])).expect_err("a list");
        assert!(!fault.contains("hunter2"));
    }
}
