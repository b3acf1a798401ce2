//! `tollway apply`: makes a gateway as a file says. The plan is a pure function of the file and of
//! what the gateway has; reading and changing goes through the admin API, here or from afar.

mod current;
mod file;
mod kind;
mod plan;

use super::gateway::Gateway;
use super::show::{self, say};
use crate::config::Loaded;
use anyhow::{Context, Result, anyhow, bail};
use file::{Declared, Fault};
use plan::{Action, Step, written};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use url::Url;

/// What `--dry-run` ends with when there is something to do.
const WOULD_CHANGE: u8 = 2;

/// Make a gateway as a file says, after showing what would change; docs/apply.md
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command")]
pub(super) struct Options {
    /// What is declared, in TOML, YAML or JSON; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// A gateway's admin listener, such as https://tollway-admin.example.com; the key is taken from
    /// the setting admin.key (TOLLWAY_ADMIN__KEY). Without it, this machine's database
    #[arg(long)]
    url: Option<Url>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show the plan and change nothing; ends with 2 if something would change
    #[arg(long, visible_alias = "plan", conflicts_with = "yes")]
    dry_run: bool,
    /// Also remove what the file does not declare, of the kinds that it has a section of; never
    /// accounts
    #[arg(long)]
    prune: bool,
    /// Fail where accounts or keys are declared that only a person can add
    #[arg(long)]
    strict: bool,
    /// How the plan is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

pub(super) async fn run(loaded: Loaded, options: Options) -> Result<ExitCode> {
    let declared = declared(&options.file)?;
    let gateway = Gateway::open(loaded, options.url.clone()).await?;
    let done = work(&gateway, &declared, &options).await;
    gateway.close().await;
    done
}

fn declared(path: &Path) -> Result<Declared> {
    let shown = path.display().to_string();
    let text = if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.with_context(|| format!("{shown} cannot be read"))?;
    let content = file::content(path, &text).with_context(|| shown.clone())?;
    Declared::read(&content).map_err(|faults| refused(&shown, &faults))
}

fn refused(file: &str, faults: &[Fault]) -> anyhow::Error {
    let lines = faults.iter().fold(String::new(), |all, fault| format!("{all}\n  {fault}"));
    anyhow!("{file} cannot be applied:{lines}")
}

async fn work(gateway: &Gateway, declared: &Declared, options: &Options) -> Result<ExitCode> {
    let current = current::read(gateway, declared).await.context("what the gateway has cannot be read")?;
    let plan = plan::plan(declared, &current, options.prune);
    let plan = plan.map_err(|faults| refused(&options.file.display().to_string(), &faults))?;
    show::print(&match options.format {
        Format::Table => table(&plan),
        Format::Json => serde_json::to_string_pretty(&json!({"steps": plan, "summary": summary(&plan)}))? + "\n",
    })?;
    let missing = plan.iter().filter(|step| matches!(step.action, Action::Missing { .. })).count();
    if options.strict && missing > 0 {
        bail!("{missing} declared objects are not there and cannot be made out of a file (--strict)");
    }
    let steps: Vec<&Step> = plan.iter().filter(|step| step.is_work()).collect();
    if steps.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if options.dry_run {
        return Ok(ExitCode::from(WOULD_CHANGE));
    }
    if !options.yes && !confirmed(&options.file)? {
        bail!("nothing was changed");
    }
    apply(gateway, &steps).await?;
    if let Format::Table = options.format {
        say!("applied")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever sits at the terminal.
fn confirmed(file: &Path) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || file.as_os_str() == "-" {
        bail!("nothing was changed: nobody can be asked here; give --yes to apply, or --dry-run to look");
    }
    let mut err = std::io::stderr().lock();
    write!(err, "Apply? [y/N] ")?;
    err.flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

async fn apply(gateway: &Gateway, steps: &[&Step]) -> Result<()> {
    let run = uuid::Uuid::now_v7();
    for (at, step) in steps.iter().enumerate() {
        let done = current::take(gateway, step, &format!("apply:{run}:{at}")).await;
        done.with_context(|| {
            let (word, name, all) = (step.kind.word(), &step.name, steps.len());
            format!("stopped at {word} {name}, with {at} of {all} changes made; what is made stays")
        })?;
    }
    Ok(())
}

fn summary(plan: &[Step]) -> serde_json::Value {
    let count = |is: fn(&Action) -> bool| plan.iter().filter(|step| is(&step.action)).count();
    json!({
        "create": count(|action| matches!(action, Action::Create { .. })),
        "change": count(|action| matches!(action, Action::Change { .. })),
        "remove": count(|action| matches!(action, Action::Remove { .. })),
        "keep": count(|action| matches!(action, Action::Keep)),
        "missing": count(|action| matches!(action, Action::Missing { .. })),
    })
}

/// The plan for people.
fn table(plan: &[Step]) -> String {
    let mut out = String::new();
    for Step { kind, name, action } in plan {
        let word = kind.word();
        // Writing to a string cannot fail.
        let _ = match action {
            Action::Keep => Ok(()),
            Action::Missing { advice } => writeln!(out, "? {word} {name} is not there: {advice}"),
            Action::Remove { .. } if word == "key" => writeln!(out, "- {word} {name} is revoked, for good"),
            Action::Remove { .. } => writeln!(out, "- {word} {name}"),
            Action::Create { fields } => {
                let _ = writeln!(out, "+ {word} {name}");
                lines(fields).into_iter().try_for_each(|line| writeln!(out, "    {line}"))
            }
            Action::Change { changes, .. } => {
                let _ = writeln!(out, "~ {word} {name}");
                changes.iter().try_for_each(|change| {
                    let field = &change.field;
                    writeln!(out, "    {field}: {} -> {}", written(field, &change.old), written(field, &change.new))
                })
            }
        };
    }
    let told = summary(plan);
    let sum = |name: &str| told[name].as_u64().unwrap_or_default();
    if sum("create") + sum("change") + sum("remove") == 0 {
        let _ = writeln!(out, "nothing to do: {} as declared", sum("keep"));
    } else {
        let _ = writeln!(
            out,
            "{} to make, {} to change, {} to remove, {} as declared",
            sum("create"),
            sum("change"),
            sum("remove"),
            sum("keep")
        );
    }
    out
}

fn lines(fields: &kind::Fields) -> Vec<String> {
    let mut lines = Vec::new();
    for (field, value) in fields {
        match value {
            serde_json::Value::Object(limits) => {
                lines.extend(limits.iter().map(|(limit, value)| format!("{field}.{limit}: {}", written(limit, value))));
            }
            value => lines.push(format!("{field}: {}", written(field, value))),
        }
    }
    lines
}
