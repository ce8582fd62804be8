//! The words by which texts are compared.

/// Words that say nothing about what a text or a function is about.
const STOP_WORDS: &str = "all and any are based call can current data does for from function get \
     give given has have how info information into its look make may name not one our out please \
     provide return set some that the their then there thi this tool use used user using value was \
     what when which who will with would you your";

/// The words of a text or an identifier, in lower case and without a plural's `s`. Leaves out stop
/// words and words of less than three letters.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut is_after_lower = false;
    for letter in text.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && is_after_lower) {
            words.push(String::new());
        }
        is_after_lower = letter.is_lowercase();
        if letter.is_alphanumeric() {
            let word = words.last_mut().expect("the list starts with one word");
            word.extend(letter.to_lowercase());
        }
    }
    words
        .into_iter()
        .map(|word| match word.strip_suffix('s') {
            Some(singular) if !singular.ends_with('s') => singular.to_owned(),
            Some(_) | None => word,
        })
        .filter(|word| word.chars().count() > 2 && !STOP_WORDS.split(' ').any(|stop| stop == word))
}
