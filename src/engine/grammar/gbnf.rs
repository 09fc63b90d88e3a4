//! [`lark`]: llama.cpp's grammars (<https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>) in the language of
//! llguidance. Every rule becomes a terminal, so the grammar as a whole is one regular expression and nothing of it is lost to
//! a lexer that takes the longest match. What cannot be that, rules that contain themselves, is refused.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Parentheses and rules within one another: reading them recurs, here and in llguidance.
const DEEPEST: usize = 64;

/// Most repetitions that can be counted, as in llama.cpp.
const MOST_REPETITIONS: u32 = 2000;

/// The same grammar for llguidance. The error says in words what is wrong, and on which line.
pub fn lark(gbnf: &str) -> Result<String, String> {
    let mut reader = Reader { all: gbnf, rest: gbnf, names: HashMap::new(), depth: 0, deepest: 0 };
    let rules = reader.rules().map_err(|reason| format!("line {}: {reason}", reader.line()))?;
    let root = reader.names.get("root").copied().filter(|root| rules.contains_key(root));
    let root = root.ok_or("there is no rule root")?;
    if let Some((name, _)) = reader.names.iter().find(|(_, rule)| !rules.contains_key(rule)) {
        return Err(format!("there is no rule {name}"));
    }
    let mut depths = HashMap::new();
    for &rule in rules.keys() {
        depth(rule, &rules, 0, &mut depths).ok_or(
            "rules that contain themselves, or too many others within one another, are not supported",
        )?;
    }
    let mut lark = format!("start: R{root}\n");
    for (rule, Rule { pattern, .. }) in &rules {
        // Writing to memory cannot fail.
        let _ = writeln!(lark, "R{rule}: {pattern}");
    }
    Ok(lark)
}

/// A rule as llguidance has it.
struct Rule {
    pattern: String,
    /// The rules it is made of.
    parts: Vec<usize>,
    /// Parentheses within parentheses.
    depth: usize,
}

/// How deep a rule is with all that it is made of; it was come across `within` so many others. `None`: too deep, as it is when it
/// contains itself.
fn depth(
    rule: usize,
    rules: &HashMap<usize, Rule>,
    within: usize,
    depths: &mut HashMap<usize, Option<usize>>,
) -> Option<usize> {
    if let Some(known) = depths.get(&rule) {
        return *known;
    }
    // What is being looked at has no depth yet, and whoever comes across it again is inside of it.
    depths.insert(rule, None);
    let Rule { parts, depth: own, .. } = rules.get(&rule).filter(|_| within <= DEEPEST)?;
    let mut deepest = 0;
    for &part in parts {
        deepest = deepest.max(depth(part, rules, within + 1, depths)?);
    }
    let depth = Some(own + deepest + 1).filter(|depth| *depth <= DEEPEST);
    depths.insert(rule, depth);
    depth
}

struct Reader<'a> {
    all: &'a str,
    rest: &'a str,
    /// Numbers by name: llguidance's names are not GBNF's.
    names: HashMap<String, usize>,
    /// Open parentheses.
    depth: usize,
    /// The most there were in the current rule.
    deepest: usize,
}

impl Reader<'_> {
    fn line(&self) -> usize {
        let read = &self.all[..self.all.len() - self.rest.len()];
        1 + read.bytes().filter(|&byte| byte == b'\n').count()
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.takes(text) { Ok(()) } else { Err(format!("expected {text}")) }
    }

    /// Passes over blanks and comments, and over line ends too if `lines`.
    fn skip(&mut self, lines: bool) {
        let is_blank = |c: char| matches!(c, ' ' | '\t') || (lines && matches!(c, '\r' | '\n'));
        loop {
            self.rest = self.rest.trim_start_matches(is_blank);
            if !self.rest.starts_with('#') {
                return;
            }
            self.rest = self.rest.trim_start_matches(|c| !matches!(c, '\r' | '\n'));
        }
    }

    fn rules(&mut self) -> Result<HashMap<usize, Rule>, String> {
        let mut rules = HashMap::new();
        self.skip(true);
        while !self.rest.is_empty() {
            let name = self.name().ok_or("expected the name of a rule")?;
            self.skip(false);
            self.expect("::=")?;
            self.skip(true);
            let mut parts = Vec::new();
            let pattern = self.alternatives(false, &mut parts)?;
            if !self.rest.is_empty() && !self.rest.starts_with(['\r', '\n']) {
                return Err("expected the end of the rule".to_owned());
            }
            rules.insert(name, Rule { pattern, parts, depth: std::mem::take(&mut self.deepest) });
            self.skip(true);
        }
        Ok(rules)
    }

    /// The number of the rule whose name comes next.
    fn name(&mut self) -> Option<usize> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-');
        let name = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        let next = self.names.len();
        (!name.is_empty()).then(|| *self.names.entry(name.to_owned()).or_insert(next))
    }

    fn alternatives(&mut self, nested: bool, parts: &mut Vec<usize>) -> Result<String, String> {
        let mut alternatives = vec![self.sequence(nested, parts)?];
        while self.takes("|") {
            self.skip(true);
            alternatives.push(self.sequence(nested, parts)?);
        }
        Ok(alternatives.join(" | "))
    }

    fn sequence(&mut self, nested: bool, parts: &mut Vec<usize>) -> Result<String, String> {
        let mut items: Vec<String> = Vec::new();
        while let Some(next) = self.rest.chars().next() {
            match next {
                '*' | '+' | '?' | '{' => {
                    let item = items.pop().ok_or_else(|| format!("expected an item before {next}"))?;
                    let times = self.repetition()?;
                    items.push(format!("({item}){times}"));
                }
                '"' => items.push(self.literal()?),
                '[' => items.push(self.class()?),
                '.' if self.takes(".") => items.push("/[\\x{0}-\\x{10ffff}]/".to_owned()),
                '(' if self.takes("(") => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                    if self.depth > DEEPEST {
                        return Err("too many parentheses within parentheses".to_owned());
                    }
                    self.skip(true);
                    let group = self.alternatives(true, parts)?;
                    self.expect(")")?;
                    self.depth -= 1;
                    items.push(format!("({group})"));
                }
                '<' | '!' => return Err("tokens in a grammar are not supported".to_owned()),
                _ => match self.name() {
                    Some(rule) => {
                        parts.push(rule);
                        items.push(format!("R{rule}"));
                    }
                    None => break,
                },
            }
            self.skip(nested);
        }
        Ok(if items.is_empty() { "\"\"".to_owned() } else { items.join(" ") })
    }

    fn repetition(&mut self) -> Result<String, String> {
        if let Some(sign) = ["*", "+", "?"].into_iter().find(|sign| self.takes(sign)) {
            return Ok(sign.to_owned());
        }
        self.expect("{")?;
        self.skip(false);
        let least = self.count()?.ok_or("expected a number after {")?;
        self.skip(false);
        let most = if self.takes(",") {
            self.skip(false);
            self.count()?
        } else {
            Some(least)
        };
        self.skip(false);
        self.expect("}")?;
        match most {
            Some(0) if least == 0 => Err("expected more than 0 repetitions".to_owned()),
            Some(most) if most < least => {
                Err(format!("cannot repeat at least {least} and at most {most} times"))
            }
            Some(most) => Ok(format!("{{{least},{most}}}")),
            None => Ok(format!("{{{least},}}")),
        }
    }

    fn count(&mut self) -> Result<Option<u32>, String> {
        let rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        if digits.is_empty() {
            return Ok(None);
        }
        let count = digits.parse().ok().filter(|count| *count <= MOST_REPETITIONS);
        count.map(Some).ok_or_else(|| format!("cannot count to more than {MOST_REPETITIONS} repetitions"))
    }

    fn literal(&mut self) -> Result<String, String> {
        self.expect("\"")?;
        let mut pattern = String::new();
        while !self.takes("\"") {
            pattern.push_str(&escaped(self.character()?));
        }
        Ok(if pattern.is_empty() { "\"\"".to_owned() } else { format!("/{pattern}/") })
    }

    fn class(&mut self) -> Result<String, String> {
        self.expect("[")?;
        let negated = self.takes("^");
        let mut pattern = String::new();
        while !self.takes("]") {
            let from = self.character()?;
            pattern.push_str(&escaped(from));
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.expect("-")?;
                let to = self.character()?;
                if to < from {
                    return Err(format!("the range {from:?} to {to:?} is empty"));
                }
                pattern.push('-');
                pattern.push_str(&escaped(to));
            }
        }
        match (negated, pattern.is_empty()) {
            (true, true) => Ok("/[\\x{0}-\\x{10ffff}]/".to_owned()),
            (false, true) => Err("a character class is empty".to_owned()),
            (true, false) => Ok(format!("/[^{pattern}]/")),
            (false, false) => Ok(format!("/[{pattern}]/")),
        }
    }

    /// One character of a literal or a class, which may be escaped.
    fn character(&mut self) -> Result<char, String> {
        let end = || "unexpected end".to_owned();
        let mut characters = self.rest.chars();
        let mut character = characters.next().ok_or_else(end)?;
        self.rest = characters.as_str();
        if character != '\\' {
            return Ok(character);
        }
        character = characters.next().ok_or_else(end)?;
        self.rest = characters.as_str();
        let digits = match character {
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'n' => return Ok('\n'),
            '\\' | '"' | '[' | ']' => return Ok(character),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Err(format!("unknown escape \\{other}")),
        };
        let hex = self.rest.get(..digits).ok_or_else(end)?;
        let code =
            hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(hex, 16).ok());
        self.rest = &self.rest[digits..];
        code.flatten().and_then(char::from_u32).ok_or_else(|| format!("{hex} is no character"))
    }
}

/// The character in a regular expression.
fn escaped(character: char) -> String {
    format!("\\x{{{:x}}}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOO_DEEP: &str =
        "rules that contain themselves, or too many others within one another, are not supported";

    #[test]
    fn a_long_chain_of_rules_is_refused_and_a_wide_grammar_is_not() {
        let chain: String = (0..100_000).map(|rule| format!("r{rule} ::= r{}\n", rule + 1)).collect();
        let chain = format!("root ::= r0\n{chain}r100000 ::= \"a\"");
        assert_eq!(lark(&chain), Err(TOO_DEEP.to_owned()));
        let wide: String = (0..2000).map(|rule| format!("r{rule} ::= \"{rule}\"\n")).collect();
        let names: Vec<String> = (0..2000).map(|rule| format!("r{rule}")).collect();
        assert!(lark(&format!("{wide}root ::= {}", names.join(" | "))).is_ok());
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (gbnf, reason) in [
            ("", "there is no rule root"),
            ("root ::= a", "there is no rule a"),
            ("\n# x\nroot ::= \"a", "line 3: unexpected end"),
            ("root := \"a\"", "line 1: expected ::="),
            ("root ::= \"a\" )", "line 1: expected the end of the rule"),
            ("root ::= (\"a\"\n\n\"b\"", "line 3: expected )"),
            ("root ::= *", "line 1: expected an item before *"),
            ("root ::= \"a\"{3,2}", "line 1: cannot repeat at least 3 and at most 2 times"),
            ("root ::= \"a\"{9999}", "line 1: cannot count to more than 2000 repetitions"),
            ("root ::= [z-a]", "line 1: the range 'z' to 'a' is empty"),
            ("root ::= \"\\q\"", "line 1: unknown escape \\q"),
            ("root ::= \"\\ud800\"", "line 1: d800 is no character"),
            ("root ::= <think>", "line 1: tokens in a grammar are not supported"),
            ("root ::= \"(\" a \")\"\na ::= root | \"x\"", TOO_DEEP),
            ("root ::= root", TOO_DEEP),
        ] {
            assert_eq!(lark(gbnf), Err(reason.to_owned()), "{gbnf}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000));
        assert_eq!(lark(&deep), Err("line 1: too many parentheses within parentheses".to_owned()));
    }

    #[test]
    fn rules_become_terminals() {
        let gbnf = "root ::= ( # open\n  \"a\\x41\" [^\\n]+ \n ) b-c{2,}\nb-c ::= . |\n";
        let lark = lark(gbnf).unwrap();
        assert!(lark.starts_with("start: R0\n"), "{lark}");
        assert!(lark.contains("R0: (/\\x{61}\\x{41}/ (/[^\\x{a}]/)+) (R1){2,}\n"), "{lark}");
        assert!(lark.contains("R1: /[\\x{0}-\\x{10ffff}]/ | \"\"\n"), "{lark}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(gbnf in r#"(root ::= )?([ab\-{}()\[\]|*+?.,0-9"\\xuU^<!#é\n ]|::=){0,40}"#) {
            let _ = lark(&gbnf);
        }
    }
}
