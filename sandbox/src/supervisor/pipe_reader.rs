//! What programs write to a session's standard output and error, as text.

use nix::errno::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// How much is read at once: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// How much is read without waiting: a pipe may be made to hold this.
const REST_BYTES: usize = 1 << 20;

/// One of the two pipes.
pub struct PipeText {
    pipe: pipe::Receiver,
    /// Bytes of a character of which more is to come.
    partial: Vec<u8>,
    closed: bool,
}

impl PipeText {
    /// Reads from this pipe.
    pub fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe,
            partial: Vec::new(),
            closed: false,
        }
    }

    /// The next text. Waits forever once nobody can write any more. May be cancelled and called
    /// again.
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

    /// What is there now, up to a measure; without waiting.
    pub fn held(&mut self) -> String {
        let mut text = String::new();
        let mut bytes = vec![0; READ_BYTES];
        while !self.closed && text.len() < REST_BYTES {
            // Past the runtime, which may not know yet of what was written just now.
            match nix::unistd::read(&self.pipe, &mut bytes) {
                Ok(0) => self.closed = true,
                Ok(length) => text.push_str(&self.decode(&bytes[..length])),
                Err(Errno::EAGAIN) => break,
                Err(_) => self.closed = true,
            }
        }
        text
    }

    /// What is there now, of which no more is to come.
    pub fn rest(&mut self) -> String {
        let mut text = self.held();
        text.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)));
        text
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let whole = all.len() - unfinished(&all);
        self.partial = all.split_off(whole);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// How many bytes at the end begin a character that is not complete.
fn unfinished(bytes: &[u8]) -> usize {
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
            let whole = head.len() - unfinished(head);
            assert!(std::str::from_utf8(&head[..whole]).is_ok(), "cut at {cut}");
            assert!(cut - whole < 4);
        }
        assert_eq!(unfinished(&[0xff]), 0);
        assert_eq!(unfinished(&[0x80, 0x80, 0x80, 0x80]), 0);
    }

    #[tokio::test]
    async fn the_rest_is_read_without_waiting() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let receiver = pipe::Receiver::from_owned_fd(read).expect("a pipe's end");
        let mut text = PipeText::new(receiver);
        assert_eq!(text.rest(), "");
        let write_bytes = |bytes: &[u8]| nix::unistd::write(&write, bytes).expect("room");
        assert_eq!(write_bytes("x\u{e4}".as_bytes()), 3);
        assert_eq!(text.rest(), "x\u{e4}");
        assert_eq!(write_bytes(b"\xc3"), 1);
        drop(write);
        assert_eq!(text.rest(), "\u{fffd}");
    }
}
