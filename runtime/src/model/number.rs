//! The canonical text of a number: equal for two spellings of one number, and for nothing else.

use std::borrow::Cow;

/// The fewest digits that tell it apart, and not as serde_json writes them: that has changed from one version to another.
pub(crate) fn of_float(number: f64) -> String {
    format!("{number:?}")
}

/// Of a number in JSON text. It is that of a double if a double is exactly this number; its own decimal digits if not.
pub(crate) fn of_text(text: &str) -> Cow<'_, str> {
    let is_integer = !text.contains(['.', 'e', 'E']) && text != "-0";
    let (false, Some(exact)) = (is_integer, Decimal::parse(text)) else {
        return text.into();
    };
    let double = text.parse().map(of_float).unwrap_or_default();
    if Decimal::parse(&double).is_some_and(|double| double == exact) {
        return double.into();
    }
    let Decimal {
        sign,
        digits,
        exponent,
    } = exact;
    format!("{sign}{digits}e{exponent}").into()
}

/// A number as an integer without trailing zeros, and a power of ten.
#[derive(PartialEq, Eq)]
struct Decimal<'a> {
    sign: &'a str,
    digits: String,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// `None` for what is not a number, or has an exponent beyond all use.
    fn parse(text: &'a str) -> Option<Self> {
        let (sign, number) = text.split_at(usize::from(text.starts_with('-')));
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        let dropped = all.len() - all.trim_end_matches('0').len();
        let exponent: i64 = exponent.parse().ok()?;
        let exponent = exponent
            .checked_sub(i64::try_from(fraction.len()).ok()?)?
            .checked_add(i64::try_from(dropped).ok()?)?;
        Some(Self {
            sign,
            digits: digits.to_owned(),
            exponent: if digits.is_empty() { 0 } else { exponent },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_one_text() {
        for (spellings, text) in [
            (&["1.5", "1.50", "15e-1", "0.15E+1"][..], "1.5"),
            (&["0.0", "0e5", "0.00"], "0.0"),
            (&["-0", "-0.0"], "-0.0"),
            (&["100.0", "1e2", "1.0E2"], "100.0"),
            (&["0.1"], "0.1"),
            (&["18446744073709551616"], "18446744073709551616"),
            (
                &["1.000000000000000000010", "100000000000000000001e-20"],
                "100000000000000000001e-20",
            ),
            (&["1e400", "10e399"], "1e400"),
        ] {
            for spelling in spellings {
                assert_eq!(of_text(spelling), text, "{spelling}");
            }
        }
        assert_eq!(of_text("1e99999999999999999999"), "1e99999999999999999999");
    }

    /// They are part of what is stored.
    #[test]
    fn a_float_has_always_the_same_text() {
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (1e-5, "1e-5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e16"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (-f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(of_float(number), text);
            let json = serde_json::to_string(&number).unwrap();
            assert!(!number.is_finite() || of_text(&json) == text, "{json}");
        }
    }
}
