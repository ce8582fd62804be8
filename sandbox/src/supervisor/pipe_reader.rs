//! Reads the pipes of a session's standard output and standard error as text.

use nix::errno::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Read buffer size in bytes: the default capacity of a pipe.
const READ_BYTES: usize = 64 << 10;

/// Maximum number of bytes read without waiting: the largest capacity that a session can set.
const AVAILABLE_BYTES: usize = 1 << 20;

/// The read end of one pipe.
pub struct PipeReader {
    pipe: pipe::Receiver,
    /// Bytes of a UTF-8 character that is not complete yet.
    partial: Vec<u8>,
    closed: bool,
}

impl PipeReader {
    pub fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe,
            partial: Vec::new(),
            closed: false,
        }
    }

    /// Returns the next text. Waits forever once all writers are gone. Cancel safe.
    pub async fn next(&mut self) -> String {
        while !self.closed {
            let mut bytes = Vec::with_capacity(READ_BYTES);
            match self.pipe.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => self.closed = true,
                Ok(_) => {
                    let text = self.decode(&bytes);
                    if !text.is_empty() {
                        return text;
                    }
                }
            }
        }
        std::future::pending().await
    }

    /// Returns what the pipe holds now, without waiting, up to [`AVAILABLE_BYTES`].
    pub fn read_available(&mut self) -> String {
        let mut text = String::new();
        let mut bytes = vec![0; READ_BYTES];
        while !self.closed && text.len() < AVAILABLE_BYTES {
            // A direct system call: the runtime may not have seen the latest write yet.
            match nix::unistd::read(&self.pipe, &mut bytes) {
                Ok(0) => self.closed = true,
                Ok(length) => text.push_str(&self.decode(&bytes[..length])),
                Err(Errno::EAGAIN) => break,
                Err(_) => self.closed = true,
            }
        }
        text
    }

    /// Returns what the pipe holds now, including an incomplete character at the end.
    pub fn read_rest(&mut self) -> String {
        let mut text = self.read_available();
        text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)));
        text
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let whole = all.len() - incomplete_suffix(&all);
        self.partial = all.split_off(whole);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// The number of bytes at the end that start an incomplete UTF-8 character.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if back < length { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;

    #[test]
    fn a_character_cut_in_two_is_held_back_and_rubbish_is_not() {
        let text = "aä€😀";
        for cut in 0..=text.len() {
            let head = &text.as_bytes()[..cut];
            let whole = head.len() - incomplete_suffix(head);
            assert!(std::str::from_utf8(&head[..whole]).is_ok(), "cut at {cut}");
            assert!(cut - whole < 4);
        }
        assert_eq!(incomplete_suffix(&[0xff]), 0);
        assert_eq!(incomplete_suffix(&[0x80, 0x80, 0x80, 0x80]), 0);
    }

    #[tokio::test]
    async fn the_rest_is_read_without_waiting() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let receiver = pipe::Receiver::from_owned_fd(read).expect("the read end of a pipe");
        let mut reader = PipeReader::new(receiver);
        assert_eq!(reader.read_rest(), "");
        let write_bytes =
            |bytes: &[u8]| nix::unistd::write(&write, bytes).expect("the pipe has room");
        assert_eq!(write_bytes("x\u{e4}".as_bytes()), 3);
        assert_eq!(reader.read_rest(), "x\u{e4}");
        assert_eq!(write_bytes(b"\xc3"), 1);
        drop(write);
        assert_eq!(reader.read_rest(), "\u{fffd}");
    }
}
