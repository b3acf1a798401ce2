//! A way to the database that can be made long: each piece of data waits before it goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The kind of a message by which Postgres notifies.
const NOTIFICATION: u8 = b'A';

/// Passes bytes on, until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// How long each piece of data waits, milliseconds.
    delay: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A way to `target`.
    pub(crate) async fn to(target: String) -> Self {
        Self::leading_to(target, false).await
    }

    /// A way by which no notification comes back. For connections without TLS that ask for none.
    pub(crate) async fn mute(target: String) -> Self {
        Self::leading_to(target, true).await
    }

    async fn leading_to(target: String, is_mute: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let delay = Arc::new(AtomicU64::new(0));
        let slow = delay.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let Ok(there) = TcpStream::connect(&target).await else { continue };
                let (questions, to_client) = here.into_split();
                let (answers, to_server) = there.into_split();
                tokio::spawn(pass(questions, to_server, slow.clone()));
                if is_mute {
                    tokio::spawn(pass_all_but_notifications(answers, to_client));
                } else {
                    tokio::spawn(pass(answers, to_client, slow.clone()));
                }
            }
        });
        Self { address, delay, accepting }
    }

    /// Makes each piece of data wait, in either direction.
    pub(crate) fn slow_down(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).expect("a short time"), Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Arc<AtomicU64>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut piece).await {
        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// Message by message: a byte for its kind, and its length with that of the length itself.
async fn pass_all_but_notifications(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
) -> std::io::Result<()> {
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut body = vec![0; length.saturating_sub(4) as usize];
        from.read_exact(&mut body).await?;
        if kind != NOTIFICATION {
            to.write_u8(kind).await?;
            to.write_u32(length).await?;
            to.write_all(&body).await?;
        }
    }
}
