//! A way to the database that can be held up: each piece of data waits until it may go on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The kind of a message by which Postgres notifies.
const NOTIFICATION: u8 = b'A';

/// Passes bytes on, until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Whether data may go on.
    open: watch::Sender<bool>,
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
        let (open, gate) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let Ok(there) = TcpStream::connect(&target).await else { continue };
                let (questions, to_client) = here.into_split();
                let (answers, to_server) = there.into_split();
                tokio::spawn(pass(questions, to_server, gate.clone()));
                if is_mute {
                    tokio::spawn(pass_all_but_notifications(answers, to_client));
                } else {
                    tokio::spawn(pass(answers, to_client, gate.clone()));
                }
            }
        });
        Self { address, open, accepting }
    }

    /// From now on nothing comes through, in either direction; nor is anything lost.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    /// All that waits goes on, and what comes after it.
    pub(crate) fn release(&self) {
        self.open.send_replace(true);
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
    mut gate: watch::Receiver<bool>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length) = from.read(&mut piece).await {
        if gate.wait_for(|open| *open).await.is_err() || length == 0 || to.write_all(&piece[..length]).await.is_err() {
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
