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

mod entries;

use std::{any::type_name, fmt::Display};

use serde::{Serialize, Serializer};
use serde_json::Error;

use self::entries::{Entries, Struct};
use super::{
    json::{NUMBER, RAW_VALUE},
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

macro_rules! numbers {
    ($($method:ident $number:ty),*) => {$(
        fn $method(self, number: $number) -> Result<(), Error> {
            self.out.number(number)
        }
    )*};
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

    numbers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128);
    numbers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128);

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
