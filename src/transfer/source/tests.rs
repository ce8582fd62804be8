use serde_json::json;

use super::*;

fn chunks(path: &Path) -> Vec<Vec<(Kind, String)>> {
    let mut source = Source::open(path).expect("the test has written a valid source");
    let mut chunks = Vec::new();
    while let Some(chunk) = source.next().expect("the test has written valid JSON") {
        let object = |object: &SourceObject| (object.kind, object.id().to_owned());
        chunks.push(chunk.iter().map(object).collect());
    }
    let (read, total) = source.progress();
    assert_eq!(Some(read), total, "all of it was read");
    chunks
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("temporary files are writable");
    file
}

fn ids(chunks: &[Vec<(Kind, String)>]) -> Vec<&str> {
    let objects = chunks.iter().flatten();
    objects.map(|(_, id)| &**id).collect()
}

#[test]
fn plain_lists_come_parents_first_however_they_are_written() {
    let objects = [
        json!({"object": "thread.message", "id": "msg_1", "thread_id": "thread_2"}),
        json!({"object": "thread.message", "id": "msg_2", "thread_id": "thread_1"}),
        json!({"object": "vector_store.file", "id": "file-1", "vector_store_id": "vs_1"}),
        json!({"object": "thread.run.step", "id": "step_1", "thread_id": "thread_1"}),
        json!({"object": "thread.run", "id": "run_1", "thread_id": "thread_1"}),
        json!({"id": "vs_1"}),
        json!({"object": "thread", "id": "thread_1"}),
        json!({"object": "thread", "id": "thread_2"}),
        json!({"object": "file", "id": "file-1"}),
        json!({"object": "realtime.session", "id": "sess_1"}),
    ];
    let expected = [
        "file-1", "vs_1", "file-1", "thread_2", "msg_1", "thread_1", "run_1", "step_1", "msg_2",
    ];
    let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
    let list = json!(objects).to_string();
    let page = json!({"object": "list", "data": objects, "has_more": false}).to_string();
    let marked = format!("\u{feff}{list}");
    for text in [lines.join("\n"), list, page, marked] {
        let file = written(&text);
        assert_eq!(ids(&chunks(file.path())), expected, "{text}");
    }
}

#[test]
fn what_is_inside_of_objects_knows_where_it_was() {
    let text = json!({
        "exported_by": "a script",
        "threads": [{
            "id": "thread_1",
            "messages": {"data": [{"id": "msg_1"}]},
            "runs": [{"id": "run_1", "assistant_id": "asst_1", "steps": [{"id": "step_1"}]}],
        }],
        "vector_stores": [{"id": "vs_1", "files": [{"id": "file-1"}]}],
        "files": {"file-1": {"id": "file-1", "object": "file"}},
        "errors": [{"object": "file", "id": "file-2", "error": "gone"}],
    });
    let file = written(&text.to_string());
    let mut source = Source::open(file.path()).expect("the test has written a valid source");
    let found = source
        .next()
        .expect("the test has written valid JSON")
        .expect("it has objects");
    let shown = |found: &SourceObject| {
        let parent = |name: &str| {
            found
                .fields
                .get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let parents = ["vector_store_id", "thread_id", "run_id", "assistant_id"];
        let parents: Vec<String> = parents.into_iter().filter_map(parent).collect();
        (found.kind, found.id().to_owned(), parents.join(" "))
    };
    let expected = [
        (Kind::File, "file-1", ""),
        (Kind::VectorStore, "vs_1", ""),
        (Kind::StoreFile, "file-1", "vs_1"),
        (Kind::Thread, "thread_1", ""),
        (Kind::Run, "run_1", "thread_1 asst_1"),
        (Kind::Step, "step_1", "thread_1 run_1 asst_1"),
        (Kind::Message, "msg_1", "thread_1"),
    ];
    let expected = expected.map(|(kind, id, parents)| (kind, id.to_owned(), parents.to_owned()));
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expected);
    let remarks: Vec<String> = source.skipped().collect();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
}

#[test]
fn chunks_are_cut_between_threads_only() {
    let mut lines = vec![json!({"object": FORMAT, "version": VERSION}).to_string()];
    for thread in ["thread_1", "thread_2", "thread_3"] {
        lines.push(json!({"object": "thread", "id": thread}).to_string());
        for n in 0..CHUNK - 10 {
            let id = format!("msg_{thread}_{n}");
            let message = json!({"object": "thread.message", "id": id, "thread_id": thread});
            lines.push(message.to_string());
        }
    }
    let file = written(&lines.join("\n"));
    let lengths: Vec<usize> = chunks(file.path()).iter().map(Vec::len).collect();
    assert_eq!(lengths, [2 * (CHUNK - 9), CHUNK - 9]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let problem = |text: &str| {
        let file = written(text);
        let mut source = Source::open(file.path()).expect("the test has written a valid source");
        let error = source.next().expect_err("it cannot be read").to_string();
        let name = file.path().display().to_string();
        assert!(error.starts_with(&name), "{error}");
        error
    };
    assert!(problem("[{\"id\": \"thread_1\"},").contains("line 1"));
    let newer = json!({"object": FORMAT, "version": VERSION + 1}).to_string();
    assert!(problem(&newer).contains("newer version"));
    let empty = tempfile::tempdir().expect("a temporary folder");
    let error = Source::open(empty.path()).expect_err("there is nothing in it");
    assert!(error.to_string().contains("nothing to import"), "{error}");
}
