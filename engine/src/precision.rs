//! How exactly a decoder's weights are kept. A step is bound by reading them: half the bytes are twice the speed. Any thread.

use std::fmt;
use std::str::FromStr;

/// Number format of the decoder's weights, and with it of its keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As in the checkpoint's files (16-bit ones stay 16 bits wide, without loss); keys and values in f32.
    #[default]
    F32,
    /// Weights, keys and values rounded to bf16.
    Bf16,
    /// Weights in 8 bits with a scale for every 64 of a row; what they multiply in 16, as two bytes; keys and values in
    /// 8 bits too.
    Int8,
    /// Weights in 4 bits with a scale for every 32 of a row; what they multiply in 8; keys and values as with 8.
    Int4,
}

impl Precision {
    /// All, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Int8, Self::Int4];

    /// Its name in commands and project files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("`{text}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("int2".parse::<Precision>().is_err_and(|why| why.contains("f32, bf16, int8, int4")));
    }
}
