//! Declaring JSON objects that are read by Go's rules: field names match in any case, unknown fields are ignored, the last
//! of several wins, `null` is the same as absent.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// An object whose fields are all optional. Implemented by [`object!`].
pub(in crate::dialect) trait Object: Default {
    /// Takes the value that comes next in `map` if `key` is a field of this object; says whether it was.
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Declares a struct of optional fields and how it is read: `"key" => name: Type`. A `..name: Type` takes the fields of
/// another such struct from the same object.
macro_rules! object {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($key:literal => $field:ident: $type:ty,)*
        $(..$part:ident: $part_type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Default)]
        $vis struct $name {
            $($vis $field: Option<$type>,)*
            $($vis $part: $part_type,)*
        }

        impl $crate::dialect::json::Object for $name {
            fn field<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                $(if key.eq_ignore_ascii_case($key) {
                    self.$field = map.next_value()?;
                    return Ok(true);
                })*
                $(if $crate::dialect::json::Object::field(&mut self.$part, key, map)? {
                    return Ok(true);
                })*
                Ok(false)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::dialect::json::deserialize(deserializer)
            }
        }
    };
}
pub(in crate::dialect) use object;

/// Reads an [`Object`].
pub(in crate::dialect) fn deserialize<'de, T: Object, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ObjectVisitor(PhantomData))
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Object> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(Key(key)) = map.next_key()? {
            if !object.field(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

/// A field name, borrowed from the body unless it holds escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A whole number, however it is written: `10`, `10.0`, `1e1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::dialect) struct Integer(pub(in crate::dialect) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntegerVisitor)
    }
}

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Integer, E> {
        Ok(Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Integer, E> {
        i64::try_from(value)
            .map(Integer)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Integer, E> {
        if value.fract() == 0.0 && value.abs() < i64::MAX as f64 {
            Ok(Integer(value as i64))
        } else {
            Err(E::invalid_value(de::Unexpected::Float(value), &self))
        }
    }
}
