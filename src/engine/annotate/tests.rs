use std::collections::BTreeMap;

use super::*;

fn annotator(paths: &[&str], passages: &[((usize, usize), &str)]) -> (Annotator, Names) {
    let mut names = Names::new();
    let mut file = |name: &str| {
        let id: FileId = format!("file-{}", names.len())
            .parse()
            .expect("the prefix and a number are an id");
        names.insert(id.clone(), name.to_owned());
        id
    };
    let paths = paths.iter().map(|path| ((*path).to_owned(), file(path)));
    let paths = paths.collect();
    let mut known = CitablePassages::default();
    for (place, name) in passages {
        known.insert(*place, name, file(name));
    }
    let passages = Some(known).filter(|_| !passages.is_empty());
    (Annotator::new(paths, passages), names)
}

type Names = BTreeMap<FileId, String>;

fn read(
    paths: &[&str],
    passages: &[((usize, usize), &str)],
    pieces: &[&str],
) -> (String, Vec<(String, String)>) {
    let (mut annotator, names) = annotator(paths, passages);
    let mut deltas: Vec<ContentDelta> = Vec::new();
    for piece in pieces {
        deltas.extend(annotator.push(piece));
    }
    deltas.extend(annotator.finish());
    let mut shown = String::new();
    let mut references = Vec::new();
    for delta in deltas {
        match delta {
            ContentDelta::Text(text) => shown.push_str(&text),
            ContentDelta::Annotated { index, annotation } => {
                let (AnnotationTarget::FilePath(file) | AnnotationTarget::FileCitation(file)) =
                    annotation.target;
                assert_eq!(index, references.len());
                assert_eq!(annotation.start, shown.chars().count());
                shown.push_str(&annotation.text);
                assert_eq!(annotation.end, shown.chars().count());
                references.push((annotation.text, names[&file].clone()));
            }
            other => panic!("{other:?}"),
        }
    }
    (shown, references)
}

fn read_however_cut(
    paths: &[&str],
    passages: &[((usize, usize), &str)],
    text: &str,
) -> (String, Vec<(String, String)>) {
    let whole = read(paths, passages, &[text]);
    for (at, _) in text.char_indices() {
        let (begin, end) = text.split_at(at);
        assert_eq!(
            read(paths, passages, &[begin, end]),
            whole,
            "{begin:?} {end:?}"
        );
    }
    let chars: Vec<String> = text.chars().map(String::from).collect();
    let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
    assert_eq!(
        read(paths, passages, &chars),
        whole,
        "{text:?} by characters"
    );
    whole
}

fn pairs(references: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(text, name): &(&str, &str)| ((*text).to_owned(), (*name).to_owned());
    references.iter().map(owned).collect()
}

const FILES: [&str; 3] = ["out.csv", "my file (1).csv", "out.csv.gz"];
const PASSAGES: [((usize, usize), &str); 2] = [((4, 0), "a b.txt"), ((4, 12), "c.txt")];

#[test]
fn links_to_known_files_are_found_whole() {
    for (text, references) in [
        (
            "Hä: [a](sandbox:/mnt/data/out.csv), sandbox:/mnt/data/out.csv.",
            &[("sandbox:/mnt/data/out.csv", "out.csv"); 2][..],
        ),
        (
            "(sandbox:/mnt/data/my file (1).csv)",
            &[("sandbox:/mnt/data/my file (1).csv", "my file (1).csv")],
        ),
        (
            "sandbox:/mnt/data/out.csv.gz",
            &[("sandbox:/mnt/data/out.csv.gz", "out.csv.gz")],
        ),
    ] {
        let found = read_however_cut(&FILES, &PASSAGES, text);
        assert_eq!(found, (text.to_owned(), pairs(references)));
    }
}

/// A file's path, and texts that link to it: each link is between bars.
const SPELLINGS: &[(&str, &[&str])] = &[
    (
        "out.csv",
        &[
            "|sandbox:/mnt/data/out.csv|",
            "|Sandbox:/mnt/data/out.csv|",
            "|SANDBOX:/mnt/data/out.csv|.",
            "|sandbox:///mnt/data/out.csv|",
            "|sandbox://mnt/data/out.csv|",
            "|sandbox:mnt/data/out.csv|",
            "|sandbox:/mnt/data/./out.csv|",
            "|sandbox:/mnt/./data//out.csv|",
            "|sandbox:%2Fmnt%2Fdata%2fout.csv|",
            "|sandbox:/mnt/data/out%2Ecsv|",
            "|sandbox:\\/mnt\\/data\\/out\\.csv|",
            "|sandbox:/out.csv|",
            "[a](|sandbox:/mnt/data/out.csv| \"The table\")",
            "[a](|/mnt/data/out.csv|)",
            "[a](<|/mnt/data/out.csv|>)",
            "![a](|/mnt/data/out.csv| 'The table')",
            "[a](|file:///mnt/data/out.csv|)",
            "[a]: |/mnt/data/out.csv|\n",
            "<a href=\"|/mnt/data/out.csv|\">a</a>",
            "<|sandbox:/mnt/data/out.csv|>",
            "\u{201c}|sandbox:/mnt/data/out.csv|\u{201d}",
            "**|sandbox:/mnt/data/out.csv|**",
            "`|sandbox:/mnt/data/out.csv|`",
            "|sandbox:/mnt/data/out.csv|, |sandbox:/mnt/data/out.csv|; |sandbox:/mnt/data/out.csv|!",
            "|sandbox:/mnt/data/out.csv|\u{2014}see",
            "\u{6587}\u{4ef6}\u{ff1a}|sandbox:/mnt/data/out.csv|\u{3002}",
        ],
    ),
    (
        "report (final).csv",
        &[
            "[a](|sandbox:/mnt/data/report (final).csv|)",
            "[a](|sandbox:/mnt/data/report%20(final).csv|)",
            "[a](|sandbox:/mnt/data/report%20%28final%29.csv|)",
            "[a](|sandbox:/mnt/data/report%2520(final).csv|)",
            "[a](|sandbox:/mnt/data/report%2520%2528final%2529.csv|)",
            "[a](|sandbox:/mnt/data/report+(final).csv|)",
            "[a](|sandbox:/mnt/data/report \\(final\\).csv|)",
            "[a](<|sandbox:/mnt/data/report (final).csv|>)",
            "[a](|sandbox:/mnt/data/report&nbsp;(final).csv|)",
            "[a](|sandbox:/mnt/data/report&#32;&#x28;final&#x29;.csv|)",
            "[a](|sandbox:/mnt/data/report\u{a0}(final).csv|)",
            "[a](|/mnt/data/report%20(final).csv|)",
        ],
    ),
    (
        "Ums\u{e4}tze Q1 \u{c9}t\u{e9}.csv",
        &[
            "|sandbox:/mnt/data/Ums\u{e4}tze Q1 \u{c9}t\u{e9}.csv|",
            "|sandbox:/mnt/data/Ums\u{e4}tze%20Q1%20\u{c9}t\u{e9}.csv|",
            "|sandbox:/mnt/data/Ums%C3%A4tze%20Q1%20%C3%89t%C3%A9.csv|",
            "|sandbox:/mnt/data/Ums%c3%a4tze%20Q1%20%c3%89t%c3%a9.csv|",
            "|sandbox:/mnt/data/Ums%25C3%25A4tze%2520Q1%2520%25C3%2589t%25C3%25A9.csv|",
            "|sandbox:/mnt/data/Umsa\u{308}tze Q1 E\u{301}te\u{301}.csv|",
            "|sandbox:/mnt/data/Umsa%CC%88tze%20Q1%20E%CC%81te%CC%81.csv|",
        ],
    ),
    (
        "e\u{301}te\u{301}.txt",
        &[
            "|sandbox:/mnt/data/e\u{301}te\u{301}.txt|",
            "|sandbox:/mnt/data/\u{e9}t\u{e9}.txt|",
            "|sandbox:/mnt/data/%c3%a9t%C3%A9.txt|",
        ],
    ),
    (
        "Bob\u{2019}s \u{201c}best\u{201d} R&D + 100%.md",
        &[
            "|sandbox:/mnt/data/Bob\u{2019}s \u{201c}best\u{201d} R&D + 100%.md|",
            "|sandbox:/mnt/data/Bob's \"best\" R&amp;D + 100%.md|",
            "|sandbox:/mnt/data/Bob&#39;s &quot;best&quot; R&amp;D + 100%25.md|",
            "|sandbox:/mnt/data/Bob%E2%80%99s%20%22best%22%20R%26D%20%2B%20100%25.md|",
        ],
    ),
    (
        "plots/a_b-c*.png",
        &[
            "![a](|sandbox:/mnt/data/plots/a_b-c*.png|)",
            "![a](|sandbox:/mnt/data/plots%2Fa%5Fb%2Dc%2A.png|)",
            "![a](|sandbox:/mnt/data/plots/a\\_b\\-c\\*.png|)",
            "![a](|sandbox:/mnt/data/plots/./a_b\u{2011}c*.png|)",
            "![a](|/mnt/data/plots//a_b-c*.png|)",
        ],
    ),
    (
        "\u{1f600}\u{5831}\u{544a}.txt",
        &[
            "|sandbox:/mnt/data/\u{1f600}\u{5831}\u{544a}.txt|",
            "|sandbox:/mnt/data/%F0%9F%98%80%E5%A0%B1%E5%91%8A.txt|",
            "|sandbox:/mnt/data/%25f0%259f%2598%2580\u{5831}\u{544a}.txt|",
            "|sandbox:/mnt/data/&#x1F600;\u{5831}\u{544a}.txt|",
            "|sandbox:/mnt/data/\u{200e}\u{1f600}\u{5831}\u{544a}.txt|",
        ],
    ),
];

#[test]
fn links_are_found_however_they_are_spelt_and_cut() {
    let spellings = SPELLINGS
        .iter()
        .map(|(_, texts)| texts.len())
        .sum::<usize>();
    assert!(spellings >= 50, "{spellings}");
    let paths: Vec<&str> = SPELLINGS.iter().map(|(path, _)| *path).collect();
    for (path, texts) in SPELLINGS {
        for text in *texts {
            let links = text.split('|').skip(1).step_by(2);
            let links: Vec<(&str, &str)> = links.map(|link| (link, *path)).collect();
            let found = read_however_cut(&paths, &[], &text.replace('|', ""));
            assert_eq!(found, (text.replace('|', ""), pairs(&links)), "{text}");
        }
    }
}

#[test]
fn files_whose_names_may_be_spelt_alike_are_told_apart() {
    let paths = [
        "a b.csv",
        "a+b.csv",
        "a%20b.csv",
        "c\u{2013}d.csv",
        "c-d.csv",
    ];
    for (link, path) in [
        ("a b.csv", "a b.csv"),
        ("a+b.csv", "a+b.csv"),
        ("a%20b.csv", "a%20b.csv"),
        ("a%2Bb.csv", "a+b.csv"),
        ("c-d.csv", "c-d.csv"),
        ("c%E2%80%93d.csv", "c\u{2013}d.csv"),
    ] {
        let link = format!("sandbox:/mnt/data/{link}");
        let found = read_however_cut(&paths, &[], &link);
        assert_eq!(found, (link.clone(), pairs(&[(&link, path)])));
    }
}

#[test]
fn citations_of_passages_are_found_and_others_left_out() {
    for (text, shown, references) in [
        (
            "\u{c4} cake【4:0†a b.txt】【4:12†source】.",
            "\u{c4} cake【4:0†a b.txt】【4:12†source】.",
            &[("【4:0†a b.txt】", "a b.txt"), ("【4:12†source】", "c.txt")][..],
        ),
        ("No【5:0†a.txt】ne.", "None.", &[]),
        ("【Note】 【4:0", "【Note】 【4:0", &[]),
        ("【4:0†", "【4:0†", &[]),
        ("【4:0†a b", "【4:0†a b", &[]),
        ("【4:0†】", "【4:0†】", &[("【4:0†】", "a b.txt")]),
        (
            "【4:0†no end\n【4:12†c.txt】",
            "【4:0†no end\n【4:12†c.txt】",
            &[("【4:12†c.txt】", "c.txt")],
        ),
    ] {
        let found = read_however_cut(&FILES, &PASSAGES, text);
        assert_eq!(found, (shown.to_owned(), pairs(references)), "{text}");
    }
}

#[test]
fn citations_hold_whatever_the_names_of_files_are() {
    let long = "\u{3042}".repeat(1024);
    let names = [
        "a】b.txt",
        "【重要】お知らせ.txt",
        "】.txt",
        "【.txt",
        "†4:0†.txt",
        "a:b†c.txt",
        "【4:7†x】.txt",
        "two\nlines】.txt",
        "\u{202e}txt.\u{5d0}\u{5d1}】",
        "cafe\u{301}】.txt",
        "a",
        "a】b",
        &long,
    ];
    let passages: Vec<((usize, usize), &str)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| ((4, n), *name))
        .collect();
    for (place, name) in &passages {
        let told = crate::domain::tool::name_in_marker(name);
        let marker = format!("【{}:{}†{told}】", place.0, place.1);
        let text = format!("One{marker}, 【two】{marker}.");
        let found = match told.len() < 100 {
            true => read_however_cut(&[], &passages, &text),
            false => read(&[], &passages, &[&text[..1000], &text[1000..]]),
        };
        assert_eq!(
            found,
            (text, pairs(&[(marker.as_str(), *name); 2])),
            "{name}"
        );
    }
    // A model does not always copy a name as it is.
    for (marker, name) in [
        ("【4:1†【重要】お知らせ】", "【重要】お知らせ.txt"),
        ("【4:0†a】", "a】b.txt"),
        ("【4:9†caf\u{e9}】.txt】", "cafe\u{301}】.txt"),
        ("【4:0†L1【x】】", "a】b.txt"),
    ] {
        let text = format!("One{marker}, two.");
        let found = read_however_cut(&[], &passages, &text);
        assert_eq!(found, (text, pairs(&[(marker, name)])), "{marker}");
    }
    // What points at no passage is left out with all of its name.
    for text in [
        "One【5:0†a】b.txt】.",
        "One【5:0†【x】y.txt】.",
        "One【5:0†source】.",
    ] {
        let found = read_however_cut(&[], &passages, text);
        assert_eq!(found, ("One.".to_owned(), Vec::new()), "{text}");
    }
}

#[test]
fn other_text_stays_text() {
    for text in [
        "",
        "sandbox:/mnt/data/",
        "sandbox:/mnt/data/other.csv and sandbox",
        "sandbox:/mnt/data/out.csv2",
        "sandbox:/mnt/data/out.csv%32",
        "sandbox:/mnt/data/out.csv\u{301}",
        "sandbox:/mnt/data/out.cs",
        "sandbox:/mnt/data/out.cs%",
        "sandbox:/mnt/data/%C3%",
        "sandbox:/mnt/data/my file &#x",
        "sandsandbox:/mnt/dat",
        "It is in /mnt/data/out.csv now, [see](/mnt/data/other.csv) (/mnt/data/out.csv).",
        "[x](/usr/out.csv) [y](file:///etc/out.csv) [z](f",
        "【 4 : x†a】 【4】 【】 【99999999999999999999:1†a】",
    ] {
        let found = read_however_cut(&FILES, &PASSAGES, text);
        assert_eq!(found, (text.to_owned(), Vec::new()));
    }
    // Nothing is held back for ever.
    let slashes = format!("sandbox:{}", "/".repeat(10_000));
    let (mut annotator, _) = annotator(&FILES, &PASSAGES);
    assert_ne!(annotator.push(&slashes), Vec::new());
}

#[test]
fn only_what_may_be_a_reference_waits() {
    let (mut annotator, _) = annotator(&FILES, &PASSAGES);
    let text = |text: &str| vec![ContentDelta::Text(text.to_owned())];
    assert_eq!(annotator.push("Here: "), text("Here: "));
    assert_eq!(annotator.push("sandbox"), Vec::new());
    assert_eq!(annotator.push("ed."), text("sandboxed."));
    assert_eq!(annotator.push("[x](sandbox:/mnt/data/o"), text("[x]("));
    assert_eq!(annotator.push("ther"), text("sandbox:/mnt/data/other"));
    assert_eq!(annotator.push("【"), Vec::new());
    assert_eq!(annotator.push("N"), text("【N"));
}
