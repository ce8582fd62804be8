//! Confinement of the child process, and handling of its failures.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use documents::ErrorCode;
use documents::ExtractError;
use documents::Extraction;
use documents::child::Limits;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::time::timeout;

use crate::reader;
use crate::reader_of;
use crate::texts;

async fn script(script: &str, limits: &Limits) -> Result<Extraction, ExtractError> {
    let file = "words".repeat(100_000);
    reader_of("/bin/sh", &["-c", script])
        .read("a.txt", file.as_bytes(), limits)
        .await
}

fn proc(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// The process with this address-space limit, once no_new_privs is set, which is the last step of
/// its confinement.
async fn confined_child(memory_bytes: u64) -> u32 {
    loop {
        let pid = std::fs::read_dir("/proc")
            .expect("/proc is mounted")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|&pid| {
                proc(pid, "limits").contains(&format!(" {memory_bytes} "))
                    && proc(pid, "status").contains("NoNewPrivs:\t1")
            });
        match pid {
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
    let (mut input, file) = tokio::io::duplex(64);
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
        input
            .write_all(b"Only now.")
            .await
            .expect("the child reads");
        drop(input);
    };
    let (extracted, ()) = tokio::join!(extraction, watch);
    assert_eq!(
        texts(&extracted.expect("the file has text").sections),
        ["Only now."]
    );
}

#[tokio::test]
async fn a_child_that_does_not_end_is_ended() {
    let limits = Limits {
        wall_seconds: 1,
        ..Limits::default()
    };
    let (mut input, file) = tokio::io::duplex(64);
    let sleeper = reader_of("/bin/sleep", &["600"]);
    let result = sleeper.read("a.txt", file, &limits).await;
    assert_eq!(result, Err(ExtractError::TookTooLong));
    // The parent has stopped reading the file, too.
    let end = timeout(Duration::from_secs(10), input.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(Ok(0))));
}

#[tokio::test]
async fn each_death_has_its_reason() {
    for (script_text, reason) in [
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
        let died = script(script_text, &Limits::default()).await;
        assert_eq!(died, Err(reason), "{script_text}");
    }
    for not_its_fault in [
        "kill -KILL $$",
        "exit 1",
        "exit 0",
        "cat >/dev/null; echo '[]'",
    ] {
        let died = script(not_its_fault, &Limits::default()).await;
        let error = died.expect_err("the output has no last line");
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
    let endless_stderr = "yes >&2";
    for (script_text, wall_seconds) in [
        (endless_line, 60),
        (endless_sections, 60),
        (endless_stderr, 1),
    ] {
        let limits = Limits {
            wall_seconds,
            ..limits.clone()
        };
        let refused = script(script_text, &limits).await;
        assert!(refused.is_err(), "{script_text}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_servers_fault() {
    let (file, limits) = (&b"words"[..], Limits::default());
    let missing = reader_of("/nowhere/at/all", &[]);
    let error = missing
        .read("a.txt", file, &limits)
        .await
        .expect_err("the program does not exist");
    assert_eq!(error.code(), ErrorCode::ServerError);
}

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
    let error = read.expect_err("the file is incomplete");
    assert_eq!(error.code(), ErrorCode::ServerError);
    assert!(error.to_string().contains("the disk is gone"), "{error}");
}
