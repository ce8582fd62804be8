//! The steps, and the servers they need.

use super::Assets;
use super::calls::File;
use super::fill;
use super::ingest;
use super::quality;
use super::search::Amounts;
use super::search::Searched;
use super::words::Words;
use crate::BenchError;
use crate::process;
use crate::report::Report;
use crate::steps::Figures;
use crate::steps::Plan;
use crate::subject::Kind;
use crate::subject::Subject;
use crate::subject::Upstream;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::timeout;

/// Time limit of a step; one stores and indexes half a million chunks.
const STEP_TIMEOUT: Duration = Duration::from_secs(90 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Search quality on the Cranfield collection.
    Quality,
    /// Text files, with embeddings of the upstream.
    IngestUpstream,
    /// Text files, without embeddings.
    IngestWords,
    /// Text files, with embeddings of the local model.
    IngestLocal,
    /// PDF files, without embeddings.
    IngestPdf,
    /// Search in a store of this many thousand chunks; 0 means a hundred chunks.
    Search(u64),
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Quality,
        Self::IngestUpstream,
        Self::IngestWords,
        Self::IngestPdf,
        Self::IngestLocal,
        Self::Search(0),
        Self::Search(10),
        Self::Search(100),
        Self::Search(500),
    ];

    /// Whether only a full benchmark runs the step.
    fn is_long(self) -> bool {
        matches!(self, Self::Search(100..))
    }

    /// What is missing for the step, if anything.
    fn lacks(self, assets: &Assets) -> Option<&'static str> {
        let needs_model = matches!(self, Self::Quality | Self::IngestLocal);
        if needs_model && !assets.model.is_dir() {
            return Some("there is no local embedding model");
        }
        if self == Self::Quality && assets.cranfield.is_none() {
            return Some("no collection is given");
        }
        None
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quality => write!(f, "retrieval.quality"),
            Self::IngestUpstream => write!(f, "retrieval.ingest.upstream"),
            Self::IngestWords => write!(f, "retrieval.ingest.words"),
            Self::IngestLocal => write!(f, "retrieval.ingest.local"),
            Self::IngestPdf => write!(f, "retrieval.ingest.pdf"),
            Self::Search(0) => write!(f, "retrieval.search.100"),
            Self::Search(thousands) => write!(f, "retrieval.search.{thousands}k"),
        }
    }
}

/// Runs the steps whose names start with `only`, or those of the plan.
pub(crate) async fn measure(
    tested: &Kind,
    assets: &Assets,
    plan: &Plan,
    only: Option<&str>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let mut steps = Step::ALL.to_vec();
    steps.retain(|step| match only {
        Some(prefix) => step.to_string().starts_with(prefix),
        None => true,
    });
    steps.retain(|step| plan.thorough || !step.is_long());
    if steps.is_empty() {
        return Ok(());
    }
    let mut runner = StepRunner {
        tested,
        assets,
        plan,
        upstream: Upstream::start().await?,
        words: Arc::new(Words::new()),
        searched: None,
        figures: Figures::default(),
    };
    for step in steps {
        if let Some(lack) = step.lacks(assets) {
            eprintln!("{step} is left out: {lack}");
            continue;
        }
        let (start, other_cpu) = (Instant::now(), process::cpu_of_other_processes());
        let result = timeout(STEP_TIMEOUT, runner.run(step)).await;
        let result = result.unwrap_or(Err(BenchError::Unexpected("the step did not end in time")));
        let elapsed = start.elapsed().as_secs_f64();
        let other_cpu = process::cpu_of_other_processes().saturating_sub(other_cpu);
        let mut figures = std::mem::take(&mut runner.figures);
        figures.other_processes = other_cpu.as_secs_f64() / elapsed;
        report.add_tested(step, result.map(|()| figures));
        eprintln!("{step}: {elapsed:.1} s");
    }
    Ok(())
}

struct StepRunner<'a> {
    tested: &'a Kind,
    assets: &'a Assets,
    plan: &'a Plan,
    upstream: Upstream,
    words: Arc<Words>,
    /// The server for searches, once it is started.
    searched: Option<Searched>,
    figures: Figures,
}

impl StepRunner<'_> {
    async fn run(&mut self, step: Step) -> Result<(), BenchError> {
        let full = self.plan.thorough;
        let texts = if full { 1_000 } else { 200 };
        let few = if full { 100 } else { 20 };
        let local = self.assets.model.to_string_lossy().into_owned();
        match step {
            Step::Quality => {
                let folder = self
                    .assets
                    .cranfield
                    .as_deref()
                    .ok_or(BenchError::Nothing)?;
                let subject = self.server(&local).await?;
                quality::measure(&subject.api, folder, &mut self.figures).await
            }
            Step::IngestUpstream => {
                let files = ingest::texts(&self.words, 1, texts);
                self.index(step, fill::MODEL, files).await
            }
            Step::IngestWords => {
                let files = ingest::texts(&self.words, 2, texts);
                self.index(step, "off", files).await
            }
            Step::IngestPdf => {
                let files = ingest::pdfs(&self.words, 3, few);
                self.index(step, "off", files).await
            }
            Step::IngestLocal => {
                let files = ingest::texts(&self.words, 4, few);
                self.index(step, &local, files).await
            }
            Step::Search(thousands) => {
                if self.searched.is_none() {
                    let amounts = Amounts {
                        singles: self.plan.singles,
                        stretch: self.plan.stretch * 2,
                        compared: 50,
                        small_stores: if full { 1_000 } else { 100 },
                    };
                    let subject = self.server(fill::MODEL).await?;
                    let words = self.words.clone();
                    self.searched = Some(Searched::start(subject, words, amounts).await?);
                }
                let searched = self.searched.as_ref().ok_or(BenchError::Nothing)?;
                let chunks = (thousands * 1_000).max(100);
                let name = step.to_string();
                searched.measure(&name, chunks, &mut self.figures).await
            }
        }
    }

    /// Indexes files on a new server with this embedding model.
    async fn index(&mut self, step: Step, model: &str, files: Vec<File>) -> Result<(), BenchError> {
        let subject = self.server(model).await?;
        let indexed = ingest::index(&subject.api, files).await?;
        indexed.put(&step.to_string(), &mut self.figures);
        Ok(())
    }

    async fn server(&self, model: &str) -> Result<Subject, BenchError> {
        let kind = self.tested.with([
            ("ASSISTD_EMBEDDING_MODEL", model),
            ("ASSISTD_SANDBOX", "off"),
        ]);
        Subject::start(kind, self.upstream.address).await
    }
}
