//! Numbers with a range: a value of these types is always finite and where it has to be.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $test:expr, $expected:literal, $bounds:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = String;

            fn try_from(value: f64) -> Result<Self, String> {
                let inside: fn(f64) -> bool = $test;
                if inside(value) {
                    Ok(Self(value))
                } else {
                    Err(format!(concat!("{} is not ", $expected), value))
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($bounds)
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> f64 {
                value.0
            }
        }
    };
}

ranged!(
    /// A finite number, zero or more. A loss's term with a coefficient of zero is tracked, not trained on.
    Coefficient,
    |value| value.is_finite() && value >= 0.0,
    "a finite number of 0 or more",
    { "type": "number", "minimum": 0 }
);
ranged!(
    /// A finite number above zero (learning rate, expansion, norm bound).
    Positive,
    |value| value.is_finite() && value > 0.0,
    "a finite number above 0",
    { "type": "number", "exclusiveMinimum": 0 }
);
ranged!(
    /// A number from 0 to 1.
    Fraction,
    |value| (0.0..=1.0).contains(&value),
    "a number from 0 to 1",
    { "type": "number", "minimum": 0, "maximum": 1 }
);

#[cfg(test)]
mod tests {
    use super::{Coefficient, Fraction, Positive};

    #[test]
    fn ranges_hold_at_their_ends() {
        assert!(Coefficient::try_from(0.0).is_ok());
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(Coefficient::try_from(bad).is_err());
            assert!(Positive::try_from(bad).is_err());
            assert!(Fraction::try_from(bad).is_err());
        }
        assert!(Positive::try_from(0.0).is_err());
        assert!(Fraction::try_from(1.0).is_ok() && Fraction::try_from(1.01).is_err());
    }
}
