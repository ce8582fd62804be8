//! Parses server-sent events. Every byte is read once, however long a line is and however it is
//! split into chunks.

use super::body::text_of;
use super::error::UpstreamError;

/// Maximum line length of an event stream, and maximum size of a body, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) line: usize,
    pub(super) answer: usize,
}

#[derive(Debug)]
pub(super) struct EventStream {
    max_line: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    /// Whether the last byte was a carriage return, to which a line feed may belong.
    is_after_return: bool,
}

impl EventStream {
    pub(super) fn new(max_line: usize) -> Self {
        Self {
            max_line,
            line: Vec::new(),
            data: Vec::new(),
            is_after_return: false,
        }
    }

    /// Appends the data of the events that these bytes complete. Fails when a line is too long.
    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        events: &mut Vec<String>,
    ) -> Result<(), UpstreamError> {
        let mut rest = chunk;
        if self.is_after_return && !rest.is_empty() {
            self.is_after_return = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (segment, after) = rest.split_at(end);
            self.extend_line(segment)?;
            self.end_line(events);
            rest = match after {
                [b'\r'] => {
                    self.is_after_return = true;
                    &[]
                }
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => after,
            };
        }
        self.extend_line(rest)
    }

    /// Ends the stream. An event without an empty line at its end counts.
    pub(super) fn finish(&mut self, events: &mut Vec<String>) {
        self.end_line(events);
        self.end_line(events);
    }

    fn extend_line(&mut self, segment: &[u8]) -> Result<(), UpstreamError> {
        if self.line.len() + segment.len() > self.max_line {
            return Err(UpstreamError::broken(format!(
                "The model server sent a line of more than {} bytes \
                 (ASSISTD_MAX_UPSTREAM_LINE_BYTES).",
                self.max_line
            )));
        }
        self.line.extend_from_slice(segment);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<String>) {
        if self.line.is_empty() {
            if !self.data.is_empty() {
                events.push(text_of(std::mem::take(&mut self.data)));
            }
            return;
        }
        let value = match self.line.strip_prefix(b"data") {
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => Some(value),
            // Comments, other fields, and empty data.
            Some(_) | None => None,
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stream: &[u8], chunk_size: usize) -> Vec<String> {
        let mut parser = EventStream::new(1_000);
        let mut events = Vec::new();
        for chunk in stream.chunks(chunk_size) {
            parser
                .push(chunk, &mut events)
                .expect("the lines are short");
        }
        parser.finish(&mut events);
        events
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let streams: [(&[u8], &[&str]); 6] = [
            (b"data: a\n\ndata:b\n\n", &["a", "b"]),
            (b"data: a\r\n\r\ndata: b\r\rdata: c", &["a", "b", "c"]),
            (
                b": hello\nevent: x\nid: 1\n\ndata: a\ndata: b\n\n",
                &["a\nb"],
            ),
            (b"data\ndata:\ndata: \n\n\n\ndatabase: no\n\n", &[]),
            (b"data:  a \n\n", &[" a "]),
            (b"data: \xff\xf0\x9f\xa6\x80\0\n\n", &["\u{fffd}🦀\u{fffd}"]),
        ];
        for (stream, expected) in streams {
            for size in 1..=stream.len() {
                assert_eq!(parse(stream, size), expected, "{size} bytes a chunk");
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_names_the_setting() {
        let mut parser = EventStream::new(10);
        let mut events = Vec::new();
        assert_eq!(parser.push(b"data: 1234\n\ndata:", &mut events), Ok(()));
        let error = parser.push(b" 12345\n", &mut events);
        let message = error.expect_err("11 bytes are too many").message();
        assert!(
            message.contains("10 bytes") && message.contains("ASSISTD_MAX_UPSTREAM_LINE_BYTES"),
            "{message}"
        );
        assert_eq!(events, ["1234"]);
    }

    /// Reading the line again with each chunk would read two terabytes.
    #[test]
    fn a_line_of_64_mib_in_small_chunks_is_read_once() {
        let size = 64 << 20;
        let mut parser = EventStream::new(size + 6);
        let mut events = Vec::new();
        let chunk = [b'x'; 1 << 10];
        parser
            .push(b"data: ", &mut events)
            .expect("the line is within the limit");
        for _ in 0..size / chunk.len() {
            parser
                .push(&chunk, &mut events)
                .expect("the line is within the limit");
        }
        parser
            .push(b"\n\n", &mut events)
            .expect("the line is within the limit");
        assert_eq!(events.iter().map(String::len).collect::<Vec<_>>(), [size]);
    }
}
