//! `tollway account login`: with a browser on this host or elsewhere, or with a device code.

use super::account::enrol;
use super::show::{print, say, span};
use crate::config::Settings;
use crate::oauth::{
    AuthorizationCode, CallbackListener, LoginEntropy, OAuthClient, PendingLogin, REGISTERED_PORTS, redirect_uri,
    wait_for_approval,
};
use crate::server::assemble::{self, unix_millis};
use crate::store::Store;
use anyhow::{Context, Result, bail};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Show a code to type in a browser on any other device
    #[arg(long, conflicts_with_all = ["port", "no_browser_listen"])]
    device: bool,
    /// What to call the account here
    #[arg(long)]
    name: Option<String>,
    /// Where to listen for the browser; the issuer knows 1455 and 1457
    #[arg(long)]
    port: Option<u16>,
    /// Do not listen for the browser: the address that it ends at is pasted
    #[arg(long)]
    no_browser_listen: bool,
}

pub(super) async fn run(settings: &Settings, store: &Store, options: &Options) -> Result<()> {
    let issuer = assemble::issuer(settings, &assemble::http_client(settings)?);
    let asked =
        async { if options.device { device(&issuer).await } else { browser(&issuer, settings, options).await } };
    // Only the waiting can be broken off: the tokens of a code that is spent must be stored.
    let code = tokio::select! {
        code = asked => code?,
        _ = tokio::signal::ctrl_c() => {
            say!("")?;
            bail!("interrupted; no account was added or changed");
        }
    };
    let enrolment = issuer.exchange_code(&code).await?.enrol(unix_millis())?;
    enrol(store, enrolment, options.name.clone()).await
}

/// Whatever comes first: the browser's callback, or the address that a person pastes.
async fn browser(issuer: &OAuthClient, settings: &Settings, options: &Options) -> Result<AuthorizationCode> {
    let wanted = options.port.unwrap_or(settings.oauth.callback_port);
    let listener = if options.no_browser_listen {
        None
    } else {
        let bound = CallbackListener::bind(&ports(wanted, options.port.is_some())).await;
        bound.inspect_err(|error| eprintln!("note: {error}")).ok()
    };
    let redirect = listener.as_ref().map_or_else(|| redirect_uri(wanted), CallbackListener::redirect_uri);
    let login = Arc::new(PendingLogin::begin(issuer, redirect, &LoginEntropy::random()?));
    say!("Open this address in a browser and log in:\n\n{}\n", login.url)?;
    let Some(listener) = listener else {
        say!("The last page will not load: copy its address from the address bar and paste it here.")?;
        return pasted(&login).await?.context(
            "standard input ended before an address was pasted; without a keyboard use `tollway account login --device`",
        );
    };
    say!(
        "Waiting for the browser. On another machine the last page will not load: copy its address from the address bar and paste it here."
    )?;
    tokio::select! {
        code = listener.wait(login.clone()) => Ok(code?),
        code = typed(&login) => code,
    }
}

/// The ports to try. One that was asked for on the command line is the only one.
fn ports(wanted: u16, only: bool) -> Vec<u16> {
    let others = REGISTERED_PORTS.into_iter().filter(|port| *port != wanted && !only);
    std::iter::once(wanted).chain(others).collect()
}

/// What is pasted while the browser may come back too: a closed standard input leaves it to that.
async fn typed(login: &PendingLogin) -> Result<AuthorizationCode> {
    match pasted(login).await? {
        Some(code) => Ok(code),
        None => std::future::pending().await,
    }
}

/// Reads lines until one ends the login; none does if standard input is closed.
async fn pasted(login: &PendingLogin) -> Result<Option<AuthorizationCode>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.context("standard input cannot be read")? {
        if line.trim().is_empty() {
            continue;
        }
        match login.finish(&line) {
            Ok(code) => return Ok(Some(code)),
            // At a terminal a slip of the hand can be mended; a script wants to know.
            Err(error) if std::io::stdin().is_terminal() && error.is_mendable() => say!("{error}. Try again:")?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn device(issuer: &OAuthClient) -> Result<AuthorizationCode> {
    let code = issuer.device_start().await?;
    say!("Open {} and enter the code\n\n    {}\n", code.page, code.user_code)?;
    let live = std::io::stdout().is_terminal();
    let mut last_told = None;
    let tick = |left: Duration| {
        // One line that counts down at a terminal; a line a minute in a log.
        let minute = left.as_secs() / 60;
        // That nobody reads the countdown is no reason to stop waiting.
        let _ = if live {
            print(&format!("\rwaiting, {} left   ", span(left)))
        } else if last_told == Some(minute) {
            Ok(())
        } else {
            last_told = Some(minute);
            say!("waiting, {} left", span(left))
        };
    };
    let approved = wait_for_approval(code.interval, async || issuer.device_poll(&code).await, tick).await;
    if live {
        say!("")?;
    }
    Ok(approved?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_asked_for_is_the_only_one_and_else_every_registered_one_is_tried() {
        assert_eq!(ports(1455, false), [1455, 1457]);
        assert_eq!(ports(1457, false), [1457, 1455]);
        assert_eq!(ports(9, false), [9, 1455, 1457]);
        assert_eq!(ports(1455, true), [1455]);
    }
}
