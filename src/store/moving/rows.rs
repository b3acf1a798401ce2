//! Rows of any table as plain values: the same for both databases, so that a checksum over them is too.

use std::ops::DerefMut;

use aws_lc_rs::digest;
use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqliteConnection, postgres::PgRow, sqlite::SqliteRow};

use super::tables::Table;
use crate::store::{
    backend::{Dual, Write, fetch_all},
    error::{Result, StoreError},
};

/// A value; truth is a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Boolean,
    Real,
    Text,
    Bytes,
}

/// A column of one of the databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

pub(super) type Row = Vec<Value>;

impl Kind {
    fn of(declared: &str) -> Option<Self> {
        Some(match declared.to_ascii_lowercase().as_str() {
            "integer" | "bigint" => Self::Integer,
            "boolean" => Self::Boolean,
            "real" | "double precision" => Self::Real,
            "text" => Self::Text,
            "blob" | "bytea" => Self::Bytes,
            _ => return None,
        })
    }

    const fn array(self) -> &'static str {
        match self {
            Self::Integer => "bigint[]",
            Self::Boolean => "boolean[]",
            Self::Real => "double precision[]",
            Self::Text => "text[]",
            Self::Bytes => "bytea[]",
        }
    }
}

/// The columns of a table, by name: in the same order on both databases.
pub(super) async fn columns<S, P>(on: &mut Dual<S, P>, table: &Table) -> Result<Vec<Column>>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    let sql = match on {
        Dual::Sqlite(_) => "SELECT name, type FROM pragma_table_info($1)",
        Dual::Postgres(_) => {
            "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = $1"
        }
    };
    let mut columns = Vec::new();
    for (name, declared) in fetch_all!(on, (String, String), sql, table.name)? {
        let kind = Kind::of(&declared).ok_or_else(|| StoreError::Moving {
            problem: format!("the column {}.{name} is of a type that cannot be moved: {declared}", table.name),
        })?;
        columns.push(Column { name, kind });
    }
    columns.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(columns)
}

pub(super) fn names(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Binds values whose type is known by themselves.
macro_rules! with_values {
    ($query:expr, $values:expr) => {
        $values.iter().fold($query, |query, value| match value {
            Value::Null => query.bind(None::<String>),
            Value::Integer(number) => query.bind(*number),
            Value::Real(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.as_str()),
            Value::Bytes(bytes) => query.bind(bytes.as_slice()),
        })
    };
}

/// Hands over each row of a query that selects `columns`, one after the other.
pub(super) async fn each<S, P>(
    on: &mut Dual<S, P>,
    sql: &str,
    values: &[Value],
    columns: &[Column],
    mut take: impl FnMut(Row),
) -> Result<()>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    // Made of the names in `tables` and in the schema only.
    let sql = AssertSqlSafe(sql.to_owned());
    match on {
        Dual::Sqlite(connection) => {
            let mut rows = with_values!(sqlx::query(sql), values).fetch(&mut **connection);
            while let Some(row) = rows.try_next().await? {
                take(
                    columns
                        .iter()
                        .enumerate()
                        .map(|(at, column)| of_sqlite(&row, at, column))
                        .collect::<Result<_>>()?,
                );
            }
        }
        Dual::Postgres(connection) => {
            let mut rows = with_values!(sqlx::query(sql), values).fetch(&mut **connection);
            while let Some(row) = rows.try_next().await? {
                take(
                    columns
                        .iter()
                        .enumerate()
                        .map(|(at, column)| of_postgres(&row, at, column))
                        .collect::<Result<_>>()?,
                );
            }
        }
    }
    Ok(())
}

fn of_sqlite(row: &SqliteRow, at: usize, column: &Column) -> Result<Value> {
    Ok(match column.kind {
        Kind::Integer | Kind::Boolean => row.try_get::<Option<i64>, _>(at)?.map(Value::Integer),
        Kind::Real => row.try_get::<Option<f64>, _>(at)?.map(Value::Real),
        Kind::Text => row.try_get::<Option<String>, _>(at)?.map(Value::Text),
        Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map(Value::Bytes),
    }
    .unwrap_or(Value::Null))
}

fn of_postgres(row: &PgRow, at: usize, column: &Column) -> Result<Value> {
    Ok(match column.kind {
        Kind::Integer => row.try_get::<Option<i64>, _>(at)?.map(Value::Integer),
        Kind::Boolean => row.try_get::<Option<bool>, _>(at)?.map(|truth| Value::Integer(truth.into())),
        Kind::Real => row.try_get::<Option<f64>, _>(at)?.map(Value::Real),
        Kind::Text => row.try_get::<Option<String>, _>(at)?.map(Value::Text),
        Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(at)?.map(Value::Bytes),
    }
    .unwrap_or(Value::Null))
}

/// How many rows, and a sum of their digests, which does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum {
    /// How many rows.
    pub rows: u64,
    /// The sum of the first sixteen bytes of each row's SHA-256.
    pub sum: u128,
}

impl Checksum {
    pub(super) fn add(&mut self, row: &Row) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(digest_of(row));
    }
}

/// Of each value its kind, its length and its bytes, so that no two rows look alike.
pub(super) fn digest_of(row: &Row) -> u128 {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut put = |kind: u8, bytes: &[u8]| {
        context.update(&[kind]);
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    for value in row {
        match value {
            Value::Null => put(0, &[]),
            Value::Integer(number) => put(1, &number.to_be_bytes()),
            Value::Real(number) => put(2, &number.to_bits().to_be_bytes()),
            Value::Text(text) => put(3, text.as_bytes()),
            Value::Bytes(bytes) => put(4, bytes),
        }
    }
    let digest = context.finish();
    digest.as_ref().iter().take(16).fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

/// Writes rows; those that are there are replaced, or in a log left alone. One statement on Postgres, so
/// that rows may refer to each other.
pub(super) async fn put(
    write: &mut Write,
    table: &Table,
    columns: &[Column],
    rows: &[Row],
    replace: bool,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let others = columns.iter().filter(|column| !table.key.contains(&column.name.as_str()));
    let sets: Vec<String> = others.map(|Column { name, .. }| format!("{name} = excluded.{name}")).collect();
    let then =
        if replace && !sets.is_empty() { format!("UPDATE SET {}", sets.join(", ")) } else { "NOTHING".to_owned() };
    let numbered = |cast: fn(Kind) -> String| {
        let numbers = (1..).zip(columns).map(|(number, column)| format!("${number}{}", cast(column.kind)));
        numbers.collect::<Vec<_>>().join(", ")
    };
    let source = match write {
        Write::Sqlite(_) => format!("VALUES ({})", numbered(|_| String::new())),
        Write::Postgres(_) => format!("SELECT * FROM UNNEST({})", numbered(|kind| format!("::{}", kind.array()))),
    };
    let sql = format!(
        "INSERT INTO {} ({}) {source} ON CONFLICT ({}) DO {then}",
        table.name,
        names(columns),
        table.key.join(", ")
    );
    match write {
        Write::Sqlite(connection) => {
            for row in rows {
                with_values!(sqlx::query(AssertSqlSafe(sql.clone())), row).execute(&mut **connection).await?;
            }
        }
        Write::Postgres(connection) => {
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for (at, column) in columns.iter().enumerate() {
                let values = rows.iter().map(|row| &row[at]);
                query = match column.kind {
                    Kind::Integer => query.bind(values.map(Value::integer).collect::<Vec<_>>()),
                    Kind::Boolean => query.bind(values.map(|v| v.integer().map(|n| n != 0)).collect::<Vec<_>>()),
                    Kind::Real => query.bind(values.map(Value::real).collect::<Vec<_>>()),
                    Kind::Text => query.bind(values.map(Value::text).collect::<Vec<_>>()),
                    Kind::Bytes => query.bind(values.map(Value::bytes).collect::<Vec<_>>()),
                };
            }
            query.execute(&mut **connection).await?;
        }
    }
    Ok(())
}

/// Runs a statement with values.
pub(super) async fn change(write: &mut Write, sql: &str, values: &[Value]) -> Result<u64> {
    let sql = AssertSqlSafe(sql.to_owned());
    Ok(match write {
        Write::Sqlite(connection) => {
            with_values!(sqlx::query(sql), values).execute(&mut **connection).await?.rows_affected()
        }
        Write::Postgres(connection) => {
            with_values!(sqlx::query(sql), values).execute(&mut **connection).await?.rows_affected()
        }
    })
}

impl Value {
    fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    fn real(&self) -> Option<f64> {
        if let Self::Real(number) = self { Some(*number) } else { None }
    }

    pub(super) fn text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(text.clone()) } else { None }
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        if let Self::Bytes(bytes) = self { Some(bytes.clone()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn sum(rows: &[Row]) -> Checksum {
        let mut sum = Checksum::default();
        for row in rows {
            sum.add(row);
        }
        sum
    }

    #[test]
    fn a_checksum_knows_every_value_and_no_order() {
        let rows = [vec![text("a"), Value::Integer(1)], vec![text("b"), Value::Null]];
        let [one, other] = rows.clone();
        assert_eq!(sum(&rows), sum(&[other.clone(), one.clone()]));
        assert_ne!(sum(&rows), sum(&[one.clone(), one.clone()]));
        assert_ne!(sum(&[one]), sum(&[vec![text("a"), Value::Integer(2)]]));
        assert_ne!(sum(&[other]), sum(&[vec![text("b"), text("")]]), "null is not empty");
        let split = |one: &str, other: &str| sum(&[vec![text(one), text(other)]]);
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }
}
