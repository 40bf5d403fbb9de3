//! The little language of `key = "…"`: fixed text, and `{paths}` to values. It knows nothing of functions.

use std::ops::Range;

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use syn::LitStr;

use crate::{
    diag::Diag,
    value_path::{may_be_path, start, with_raw_keywords},
};

/// A parsed template.
pub(crate) struct Template {
    pub(crate) parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Debug)]
pub(crate) enum Part {
    Literal(String),
    Path(Path),
}

/// A path to a value: a name, then fields, indexes and methods without arguments.
#[derive(Debug)]
pub(crate) struct Path {
    text: String,
    /// The name it begins with, without `r#`; `None` when it begins with a method of a struct.
    pub(crate) head: Option<String>,
    /// Where a mistake in it is reported.
    pub(crate) span: Span,
}

/// What a path begins with.
#[derive(Clone, Copy)]
pub(crate) enum Root {
    /// A parameter of the function.
    Parameter,
    /// A field of the struct.
    Field,
}

impl Template {
    /// Parses a template, and reports every mistake in it.
    pub(crate) fn parse(literal: &LitStr, root: Root, diag: &Diag) -> Self {
        let text = literal.value();
        let mut reader = Reader {
            literal,
            text: &text,
            root,
            diag,
            parts: Vec::new(),
            fixed: String::new(),
        };
        reader.read();
        Self {
            parts: reader.parts,
        }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| match part {
            Part::Path(path) => Some(path),
            Part::Literal(_) => None,
        })
    }
}

impl Path {
    /// The path as tokens: its first name resolves as at `head`, the rest as at `rest`.
    pub(crate) fn tokens(&self, head: Span, rest: Span) -> TokenStream {
        let tokens: TokenStream = self.text.parse().unwrap_or_default();
        let spans = std::iter::once(self.span.resolved_at(head))
            .chain(std::iter::repeat(self.span.resolved_at(rest)));
        tokens
            .into_iter()
            .zip(spans)
            .map(|(token, span)| respanned(token, span))
            .collect()
    }
}

fn respanned(mut token: TokenTree, span: Span) -> TokenTree {
    if let TokenTree::Group(group) = &token {
        let inner = group
            .stream()
            .into_iter()
            .map(|token| respanned(token, span))
            .collect();
        token = Group::new(group.delimiter(), inner).into();
    }
    token.set_span(span);
    token
}

struct Reader<'a> {
    literal: &'a LitStr,
    text: &'a str,
    root: Root,
    diag: &'a Diag,
    parts: Vec<Part>,
    fixed: String,
}

impl Reader<'_> {
    fn read(&mut self) {
        let text = self.text;
        let mut at = 0;
        while let Some(brace) = text[at..].find(['{', '}']).map(|found| at + found) {
            self.fixed.push_str(&text[at..brace]);
            at = if text[brace..].starts_with("{{") || text[brace..].starts_with("}}") {
                self.fixed.push_str(&text[brace..=brace]);
                brace + 2
            } else if text[brace..].starts_with('}') {
                self.mistake(
                    brace..brace + 1,
                    "unmatched `}` in the key; write `}}` for a literal brace".to_owned(),
                );
                brace + 1
            } else {
                self.path(brace)
            };
        }
        self.fixed.push_str(&text[at..]);
        self.flush();
    }

    /// Reads the path whose `{` is at `brace`, and says where to go on.
    fn path(&mut self, brace: usize) -> usize {
        let Some(length) = self.text[brace..].find('}') else {
            self.mistake(
                brace..self.text.len(),
                "unclosed `{` in the key; write `{{` for a literal brace".to_owned(),
            );
            return self.text.len();
        };
        let inside = brace + 1..brace + length;
        let text = self.text[inside.clone()].trim();
        if text.is_empty() {
            self.mistake(
                inside,
                format!(
                    "empty `{{}}` in the key; name a value: `{}`",
                    self.root.example()
                ),
            );
        } else if let Some((text, head)) = self.root.parse(text) {
            self.flush();
            let span = self.span(inside);
            self.parts.push(Part::Path(Path { text, head, span }));
        } else {
            let message = format!(
                "`{text}` is not a path to a value; write `{}`, with fields, indexes and methods without arguments",
                self.root.example()
            );
            self.mistake(inside, message);
        }
        brace + length + 1
    }

    fn flush(&mut self) {
        if !self.fixed.is_empty() {
            self.parts
                .push(Part::Literal(std::mem::take(&mut self.fixed)));
        }
    }

    fn mistake(&self, range: Range<usize>, message: String) {
        self.diag.at_span(self.span(range), message);
    }

    /// The place inside the literal where the toolchain tells it, else the whole literal. Escapes would shift the place.
    fn span(&self, range: Range<usize>) -> Span {
        let token = self.literal.token();
        let is_verbatim = token.to_string() == format!("\"{}\"", self.text);
        let inside = if is_verbatim {
            token.subspan(range.start + 1..range.end + 1)
        } else {
            None
        };
        inside.unwrap_or_else(|| self.literal.span())
    }
}

impl Root {
    /// The path as text, and its first name.
    fn parse(self, text: &str) -> Option<(String, Option<String>)> {
        if !may_be_path(text) {
            return None;
        }
        let text = with_raw_keywords(text);
        match self {
            Self::Parameter => {
                start(&syn::parse_str(&text).ok()?).map(|start| (text, Some(start.name)))
            }
            Self::Field => {
                let text = format!("self.{text}");
                let start = start(&syn::parse_str(&text).ok()?)?;
                start.next.map(|next| (text, next.field()))
            }
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Parameter => "{cmd.order_id}",
            Self::Field => "{order_id}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let diag = Diag::new();
        let template = Template::parse(
            &LitStr::new(text, Span::call_site()),
            Root::Parameter,
            &diag,
        );
        let parts: Vec<_> = template.parts.iter().map(shown).collect();
        assert!(diag.finish().is_empty(), "{text}");
        assert_eq!(parts.join(" "), expected, "{text}");
    }

    fn shown(part: &Part) -> String {
        match part {
            Part::Literal(text) => format!("[{text}]"),
            Part::Path(path) => path
                .tokens(Span::call_site(), Span::call_site())
                .to_string()
                .replace(' ', ""),
        }
    }

    fn refuse(text: &str, expected: &[&str]) {
        let diag = Diag::new();
        Template::parse(
            &LitStr::new(text, Span::call_site()),
            Root::Parameter,
            &diag,
        );
        let mistakes = diag.finish().to_string();
        for message in expected {
            assert!(mistakes.contains(message), "{text}: {mistakes}");
        }
        assert_eq!(
            mistakes.matches("compile_error").count(),
            expected.len(),
            "{text}: {mistakes}"
        );
    }

    #[test]
    fn text_and_paths_alternate() {
        check("order:{cmd.order_id}", "[order:] cmd.order_id");
        check("{a}{b}/{ c.0.1 }", "a b [/] c.0.1");
        check(
            "{cmd.id()}-{self.tenant.as_str()}",
            "cmd.id() [-] self.tenant.as_str()",
        );
        check("plain", "[plain]");
        check(
            "{type}{ r#fn }{cmd. match .if()}",
            "r#type r#fn cmd.r#match.r#if()",
        );
    }

    #[test]
    fn doubled_braces_are_text() {
        check("{{{a}}}", "[{] a [}]");
        check("ä{{}}ö{a}", "[ä{}ö] a");
    }

    #[test]
    fn every_mistake_is_reported() {
        refuse("{cmd.await} {cmd.type.await}", &["not a path"; 2]);
        refuse("{a} {", &["unclosed"]);
        refuse("a}b{}c{ }", &["unmatched", "empty", "empty"]);
        refuse(
            "{a + b} {f(x)} {a.b(1)} {a.await} {a::<u8>()} {1} {a..b}",
            &["not a path"; 7],
        );
    }

    #[test]
    fn what_is_nested_deeply_is_a_mistake_and_no_end_of_the_compiler() {
        for nested in ["(", "[", "!", "a(", "return ", "a::<"] {
            refuse(&format!("{{{}}}", nested.repeat(10_000)), &["not a path"]);
        }
    }

    /// What a template can go wrong with, and some that it cannot.
    const PIECES: [&str; 32] = [
        "{", "}", "{", "type", "a", "b1", "r#c", "self", ".", ".", "0", "()", "(", ")", "::",
        "<u8>", "+", " ", "ü", "\"", "'", "\\", "await", "?", "!", "[0]", "-", "return", "//",
        "/*", "\n", "|x|",
    ];

    /// A fuzz target.
    #[test]
    fn any_text_is_a_template_or_has_a_mistake() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let pieces = bytes.iter().map(|byte| PIECES[usize::from(byte % 32)]);
            let text: String = pieces.collect();
            for root in [Root::Parameter, Root::Field] {
                if let Some(template) = parsed(&text, root) {
                    let packed = |text: &str| text.replace([' ', '\n'], "").replace("r#", "");
                    assert_eq!(packed(&written(&template)), packed(&text));
                }
            }
        });
    }

    fn parsed(text: &str, root: Root) -> Option<Template> {
        let diag = Diag::new();
        let template = Template::parse(&LitStr::new(text, Span::call_site()), root, &diag);
        let paths_are_whole = template
            .paths()
            .all(|path| !path.tokens(Span::call_site(), Span::call_site()).is_empty());
        assert!(paths_are_whole, "a path is never dropped in silence");
        diag.finish().is_empty().then_some(template)
    }

    /// The text that was parsed, but for white space around paths.
    fn written(template: &Template) -> String {
        let part = |part: &Part| match part {
            Part::Literal(text) => text.replace('{', "{{").replace('}', "}}"),
            Part::Path(path) => match path.text.strip_prefix("self.") {
                Some(field) if path.head.as_deref() != Some("self") => format!("{{{field}}}"),
                _ => format!("{{{}}}", path.text),
            },
        };
        template.parts.iter().map(part).collect()
    }
}
