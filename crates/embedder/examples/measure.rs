//! Measures CPU time per thread and memory of the embedder and, with the Cranfield collection, the
//! retrieval quality of its embeddings. Linux only.
//!
//! `cargo run --release -p embedder --example measure -- .venv/models/all-minilm-l6-v2 [cranfield]`

use std::collections::HashMap;
use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use embedder::Embedder;

const NDCG_DEPTH: usize = 10;
const RECALL_DEPTH: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .ok_or("the first argument must be the folder of the model")?;
    let before = cpu_time()?;
    let embedder = Embedder::open(Path::new(&model))?;
    println!("open: {:.0?}", cpu_time()? - before);

    for (what, words, count) in [
        ("one query of 14 words", 14, 1),
        ("one text of 256 tokens", 254, 1),
        ("8 texts of 256 tokens", 254, 8),
        ("64 texts of 32 tokens", 30, 64),
        ("one text of 2,540 tokens", 2540, 1),
    ] {
        let texts = vec![vec!["wing"; words].join(" "); count];
        let times = (0..9).map(|_| {
            let before = cpu_time()?;
            embedder.embed(&texts);
            Ok(cpu_time()? - before)
        });
        let mut times: Vec<Duration> = times.collect::<Result<_, Box<dyn Error>>>()?;
        times.sort();
        println!("{what}: {:.1?} each", times[4] / count as u32);
    }
    if let Some(folder) = arguments.next() {
        let embedder = embedder.with_threads(available_parallelism()?);
        let (ndcg, recall) = cranfield(&embedder, Path::new(&folder))?;
        println!("nDCG@{NDCG_DEPTH}: {ndcg:.3}, recall@{RECALL_DEPTH}: {recall:.3}");
    }
    let status = fs::read_to_string("/proc/self/status")?;
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("peak memory: {}", line.trim_start_matches("VmHWM:").trim());
    }
    Ok(())
}

fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let line = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = line.split(' ').next().ok_or("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn cranfield(embedder: &Embedder, folder: &Path) -> Result<(f64, f64), Box<dyn Error>> {
    let documents = records(&fs::read_to_string(folder.join("cran.all.1400"))?);
    let queries = records(&fs::read_to_string(folder.join("cran.qry"))?);
    let mut relevant: HashMap<usize, HashSet<usize>> = HashMap::new();
    for line in fs::read_to_string(folder.join("QRelsCorrectedforTRECeval"))?.lines() {
        let fields: Vec<usize> = line.split_whitespace().flat_map(str::parse).collect();
        let &[query, _, document, grade] = fields.as_slice() else {
            return Err("a judgement must have four numbers".into());
        };
        // Grade 5 means that the document is not relevant.
        if grade != 5 {
            relevant.entry(query - 1).or_default().insert(document - 1);
        }
    }

    let documents = embedder.embed(&documents);
    let queries = embedder.embed(&queries);
    let (mut ndcg, mut recall, mut judged) = (0.0, 0.0, 0.0);
    for (number, query) in queries.iter().enumerate() {
        let Some(relevant) = relevant.get(&number) else {
            continue;
        };
        let similarity =
            |at: usize| -> f32 { documents[at].iter().zip(query).map(|(a, b)| a * b).sum() };
        let mut ranking: Vec<_> = (0..documents.len())
            .map(|at| (at, similarity(at)))
            .collect();
        ranking.sort_by(|one, other| other.1.total_cmp(&one.1));
        let relevance = |depth| {
            ranking
                .iter()
                .take(depth)
                .map(|(at, _)| relevant.contains(at))
        };
        let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
        let ideal: f64 = (0..relevant.len().min(NDCG_DEPTH)).map(gain).sum();
        let hits = relevance(NDCG_DEPTH).enumerate().filter(|(_, hit)| *hit);
        ndcg += hits.map(|(rank, _)| gain(rank)).sum::<f64>() / ideal;
        recall += relevance(RECALL_DEPTH).filter(|hit| *hit).count() as f64 / relevant.len() as f64;
        judged += 1.0;
    }
    Ok((ndcg / judged, recall / judged))
}

fn records(file: &str) -> Vec<String> {
    let mut records: Vec<String> = Vec::new();
    let mut in_text = false;
    for line in file.lines() {
        match line.split(' ').next() {
            Some(".I") => records.push(String::new()),
            Some(".T" | ".W") => in_text = true,
            Some(".A" | ".B") => in_text = false,
            _ if in_text => records.last_mut().into_iter().for_each(|record| {
                record.push_str(line);
                record.push(' ');
            }),
            _ => {}
        }
    }
    records
}
