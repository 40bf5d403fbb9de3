//! The canonical form of a value: bytes that are equal when the content is, and never otherwise.
//!
//! They follow serde's data model as JSON shows it. Each value begins with a byte that says its kind, and lengths come first,
//! so no two values can be taken for each other:
//!
//! | bytes | value |
//! |---|---|
//! | `n`, `t`, `f` | `None`, `()`; `true`; `false` |
//! | `#` length text | a number, as decimal text: an integer of any size exactly, a float with the digits that tell it apart |
//! | `s` length text | text, a unit variant |
//! | `a` count values | a list; that of a set is sorted |
//! | `o` count (key value)* | a map, a struct, a variant with content; sorted by key |
//! | `k` length text, `K` value | a key that is text; any other key |
//! | `S` value | `Some` of something that JSON writes as `null` |

use std::{any::type_name, fmt::Display, ops::Range};

use serde::{
    Serialize, Serializer,
    ser::{
        Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
        SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::Error;

use super::{
    json::{Json, NUMBER, RAW_VALUE},
    number, unordered,
};

/// The canonical form of a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Canonical {
    pub(crate) bytes: Vec<u8>,
    /// It holds a float that JSON has no text for.
    pub(crate) has_no_json: bool,
    /// The order of no list is content.
    sorts_lists: bool,
}

impl Canonical {
    /// # Errors
    /// What the value's own `Serialize` says.
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Self::default().with(value)
    }

    /// All lists sorted, for comparing a value with what it became as JSON: there lists keep their order, but a set in the
    /// value has another order each time, and not every one is recognised.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(crate) fn sorted(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let empty = Self {
            sorts_lists: true,
            ..Self::default()
        };
        empty.with(value)
    }

    fn with(mut self, value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        self.add(value)?;
        Ok(self)
    }

    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer {
            out: self,
            of: type_name::<T>(),
        })
    }

    fn tag(&mut self, kind: u8) -> Result<(), Error> {
        self.bytes.push(kind);
        Ok(())
    }

    fn text(&mut self, kind: u8, text: &str) -> Result<(), Error> {
        self.bytes.extend(head(kind, text.len()));
        self.bytes.extend(text.as_bytes());
        Ok(())
    }

    fn number(&mut self, number: impl Display) -> Result<(), Error> {
        self.text(b'#', &number.to_string())
    }

    /// An object with one member, whose value follows.
    fn variant(&mut self, name: &str) -> Result<(), Error> {
        self.bytes.extend(head(b'o', 1));
        self.text(b'k', name)
    }
}

/// The beginning of what has a length. Eight bytes of it, on every machine.
pub(crate) fn head(kind: u8, length: usize) -> [u8; 9] {
    let mut head = [kind; 9];
    head[1..].copy_from_slice(&(length as u64).to_be_bytes());
    head
}

/// Writes one value.
struct Writer<'a> {
    out: &'a mut Canonical,
    /// The name of the value's type: serde shows a set as a list.
    of: &'static str,
}

impl<'a> Writer<'a> {
    fn list(self, is_set: bool) -> Entries<'a> {
        let sorted = is_set || self.out.sorts_lists || unordered::is_unordered(self.of);
        Entries::new(self.out, b'a', sorted)
    }

    fn map(self) -> Entries<'a> {
        Entries::new(self.out, b'o', true)
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Entries<'a>;
    type SerializeTuple = Entries<'a>;
    type SerializeTupleStruct = Entries<'a>;
    type SerializeTupleVariant = Entries<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Struct<'a>;
    type SerializeStructVariant = Entries<'a>;

    fn serialize_bool(self, flag: bool) -> Result<(), Error> {
        self.out.tag(if flag { b't' } else { b'f' })
    }

    fn serialize_i8(self, number: i8) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_i16(self, number: i16) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_i32(self, number: i32) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_i64(self, number: i64) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_i128(self, number: i128) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_u8(self, number: u8) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_u16(self, number: u16) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_u32(self, number: u32) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_u64(self, number: u64) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_u128(self, number: u128) -> Result<(), Error> {
        self.out.number(number)
    }

    fn serialize_f32(self, number: f32) -> Result<(), Error> {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<(), Error> {
        self.out.has_no_json |= !number.is_finite();
        self.out.number(number::of_float(number))
    }

    fn serialize_char(self, text: char) -> Result<(), Error> {
        self.out.text(b's', text.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        self.out.text(b's', text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        let mut list = Entries::new(self.out, b'a', false);
        bytes.iter().try_for_each(|byte| list.add(byte))?;
        list.close()
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        let start = self.out.bytes.len();
        self.out.add(value)?;
        if matches!(self.out.bytes.get(start), Some(b'n' | b'S')) {
            self.out.bytes.insert(start, b'S');
        }
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.tag(b'n')
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.out.add(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.out.variant(variant)?;
        self.out.add(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Entries<'a>, Error> {
        Ok(self.list(false))
    }

    /// The collections of the standard library, and most others, come here with their own type.
    fn collect_seq<I>(self, items: I) -> Result<(), Error>
    where
        I: IntoIterator<Item: Serialize>,
    {
        let mut list = self.list(unordered::is_unordered(type_name::<I>()));
        items.into_iter().try_for_each(|item| list.add(&item))?;
        list.close()
    }

    fn serialize_tuple(self, _: usize) -> Result<Entries<'a>, Error> {
        Ok(self.list(false))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Entries<'a>, Error> {
        Ok(self.list(false))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries<'a>, Error> {
        self.out.variant(variant)?;
        Ok(self.list(false))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'a>, Error> {
        Ok(self.map())
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Struct<'a>, Error> {
        Ok(match name {
            NUMBER => Struct::Number(self.out),
            RAW_VALUE => Struct::Json(self.out),
            _ => Struct::Fields(self.map()),
        })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries<'a>, Error> {
        self.out.variant(variant)?;
        Ok(self.map())
    }
}

/// A list or a map in the making.
struct Entries<'a> {
    out: &'a mut Canonical,
    kind: u8,
    start: usize,
    count: usize,
    /// Of the map's entry that has no value yet.
    key: Range<usize>,
    /// `None`: their order is content.
    sorted: Option<Vec<Entry>>,
}

/// Where one stands, counted from the first.
struct Entry {
    start: usize,
    /// What it is sorted by ends here: a map's key, a list's value.
    key_end: usize,
    end: usize,
}

impl Entry {
    /// Text sorts as text and not by its length.
    fn key<'b>(&self, entries: &'b [u8]) -> (u8, &'b [u8]) {
        let key = &entries[self.start..self.key_end];
        match key {
            [b'k', ..] => (b'k', &key[head(b'k', 0).len()..]),
            [kind, rest @ ..] => (*kind, rest),
            [] => (0, key),
        }
    }
}

impl<'a> Entries<'a> {
    fn new(out: &'a mut Canonical, kind: u8, sorted: bool) -> Self {
        let start = out.bytes.len();
        out.bytes.extend(head(kind, 0));
        Self {
            out,
            kind,
            start,
            count: 0,
            key: 0..0,
            sorted: sorted.then(Vec::new),
        }
    }

    /// How many bytes there are after the head.
    fn length(&self) -> usize {
        self.out.bytes.len() - self.start - head(self.kind, 0).len()
    }

    fn add(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let start = self.length();
        self.out.add(value)?;
        self.added(start, self.length());
        Ok(())
    }

    fn add_field(
        &mut self,
        name: &'static str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Error> {
        let start = self.length();
        self.out.text(b'k', name)?;
        let key_end = self.length();
        self.out.add(value)?;
        self.added(start, key_end);
        Ok(())
    }

    fn added(&mut self, start: usize, key_end: usize) {
        self.count += 1;
        let end = self.length();
        if let Some(entries) = &mut self.sorted {
            entries.push(Entry {
                start,
                key_end,
                end,
            });
        }
    }

    fn close(self) -> Result<(), Error> {
        let first = self.start + head(self.kind, 0).len();
        self.out.bytes[self.start..first].copy_from_slice(&head(self.kind, self.count));
        let Some(mut entries) = self.sorted else {
            return Ok(());
        };
        let bytes = self.out.bytes.split_off(first);
        // Stable: of members with one name, their order is content.
        entries.sort_by(|one, other| one.key(&bytes).cmp(&other.key(&bytes)));
        for entry in entries {
            self.out.bytes.extend(&bytes[entry.start..entry.end]);
        }
        Ok(())
    }
}

macro_rules! list {
    ($($list:ident $add:ident),*) => {$(
        impl $list for Entries<'_> {
            type Ok = ();
            type Error = Error;

            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.add(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

list!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

impl SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let (key_start, start) = (self.length(), self.out.bytes.len());
        self.out.add(key)?;
        match self.out.bytes.get_mut(start) {
            Some(kind @ b's') => *kind = b'k',
            _ => self.out.bytes.insert(start, b'K'),
        }
        self.key = key_start..self.length();
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.add(value)?;
        self.added(self.key.start, self.key.end);
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

impl SerializeStructVariant for Entries<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.add_field(name, value)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

/// A struct in the making, or what serde_json passes on as one.
enum Struct<'a> {
    Fields(Entries<'a>),
    /// The text of a number (its feature `arbitrary_precision`).
    Number(&'a mut Canonical),
    /// JSON text (its feature `raw_value`).
    Json(&'a mut Canonical),
}

impl SerializeStruct for Struct<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        match self {
            Self::Fields(fields) => fields.add_field(name, value),
            Self::Number(out) => out.number(number::of_text(&text(value)?)),
            Self::Json(out) => {
                let json = Json::parse(text(value)?.as_bytes());
                out.add(&json.ok_or_else(|| Error::custom("a raw value is not JSON"))?)
            }
        }
    }

    fn end(self) -> Result<(), Error> {
        match self {
            Self::Fields(fields) => fields.close(),
            Self::Number(_) | Self::Json(_) => Ok(()),
        }
    }
}

fn text(value: &(impl Serialize + ?Sized)) -> Result<String, Error> {
    match serde_json::to_value(value)? {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Error::custom("a raw value is not text")),
    }
}
