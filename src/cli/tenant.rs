//! `tollway team` and `tollway user`.

use super::limits::{self, Flags};
use super::open;
use super::show::{self, moment, say, table};
use crate::config::Settings;
use crate::server::assemble::unix_millis;
use crate::store::{Limits, Store, Team, TeamDraft, TeamId, UnixMillis, User, UserDraft};
use anyhow::Result;
use serde_json::{Value, json};

/// `tollway team …`
#[derive(clap::Subcommand)]
pub(super) enum TeamCommand {
    /// Make a team
    Create {
        /// What it is called
        name: String,
        #[command(flatten)]
        limits: Flags,
    },
    /// List the teams
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a team
    Show {
        /// Name, id, or the start of an id
        team: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a team
    Set {
        /// Name, id, or the start of an id
        team: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        limits: Flags,
    },
    /// Refuse all keys of a team, within a second
    Suspend {
        /// Name, id, or the start of an id
        team: String,
    },
    /// Take the keys of a team again
    Resume {
        /// Name, id, or the start of an id
        team: String,
    },
    /// Remove a team that has no users and no keys
    Remove {
        /// Name, id, or the start of an id
        team: String,
    },
}

/// `tollway user …`
#[derive(clap::Subcommand)]
pub(super) enum UserCommand {
    /// Make a user
    Create {
        /// What they are called
        name: String,
        /// Where they are reached
        #[arg(long)]
        email: Option<String>,
        /// The team they belong to
        #[arg(long)]
        team: Option<String>,
        #[command(flatten)]
        limits: Flags,
    },
    /// List the users
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a user
    Show {
        /// Name, email, id, or the start of an id
        user: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a user
    Set {
        /// Name, email, id, or the start of an id
        user: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        /// A new address
        #[arg(long)]
        email: Option<String>,
        /// The team they belong to from now on, or none
        #[arg(long)]
        team: Option<String>,
        #[command(flatten)]
        limits: Flags,
    },
    /// Refuse all keys of a user, within a second
    Suspend {
        /// Name, email, id, or the start of an id
        user: String,
    },
    /// Take the keys of a user again
    Resume {
        /// Name, email, id, or the start of an id
        user: String,
    },
    /// Remove a user who has no keys
    Remove {
        /// Name, email, id, or the start of an id
        user: String,
    },
}

/// Runs a command on teams.
pub(super) async fn run_team(settings: &Settings, command: TeamCommand) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let done = team(&store, command, unix_millis()).await;
    store.close().await;
    done
}

/// Runs a command on users.
pub(super) async fn run_user(settings: &Settings, command: UserCommand) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let done = user(&store, command, unix_millis()).await;
    store.close().await;
    done
}

async fn team(store: &Store, command: TeamCommand, now: UnixMillis) -> Result<()> {
    let tenants = store.tenants();
    match command {
        TeamCommand::Create { name, limits } => {
            let limits = limits.apply(Limits::default(), store, now).await?;
            let team = tenants.create_team(TeamDraft { name, limits, suspended: false }, now).await?;
            say!("team {} made (id {})", team.name, team.id)?;
        }
        TeamCommand::List { json } => list_teams(&tenants.teams().await?, json)?,
        TeamCommand::Show { team, json } => show_team(&tenants.find_team(&team).await?, json, now)?,
        TeamCommand::Set { team, name, limits } => {
            let old = tenants.find_team(&team).await?;
            let mut draft = old.draft();
            draft.name = name.unwrap_or(draft.name);
            draft.limits = limits.apply(draft.limits, store, now).await?;
            tenants.update_team(old.id, &draft, Some(old.version)).await?;
            say!("team {}: {}", draft.name, limits::line(&draft.limits))?;
        }
        TeamCommand::Suspend { team } => suspend_team(store, &team, true).await?,
        TeamCommand::Resume { team } => suspend_team(store, &team, false).await?,
        TeamCommand::Remove { team } => {
            let team = tenants.find_team(&team).await?;
            tenants.remove_team(team.id).await?;
            say!("team {} is removed", team.name)?;
        }
    }
    Ok(())
}

async fn user(store: &Store, command: UserCommand, now: UnixMillis) -> Result<()> {
    let tenants = store.tenants();
    match command {
        UserCommand::Create { name, email, team, limits } => {
            let limits = limits.apply(Limits::default(), store, now).await?;
            let team = team_of(store, team.as_deref()).await?;
            let user = tenants.create_user(UserDraft { name, email, team, limits, suspended: false }, now).await?;
            say!("user {} made (id {})", user.name, user.id)?;
        }
        UserCommand::List { json } => list_users(&tenants.users().await?, &tenants.teams().await?, json)?,
        UserCommand::Show { user, json } => {
            show_user(&tenants.find_user(&user).await?, &tenants.teams().await?, json, now)?;
        }
        UserCommand::Set { user, name, email, team, limits } => {
            let old = tenants.find_user(&user).await?;
            let mut draft = old.draft();
            draft.name = name.unwrap_or(draft.name);
            draft.email = email.or(draft.email);
            if team.is_some() {
                draft.team = team_of(store, team.as_deref()).await?;
            }
            draft.limits = limits.apply(draft.limits, store, now).await?;
            tenants.update_user(old.id, &draft, Some(old.version)).await?;
            say!("user {}: {}", draft.name, limits::line(&draft.limits))?;
        }
        UserCommand::Suspend { user } => suspend_user(store, &user, true).await?,
        UserCommand::Resume { user } => suspend_user(store, &user, false).await?,
        UserCommand::Remove { user } => {
            let user = tenants.find_user(&user).await?;
            tenants.remove_user(user.id).await?;
            say!("user {} is removed", user.name)?;
        }
    }
    Ok(())
}

async fn team_of(store: &Store, asked: Option<&str>) -> Result<Option<TeamId>> {
    match asked {
        None | Some("none") => Ok(None),
        Some(asked) => Ok(Some(store.tenants().find_team(asked).await?.id)),
    }
}

async fn suspend_team(store: &Store, asked: &str, suspended: bool) -> Result<()> {
    let team = store.tenants().find_team(asked).await?;
    store.tenants().update_team(team.id, &TeamDraft { suspended, ..team.draft() }, Some(team.version)).await?;
    Ok(say!("team {} is {}", team.name, state(suspended))?)
}

async fn suspend_user(store: &Store, asked: &str, suspended: bool) -> Result<()> {
    let user = store.tenants().find_user(asked).await?;
    store.tenants().update_user(user.id, &UserDraft { suspended, ..user.draft() }, Some(user.version)).await?;
    Ok(say!("user {} is {}", user.name, state(suspended))?)
}

fn state(suspended: bool) -> &'static str {
    if suspended { "suspended" } else { "active" }
}

fn list_teams(teams: &[Team], json: bool) -> Result<()> {
    if json {
        let list: Vec<_> = teams.iter().map(team_json).collect();
        return Ok(say!("{}", serde_json::to_string_pretty(&list)?)?);
    }
    if teams.is_empty() {
        return Ok(say!("no teams yet: make one with `tollway team create NAME`")?);
    }
    let rows = teams.iter().map(|team| {
        [team.name.clone(), team.id.to_string(), state(team.suspended).to_owned(), limits::line(&team.limits)]
    });
    Ok(show::print(&table(["NAME", "ID", "STATE", "LIMITS"], rows))?)
}

fn list_users(users: &[User], teams: &[Team], json: bool) -> Result<()> {
    if json {
        let list: Vec<_> = users.iter().map(|user| user_json(user, teams)).collect();
        return Ok(say!("{}", serde_json::to_string_pretty(&list)?)?);
    }
    if users.is_empty() {
        return Ok(say!("no users yet: make one with `tollway user create NAME`")?);
    }
    let rows = users.iter().map(|user| {
        [
            user.name.clone(),
            user.email.clone().unwrap_or_else(|| "–".to_owned()),
            team_name(user, teams).unwrap_or("–").to_owned(),
            user.id.to_string(),
            state(user.suspended).to_owned(),
            limits::line(&user.limits),
        ]
    });
    Ok(show::print(&table(["NAME", "EMAIL", "TEAM", "ID", "STATE", "LIMITS"], rows))?)
}

fn show_team(team: &Team, json: bool, now: UnixMillis) -> Result<()> {
    if json {
        return Ok(say!("{}", serde_json::to_string_pretty(&team_json(team))?)?);
    }
    let rows = [
        ["name".to_owned(), team.name.clone()],
        ["id".to_owned(), team.id.to_string()],
        ["state".to_owned(), state(team.suspended).to_owned()],
        ["limits".to_owned(), limits::line(&team.limits)],
        ["made".to_owned(), moment(team.created_at, now)],
    ];
    Ok(show::print(&table(["TEAM", ""], rows))?)
}

fn show_user(user: &User, teams: &[Team], json: bool, now: UnixMillis) -> Result<()> {
    if json {
        return Ok(say!("{}", serde_json::to_string_pretty(&user_json(user, teams))?)?);
    }
    let rows = [
        ["name".to_owned(), user.name.clone()],
        ["email".to_owned(), user.email.clone().unwrap_or_else(|| "–".to_owned())],
        ["team".to_owned(), team_name(user, teams).unwrap_or("–").to_owned()],
        ["id".to_owned(), user.id.to_string()],
        ["state".to_owned(), state(user.suspended).to_owned()],
        ["limits".to_owned(), limits::line(&user.limits)],
        ["made".to_owned(), moment(user.created_at, now)],
    ];
    Ok(show::print(&table(["USER", ""], rows))?)
}

fn team_name<'a>(user: &User, teams: &'a [Team]) -> Option<&'a str> {
    teams.iter().find(|team| Some(team.id) == user.team).map(|team| team.name.as_str())
}

fn team_json(team: &Team) -> Value {
    json!({
        "id": team.id, "name": team.name, "suspended": team.suspended, "limits": team.limits,
        "version": team.version, "created_at": team.created_at,
    })
}

fn user_json(user: &User, teams: &[Team]) -> Value {
    json!({
        "id": user.id, "name": user.name, "email": user.email, "team": team_name(user, teams),
        "suspended": user.suspended, "limits": user.limits, "version": user.version, "created_at": user.created_at,
    })
}
