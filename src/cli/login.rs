//! `tollway account login`: with a browser on this host or elsewhere, or with a device code.

use super::account::enrol;
use super::show::span;
use crate::config::Settings;
use crate::oauth::{
    AuthorizationCode, CallbackListener, LoginEntropy, OAuthClient, PendingLogin, REGISTERED_PORTS, redirect_uri,
    wait_for_approval,
};
use crate::server::assemble::{self, unix_millis};
use crate::store::Store;
use anyhow::{Context, Result};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(clap::Args)]
pub(super) struct Options {
    /// Show a code to type in a browser on any other device
    #[arg(long)]
    device: bool,
    /// What to call the account here
    #[arg(long)]
    name: Option<String>,
}

pub(super) async fn run(settings: &Settings, store: &Store, options: &Options) -> Result<()> {
    let issuer = assemble::issuer(settings, &assemble::http_client(settings)?);
    let code = if options.device { device(&issuer).await? } else { browser(&issuer, settings).await? };
    let enrolment = issuer.exchange_code(&code).await?.enrol(unix_millis())?;
    enrol(store, enrolment, options.name.clone()).await
}

/// Whatever comes first: the browser's callback, or the address that a person pastes.
async fn browser(issuer: &OAuthClient, settings: &Settings) -> Result<AuthorizationCode> {
    let wanted = settings.oauth.callback_port;
    let ports: Vec<u16> =
        std::iter::once(wanted).chain(REGISTERED_PORTS.into_iter().filter(|p| *p != wanted)).collect();
    let listener = CallbackListener::bind(&ports).await;
    let redirect = listener.as_ref().map_or_else(|_| redirect_uri(wanted), CallbackListener::redirect_uri);
    let login = Arc::new(PendingLogin::begin(issuer, redirect, &LoginEntropy::random()?));
    println!("Open this address in a browser and log in:\n\n{}\n", login.url);
    let code = match listener {
        Ok(listener) => {
            println!(
                "Waiting for the browser. On another machine the last page will not load: copy its address from the address bar and paste it here."
            );
            tokio::select! {
                code = listener.wait(login.clone()) => code?,
                code = pasted(&login) => code?,
            }
        }
        Err(error) => {
            println!("({error}) The last page will not load: copy its address from the address bar and paste it here.");
            pasted(&login).await?
        }
    };
    Ok(code)
}

/// Reads lines until one ends the login. A closed standard input leaves it to the browser.
async fn pasted(login: &PendingLogin) -> Result<AuthorizationCode> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.context("standard input cannot be read")? {
        if line.trim().is_empty() {
            continue;
        }
        match login.finish(&line) {
            Ok(code) => return Ok(code),
            // At a terminal a slip of the hand can be mended; a script wants to know.
            Err(error) if std::io::stdin().is_terminal() && error.is_mendable() => println!("{error}. Try again:"),
            Err(error) => return Err(error.into()),
        }
    }
    std::future::pending().await
}

async fn device(issuer: &OAuthClient) -> Result<AuthorizationCode> {
    let code = issuer.device_start().await?;
    println!("Open {} and enter the code\n\n    {}\n", code.page, code.user_code);
    let live = std::io::stdout().is_terminal();
    let mut last_told = None;
    let tick = |left: Duration| {
        // One line that counts down at a terminal; a line a minute in a log.
        let minute = left.as_secs() / 60;
        if live {
            print!("\rwaiting, {} left   ", span(left));
        } else if last_told != Some(minute) {
            last_told = Some(minute);
            println!("waiting, {} left", span(left));
        }
        let _ = std::io::stdout().flush();
    };
    let approved = wait_for_approval(code.interval, async || issuer.device_poll(&code).await, tick).await;
    if live {
        println!();
    }
    Ok(approved?)
}
