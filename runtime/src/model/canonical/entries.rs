//! What holds other values: lists, maps and structs, whose length and order are known only at their end.

use std::ops::Range;

use serde::{
    Serialize,
    ser::{
        Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
        SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::Error;

use super::{Canonical, head};
use crate::model::{json::Json, number};

/// A list or a map in the making.
pub(super) struct Entries<'a> {
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
    pub(super) fn new(out: &'a mut Canonical, kind: u8, sorted: bool) -> Self {
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

    pub(super) fn add(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
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

    pub(super) fn close(self) -> Result<(), Error> {
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
pub(super) enum Struct<'a> {
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
