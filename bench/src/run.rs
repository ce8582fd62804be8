//! Runs a benchmark as its options say, shows its results and keeps them.

use crate::BenchError;
use crate::benchmark;
use crate::benchmark::Servers;
use crate::compare;
use crate::compare::Taken;
use crate::growth::Growth;
use crate::history;
use crate::report::Report;
use crate::retrieval::Assets;
use crate::sandbox::Programs;
use crate::steps::Plan;
use crate::subject::Kind;
use crate::subject::SharedDatabase;
use clap::Parser;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The kept figures, in the folder for the results.
pub(crate) const HISTORY: &str = "history.txt";

#[derive(Parser)]
pub(crate) struct Run {
    /// Measure less: six minutes instead of an hour and a half.
    #[arg(long)]
    quick: bool,
    /// Run only steps whose name starts with this, after a warm-up; keep no results.
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Measure a second null server instead of assistd, to see the variance of the method.
    #[arg(long)]
    null: bool,
    /// The server to measure [default: assistd beside this program]
    #[arg(long, value_name = "PATH")]
    assistd: Option<PathBuf>,
    /// Another assistd, to measure by turns with the first: every change is shown; keep no results
    #[arg(long, value_name = "PATH", conflicts_with_all = ["null", "database_url", "replicas"])]
    against: Option<PathBuf>,
    /// Repetitions of each step [default: 3, and 1 of the longest steps]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    rounds: Option<usize>,
    /// Seconds that each rate is measured for; keep no results
    #[arg(long, value_name = "SECONDS")]
    stretch: Option<u64>,
    /// Write every round's figures to this file, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Fill the tables beforehand with this many messages, threads and day-old runs, such as 10M or
    /// 10M,1M,100k; keep no results
    #[arg(long, value_name = "MESSAGES[,THREADS[,RUNS]]")]
    grow: Option<Growth>,
    /// Measure whole flows on this many processes that share a database; keep no results
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one)]
    replicas: usize,
    /// The sandbox worker to measure [default: assistd-sandbox beside the server]
    #[arg(long, value_name = "PATH")]
    sandbox: Option<PathBuf>,
    /// A Python with Jupyter, to compare with the sandbox worker
    #[arg(long, value_name = "PATH", default_value = "bench/.venv/bin/python3")]
    jupyter: PathBuf,
    /// A folder with the Cranfield collection, to measure search quality
    #[arg(long, value_name = "DIR", env = "BENCH_CRANFIELD")]
    cranfield: Option<PathBuf>,
    /// A folder with the local embedding model
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".venv/models/all-minilm-l6-v2"
    )]
    embedding_model: PathBuf,
    /// A scratch database for assistd [default: its embedded one]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// An environment variable for assistd, as NAME=VALUE
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// The commit of the server; without it, its figures are not kept in the history
    #[arg(long)]
    commit: Option<String>,
    /// Folder for the results
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "not a number above 0".to_owned())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Run {
    fn plan(&self) -> Plan {
        let mut plan = if self.quick {
            Plan::quick()
        } else {
            Plan::full()
        };
        if let Some(rounds) = self.rounds {
            plan.rounds = rounds;
            plan.long_rounds = rounds;
        }
        if let Some(seconds) = self.stretch {
            plan.stretch = Duration::from_secs(seconds);
        }
        plan.growth = self.grow;
        plan.shows_tables = self.grow.is_some() || self.stretch.is_some();
        plan
    }

    fn plan_name(&self) -> &'static str {
        if self.quick { "quick" } else { "full" }
    }

    /// The server to measure.
    fn binary(&self) -> io::Result<PathBuf> {
        match &self.assistd {
            Some(binary) => Ok(binary.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("assistd")),
        }
    }

    /// The sandbox worker and Jupyter, unless something else than assistd is measured.
    fn programs(&self, binary: &Path) -> Option<Programs> {
        let beside = |server: &Path| server.with_file_name("assistd-sandbox");
        let worker = self.sandbox.clone().unwrap_or_else(|| beside(binary));
        let base_has_one = self
            .against
            .as_deref()
            .is_none_or(|base| beside(base).exists());
        (!self.null && worker.exists() && base_has_one).then(|| Programs {
            worker,
            jupyter: Some(self.jupyter.clone()).filter(|python| python.exists()),
        })
    }

    fn servers(&self, binary: PathBuf, shared: Option<&SharedDatabase>) -> Servers {
        let own = shared.map(SharedDatabase::url);
        let assistd = |binary| Kind::Assistd {
            binary,
            database_url: own.clone().or_else(|| self.database_url.clone()),
            replicas: self.replicas,
            settings: self.settings.clone(),
        };
        Servers {
            tested: if self.null {
                Kind::Null
            } else {
                assistd(binary)
            },
            base: self.against.clone().map(assistd),
        }
    }

    /// What differs from an ordinary benchmark.
    fn conditions(&self) -> Vec<String> {
        let settings = self
            .settings
            .iter()
            .map(|(name, _)| format!("{name} is set"));
        let growth = self.grow.map(|growth| growth.to_string());
        let database = self.database_url.as_ref();
        let database = database.map(|_| "a given database".to_owned());
        let replicas = (self.replicas > 1).then(|| format!("{} replicas", self.replicas));
        let all = settings.chain(growth).chain(database).chain(replicas);
        all.collect()
    }

    /// Whether the results are those of a whole benchmark.
    fn is_whole(&self) -> bool {
        let is_usual = !self.null && self.replicas == 1;
        let has_usual_amounts = self.grow.is_none() && self.stretch.is_none();
        is_usual && has_usual_amounts && self.only.is_none() && self.against.is_none()
    }

    /// Shows the change since the last kept sitting, or between the two servers.
    fn compare(&self, report: &Report) -> Result<(), BenchError> {
        let plan = self.plan_name();
        let sitting = report.sitting(plan, "this sitting");
        if self.against.is_some() {
            println!("\n# Compared with the base, by turns\n");
            let base = report.base_sitting(plan);
            print!("{}", compare::markdown(&base, &sitting, Taken::ByTurns));
            return Ok(());
        }
        let kept = history::read(&self.results.join(HISTORY))?;
        if let Some(last) = kept.iter().rev().find(|kept| kept.plan == plan)
            && !self.null
        {
            println!("\n# Compared with {}\n", last.name());
            print!("{}", compare::markdown(last, &sitting, Taken::Apart));
        }
        Ok(())
    }

    fn keep(&self, report: &Report, table: &str) -> Result<(), BenchError> {
        fs::create_dir_all(&self.results)?;
        let name = if self.quick { "quick" } else { "latest" };
        fs::write(self.results.join(format!("{name}.md")), table)?;
        let json = format!("{:#}\n", report.json());
        fs::write(self.results.join(format!("{name}.json")), json)?;
        if let Some(commit) = &self.commit
            && self.assistd.is_none()
            && self.conditions().is_empty()
        {
            let sitting = report.sitting(self.plan_name(), commit);
            history::append(&self.results.join(HISTORY), &sitting)?;
        }
        Ok(())
    }
}

pub(crate) async fn run(options: &Run) -> Result<ExitCode, BenchError> {
    // A thousand streams need three thousand descriptors; children inherit the limit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let binary = options.binary()?;
    let programs = options.programs(&binary);
    let needs_shared = options.replicas > 1 && options.database_url.is_none();
    let shared = match needs_shared {
        true => Some(SharedDatabase::start(options.replicas).await?),
        false => None,
    };
    let servers = options.servers(binary, shared.as_ref());
    let assets = Assets {
        cranfield: options.cranfield.clone(),
        model: options.embedding_model.clone(),
    };
    let mut report = Report::new(servers.tested.name(), options.conditions());
    let (plan, only) = (options.plan(), options.only.as_deref());
    let programs = programs.as_ref();
    let done = benchmark::measure(&servers, programs, &assets, &plan, only, &mut report).await;
    if let Some(shared) = shared {
        shared.stop().await;
    }
    done?;
    let title = if options.quick {
        "Benchmark, quick"
    } else {
        "Benchmark"
    };
    let table = report.markdown(title);
    println!("\n{table}");
    if let Some(path) = &options.json {
        fs::write(path, format!("{:#}\n", report.json()))?;
    }
    options.compare(&report)?;
    if options.is_whole() {
        options.keep(&report, &table)?;
    }
    Ok(if report.has_failures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
