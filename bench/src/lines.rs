//! Splits a byte stream into lines without copying those that arrive whole.

/// Holds the unfinished last line between chunks.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Calls `each` for every line that `chunk` completes, without its line feed.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            let line = &chunk[start..end];
            if self.rest.is_empty() {
                each(line);
            } else {
                self.rest.extend_from_slice(line);
                each(&self.rest);
                self.rest.clear();
            }
            start = end + 1;
        }
        self.rest.extend_from_slice(&chunk[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_the_same_however_the_bytes_are_cut() {
        let text = b"event: a\ndata: 1\n\nevent: bc\n";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for chunk in text.chunks(size) {
                lines.feed(chunk, |line| seen.push(line.to_vec()));
            }
            assert_eq!(seen, [&b"event: a"[..], b"data: 1", b"", b"event: bc"]);
        }
    }
}
