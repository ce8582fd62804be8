//! The path of headings that enclose a part of a document.

#[derive(Default)]
pub(super) struct HeadingPath {
    levels: Vec<u8>,
    titles: Vec<String>,
}

impl HeadingPath {
    /// Adds a heading. It replaces all headings of its own and deeper levels.
    pub(super) fn enter(&mut self, level: u8, title: String) {
        let kept = self.levels.iter().take_while(|&&open| open < level).count();
        self.levels.truncate(kept);
        self.titles.truncate(kept);
        self.levels.push(level);
        self.titles.push(title);
    }

    /// Outermost first.
    pub(super) fn titles(&self) -> &[String] {
        &self.titles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heading_ends_its_equals_and_those_below() {
        let mut path = HeadingPath::default();
        for (level, title) in [(2, "a"), (4, "b"), (3, "c"), (1, "d"), (2, "e")] {
            path.enter(level, title.to_owned());
        }
        assert_eq!(path.titles(), ["d", "e"]);
    }
}
