use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

fn storage() -> (tempfile::TempDir, Blobs) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let inside = folder.path().join("deep/files");
    let blobs = Blobs::open(
        inside.to_str().expect("temporary paths are UTF-8"),
        BucketKey::default(),
    )
    .expect("the folder can be made");
    (folder, blobs)
}

fn names(blobs: &Blobs) -> Vec<String> {
    let folder = blobs.folder.as_ref().expect("tests use a folder");
    let entries = std::fs::read_dir(&**folder).expect("the folder is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry
            .expect("the folder can be read")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    entries.map(name).collect()
}

/// `count` chunks of 100,000 bytes; each byte is the number of its chunk.
fn chunks(count: u8) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
    stream::iter((0..count).map(|n| Ok(Bytes::from(vec![n; 100_000]))))
}

#[tokio::test]
async fn contents_come_back_whole_and_in_ranges() {
    let (_folder, blobs) = storage();
    for count in [0, 1, 10, 11, 35] {
        let name = format!("file-{count}");
        let size = u64::from(count) * 100_000;
        assert_eq!(blobs.put(&name, chunks(count), size).await.ok(), Some(size));
        let expected: Vec<u8> = (0..count).flat_map(|n| vec![n; 100_000]).collect();
        let read = blobs
            .read(&name, size)
            .await
            .expect("what was written can be read");
        assert!(read == expected, "{count} chunks");
    }
    let part = blobs
        .get("file-35", Some(299_999..300_001))
        .await
        .expect("the test has stored it");
    assert_eq!(part.size, 3_500_000);
    let bytes: Vec<Bytes> = part
        .stream
        .try_collect()
        .await
        .expect("the test has stored it");
    assert_eq!(bytes.concat(), [2, 3]);
}

#[tokio::test]
async fn contents_as_long_as_whole_pieces_come_back_whole() {
    let (_folder, blobs) = storage();
    for length in [
        FOLDER_PART - 1,
        FOLDER_PART,
        FOLDER_PART + 1,
        2 * FOLDER_PART,
    ] {
        let bytes = Bytes::from(vec![7; length]);
        let name = format!("file-{length}");
        let size = blobs
            .put(&name, stream::iter([Ok(bytes.clone())]), u64::MAX)
            .await;
        assert_eq!(size.ok(), Some(length as u64));
        assert!(
            blobs
                .read(&name, u64::MAX)
                .await
                .expect("the test has stored it")
                == bytes
        );
    }
}

#[tokio::test]
async fn what_is_too_large_or_breaks_off_leaves_nothing() {
    let (_folder, blobs) = storage();
    for count in [2, 35] {
        let limit = u64::from(count) * 100_000 - 1;
        let refused = blobs.put("file-a", chunks(count), limit).await;
        assert!(matches!(refused, Err(BlobError::TooLarge { limit: at }) if at == limit));
        let broken = chunks(count).chain(stream::iter([Err(BlobError::Body(String::new()))]));
        let refused = blobs.put("file-a", broken, u64::MAX).await;
        assert!(matches!(refused, Err(BlobError::Body(_))));
        assert_eq!(names(&blobs), [""; 0]);
    }
}

#[tokio::test]
async fn a_write_that_is_dropped_leaves_nothing_and_shows_nothing() {
    let (_folder, blobs) = storage();
    let stuck = chunks(35).chain(stream::pending());
    let put = blobs.put("file-a", stuck, u64::MAX);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), put)
            .await
            .is_err()
    );
    assert!(matches!(
        blobs.read("file-a", 1).await,
        Err(BlobError::Missing { .. })
    ));
    let gone = async {
        while !names(&blobs).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("the aborted upload is deleted within seconds");
}

#[tokio::test]
async fn deleting_also_removes_what_a_dead_writer_left() {
    let (_folder, blobs) = storage();
    blobs
        .delete("file-a")
        .await
        .expect("nothing to delete is fine");
    blobs
        .put("file-a", chunks(1), u64::MAX)
        .await
        .expect("temporary folders are writable");
    let folder = blobs.folder.clone().expect("tests use a folder");
    std::fs::write(folder.join("file-a#1"), "half").expect("temporary folders are writable");
    blobs
        .delete("file-a")
        .await
        .expect("temporary folders are writable");
    assert_eq!(names(&blobs), [""; 0]);
}

#[tokio::test]
async fn a_chain_is_one_after_the_other_and_fails_on_a_gap() {
    let (_folder, blobs) = storage();
    for name in ["one", "two"] {
        let text = stream::iter([Ok(Bytes::from(name))]);
        blobs
            .put(name, text, 3)
            .await
            .expect("temporary folders are writable");
    }
    let chain = |names: [&str; 3]| blobs.chain(names.map(str::to_owned).to_vec());
    let all: Result<Vec<Bytes>, _> = chain(["two", "one", "two"]).try_collect().await;
    assert_eq!(all.expect("all are there").concat(), b"twoonetwo");
    let gap: Result<Vec<Bytes>, _> = chain(["two", "three", "one"]).try_collect().await;
    assert!(matches!(gap, Err(BlobError::Missing { .. })));
}

#[tokio::test]
async fn a_folder_is_private_works_and_opens_again() {
    let (_folder, blobs) = storage();
    let folder = blobs.folder.clone().expect("tests use a folder");
    let mode = folder
        .metadata()
        .expect("the test has stored it")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    blobs.probe().await.expect("temporary folders are writable");
    assert_eq!(names(&blobs), [""; 0]);
    let again = Blobs::open(
        folder.to_str().expect("temporary paths are UTF-8"),
        BucketKey::default(),
    );
    again
        .expect("it opens again")
        .probe()
        .await
        .expect("it works again");
    for wrong in ["", "ftp://host"] {
        assert!(matches!(
            Blobs::open(wrong, BucketKey::default()),
            Err(BlobError::Location(_))
        ));
    }
}
