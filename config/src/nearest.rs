//! The word that somebody probably meant. Used for hints only; nothing is ever decided by likeness.

/// The known word that is nearest to `word`, when it is near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let most = (length / 3).max(1);
    known
        .into_iter()
        .filter(|k| k.len() <= 256 && k.chars().count().abs_diff(length) <= most)
        .map(|k| (distance(word, k), k))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// Insertions, deletions, changes and swaps of neighbours from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["timeout", "upstream", "idle_timeout"];
        assert_eq!(nearest("timeuot", known), Some("timeout"));
        assert_eq!(nearest("upsteam", known), Some("upstream"));
        assert_eq!(nearest("Timeout", known), Some("timeout"));
        assert_eq!(nearest("balance", known), None);
        assert_eq!(nearest("", known), None);
    }
}
