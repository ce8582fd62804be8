//! What the child may do, and what becomes of a child that fails.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use documents::ErrorCode;
use documents::ExtractError;
use documents::Section;
use documents::child::Limits;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::time::timeout;

use crate::reader;
use crate::reader_of;
use crate::texts;

/// Runs a script in the place of the child.
async fn script(script: &str, limits: &Limits) -> Result<Vec<Section>, ExtractError> {
    let file = "words".repeat(100_000);
    reader_of("/bin/sh", &["-c", script])
        .read("a.txt", file.as_bytes(), limits)
        .await
}

fn proc(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// The child of this process that has so much address space, once it has no new privileges: the
/// last that it takes from itself.
async fn confined_child(memory_bytes: u64) -> u32 {
    loop {
        let found = std::fs::read_dir("/proc")
            .expect("proc is mounted")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|&pid| {
                proc(pid, "limits").contains(&format!(" {memory_bytes} "))
                    && proc(pid, "status").contains("NoNewPrivs:\t1")
            });
        match found {
            Some(pid) => return pid,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test]
async fn the_child_is_confined_before_it_sees_the_file() {
    let limits = Limits {
        memory_bytes: 777_777_777,
        cpu_seconds: 7,
        ..Limits::default()
    };
    let (mut give, file) = tokio::io::duplex(64);
    let reader = reader();
    let extraction = reader.read("a.txt", file, &limits);
    let watch = async {
        let pid = timeout(Duration::from_secs(60), confined_child(limits.memory_bytes))
            .await
            .expect("the child confines itself");
        let held = proc(pid, "limits");
        for (what, limit) in [
            ("Max address space", "777777777"),
            ("Max cpu time", "7 "),
            ("Max file size", "0 "),
            ("Max core file size", "0 "),
            ("Max open files", "16 "),
        ] {
            let line = held.lines().find(|line| line.starts_with(what));
            let value = line.map(|line| line[what.len()..].trim_start());
            assert!(
                value.is_some_and(|value| value.starts_with(limit)),
                "{what}: {line:?}"
            );
        }
        assert_eq!(proc(pid, "environ"), "");
        if nix::unistd::geteuid().is_root() {
            let status = proc(pid, "status");
            assert!(
                status.contains("Uid:\t65533\t65533\t65533\t65533"),
                "{status}"
            );
            assert!(
                status.contains("Gid:\t65533\t65533\t65533\t65533"),
                "{status}"
            );
            assert!(
                status.lines().any(|line| line.trim_end() == "Groups:"),
                "{status}"
            );
        }
        give.write_all(b"Only now.").await.expect("the child reads");
        drop(give);
    };
    let (extracted, ()) = tokio::join!(extraction, watch);
    assert_eq!(texts(&extracted.expect("it has text")), ["Only now."]);
}

#[tokio::test]
async fn a_child_that_does_not_end_is_ended() {
    let limits = Limits {
        wall_seconds: 1,
        ..Limits::default()
    };
    let (mut seen, file) = tokio::io::duplex(64);
    let sleeper = reader_of("/bin/sleep", &["600"]);
    let given_up = sleeper.read("a.txt", file, &limits).await;
    assert_eq!(given_up, Err(ExtractError::TookTooLong));
    // The file is let go of too.
    let nothing = timeout(Duration::from_secs(10), seen.read(&mut [0; 8])).await;
    assert!(matches!(nothing, Ok(Ok(0))));
}

#[tokio::test]
async fn each_death_has_its_reason() {
    for (last_words, reason) in [
        ("kill -XCPU $$", ExtractError::TookTooLong),
        (
            "echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$",
            ExtractError::NeededTooMuchMemory,
        ),
        (
            "echo 'thread has overflowed its stack' >&2; kill -ABRT $$",
            ExtractError::NestedTooDeeply,
        ),
        ("kill -ABRT $$", ExtractError::Crashed),
        ("kill -SEGV $$", ExtractError::Crashed),
        (
            "echo '{\"section\":{'; kill -SEGV $$",
            ExtractError::Crashed,
        ),
    ] {
        let died = script(last_words, &Limits::default()).await;
        assert_eq!(died, Err(reason), "{last_words}");
    }
    for not_its_fault in [
        "kill -KILL $$",
        "exit 1",
        "exit 0",
        "cat >/dev/null; echo '[]'",
    ] {
        let died = script(not_its_fault, &Limits::default()).await;
        let error = died.expect_err("there was no last line");
        assert_eq!(
            error.code(),
            ErrorCode::ServerError,
            "{not_its_fault}: {error}"
        );
        assert!(error.message().starts_with("Sorry"), "{}", error.message());
    }
}

#[tokio::test]
async fn a_child_that_will_not_be_quiet_is_not_listened_to() {
    let limits = Limits {
        text_bytes: 1000,
        ..Limits::default()
    };
    let endless_line = "yes | tr -d '\\n'";
    let endless_sections = "yes '{\"section\":{\"text\":\"a\",\"page\":null,\"headings\":[]}}'";
    let endless_complaint = "yes >&2";
    for (talk, wall_seconds) in [
        (endless_line, 60),
        (endless_sections, 60),
        (endless_complaint, 1),
    ] {
        let limits = Limits {
            wall_seconds,
            ..limits.clone()
        };
        let refused = script(talk, &limits).await;
        assert!(refused.is_err(), "{talk}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_servers_fault() {
    let (file, limits) = (&b"words"[..], Limits::default());
    let nobody = reader_of("/nowhere/at/all", &[]);
    let error = nobody
        .read("a.txt", file, &limits)
        .await
        .expect_err("there is no such program");
    assert_eq!(error.code(), ErrorCode::ServerError);
}

/// A store of files that breaks off.
struct Failing;

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("the disk is gone")))
    }
}

#[tokio::test]
async fn a_file_that_breaks_off_is_not_taken_for_whole() {
    let file = (&b"The first half"[..]).chain(Failing);
    let read = reader().read("a.txt", file, &Limits::default()).await;
    let error = read.expect_err("half of it is missing");
    assert_eq!(error.code(), ErrorCode::ServerError);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
}
