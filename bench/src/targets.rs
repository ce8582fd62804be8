//! The shown figures in order, with targets for a machine that runs everything: load generator, upstream,
//! server and database.
//!
//! Absolute bounds pass or fail with the machine, so a figure that the null server has too is judged by
//! their ratio.

/// The target of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// At most this multiple of the null server's figure. The second number is a bound for the two cores
    /// of `bench/results/latest.md`; it is shown and not judged.
    AtMostTimesNull(f64, f64),
    /// At least this multiple of the null server's figure; the second number as above.
    AtLeastTimesNull(f64, f64),
    /// For information only; lower values are better.
    Low,
    /// For information only; higher values are better.
    High,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The name in the step's figures.
    pub(crate) name: &'static str,
    /// The description with its unit.
    pub(crate) label: &'static str,
    /// Decimals, in the table and for the comparison.
    digits: u8,
    pub(crate) target: Target,
    /// The name of the compared program's figure.
    pub(crate) counterpart: &'static str,
}

impl Figure {
    /// Compares with another figure of the compared program.
    const fn beside(mut self, counterpart: &'static str) -> Self {
        self.counterpart = counterpart;
        self
    }

    /// Whether a higher value is better.
    pub(crate) fn is_higher_better(&self) -> bool {
        match self.target {
            Target::AtLeast(_) | Target::AtLeastTimesNull(..) | Target::High => true,
            Target::AtMost(_) | Target::AtMostTimesNull(..) | Target::Low => false,
        }
    }

    /// Whether the machine's speed affects it, as it affects all but memory.
    pub(crate) fn varies_with_speed(&self) -> bool {
        !self.name.contains("memory")
    }

    /// A value as the table shows it.
    pub(crate) fn shown(&self, value: f64) -> String {
        format!("{value:.*}", usize::from(self.digits))
    }

    /// A value rounded to the table's decimals.
    pub(crate) fn rounded(&self, value: f64) -> f64 {
        let scale = 10_f64.powi(i32::from(self.digits));
        (value * scale).round() / scale
    }
}

const fn figure(name: &'static str, digits: u8, target: Target, label: &'static str) -> Figure {
    Figure {
        name,
        label,
        digits,
        target,
        counterpart: name,
    }
}

use Target::AtLeast;
use Target::AtLeastTimesNull;
use Target::AtMost;
use Target::AtMostTimesNull;
use Target::High;
use Target::Low;

/// Figures of one kind, and the program they are compared with, if any.
pub(crate) struct Table {
    pub(crate) other: Option<&'static str>,
    pub(crate) figures: &'static [Figure],
}

/// All tables.
pub(crate) const TABLES: [Table; 3] = [
    Table {
        other: Some("null"),
        figures: SERVER,
    },
    Table {
        other: Some("jupyter"),
        figures: SANDBOX,
    },
    Table {
        other: None,
        figures: RETRIEVAL,
    },
];

/// The server, compared with a minimal one. Bounds of figures that the null server has too are multiples
/// of its figure in the same sitting.
#[rustfmt::skip]
const SERVER: &[Figure] = &[
    figure("create-thread.1.p50", 2, AtMostTimesNull(3.0, 1.0), "create thread, 1 caller: ms p50"),
    figure("create-thread.16.rate", 0, AtLeastTimesNull(0.28, 3_100.0), "create thread, 16 callers: /s"),
    figure("create-thread.16.server-cpu", 3, Low, "… server CPU each: ms"),
    figure("add-message.1.p50", 2, AtMostTimesNull(3.5, 1.15), "add message, 1 caller: ms p50"),
    figure("add-message.16.rate", 0, AtLeastTimesNull(0.22, 2_470.0), "add message, 16 callers: /s"),
    figure("list.1.p50", 2, AtMostTimesNull(1.5, 2.0), "list 100 messages, 1 caller: ms p50"),
    figure("list.16.rate", 0, AtLeastTimesNull(0.7, 900.0), "list 100 messages, 16 callers: /s"),
    figure("list-full.1.p50", 2, AtMostTimesNull(1.8, 2.0), "list 100, full table: ms p50").beside("list.1.p50"),
    figure("list-full.growth", 2, AtMost(1.2), "… relative to before it was filled"),
    figure("run.p50", 1, AtMostTimesNull(1.6, 8.0), "run alone: ms p50"),
    figure("run.p99", 1, AtMostTimesNull(2.2, 20.0), "run alone: ms p99"),
    figure("run.before-upstream", 2, AtMostTimesNull(5.0, 3.0), "… before the upstream is called: ms p50"),
    figure("run.server-cpu", 2, Low, "… server CPU each: ms"),
    figure("commits.writing", 1, AtMost(3.0), "writing transactions per run"),
    figure("commits.syncs", 1, AtMost(3.0), "syncs of the log per run"),
    figure("commits.all", 1, Low, "all transactions per run, reads and polls included"),
    figure("flow.1.rate", 0, AtLeastTimesNull(0.5, 120.0), "whole flow, 1 caller: /s"),
    figure("flow.16.rate", 0, AtLeastTimesNull(0.22, 400.0), "whole flow, 16 callers: /s"),
    figure("flow.64.rate", 0, AtLeastTimesNull(0.18, 400.0), "whole flow, 64 callers: /s"),
    figure("flow.64.p50", 1, Low, "… ms p50"),
    figure("flow.64.p99", 1, Low, "… ms p99"),
    figure("flow.16.server-cpu", 2, AtMostTimesNull(3.5, 2.0), "server CPU per flow at 16: ms"),
    figure("flow.16.database-cpu", 2, AtMostTimesNull(4.5, 2.2), "database CPU per flow at 16: ms").beside("flow.16.server-cpu"),
    figure("tools.1.p50", 1, AtMostTimesNull(1.8, 16.0), "function-tool loop, 1 caller: ms p50"),
    figure("tools.16.rate", 0, AtLeastTimesNull(0.25, 220.0), "function-tool loop, 16 callers: /s"),
    figure("tools.16.server-cpu", 2, Low, "… server CPU each: ms"),
    figure("streams.1.first.p50", 1, AtMostTimesNull(3.0, 4.0), "added to first token, 1 stream: ms p50"),
    figure("streams.1.first.p99", 1, AtMostTimesNull(3.0, 10.0), "added to first token, 1 stream: ms p99"),
    figure("streams.64.first.p50", 1, AtMostTimesNull(3.0, 6.0), "added to first token, 64 streams: ms p50"),
    figure("streams.64.first.p99", 1, AtMostTimesNull(3.0, 12.0), "added to first token, 64 streams: ms p99"),
    figure("streams.256.first.p50", 1, AtMostTimesNull(2.0, 12.0), "added to first token, 256 streams: ms p50"),
    figure("streams.256.first.p99", 1, AtMostTimesNull(1.5, 40.0), "added to first token, 256 streams: ms p99"),
    figure("streams.1.token.p50", 2, AtMostTimesNull(2.0, 1.0), "added per token, 1 stream: ms p50"),
    figure("streams.64.token.p50", 2, AtMostTimesNull(2.0, 1.0), "added per token, 64 streams: ms p50"),
    figure("streams.256.token.p50", 2, AtMostTimesNull(2.0, 1.0), "added per token, 256 streams: ms p50"),
    figure("streams.256.token.p99", 2, Low, "… ms p99"),
    figure("streams.256.server-cpu", 1, AtMostTimesNull(1.5, 11.0), "server CPU per 100-token stream at 256: ms"),
    figure("thousand.good", 0, AtLeast(1_000.0), "1,000 streams at once: good ones"),
    figure("thousand.first.p50", 1, Low, "… added to first token: ms p50"),
    figure("thousand.first.p99", 1, AtMostTimesNull(4.0, 100.0), "… added to first token: ms p99"),
    figure("thousand.end.p50", 1, Low, "… end of the stream after the last token: ms p50"),
    figure("thousand.end.p99", 1, AtMostTimesNull(15.0, 60.0), "… end of the stream after the last token: ms p99"),
    figure("thousand.memory-peak", 0, AtMost(80.0), "… peak memory of the server: MiB"),
    figure("stream-memory.before", 0, Low, "new server, memory before 1,000 streams: MiB"),
    figure("stream-memory.peak", 0, AtMost(80.0), "… peak memory: MiB"),
    figure("stream-memory.each", 0, Low, "… memory per stream: KiB"),
    figure("long-thread.1.before-upstream", 2, Low, "thread of 1 message, before the upstream is called: ms p50"),
    figure("long-thread.1000.before-upstream", 2, AtMostTimesNull(6.0, 10.0), "thread of 1,000 messages, before the upstream is called: ms p50"),
    figure("long-thread.create-growth", 2, AtMost(1.2), "… create run, relative to 1 message"),
    figure("long-thread.reached", 0, AtLeast(100.0), "… messages that reach the upstream: %"),
    figure("pause.tokens", 0, AtLeast(90.0), "tokens that come while the database is stopped: %"),
    figure("memory.warm", 0, AtMost(50.0), "memory of the warm server: MiB"),
    figure("start.new", 0, AtMost(3_000.0), "start to first answer, new data folder: ms"),
    figure("start.existing", 0, AtMost(500.0), "start to first answer, existing data folder: ms"),
    figure("restart.first-answer", 0, AtMost(500.0), "… with a full table: ms"),
    figure("crash.first-answer", 0, Low, "kill -9, start to first answer: ms"),
    figure("crash.ended", 0, AtLeast(100.0), "kill -9: runs ended within 60 s: %"),
    figure("crash.completed", 0, High, "… of them completed: %"),
    figure("crash.last-end", 0, AtMost(60.0), "… last one ended after: s"),
    figure("crash.doubled", 0, AtMost(0.0), "… threads with a doubled answer"),
    figure("crash.usable", 0, AtLeast(100.0), "… threads usable afterwards: %"),
];

/// The sandbox, compared with Jupyter kernels.
#[rustfmt::skip]
const SANDBOX: &[Figure] = &[
    figure("sandbox.new.p50", 1, AtMost(15.0), "new session, first result: ms p50"),
    figure("sandbox.new.p99", 1, AtMost(50.0), "… ms p99"),
    figure("sandbox.hurried.p50", 1, Low, "new sessions without a pause, first result: ms p50"),
    figure("sandbox.hurried.p99", 1, Low, "… ms p99"),
    figure("sandbox.forked.p50", 1, Low, "new session, none kept spare, first result: ms p50"),
    figure("sandbox.forked.p99", 1, Low, "… ms p99"),
    figure("sandbox.live.p50", 2, AtMost(3.0), "live session, trivial cell: ms p50"),
    figure("sandbox.live.p99", 2, Low, "… ms p99"),
    figure("sandbox.imports.p50", 1, Low, "new session, imports numpy, pandas, pyplot: ms p50"),
    figure("sandbox.imports.p99", 1, Low, "… ms p99"),
    figure("sandbox.plot.p50", 1, Low, "new session, imports them and plots: ms p50"),
    figure("sandbox.plot.p99", 1, Low, "… ms p99"),
    figure("sandbox.burst.good", 0, AtLeast(50.0), "50 new sessions at once: those that answer"),
    figure("sandbox.burst.rate", 0, High, "… sessions /s"),
    figure("sandbox.burst.p50", 0, Low, "… first result: ms p50"),
    figure("sandbox.burst.last", 0, Low, "… last first result: ms"),
    figure("sandbox.burst.memory", 0, Low, "… memory of all, the worker's included: MiB"),
    figure("sandbox.memory.idle", 1, AtMost(15.0), "memory of an idle session: MiB"),
    figure("sandbox.memory.plot", 1, Low, "… after a plot: MiB"),
    figure("sandbox.memory.worker", 0, Low, "memory of the worker without sessions: MiB"),
    figure("sandbox.start", 0, Low, "start of the worker: ms"),
    figure("sandbox.run.function", 1, Low, "run with a function call, streamed: ms p50"),
    figure("sandbox.run.new", 1, AtMost(20.0), "run with a code call, new session, streamed: ms p50"),
    figure("sandbox.run.new-added", 1, Low, "… more than with a function call: ms"),
    figure("sandbox.run.live", 1, Low, "run with a code call, live session, streamed: ms p50"),
    figure("sandbox.run.live-added", 1, Low, "… more than with a function call: ms"),
];

/// Vector stores.
#[rustfmt::skip]
const RETRIEVAL: &[Figure] = &[
    figure("retrieval.quality.both.ndcg", 3, AtLeast(0.41), "Cranfield, words and meaning: nDCG@10"),
    figure("retrieval.quality.both.recall", 3, High, "… recall@20"),
    figure("retrieval.quality.both.mrr", 3, High, "… mean reciprocal rank"),
    figure("retrieval.quality.words.ndcg", 3, AtLeast(0.36), "Cranfield, words alone: nDCG@10"),
    figure("retrieval.quality.words.recall", 3, High, "… recall@20"),
    figure("retrieval.quality.words.mrr", 3, High, "… mean reciprocal rank"),
    figure("retrieval.quality.meaning.ndcg", 3, High, "Cranfield, meaning alone: nDCG@10"),
    figure("retrieval.quality.meaning.recall", 3, High, "… recall@20"),
    figure("retrieval.quality.meaning.mrr", 3, High, "… mean reciprocal rank"),
    figure("retrieval.quality.gain", 3, AtLeast(1.001), "words and meaning, relative to the better one alone: nDCG@10"),
    figure("retrieval.quality.indexing.files", 1, High, "indexing Cranfield, local vectors: files/s"),
    figure("retrieval.quality.indexing.mb", 3, High, "… MB/s"),
    figure("retrieval.ingest.upstream.files", 0, High, "indexing 4 kB texts, vectors of an upstream: files/s"),
    figure("retrieval.ingest.upstream.mb", 2, High, "… MB/s"),
    figure("retrieval.ingest.words.files", 0, High, "indexing 4 kB texts, words alone: files/s"),
    figure("retrieval.ingest.words.mb", 2, High, "… MB/s"),
    figure("retrieval.ingest.local.files", 1, High, "indexing 4 kB texts, local vectors: files/s"),
    figure("retrieval.ingest.local.mb", 3, High, "… MB/s"),
    figure("retrieval.ingest.pdf.files", 1, High, "indexing PDFs of 10 pages, words alone: files/s"),
    figure("retrieval.ingest.pdf.mb", 2, High, "… MB/s"),
    figure("retrieval.search.100.1.p50", 1, Low, "search of 100 chunks, 1 caller: ms p50"),
    figure("retrieval.search.100.1.p99", 1, AtMost(20.0), "… ms p99"),
    figure("retrieval.search.100.16.rate", 0, High, "search of 100 chunks, 16 callers: /s"),
    figure("retrieval.search.100.16.p50", 1, Low, "… ms p50"),
    figure("retrieval.search.100.16.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100.words.p50", 1, Low, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.100.words.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100.meaning.p50", 1, Low, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.100.meaning.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100.beside.p50", 1, Low, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.100.beside.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.10k.1.p50", 1, Low, "search of 10,000 chunks, 1 caller: ms p50"),
    figure("retrieval.search.10k.1.p99", 1, AtMost(20.0), "… ms p99"),
    figure("retrieval.search.10k.16.rate", 0, High, "search of 10,000 chunks, 16 callers: /s"),
    figure("retrieval.search.10k.16.p50", 1, Low, "… ms p50"),
    figure("retrieval.search.10k.16.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.10k.words.p50", 1, Low, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.10k.words.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.10k.meaning.p50", 1, Low, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.10k.meaning.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.10k.hundredth.p50", 1, Low, "… filter that leaves 1 %, 1 caller: ms p50"),
    figure("retrieval.search.10k.hundredth.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.10k.half.p50", 1, Low, "… filter that leaves 50 %, 1 caller: ms p50"),
    figure("retrieval.search.10k.half.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.10k.beside.p50", 1, Low, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.10k.beside.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.10k.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.10k.index", 0, Low, "… until its vectors had an index: s"),
    figure("retrieval.search.100k.1.p50", 1, Low, "search of 100,000 chunks, 1 caller: ms p50"),
    figure("retrieval.search.100k.1.p99", 1, AtMost(20.0), "… ms p99"),
    figure("retrieval.search.100k.16.rate", 0, High, "search of 100,000 chunks, 16 callers: /s"),
    figure("retrieval.search.100k.16.p50", 1, Low, "… ms p50"),
    figure("retrieval.search.100k.16.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100k.words.p50", 1, Low, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.100k.words.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100k.meaning.p50", 1, Low, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.100k.meaning.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100k.hundredth.p50", 1, Low, "… filter that leaves 1 %, 1 caller: ms p50"),
    figure("retrieval.search.100k.hundredth.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100k.half.p50", 1, Low, "… filter that leaves 50 %, 1 caller: ms p50"),
    figure("retrieval.search.100k.half.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100k.beside.p50", 1, Low, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.100k.beside.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.100k.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.100k.index", 0, Low, "… until its vectors had an index: s"),
    figure("retrieval.search.500k.1.p50", 1, Low, "search of 500,000 chunks, 1 caller: ms p50"),
    figure("retrieval.search.500k.1.p99", 1, AtMost(50.0), "… ms p99"),
    figure("retrieval.search.500k.16.rate", 0, High, "search of 500,000 chunks, 16 callers: /s"),
    figure("retrieval.search.500k.16.p50", 1, Low, "… ms p50"),
    figure("retrieval.search.500k.16.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.500k.words.p50", 1, Low, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.500k.words.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.500k.meaning.p50", 1, Low, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.500k.meaning.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.500k.hundredth.p50", 1, Low, "… filter that leaves 1 %, 1 caller: ms p50"),
    figure("retrieval.search.500k.hundredth.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.500k.half.p50", 1, Low, "… filter that leaves 50 %, 1 caller: ms p50"),
    figure("retrieval.search.500k.half.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.500k.beside.p50", 1, Low, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.500k.beside.p99", 1, Low, "… ms p99"),
    figure("retrieval.search.500k.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.500k.index", 0, Low, "… until its vectors had an index: s"),
];
