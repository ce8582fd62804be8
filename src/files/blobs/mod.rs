//! File contents: a local folder, or a bucket that speaks S3. Knows names and bytes, nothing else.
//!
//! Contents flow through in pieces and are never held in memory whole. A name appears with all its
//! bytes, safely on disk, or not at all; it is written once and never changed.

use std::io::SeekFrom;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    GetOptions, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload,
    PutPayloadMut,
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use tokio_util::task::TaskTracker;

/// How much of a file is gathered before it is written. At most two such pieces per upload are in
/// memory: one on its way to the disk, one filling up.
const LOCAL_PIECE: usize = 1 << 20;

/// The same for buckets: S3 takes at most 10,000 parts of at least 5 MiB.
const BUCKET_PIECE: usize = 8 << 20;

/// How much of a local file is read at a time.
const READ_PIECE: usize = 128 << 10;

/// What can go wrong with file contents.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// More bytes came than allowed.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The most that is allowed.
        limit: u64,
    },
    /// There is nothing under this name.
    #[error("nothing is stored under {name}")]
    Missing {
        /// The name.
        name: String,
    },
    /// The sender stopped or sent nonsense.
    #[error("the incoming data ended early: {0}")]
    Body(String),
    /// The sender kept us waiting.
    #[error("the incoming data came too slowly")]
    Slow,
    /// A location that is neither a folder nor `s3://bucket/prefix`.
    #[error("{0:?} is no place for files: give a folder or s3://bucket/prefix")]
    Location(String),
    /// The disk of the local folder is full, or its user has no quota left.
    #[error("there is no space left in the folder of files, {folder}")]
    Full {
        /// The folder.
        folder: String,
    },
    /// The local folder cannot be used.
    #[error("the folder of files: {0}")]
    Folder(#[from] std::io::Error),
    /// The store failed.
    #[error("blob store: {0}")]
    Store(#[source] object_store::Error),
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::Missing { name: path },
            error => Self::Store(error),
        }
    }
}

/// Contents on their way out.
pub struct Contents {
    /// Size of the whole blob in bytes, also when only a range of it was asked for.
    pub size: u64,
    /// The bytes.
    pub stream: BoxStream<'static, Result<Bytes, BlobError>>,
}

/// What a bucket lets its owner in by.
#[derive(Default)]
pub struct BucketKey {
    /// Its name.
    pub id: Option<String>,
    /// Its secret.
    pub secret: Option<String>,
}

/// The place where contents lie. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Set for local folders only.
    folder: Option<Arc<PathBuf>>,
    piece: usize,
    cleanups: TaskTracker,
}

impl Blobs {
    /// Opens a folder, which is made for this user alone if it is not there, or
    /// `s3://bucket/prefix`, with region and endpoint from the usual `AWS_…` variables, and what
    /// `key` leaves open from there, too.
    ///
    /// A process that dies in the middle of an upload to a bucket leaves its parts there; a
    /// lifecycle rule of the bucket that aborts incomplete multipart uploads clears them away.
    pub fn open(location: &str, key: BucketKey) -> Result<Self, BlobError> {
        match location.split_once("://") {
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                if let Some(id) = key.id {
                    builder = builder.with_access_key_id(id);
                }
                if let Some(secret) = key.secret {
                    builder = builder.with_secret_access_key(secret);
                }
                Self::bucket(builder, prefix)
            }
            None if !location.is_empty() => Self::folder(location.into()),
            Some(_) | None => Err(BlobError::Location(location.to_owned())),
        }
    }

    fn folder(folder: PathBuf) -> Result<Self, BlobError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let folder = folder.canonicalize()?;
        // Not the library's default: what a client was told is stored must outlive a power cut.
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            folder: Some(Arc::new(folder)),
            piece: LOCAL_PIECE,
            cleanups: TaskTracker::new(),
        })
    }

    fn bucket(builder: AmazonS3Builder, prefix: &str) -> Result<Self, BlobError> {
        // Who names an http:// endpoint, as those of self-hosted stores often are, means it.
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let builder = if plain {
            builder.with_allow_http(true)
        } else {
            builder
        };
        let store = PrefixStore::new(builder.build()?, prefix);
        Ok(Self {
            store: Arc::new(store),
            folder: None,
            piece: BUCKET_PIECE,
            cleanups: TaskTracker::new(),
        })
    }

    /// Stores contents of at most `limit` bytes under a name that was never used before, and
    /// tells their size. When it fails, or its future is dropped, nothing is left behind.
    pub async fn put<S>(&self, name: &str, contents: S, limit: u64) -> Result<u64, BlobError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Send,
    {
        let written = self.write(name, contents, limit).await;
        written.map_err(|error| match &self.folder {
            Some(folder) if is_out_of_space(&error) => BlobError::Full {
                folder: folder.display().to_string(),
            },
            _ => error,
        })
    }

    async fn write<S>(&self, name: &str, contents: S, limit: u64) -> Result<u64, BlobError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Send,
    {
        let path = Path::from(name);
        let mut source = Source {
            contents: pin!(contents),
            rest: Bytes::new(),
            size: 0,
            limit,
        };
        let first = source.piece(self.piece).await?;
        if first.content_length() < self.piece {
            self.store.put(&path, first).await?;
            return Ok(source.size);
        }
        let mut upload = Unfinished {
            upload: Some(self.store.put_multipart(&path).await?),
            cleanups: self.cleanups.clone(),
        };
        match upload.fill(&mut source, first, self.piece).await {
            Ok(()) => Ok(source.size),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// The contents under a name, or a part of them.
    pub async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Contents, BlobError> {
        let options = GetOptions {
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&Path::from(name), options).await?;
        let (size, range) = (found.meta.size, found.range);
        let stream = match found.payload {
            // The library reads local files in very small pieces, each on another thread.
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(SeekFrom::Start(range.start)).await?;
                let bytes = file.take(range.end - range.start);
                ReaderStream::with_capacity(bytes, READ_PIECE)
                    .map_err(BlobError::from)
                    .boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(BlobError::from).boxed(),
        };
        Ok(Contents { size, stream })
    }

    /// Size of what is under a name in bytes; `None` if nothing is.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, BlobError> {
        match self.store.head(&Path::from(name)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything under a name, for blobs of at most `limit` bytes.
    pub async fn read(&self, name: &str, limit: u64) -> Result<Bytes, BlobError> {
        let contents = self.get(name, None).await?;
        if contents.size > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let mut all = Vec::with_capacity(usize::try_from(contents.size).unwrap_or(0));
        let mut stream = contents.stream;
        while let Some(bytes) = stream.try_next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    /// The contents under several names, one after the other.
    pub fn chain(
        &self,
        names: Vec<String>,
    ) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + use<> {
        let blobs = self.clone();
        stream::iter(names)
            .then(move |name| {
                let blobs = blobs.clone();
                async move { blobs.get(&name, None).await.map(|contents| contents.stream) }
            })
            .try_flatten()
    }

    /// Deletes what is under a name, and what a writer that died may have left of it. That there
    /// is nothing is fine.
    pub async fn delete(&self, name: &str) -> Result<(), BlobError> {
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        // The library writes beside the final name first, and numbers these files from 1 on.
        match tokio::fs::remove_file(folder.join(format!("{name}#1"))).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Runs the clean-up of contents whose writer was dropped, which cannot wait for it. Without a
    /// runtime nothing is done: the process is about to end.
    pub fn clean_up(&self, work: impl Future<Output = ()> + Send + 'static) {
        spawn(&self.cleanups, work);
    }

    /// Waits for clean-ups under way.
    pub async fn close(&self) {
        self.cleanups.close();
        self.cleanups.wait().await;
    }

    /// Writes, reads and deletes something, to see whether the place works.
    pub async fn probe(&self) -> Result<(), BlobError> {
        let name = format!("probe-{}", uuid::Uuid::new_v4().simple());
        let written = Bytes::from_static(b"probe");
        self.put(&name, stream::iter([Ok(written.clone())]), 5)
            .await?;
        let read = self.read(&name, 5).await;
        self.delete(&name).await?;
        if read? == written {
            Ok(())
        } else {
            Err(BlobError::Body(
                "the store gave back something else than was written".to_owned(),
            ))
        }
    }
}

/// Whether a write failed for want of space on the disk.
fn is_out_of_space(error: &BlobError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    let mut io = causes.filter_map(|it| it.downcast_ref::<std::io::Error>());
    io.any(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

/// Contents on their way in.
struct Source<S> {
    contents: S,
    /// What came beyond the last full piece.
    rest: Bytes,
    size: u64,
    limit: u64,
}

impl<S: Stream<Item = Result<Bytes, BlobError>> + Unpin> Source<S> {
    /// The next piece of exactly this length; a shorter one, maybe empty, is the last.
    async fn piece(&mut self, length: usize) -> Result<PutPayload, BlobError> {
        let mut piece = PutPayloadMut::new();
        while piece.content_length() < length {
            if self.rest.is_empty() {
                let Some(bytes) = self.contents.next().await.transpose()? else {
                    break;
                };
                self.size += bytes.len() as u64;
                if self.size > self.limit {
                    return Err(BlobError::TooLarge { limit: self.limit });
                }
                self.rest = bytes;
            }
            let wanted = (length - piece.content_length()).min(self.rest.len());
            piece.extend_from_slice(&self.rest.split_to(wanted));
        }
        Ok(piece.freeze())
    }
}

fn spawn(tasks: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        tasks.spawn_on(work, &runtime);
    }
}

/// A write that is aborted unless it is completed, also when its future is dropped half-way.
struct Unfinished {
    upload: Option<Box<dyn MultipartUpload>>,
    cleanups: TaskTracker,
}

impl Unfinished {
    async fn fill<S>(
        &mut self,
        source: &mut Source<S>,
        mut piece: PutPayload,
        length: usize,
    ) -> Result<(), BlobError>
    where
        S: Stream<Item = Result<Bytes, BlobError>> + Unpin,
    {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        loop {
            let last = piece.content_length() < length;
            let part = upload.put_part(piece);
            let part = async { part.await.map_err(BlobError::from) };
            if last {
                part.await?;
                break;
            }
            ((), piece) = try_join(part, source.piece(length)).await?;
            if piece.content_length() == 0 {
                break;
            }
        }
        upload.complete().await?;
        self.upload = None;
        Ok(())
    }

    /// Best effort: the caller has an error to report already.
    async fn abort(&mut self) {
        if let Some(upload) = self.upload.take() {
            abort(upload).await;
        }
    }
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(error.cause = %error, "could not remove a failed write: {error}");
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            spawn(&self.cleanups, abort(upload));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::*;

    fn place() -> (tempfile::TempDir, Blobs) {
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

    /// `count` pieces of 100,000 bytes, each byte telling which piece it is of.
    fn pieces(count: u8) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        stream::iter((0..count).map(|n| Ok(Bytes::from(vec![n; 100_000]))))
    }

    #[tokio::test]
    async fn contents_come_back_whole_and_in_ranges() {
        let (_folder, blobs) = place();
        for count in [0, 1, 10, 11, 35] {
            let name = format!("file-{count}");
            let size = u64::from(count) * 100_000;
            assert_eq!(blobs.put(&name, pieces(count), size).await.ok(), Some(size));
            let expected: Vec<u8> = (0..count).flat_map(|n| vec![n; 100_000]).collect();
            let read = blobs
                .read(&name, size)
                .await
                .expect("what was written can be read");
            assert!(read == expected, "{count} pieces come back as they were");
        }
        let part = blobs
            .get("file-35", Some(299_999..300_001))
            .await
            .expect("it is there");
        assert_eq!(part.size, 3_500_000);
        let bytes: Vec<Bytes> = part.stream.try_collect().await.expect("it can be read");
        assert_eq!(bytes.concat(), [2, 3]);
    }

    #[tokio::test]
    async fn contents_as_long_as_whole_pieces_come_back_whole() {
        let (_folder, blobs) = place();
        for length in [
            LOCAL_PIECE - 1,
            LOCAL_PIECE,
            LOCAL_PIECE + 1,
            2 * LOCAL_PIECE,
        ] {
            let bytes = Bytes::from(vec![7; length]);
            let name = format!("file-{length}");
            let size = blobs
                .put(&name, stream::iter([Ok(bytes.clone())]), u64::MAX)
                .await;
            assert_eq!(size.ok(), Some(length as u64));
            assert!(blobs.read(&name, u64::MAX).await.expect("it is there") == bytes);
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_breaks_off_leaves_nothing() {
        let (_folder, blobs) = place();
        for count in [2, 35] {
            let limit = u64::from(count) * 100_000 - 1;
            let refused = blobs.put("file-a", pieces(count), limit).await;
            assert!(matches!(refused, Err(BlobError::TooLarge { limit: at }) if at == limit));
            let broken = pieces(count).chain(stream::iter([Err(BlobError::Body(String::new()))]));
            let refused = blobs.put("file-a", broken, u64::MAX).await;
            assert!(matches!(refused, Err(BlobError::Body(_))));
            assert_eq!(names(&blobs), [""; 0]);
        }
    }

    #[tokio::test]
    async fn a_write_that_is_dropped_leaves_nothing_and_shows_nothing() {
        let (_folder, blobs) = place();
        let stuck = pieces(35).chain(stream::pending());
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
            .expect("it is cleared away");
    }

    #[tokio::test]
    async fn deleting_also_removes_what_a_dead_writer_left() {
        let (_folder, blobs) = place();
        blobs
            .delete("file-a")
            .await
            .expect("nothing to delete is fine");
        blobs
            .put("file-a", pieces(1), u64::MAX)
            .await
            .expect("it can be written");
        let folder = blobs.folder.clone().expect("tests use a folder");
        std::fs::write(folder.join("file-a#1"), "half").expect("it can be written");
        blobs.delete("file-a").await.expect("it can be deleted");
        assert_eq!(names(&blobs), [""; 0]);
    }

    #[tokio::test]
    async fn a_chain_is_one_after_the_other_and_fails_on_a_gap() {
        let (_folder, blobs) = place();
        for name in ["one", "two"] {
            let text = stream::iter([Ok(Bytes::from(name))]);
            blobs.put(name, text, 3).await.expect("it can be written");
        }
        let chain = |names: [&str; 3]| blobs.chain(names.map(str::to_owned).to_vec());
        let all: Result<Vec<Bytes>, _> = chain(["two", "one", "two"]).try_collect().await;
        assert_eq!(all.expect("all are there").concat(), b"twoonetwo");
        let gap: Result<Vec<Bytes>, _> = chain(["two", "three", "one"]).try_collect().await;
        assert!(matches!(gap, Err(BlobError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_place_is_private_works_and_opens_again() {
        let (_folder, blobs) = place();
        let folder = blobs.folder.clone().expect("tests use a folder");
        let mode = folder.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        blobs.probe().await.expect("it works");
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
        for wrong in ["", "ftp://place"] {
            assert!(matches!(
                Blobs::open(wrong, BucketKey::default()),
                Err(BlobError::Location(_))
            ));
        }
    }
}
