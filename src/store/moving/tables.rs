//! Every table, and how it is copied. A test compares this list with the schema.

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The columns of its primary key.
    pub(super) key: &'static [&'static str],
    pub(super) way: Way,
    /// Which of its rows are copied, where not all of them are.
    pub(super) only: Option<&'static str>,
}

/// How a table is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Few rows that depend on each other: replaced as a whole, in one transaction with the others of
    /// their kind.
    Whole,
    /// Rows that come, change and go: compared one by one, and copied where they differ.
    Rows,
    /// Rows that come and never change or go.
    Log,
    /// Very many rows, in slices of time: a slice that sums up to something else is copied anew.
    Slices(Slices),
    /// The rows that belong to another table's slices, and are copied with them.
    Beneath,
}

/// Rows that come and go by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slices {
    /// The column of the time, and how much of it makes a slice.
    pub(super) slot: &'static str,
    pub(super) length: i64,
    /// What changes whenever a row of the slice does.
    pub(super) sum: &'static str,
    /// A table whose rows belong to this one's, and the column that says to which.
    pub(super) beneath: Option<(&'static str, &'static str)>,
}

/// Twenty minutes; so many requests are in memory at a time.
const SLICE: i64 = 1_200_000;

/// The row of `revisions` that a copy has until it is finished.
pub(super) const MARK: &str = "moving";

const fn table(name: &'static str, key: &'static [&'static str], way: Way) -> Table {
    Table { name, key, way, only: None }
}

/// Each after those it refers to.
pub(super) const TABLES: &[Table] = &[
    table("teams", &["id"], Way::Whole),
    table("users", &["id"], Way::Whole),
    table("accounts", &["id"], Way::Whole),
    table("credentials", &["account_id"], Way::Whole),
    table("account_conditions", &["account_id"], Way::Whole),
    table("account_events", &["id"], Way::Whole),
    table("sessions", &["session"], Way::Whole),
    table("pools", &["id"], Way::Whole),
    table("pool_accounts", &["pool_id", "account_id"], Way::Whole),
    table("gateway_keys", &["id"], Way::Whole),
    table("key_accounts", &["key_id", "account_id"], Way::Whole),
    table("admin_keys", &["id"], Way::Whole),
    table("model_aliases", &["id"], Way::Whole),
    table("leases", &["name"], Way::Whole),
    table("exchanges", &["account_id"], Way::Whole),
    table("budget_hits", &["holder", "id", "budget"], Way::Whole),
    table("secrets", &["name"], Way::Whole),
    table("slips", &["id"], Way::Whole),
    table("webhook_deliveries", &["id"], Way::Whole),
    Table { name: "revisions", key: &["topic"], way: Way::Whole, only: Some("topic <> 'moving'") },
    table("audit_log", &["id"], Way::Log),
    table("decisions", &["id"], Way::Rows),
    table("responses", &["place"], Way::Rows),
    table("response_items", &["place", "response"], Way::Rows),
    table("conversations", &["place"], Way::Rows),
    table("conversation_items", &["place"], Way::Rows),
    table("batches", &["place"], Way::Rows),
    table("batch_requests", &["place"], Way::Rows),
    table(
        "usage_requests",
        &["id"],
        Way::Slices(Slices {
            slot: "at",
            length: SLICE,
            // A request never changes: their number tells, out of an index.
            sum: "1",
            beneath: Some(("usage_attempts", "request_id")),
        }),
    ),
    table("usage_attempts", &["request_id", "number"], Way::Beneath),
    table("usage_hourly", &SUMS_OF_AN_HOUR, Way::Slices(sums("hour"))),
    table("usage_daily", &SUMS_OF_A_DAY, Way::Slices(sums("day"))),
];

/// Tables that are not copied: what servers that run hold of limits, and sums that are made anew.
#[cfg(test)]
const LEFT: &[(&str, &[&str])] = &[
    ("replicas", &["id"]),
    ("limit_subjects", &["holder", "id"]),
    ("limit_slices", &["holder", "id", "replica"]),
    ("usage_holders", &["holder", "id", "hour"]),
];

const SUMS_OF_AN_HOUR: [&str; 7] = ["hour", "team_id", "user_id", "key_id", "account_id", "model", "dialect"];
const SUMS_OF_A_DAY: [&str; 7] = ["day", "team_id", "user_id", "key_id", "account_id", "model", "dialect"];

const fn sums(slot: &'static str) -> Slices {
    Slices { slot, length: 1, sum: "requests", beneath: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::backend::{Backend, fetch_all};
    use crate::store::{OpenOptions, Store, vault::Keyring};
    use std::collections::{BTreeMap, BTreeSet};

    async fn migrated() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("tollway.db").display()).into();
        let store = Store::open(OpenOptions { url, keyring: Keyring::generate().unwrap() }).await.unwrap();
        store.migrate().await.unwrap();
        (directory, store)
    }

    async fn texts(backend: &Backend, sql: &'static str) -> Vec<(String, String)> {
        fetch_all!(&mut backend.read().await.unwrap(), (String, String), sql).unwrap()
    }

    #[tokio::test]
    async fn every_table_of_the_schema_is_copied_by_its_key() {
        let (_directory, store) = migrated().await;
        let columns = texts(
            &store.backend,
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '_sqlx%' AND c.pk > 0
             ORDER BY m.name, c.pk",
        )
        .await;
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (table, column) in columns {
            keys.entry(table).or_default().push(column);
        }
        let copied = TABLES.iter().map(|table| (table.name, table.key));
        let listed = copied
            .chain(LEFT.iter().copied())
            .map(|(name, key)| (name.to_owned(), key.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>()));
        assert_eq!(listed.collect::<BTreeMap<_, _>>(), keys, "a table that is not listed is not moved");
        assert_eq!(TABLES.iter().find_map(|table| table.only), Some(format!("topic <> '{MARK}'").as_str()));
    }

    #[tokio::test]
    async fn what_is_referred_to_is_copied_first() {
        let (_directory, store) = migrated().await;
        let references = texts(
            &store.backend,
            "SELECT m.name, f.\"table\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f
             WHERE m.type = 'table'",
        )
        .await;
        let place = |name: &str| TABLES.iter().position(|table| table.name == name);
        let late: BTreeSet<_> = references
            .iter()
            .filter(|(from, to)| from != to && place(from).is_some() && place(to) > place(from))
            .collect();
        assert!(late.is_empty(), "{late:?}");
    }
}
