//! Hex text of hashes and stored bytes, the only form in which bytes travel inside a statement.

use std::fmt;

/// Formats bytes as lower-case hex.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut chunk = [0; 64];
        for bytes in self.0.chunks(32) {
            for (place, byte) in bytes.iter().enumerate() {
                chunk[2 * place] = DIGITS[usize::from(byte >> 4)];
                chunk[2 * place + 1] = DIGITS[usize::from(byte & 15)];
            }
            f.write_str(str::from_utf8(&chunk[..2 * bytes.len()]).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

/// Reads what the database has written as hex.
#[cfg(feature = "postgres")]
pub(super) fn bytes(hex: &str) -> sqlx::Result<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pair = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(pair).collect();
    bytes.ok_or_else(|| sqlx::Error::Decode("an odd or unknown digit of hex".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn hex_is_read_back_and_anything_else_refused() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&Hex(&all).to_string()).unwrap(), all);
        assert_eq!(bytes("").unwrap(), b"");
        for bad in ["0", "000", "0g", "\\x00", "é"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_byte_has_two_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Hex(&bytes).to_string(), expected);
    }
}
