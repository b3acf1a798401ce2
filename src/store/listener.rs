//! Hears of changes from Postgres: LISTEN on a connection of its own, which is opened anew whenever
//! it ends. Whether it hears at all is tried first, for a pooler between may take LISTEN and tell
//! nothing.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool};
use tokio::sync::{Notify, mpsc};

/// The pauses between two attempts to listen: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a notification of our own may take.
const PROBE: Duration = Duration::from_secs(3);
/// How long it is left alone where nothing was heard.
const MUTE: Duration = Duration::from_mins(1);
/// As many characters of the schema's name are in the channel's, as in migration 12.
const SCHEMA: usize = 48;

/// What the listener has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// From now on every change is told.
    Listening,
    /// Nothing is told any more.
    Deaf,
    /// A topic has reached this revision.
    Told(String, i64),
}

/// Why listening ended.
enum End {
    Lost(sqlx::Error),
    /// The connection was given up by whoever listens.
    Renewed,
    /// LISTEN was taken and nothing came.
    Mute,
}

impl From<sqlx::Error> for End {
    fn from(error: sqlx::Error) -> Self {
        Self::Lost(error)
    }
}

/// Listens for ever. `renew` asks for another connection in the place of one that is open and says
/// nothing.
pub(super) async fn listen(pool: PgPool, heard: mpsc::Sender<Heard>, renew: &Notify) {
    let (mut pause, mut was_mute) = (AGAIN.0, false);
    loop {
        let mut is_listening = false;
        let end = match session(&pool, &heard, renew, &mut is_listening).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if is_listening {
            (pause, was_mute) = (AGAIN.0, false);
        }
        if heard.send(Heard::Deaf).await.is_err() {
            return;
        }
        match end {
            End::Mute => {
                if !was_mute {
                    tracing::warn!(
                        "the database takes LISTEN and tells nothing, as behind PgBouncer in transaction mode; it is asked for changes instead"
                    );
                }
                was_mute = true;
                tokio::time::sleep(MUTE).await;
                continue;
            }
            End::Renewed => tracing::warn!("a change was not told; listening on another connection"),
            End::Lost(error) => {
                tracing::warn!(%error, "the connection that hears of changes is lost; the database is asked instead");
            }
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

async fn session(
    pool: &PgPool,
    heard: &mpsc::Sender<Heard>,
    renew: &Notify,
    is_listening: &mut bool,
) -> Result<Infallible, End> {
    let mut listener = connect(&pool.connect_options()).await?;
    let (schema,): (String,) = sqlx::query_as("SELECT current_schema()::text").fetch_one(&mut listener).await?;
    let channel = channel_of(&schema);
    listener.listen(&channel).await?;
    probe(pool, &mut listener, &channel).await?;
    *is_listening = true;
    let gone = |_| End::Renewed;
    heard.send(Heard::Listening).await.map_err(gone)?;
    loop {
        let told = tokio::select! {
            () = renew.notified() => return Err(End::Renewed),
            told = listener.try_recv() => told?,
        };
        let Some(told) = told else { return Err(sqlx::Error::PoolClosed.into()) };
        if let Some((topic, revision)) = read(told.payload()) {
            heard.send(Heard::Told(topic.to_owned(), revision)).await.map_err(gone)?;
        }
    }
}

/// A connection for nothing else: it is not one of the pool's.
async fn connect(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let own = PoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(CONNECT)
        .connect_with(options.clone())
        .await?;
    let mut listener = PgListener::connect_with(&own).await?;
    listener.eager_reconnect(false);
    Ok(listener)
}

/// Tells itself something over another connection.
async fn probe(pool: &PgPool, listener: &mut PgListener, channel: &str) -> Result<(), End> {
    let token = format!("probe {}", uuid::Uuid::new_v4());
    sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(&token).execute(pool).await?;
    let heard = async {
        loop {
            match listener.try_recv().await? {
                Some(told) if told.payload() == token => return Ok(()),
                // Changes that come before it are looked for once listening has begun.
                Some(_) => {}
                None => return Err(sqlx::Error::PoolClosed),
            }
        }
    };
    Ok(tokio::time::timeout(PROBE, heard).await.map_err(|_| End::Mute)??)
}

/// The channel that changes of a schema are told on.
fn channel_of(schema: &str) -> String {
    format!("tollway_{}", schema.chars().take(SCHEMA).collect::<String>())
}

/// A topic and its revision.
fn read(payload: &str) -> Option<(&str, i64)> {
    let (topic, revision) = payload.split_once(' ')?;
    Some((topic, revision.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_a_topic_and_its_revision() {
        assert_eq!(read("keys 12"), Some(("keys", 12)));
        assert_eq!(["keys", "keys twelve", "probe 0b7e-1", ""].map(read), [None; 4]);
    }

    #[test]
    fn a_channel_is_a_schemas_own_and_never_too_long_for_postgres() {
        assert_eq!(channel_of("public"), "tollway_public");
        assert!(channel_of(&"s".repeat(63)).len() < 63);
    }
}
