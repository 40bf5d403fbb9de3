//! JSON text: written so that it says what the value is, and read as content, with every number in its own text, since a double
//! would make equal what is not.

use serde::{
    Serialize, Serializer,
    de::IgnoredAny,
    ser::{Error, SerializeStruct},
};

use super::canonical::Canonical;

/// Writes a value. serde_json alone would write `null` for a float that JSON does not have.
///
/// # Errors
/// What the value's own `Serialize` says, and for such a float.
pub(crate) fn write(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(value)?;
    if holds_null(&json) && Canonical::of(value)?.has_no_json {
        return Err(Error::custom(
            "JSON has no NaN and no infinity; write them as text",
        ));
    }
    Ok(json)
}

/// Whether `null` may stand in a JSON text.
pub(crate) fn holds_null(json: &[u8]) -> bool {
    json.windows(4).any(|bytes| bytes == b"null")
}

/// The name of the struct with which serde_json passes on the text of a number.
pub(crate) const NUMBER: &str = "$serde_json::private::Number";
/// The name of the struct with which serde_json passes on JSON text.
pub(crate) const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// As deep as serde_json reads.
const MAX_DEPTH: usize = 128;

/// A JSON value. An object keeps its order and members of the same name.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    /// `None` for text that is not JSON, or nests too deeply.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // After this check only strings and the depth can still be wrong.
        serde_json::from_slice::<IgnoredAny>(text).ok()?;
        let mut reader = Reader(str::from_utf8(text).ok()?);
        reader.value(MAX_DEPTH)
    }

    /// Removes a member, which a JSON pointer (RFC 6901) names.
    #[cfg(feature = "http")]
    pub(crate) fn remove(&mut self, pointer: &str) {
        let mut steps = pointer.split('/').skip(1).peekable();
        let mut place = self;
        while let Some(step) = steps.next() {
            let name = step.replace("~1", "/").replace("~0", "~");
            let next = match place {
                Self::Object(members) if steps.peek().is_none() => {
                    return members.retain(|(member, _)| *member != name);
                }
                Self::Object(members) => members
                    .iter_mut()
                    .find_map(|(member, value)| (*member == name).then_some(value)),
                Self::Array(items) => name
                    .parse()
                    .ok()
                    .and_then(|index: usize| items.get_mut(index)),
                _ => None,
            };
            let Some(next) = next else { return };
            place = next;
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(text) => {
                let mut number = serializer.serialize_struct(NUMBER, 1)?;
                number.serialize_field(NUMBER, text)?;
                number.end()
            }
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                serializer.collect_map(members.iter().map(|(name, value)| (name, value)))
            }
        }
    }
}

/// What is left of a text that serde_json has accepted.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        match self.peek()? {
            b'{' => {
                let depth = depth.checked_sub(1)?;
                let member = |reader: &mut Self| {
                    let name = reader.string()?;
                    reader.skip_if(b':');
                    Some((name, reader.value(depth)?))
                };
                self.items(b'}', member).map(Json::Object)
            }
            b'[' => {
                let depth = depth.checked_sub(1)?;
                self.items(b']', |reader| reader.value(depth))
                    .map(Json::Array)
            }
            b'"' => self.string().map(Json::String),
            _ => {
                let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}');
                match self.take(self.0.find(is_end).unwrap_or(self.0.len())) {
                    "null" => Some(Json::Null),
                    "true" => Some(Json::Bool(true)),
                    "false" => Some(Json::Bool(false)),
                    number => Some(Json::Number(number.to_owned())),
                }
            }
        }
    }

    fn items<T>(&mut self, close: u8, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.take(1);
        let mut items = Vec::new();
        while !self.skip_if(close) {
            items.push(item(self)?);
            self.skip_if(b',');
        }
        Some(items)
    }

    fn string(&mut self) -> Option<String> {
        self.peek()?;
        let mut escaped = true;
        let is_end = |byte: u8| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        };
        let end = self.0.bytes().position(is_end)?;
        serde_json::from_str(self.take(end + 1)).ok()
    }

    fn skip_if(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.take(1);
        }
        is_next
    }

    /// The next byte after white space.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.bytes().next()
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Json` as text again; numbers as they were.
    fn shown(json: &Json) -> String {
        let list = |items: Vec<String>| items.join(",");
        match json {
            Json::Null => "null".to_owned(),
            Json::Bool(flag) => flag.to_string(),
            Json::Number(text) => text.clone(),
            Json::String(text) => serde_json::to_string(text).unwrap(),
            Json::Array(items) => format!("[{}]", list(items.iter().map(shown).collect())),
            Json::Object(members) => {
                let member = |(name, value): &(String, Json)| {
                    format!("{}:{}", serde_json::to_string(name).unwrap(), shown(value))
                };
                format!("{{{}}}", list(members.iter().map(member).collect()))
            }
        }
    }

    #[test]
    fn every_value_is_read_and_numbers_keep_their_text() {
        for text in [
            "null",
            "[]",
            "{}",
            r#"{"a":[1,-0,1.50,1E+400,18446744073709551617],"b":{"c":true,"d":[false,null]},"a":""}"#,
            r#"["\"","\\","]},:","ä\n"]"#,
        ] {
            assert_eq!(shown(&Json::parse(text.as_bytes()).unwrap()), text);
        }
        let spaced = b" { \"a\" : [ 1 , { } , [ ] ] ,\n\"b\"\t:null } ";
        assert_eq!(
            shown(&Json::parse(spaced).unwrap()),
            r#"{"a":[1,{},[]],"b":null}"#
        );
    }

    #[test]
    fn what_is_no_json_or_nests_too_deeply_is_none() {
        for text in ["", "[", "1 2", "{\"a\"}", "nul", "\"\\ud800\"", "\"\u{1}\""] {
            assert!(Json::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Json::parse(b"\"\xff\"").is_none());
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(Json::parse(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(Json::parse(nested(1_000_000).as_bytes()).is_none());
    }

    /// A fuzz target.
    #[test]
    fn any_text_is_read_as_serde_json_reads_it() {
        const PIECES: [&str; 16] = [
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "1", "-", ".5", "e1", " ", "null",
            "true",
        ];
        bolero::check!().for_each(|bytes: &[u8]| {
            let pieces = bytes.iter().map(|byte| PIECES[usize::from(byte % 16)]);
            let text: String = pieces.collect();
            let value: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let json = Json::parse(text.as_bytes());
            if let Some(value) = value {
                let shown = shown(&json.unwrap());
                assert_eq!(
                    serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
                    value
                );
            }
        });
    }
}
