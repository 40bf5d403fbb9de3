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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Hex(&bytes).to_string(), expected);
    }
}
