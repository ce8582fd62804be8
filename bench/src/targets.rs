//! The shown figures in order, with targets for a machine of two cores that runs everything: load
//! generator, upstream, server and database.

/// The target of a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// At most this multiple of the null server's figure.
    AtMostTimesNull(f64),
    /// For information only.
    None,
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
}

impl Figure {
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
    }
}

use Target::AtLeast;
use Target::AtMost;
use Target::AtMostTimesNull;
use Target::None as NoTarget;

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

/// The server, compared with a minimal one.
#[rustfmt::skip]
const SERVER: &[Figure] = &[
    figure("create-thread.1.p50", 2, AtMost(1.0), "create thread, 1 caller: ms p50"),
    figure("create-thread.16.rate", 0, AtLeast(3_100.0), "create thread, 16 callers: /s"),
    figure("create-thread.16.server-cpu", 3, NoTarget, "… server CPU each: ms"),
    figure("add-message.1.p50", 2, AtMost(1.15), "add message, 1 caller: ms p50"),
    figure("add-message.16.rate", 0, AtLeast(2_470.0), "add message, 16 callers: /s"),
    figure("list.1.p50", 2, AtMost(2.0), "list 100 messages, 1 caller: ms p50"),
    figure("list.16.rate", 0, AtLeast(900.0), "list 100 messages, 16 callers: /s"),
    figure("list-full.1.p50", 2, AtMost(2.0), "list 100, full table: ms p50"),
    figure("list-full.growth", 2, AtMost(1.2), "… relative to before it was filled"),
    figure("run.p50", 1, AtMost(8.0), "run alone: ms p50"),
    figure("run.p99", 1, AtMost(20.0), "run alone: ms p99"),
    figure("run.before-upstream", 2, AtMost(3.0), "… before the upstream is called: ms p50"),
    figure("run.server-cpu", 2, NoTarget, "… server CPU each: ms"),
    figure("commits.writing", 1, AtMost(3.0), "writing transactions per run"),
    figure("commits.syncs", 1, AtMost(3.0), "syncs of the log per run"),
    figure("commits.all", 1, NoTarget, "all transactions per run, reads and polls included"),
    figure("flow.1.rate", 0, AtLeast(120.0), "whole flow, 1 caller: /s"),
    figure("flow.16.rate", 0, AtLeast(400.0), "whole flow, 16 callers: /s"),
    figure("flow.64.rate", 0, AtLeast(400.0), "whole flow, 64 callers: /s"),
    figure("flow.64.p50", 1, NoTarget, "… ms p50"),
    figure("flow.64.p99", 1, NoTarget, "… ms p99"),
    figure("flow.16.server-cpu", 2, AtMost(2.0), "server CPU per flow at 16: ms"),
    figure("flow.16.database-cpu", 2, AtMost(2.2), "database CPU per flow at 16: ms"),
    figure("tools.1.p50", 1, AtMost(16.0), "function-tool loop, 1 caller: ms p50"),
    figure("tools.16.rate", 0, AtLeast(220.0), "function-tool loop, 16 callers: /s"),
    figure("tools.16.server-cpu", 2, NoTarget, "… server CPU each: ms"),
    figure("streams.1.first.p50", 1, AtMost(4.0), "added to first token, 1 stream: ms p50"),
    figure("streams.1.first.p99", 1, AtMost(10.0), "added to first token, 1 stream: ms p99"),
    figure("streams.64.first.p50", 1, AtMost(6.0), "added to first token, 64 streams: ms p50"),
    figure("streams.64.first.p99", 1, AtMost(12.0), "added to first token, 64 streams: ms p99"),
    figure("streams.256.first.p50", 1, AtMost(12.0), "added to first token, 256 streams: ms p50"),
    figure("streams.256.first.p99", 1, AtMost(40.0), "added to first token, 256 streams: ms p99"),
    figure("streams.1.token.p50", 2, AtMostTimesNull(2.0), "added per token, 1 stream: ms p50"),
    figure("streams.64.token.p50", 2, AtMostTimesNull(2.0), "added per token, 64 streams: ms p50"),
    figure("streams.256.token.p50", 2, AtMostTimesNull(2.0), "added per token, 256 streams: ms p50"),
    figure("streams.256.token.p99", 2, NoTarget, "… ms p99"),
    figure("streams.256.server-cpu", 1, AtMost(11.0), "server CPU per 100-token stream at 256: ms"),
    figure("thousand.good", 0, AtLeast(1_000.0), "1,000 streams at once: good ones"),
    figure("thousand.first.p50", 1, NoTarget, "… added to first token: ms p50"),
    figure("thousand.first.p99", 1, AtMost(100.0), "… added to first token: ms p99"),
    figure("thousand.memory-peak", 0, AtMost(150.0), "… peak memory of the server: MiB"),
    figure("long-thread.1.before-upstream", 2, NoTarget, "thread of 1 message, before the upstream is called: ms p50"),
    figure("long-thread.1000.before-upstream", 2, AtMost(10.0), "thread of 1,000 messages, before the upstream is called: ms p50"),
    figure("long-thread.create-growth", 2, AtMost(1.2), "… create run, relative to 1 message"),
    figure("long-thread.reached", 0, AtLeast(100.0), "… messages that reach the upstream: %"),
    figure("pause.tokens", 0, AtLeast(90.0), "tokens that come while the database is stopped: %"),
    figure("memory.warm", 0, AtMost(50.0), "memory of the warm server: MiB"),
    figure("restart.first-answer", 0, AtMost(500.0), "start to first answer, migrated database: ms"),
    figure("crash.first-answer", 0, NoTarget, "kill -9, start to first answer: ms"),
    figure("crash.ended", 0, AtLeast(100.0), "kill -9: runs ended within 60 s: %"),
    figure("crash.completed", 0, NoTarget, "… of them completed: %"),
    figure("crash.last-end", 0, AtMost(60.0), "… last one ended after: s"),
    figure("crash.doubled", 0, AtMost(0.0), "… threads with a doubled answer"),
    figure("crash.usable", 0, AtLeast(100.0), "… threads usable afterwards: %"),
];

/// The sandbox, compared with Jupyter kernels.
#[rustfmt::skip]
const SANDBOX: &[Figure] = &[
    figure("sandbox.new.p50", 1, AtMost(15.0), "new session, first result: ms p50"),
    figure("sandbox.new.p99", 1, AtMost(50.0), "… ms p99"),
    figure("sandbox.hurried.p50", 1, NoTarget, "new sessions without a pause, first result: ms p50"),
    figure("sandbox.hurried.p99", 1, NoTarget, "… ms p99"),
    figure("sandbox.forked.p50", 1, NoTarget, "new session, none kept spare, first result: ms p50"),
    figure("sandbox.forked.p99", 1, NoTarget, "… ms p99"),
    figure("sandbox.live.p50", 2, AtMost(3.0), "live session, trivial cell: ms p50"),
    figure("sandbox.live.p99", 2, NoTarget, "… ms p99"),
    figure("sandbox.imports.p50", 1, NoTarget, "new session, imports numpy, pandas, pyplot: ms p50"),
    figure("sandbox.imports.p99", 1, NoTarget, "… ms p99"),
    figure("sandbox.plot.p50", 1, NoTarget, "new session, imports them and plots: ms p50"),
    figure("sandbox.plot.p99", 1, NoTarget, "… ms p99"),
    figure("sandbox.burst.good", 0, AtLeast(50.0), "50 new sessions at once: those that answer"),
    figure("sandbox.burst.rate", 0, NoTarget, "… sessions /s"),
    figure("sandbox.burst.p50", 0, NoTarget, "… first result: ms p50"),
    figure("sandbox.burst.last", 0, NoTarget, "… last first result: ms"),
    figure("sandbox.burst.memory", 0, NoTarget, "… memory of all, the worker's included: MiB"),
    figure("sandbox.memory.idle", 1, AtMost(15.0), "memory of an idle session: MiB"),
    figure("sandbox.memory.plot", 1, NoTarget, "… after a plot: MiB"),
    figure("sandbox.memory.worker", 0, NoTarget, "memory of the worker without sessions: MiB"),
    figure("sandbox.start", 0, NoTarget, "start of the worker: ms"),
    figure("sandbox.run.function", 1, NoTarget, "run with a function call, streamed: ms p50"),
    figure("sandbox.run.new", 1, NoTarget, "run with a code call, new session, streamed: ms p50"),
    figure("sandbox.run.new-added", 1, NoTarget, "… more than with a function call: ms"),
    figure("sandbox.run.live", 1, NoTarget, "run with a code call, live session, streamed: ms p50"),
    figure("sandbox.run.live-added", 1, NoTarget, "… more than with a function call: ms"),
];

/// Vector stores.
#[rustfmt::skip]
const RETRIEVAL: &[Figure] = &[
    figure("retrieval.quality.both.ndcg", 3, AtLeast(0.41), "Cranfield, words and meaning: nDCG@10"),
    figure("retrieval.quality.both.recall", 3, NoTarget, "… recall@20"),
    figure("retrieval.quality.both.mrr", 3, NoTarget, "… mean reciprocal rank"),
    figure("retrieval.quality.words.ndcg", 3, AtLeast(0.36), "Cranfield, words alone: nDCG@10"),
    figure("retrieval.quality.words.recall", 3, NoTarget, "… recall@20"),
    figure("retrieval.quality.words.mrr", 3, NoTarget, "… mean reciprocal rank"),
    figure("retrieval.quality.meaning.ndcg", 3, NoTarget, "Cranfield, meaning alone: nDCG@10"),
    figure("retrieval.quality.meaning.recall", 3, NoTarget, "… recall@20"),
    figure("retrieval.quality.meaning.mrr", 3, NoTarget, "… mean reciprocal rank"),
    figure("retrieval.quality.gain", 3, AtLeast(1.001), "words and meaning, relative to the better one alone: nDCG@10"),
    figure("retrieval.quality.indexing.files", 1, NoTarget, "indexing Cranfield, local vectors: files/s"),
    figure("retrieval.quality.indexing.mb", 3, NoTarget, "… MB/s"),
    figure("retrieval.ingest.upstream.files", 0, NoTarget, "indexing 4 kB texts, vectors of an upstream: files/s"),
    figure("retrieval.ingest.upstream.mb", 2, NoTarget, "… MB/s"),
    figure("retrieval.ingest.words.files", 0, NoTarget, "indexing 4 kB texts, words alone: files/s"),
    figure("retrieval.ingest.words.mb", 2, NoTarget, "… MB/s"),
    figure("retrieval.ingest.local.files", 1, NoTarget, "indexing 4 kB texts, local vectors: files/s"),
    figure("retrieval.ingest.local.mb", 3, NoTarget, "… MB/s"),
    figure("retrieval.ingest.pdf.files", 1, NoTarget, "indexing PDFs of 10 pages, words alone: files/s"),
    figure("retrieval.ingest.pdf.mb", 2, NoTarget, "… MB/s"),
    figure("retrieval.search.100.1.p50", 1, NoTarget, "search of 100 chunks, 1 caller: ms p50"),
    figure("retrieval.search.100.1.p99", 1, AtMost(20.0), "… ms p99"),
    figure("retrieval.search.100.16.rate", 0, NoTarget, "search of 100 chunks, 16 callers: /s"),
    figure("retrieval.search.100.16.p50", 1, NoTarget, "… ms p50"),
    figure("retrieval.search.100.16.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100.words.p50", 1, NoTarget, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.100.words.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100.meaning.p50", 1, NoTarget, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.100.meaning.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100.beside.p50", 1, NoTarget, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.100.beside.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.10k.1.p50", 1, NoTarget, "search of 10,000 chunks, 1 caller: ms p50"),
    figure("retrieval.search.10k.1.p99", 1, AtMost(20.0), "… ms p99"),
    figure("retrieval.search.10k.16.rate", 0, NoTarget, "search of 10,000 chunks, 16 callers: /s"),
    figure("retrieval.search.10k.16.p50", 1, NoTarget, "… ms p50"),
    figure("retrieval.search.10k.16.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.10k.words.p50", 1, NoTarget, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.10k.words.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.10k.meaning.p50", 1, NoTarget, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.10k.meaning.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.10k.hundredth.p50", 1, NoTarget, "… filter that leaves 1 %, 1 caller: ms p50"),
    figure("retrieval.search.10k.hundredth.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.10k.half.p50", 1, NoTarget, "… filter that leaves 50 %, 1 caller: ms p50"),
    figure("retrieval.search.10k.half.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.10k.beside.p50", 1, NoTarget, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.10k.beside.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.10k.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.10k.index", 0, NoTarget, "… until its vectors had an index: s"),
    figure("retrieval.search.100k.1.p50", 1, NoTarget, "search of 100,000 chunks, 1 caller: ms p50"),
    figure("retrieval.search.100k.1.p99", 1, AtMost(20.0), "… ms p99"),
    figure("retrieval.search.100k.16.rate", 0, NoTarget, "search of 100,000 chunks, 16 callers: /s"),
    figure("retrieval.search.100k.16.p50", 1, NoTarget, "… ms p50"),
    figure("retrieval.search.100k.16.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100k.words.p50", 1, NoTarget, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.100k.words.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100k.meaning.p50", 1, NoTarget, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.100k.meaning.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100k.hundredth.p50", 1, NoTarget, "… filter that leaves 1 %, 1 caller: ms p50"),
    figure("retrieval.search.100k.hundredth.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100k.half.p50", 1, NoTarget, "… filter that leaves 50 %, 1 caller: ms p50"),
    figure("retrieval.search.100k.half.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100k.beside.p50", 1, NoTarget, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.100k.beside.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.100k.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.100k.index", 0, NoTarget, "… until its vectors had an index: s"),
    figure("retrieval.search.500k.1.p50", 1, NoTarget, "search of 500,000 chunks, 1 caller: ms p50"),
    figure("retrieval.search.500k.1.p99", 1, AtMost(50.0), "… ms p99"),
    figure("retrieval.search.500k.16.rate", 0, NoTarget, "search of 500,000 chunks, 16 callers: /s"),
    figure("retrieval.search.500k.16.p50", 1, NoTarget, "… ms p50"),
    figure("retrieval.search.500k.16.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.500k.words.p50", 1, NoTarget, "… words alone, 1 caller: ms p50"),
    figure("retrieval.search.500k.words.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.500k.meaning.p50", 1, NoTarget, "… meaning alone, 1 caller: ms p50"),
    figure("retrieval.search.500k.meaning.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.500k.hundredth.p50", 1, NoTarget, "… filter that leaves 1 %, 1 caller: ms p50"),
    figure("retrieval.search.500k.hundredth.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.500k.half.p50", 1, NoTarget, "… filter that leaves 50 %, 1 caller: ms p50"),
    figure("retrieval.search.500k.half.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.500k.beside.p50", 1, NoTarget, "… a store of 100 beside it, 1 caller: ms p50"),
    figure("retrieval.search.500k.beside.p99", 1, NoTarget, "… ms p99"),
    figure("retrieval.search.500k.recall", 3, AtLeast(0.95), "… recall@20 of meaning alone, against comparing all"),
    figure("retrieval.search.500k.index", 0, NoTarget, "… until its vectors had an index: s"),
];
