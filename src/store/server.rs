//! How a database server is used: how many connections, what they may take, where its tables are.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// The longest name that Postgres keeps of an application, bytes.
const APPLICATION: usize = 63;

/// How a database server is used. SQLite has no use for it.
#[derive(Debug, Clone)]
pub struct Server {
    /// The most connections for statements; one more hears of changes.
    pub pool_size: u32,
    /// How long a caller waits for one of them.
    pub acquire_timeout: Duration,
    /// How long the server works on one statement; for ever, if this is zero.
    pub statement_timeout: Duration,
    /// How long a statement waits for a lock; for ever, if this is zero.
    pub lock_timeout: Duration,
    /// How long the server keeps a transaction open whose client says nothing, and with it its locks:
    /// for ever, if this is zero.
    pub idle_in_transaction_timeout: Duration,
    /// The schema of the tables; the user's own first one without it.
    pub schema: Option<String>,
    /// What the server shows this process as.
    pub application_name: String,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            pool_size: 10,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(30),
            schema: None,
            application_name: "tollway".to_owned(),
        }
    }
}

impl Server {
    /// With the options of an address, which count where they say the same.
    pub(super) fn apply(&self, options: PgConnectOptions) -> PgConnectOptions {
        let said = options.get_options().unwrap_or_default().to_owned();
        let named = options.get_application_name().is_some();
        let millis = |duration: Duration| duration.as_millis().to_string();
        let mut session = vec![
            ("statement_timeout", millis(self.statement_timeout)),
            ("lock_timeout", millis(self.lock_timeout)),
            ("idle_in_transaction_session_timeout", millis(self.idle_in_transaction_timeout)),
        ];
        if let Some(schema) = &self.schema {
            session.push(("search_path", schema.clone()));
        }
        session.retain(|(name, _)| !said.contains(name));
        let options = options.options(session);
        if named { options } else { options.application_name(clipped(&self.application_name)) }
    }
}

/// As much of a name as Postgres keeps; it would cut it itself, with a notice for each connection.
fn clipped(name: &str) -> &str {
    let mut end = name.len().min(APPLICATION);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(url: &str) -> PgConnectOptions {
        let server = Server { schema: Some("gateway".into()), application_name: "n".repeat(99), ..Server::default() };
        server.apply(url.parse().unwrap())
    }

    #[test]
    fn what_the_address_says_counts() {
        let options = applied("postgres://ada@db/x?options[lock_timeout]=7s&application_name=mine");
        assert_eq!(options.get_application_name(), Some("mine"));
        assert_eq!(
            options.get_options(),
            Some(
                "-c lock_timeout=7s -c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000 \
                 -c search_path=gateway"
            )
        );
    }

    #[test]
    fn a_name_is_no_longer_than_postgres_keeps() {
        assert_eq!(applied("postgres://ada@db/x").get_application_name().map(str::len), Some(63));
        assert_eq!(clipped(&"é".repeat(40)).len(), 62);
    }
}
