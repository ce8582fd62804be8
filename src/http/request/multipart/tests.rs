use axum::body::Body;
use futures::stream;
use serde_json::json;

use super::*;

const END: &str = "\r\n--XX--\r\n";

fn form(text: impl Into<Bytes>, size: usize) -> Form {
    let mut text = text.into();
    let mut chunks = Vec::new();
    while !text.is_empty() {
        chunks.push(text.split_to(size.min(text.len())));
    }
    let chunks = stream::iter(chunks).then(async |chunk| {
        tokio::task::yield_now().await;
        Ok::<_, std::io::Error>(chunk)
    });
    Form::new(
        Body::from_stream(chunks).into_data_stream(),
        "XX".to_owned(),
    )
}

fn field(disposition: &str, value: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}")
}

async fn collect(contents: FieldContents) -> Result<Vec<u8>, ApiError> {
    let chunks: Vec<Bytes> = contents.try_collect().await?;
    Ok(chunks.concat())
}

async fn refusal(form: Form) -> String {
    let result = form.read("file", collect).await;
    let error = result.map(|_| ()).expect_err("the form is invalid");
    let body = error.body();
    body["error"]["message"]
        .as_str()
        .expect("a refusal has a message")
        .to_owned()
}

#[tokio::test]
async fn fields_arrive_in_any_order_and_in_any_chunks() {
    let file = field(
        r#"name="file"; filename="a.txt""#,
        "one\r\n--X\r\n\r\n--XXtwo",
    );
    let file = file.replace("\r\n--XXtwo", "\r\n-XX");
    let purpose = field(r#"name="purpose""#, "assistants");
    let anchor = field(r#"name="expires_after[anchor]""#, "created_at");
    let seconds = field(r#"name="expires_after[seconds]""#, "3600");
    let orders = [
        [&file, &purpose, &anchor, &seconds],
        [&seconds, &purpose, &file, &anchor],
    ];
    for order in orders {
        let text = order.map(String::as_str).join("\r\n") + END;
        for size in [1, 2, 3, 7, 1000] {
            let read = form(text.clone(), size).read("file", collect).await;
            let (fields, part) = read.expect("the form is valid");
            assert_eq!(part.filename.as_deref(), Some("a.txt"));
            assert_eq!(part.stored, b"one\r\n--X\r\n\r\n-XX");
            let expected = json!({"purpose": "assistants", "expires_after":
                {"anchor": "created_at", "seconds": 3600}});
            assert_eq!(fields.remaining().ok().map(Value::Object), Some(expected));
        }
    }
}

#[tokio::test]
async fn a_large_file_passes_through_and_an_empty_one_too() {
    let large = vec![b'\r'; 5_000_000];
    let head = field(r#"name="file"; filename="a""#, "");
    let purpose = field("name=purpose", "assistants\r\n");
    let parts = [purpose.as_bytes(), head.as_bytes(), &large, END.as_bytes()];
    for size in [5000, 100_000, 6_000_000] {
        let form = form(parts.concat(), size);
        let (_, part) = form.read("file", collect).await.expect("the form is valid");
        assert!(part.stored == large);
    }
    let text = head + END;
    let (_, part) = form(text, 100)
        .read("file", collect)
        .await
        .expect("the form is valid");
    assert_eq!(part.stored, b"");
}

#[tokio::test]
async fn names_of_files_are_kept_as_sent() {
    let cases = [
        (r#"filename="a b.txt""#, Some("a b.txt")),
        (r#"filename="你好.txt""#, Some("你好.txt")),
        (r#"filename="Assets\x.png""#, Some(r"Assets\x.png")),
        (r#"filename="Assets\\x.png""#, Some(r"Assets\x.png")),
        (r#"filename="say \"hi\".txt""#, Some(r#"say "hi".txt"#)),
        (r#"filename="a;b=c.txt"; x=y"#, Some("a;b=c.txt")),
        (r#"filename=../../etc/passwd "#, Some("../../etc/passwd")),
        (r#"filename="";"#, Some("")),
        (r#"FileName="a.txt""#, Some("a.txt")),
        (
            r#"filename="=?utf-8?B?eA==?="; filename*=utf-8''%E4%BD%A0%20.txt"#,
            Some("你 .txt"),
        ),
        (
            r#"filename*=iso-8859-1''%E9; filename="e.txt""#,
            Some("e.txt"),
        ),
        ("x=filename", None),
    ];
    for (given, expected) in cases {
        let text = field(&format!(r#"name="file"; {given}"#), "x") + END;
        let (_, part) = form(text, 9)
            .read("file", collect)
            .await
            .expect("the form is valid");
        assert_eq!(part.filename.as_deref(), expected, "{given}");
    }
}

#[tokio::test]
async fn invalid_forms_are_refused() {
    let file = field(r#"name="file"; filename="a""#, "x");
    let purpose = field(r#"name="purpose""#, "assistants");
    let join = |fields: &[&str]| fields.join("\r\n") + END;
    let broken = "The multipart form in the request body is broken";
    let cases = [
        (String::new(), broken),
        ("no boundary at all".to_owned(), broken),
        (file.clone(), "Invalid file: the incoming data ended early"),
        (purpose.clone(), broken),
        (format!("--XXX\r\n{file}"), broken),
        ("--XX\r\nContent-Disposition".to_owned(), broken),
        ("--XX\r\n: : :\r\n\r\nx".to_owned() + END, broken),
        (join(&[&purpose]), "Missing required parameter: 'file'."),
        ("--XX--".to_owned(), "Missing required parameter: 'file'."),
        (join(&[&file, &file]), "Duplicate parameter: 'file'."),
        (
            join(&[&purpose, &purpose, &file]),
            "Duplicate parameter: 'purpose'.",
        ),
        (
            join(&[&field("name=a", "1"), &field("name=a[b]", "1")]),
            "Duplicate parameter: 'a[b]'.",
        ),
        (
            join(&[&field("name=a", "\0"), &file]),
            "Invalid 'a': not valid UTF-8.",
        ),
        (join(&["--XX\r\n\r\n1"; 33]), "Duplicate parameter: ''."),
    ];
    for (text, expected) in cases {
        let message = refusal(form(text.clone(), 50)).await;
        assert!(message.starts_with(expected), "{message} for {text:.100}");
    }
    let many: Vec<String> = (0..33).map(|n| field(&format!("name=a{n}"), "1")).collect();
    let message = refusal(form(many.join("\r\n") + END, 50)).await;
    assert_eq!(message, "Too many form fields: at most 32 are taken.");
    let latin = [
        b"--XX\r\nContent-Disposition: form-data; name=file; filename=caf".as_slice(),
        b"\xe9\r\n\r\nx\r\n--XX--",
    ]
    .concat();
    assert_eq!(
        refusal(form(latin, 50)).await,
        "Invalid file name: not valid UTF-8."
    );
}

#[tokio::test]
async fn whatever_is_not_the_file_must_be_small() {
    let huge = "x".repeat(10 * MAX_FIELD_BYTES);
    let file = field(r#"name="file"; filename="a""#, "x");
    let cases = [
        huge.clone(),
        format!("--XX\r\nX: {huge}\r\n\r\nx"),
        field("name=purpose", &huge),
        format!("{file}\r\n{}", field("name=purpose", &huge)),
    ];
    for text in cases {
        for size in [1000, text.len()] {
            let message = refusal(form(text.clone() + END, size)).await;
            assert!(message.contains("must be small"), "{message}");
        }
    }
}

#[tokio::test]
async fn the_rest_of_a_refused_form_is_read() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let form = Form::new(body.into_data_stream(), "XX".to_owned());
    let send = async move {
        let head = field("name=file; filename=a", "x");
        sender
            .send(Ok::<_, std::io::Error>(Bytes::from(head)))
            .await?;
        for _ in 0..100 {
            sender.send(Ok(Bytes::from(vec![b'x'; 10_000]))).await?;
        }
        sender.send(Ok(Bytes::from(END))).await
    };
    let refuse = async |_| Err::<(), _>(ApiError::invalid("no"));
    let (sent, refused) = tokio::join!(send, form.read("file", refuse));
    assert!(sent.is_ok(), "the client could send all of it");
    assert!(refused.is_err());
}
