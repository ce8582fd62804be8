//! Truncates long texts for models.

/// Keeps about `target` bytes, half of them from each end, with a note on how many characters are
/// left out in between.
pub(super) fn truncate_middle(text: &str, target: usize) -> String {
    let half = target / 2;
    let head = text.floor_char_boundary(half);
    let tail = text
        .ceil_char_boundary(text.len().saturating_sub(half))
        .max(head);
    let left_out = text[head..tail].chars().count();
    format!(
        "{}\n[... {left_out} characters left out ...]\n{}",
        &text[..head],
        &text[tail..]
    )
}
