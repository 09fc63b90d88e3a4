//! What two questions must have in common, whatever their vectors say: numbers, negations, names, what is quoted, code, and words that turn
//! an answer around.
//!
//! Vectors of "before 1990" and "after 1980" lie close to each other. So each question is read for words of such kinds, and two are alike
//! only if theirs are the same in the same order. It errs on one side: what it takes for a name and is none costs a hit.

/// Words without a meaning of their own: at the beginning of a sentence a capital says nothing of them, and where nobody writes capitals
/// they are no names.
const COMMON: &[&str] = &[
    "a", "about", "also", "am", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could",
    "define", "describe", "did", "do", "does", "explain", "for", "get", "give", "had", "has", "have", "he",
    "hello", "help", "her", "hi", "his", "how", "i", "i'd", "i'm", "i've", "if", "in", "into", "is", "it",
    "it's", "its", "let", "list", "make", "may", "me", "might", "my", "name", "need", "of", "on", "our",
    "please", "shall", "she", "should", "show", "so", "some", "tell", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "those", "to", "us", "want", "was", "we", "were", "what",
    "what's", "which", "will", "with", "would", "write", "you", "your",
];

/// Words that change the answer: negations (those of some other languages too), numbers, comparisons, times, who, when, where and why.
const TELLING: &[&str] = &[
    "above",
    "add",
    "after",
    "against",
    "all",
    "always",
    "any",
    "aucun",
    "aucune",
    "before",
    "below",
    "best",
    "billion",
    "both",
    "buy",
    "cannot",
    "close",
    "cold",
    "decrease",
    "disable",
    "down",
    "each",
    "eight",
    "either",
    "enable",
    "every",
    "except",
    "false",
    "few",
    "fewer",
    "first",
    "five",
    "former",
    "four",
    "from",
    "half",
    "highest",
    "hot",
    "hundred",
    "increase",
    "install",
    "jamais",
    "kein",
    "keine",
    "keinen",
    "keiner",
    "largest",
    "last",
    "latest",
    "latter",
    "least",
    "left",
    "less",
    "longer",
    "lower",
    "lowest",
    "max",
    "maximum",
    "million",
    "min",
    "minimum",
    "more",
    "most",
    "must",
    "nada",
    "nadie",
    "ne",
    "neither",
    "nem",
    "nessun",
    "never",
    "newest",
    "next",
    "nicht",
    "nie",
    "niemals",
    "nine",
    "no",
    "nobody",
    "non",
    "none",
    "nor",
    "not",
    "nothing",
    "nowhere",
    "nunca",
    "não",
    "off",
    "ohne",
    "oldest",
    "once",
    "one",
    "only",
    "open",
    "or",
    "out",
    "over",
    "pas",
    "previous",
    "remove",
    "rien",
    "right",
    "sans",
    "second",
    "sell",
    "sem",
    "seven",
    "shortest",
    "sin",
    "since",
    "six",
    "smallest",
    "start",
    "stop",
    "ten",
    "third",
    "thousand",
    "three",
    "today",
    "tomorrow",
    "true",
    "twice",
    "two",
    "under",
    "uninstall",
    "unless",
    "until",
    "up",
    "weder",
    "when",
    "where",
    "who",
    "whose",
    "why",
    "without",
    "worst",
    "yesterday",
    "zero",
];

/// What stands between letters and digits in what is code, a path or an address.
const CODE: &[char] = &[
    '_', '/', '\\', '=', '<', '>', '{', '}', '[', ']', '@', '#', '*', '^', '|', '&', '~', '+', ':', '.', '(',
];

/// Quotes by what opens and what closes them. A single one may be an apostrophe.
const QUOTES: [(char, char); 5] = [('`', '`'), ('"', '"'), ('“', '”'), ('«', '»'), ('„', '“')];

/// The marks of a question, in their order. `None`: it cannot be told. It is in letters without capitals, so that names look like words, or
/// a quote does not end.
pub(super) fn marks(text: &str) -> Option<Vec<String>> {
    if text.chars().any(|c| c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase()) {
        return None;
    }
    let mut reader =
        Reader { has_capitals: text.chars().any(char::is_uppercase), begins: true, marks: Vec::new() };
    let mut rest = text;
    while let Some((at, (open, close))) = first_quote(rest) {
        reader.words(&rest[..at]);
        let inside = &rest[at + open.len_utf8()..];
        let end = inside.find(close)?;
        if end > 0 {
            reader.marks.push(inside[..end].to_owned());
        }
        rest = &inside[end + close.len_utf8()..];
    }
    reader.words(rest);
    Some(reader.marks)
}

fn first_quote(text: &str) -> Option<(usize, (char, char))> {
    text.char_indices().find_map(|(at, c)| Some((at, *QUOTES.iter().find(|(open, _)| *open == c)?)))
}

struct Reader {
    /// Whoever wrote it uses capitals.
    has_capitals: bool,
    /// A sentence does.
    begins: bool,
    marks: Vec<String>,
}

impl Reader {
    fn words(&mut self, text: &str) {
        for piece in text.split_whitespace() {
            let mark = self.mark(piece);
            self.marks.extend(mark);
            self.begins = piece.ends_with(['.', '!', '?', ':']);
        }
    }

    fn mark(&self, piece: &str) -> Option<String> {
        // Currencies, signs and percents are part of their numbers.
        if piece.contains(|c: char| c.is_numeric()) {
            let number = piece
                .trim_matches(|c: char| "()[]'’".contains(c))
                .trim_end_matches(['.', ',', ';', ':', '!', '?']);
            return Some(number.to_lowercase());
        }
        let word = piece.trim_matches(|c: char| !c.is_alphanumeric());
        if word.is_empty() {
            let is_code = piece.contains(|c: char| c.is_ascii_punctuation() && !"-.,;:!?()'".contains(c));
            return is_code.then(|| piece.to_owned());
        }
        if word.contains(CODE) {
            return Some(word.to_owned());
        }
        let lower = word.to_lowercase().replace('’', "'");
        if lower.ends_with("n't") || lower == "cannot" {
            return Some("not".to_owned());
        }
        if TELLING.binary_search(&lower.as_str()).is_ok() {
            return Some(lower);
        }
        let is_common = COMMON.binary_search(&lower.as_str()).is_ok();
        let name = || lower.strip_suffix("'s").unwrap_or(&lower).to_owned();
        match word.chars().filter(|c| c.is_uppercase()).count() {
            0 => (!self.has_capitals && !is_common).then(name),
            1 if is_common && (self.begins || lower == "i" || lower.starts_with("i'")) => None,
            // "US" is not "us".
            1 => Some(name()),
            _ => Some(word.to_owned()),
        }
    }
}

/// The words of a question, whatever their order.
pub(super) fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut words: Vec<_> = words.map(str::to_lowercase).collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Vec<String> {
        marks(text).unwrap()
    }

    #[test]
    fn the_lists_can_be_searched() {
        for list in [COMMON, TELLING] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]), "{list:?}");
        }
        assert!(COMMON.iter().all(|word| TELLING.binary_search(word).is_err()));
    }

    #[test]
    fn ways_to_ask_the_same_have_the_same_marks() {
        for (one, other) in [
            ("How do I reset my password?", "Please tell me how a password can be reset."),
            ("What is the capital of France?", "Which city is the capital of France"),
            ("What is France's capital?", "What's the capital of France?"),
            ("Don't you think so?", "Do you not think so?"),
        ] {
            assert_eq!(of(one), of(other), "{one} / {other}");
        }
    }

    #[test]
    fn what_turns_an_answer_around_is_a_mark() {
        for (one, other) in [
            ("What is 12 times 7?", "What is 12 times 8?"),
            ("It was -5 degrees, why?", "It was 5 degrees, why?"),
            ("What costs $5 in the shop?", "What costs €5 in the shop?"),
            ("Flights from Rome to Paris", "Flights from Paris to Rome"),
            ("Is it safe to eat?", "Is it not safe to eat?"),
            ("Can I delete it?", "Can't I delete it?"),
            ("What was built before the war?", "What was built after the war?"),
            ("How do I enable it?", "How do I disable it?"),
            ("Paris is in which country?", "London is in which country?"),
            ("What does `a+b` do?", "What does `a-b` do?"),
            ("Translate “good morning” now", "Translate “good evening” now"),
            ("What does fs.read do?", "What does fs.write do?"),
            ("Show the file /etc/hosts to me", "Show the file /etc/passwd to me"),
            ("who works for the US?", "who works for us?"),
            ("when did it begin?", "where did it begin?"),
            ("what is the capital of france", "what is the capital of spain"),
            ("ist das nicht wahr?", "ist das wahr?"),
            ("two apples", "three apples"),
        ] {
            assert_ne!(of(one), of(other), "{one} / {other}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_compared() {
        assert_eq!(marks("フランスの首都は?"), None);
        assert_eq!(marks("What does `a do?"), None);
        assert_eq!(of("“”"), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,80}") {
            if let Some(marks) = marks(&text) {
                prop_assert!(marks.iter().all(|mark| !mark.is_empty()));
            }
        }
    }
}
