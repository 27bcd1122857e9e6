//! Quantities as Kubernetes writes them: `8`, `7910m`, `0.5`, `32Gi`, `1e3`. Exact; whoever rounds says which way.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// In billionths, the smallest that Kubernetes keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    nano: i128,
}

const NANO: i128 = 1_000_000_000;

impl Amount {
    /// `None` for what is no quantity, or is below zero.
    pub fn of(quantity: &Quantity) -> Option<Amount> {
        let text = quantity.0.as_str();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (factor, divisor) = scale(suffix)?;
        let divisor = divisor.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
        let scaled = digits.checked_mul(factor)?.checked_mul(NANO)?;
        // What is finer than a billionth is rounded up, as Kubernetes does.
        Some(Amount { nano: div_up(scaled, divisor) })
    }

    pub fn milli_up(self) -> u64 {
        saturated(div_up(self.nano, NANO / 1000))
    }

    pub fn milli_down(self) -> u64 {
        saturated(self.nano / (NANO / 1000))
    }

    pub fn up(self) -> u64 {
        saturated(div_up(self.nano, NANO))
    }

    pub fn down(self) -> u64 {
        saturated(self.nano / NANO)
    }
}

/// (factor, divisor) of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| base.checked_pow(exponent);
    Some(match suffix {
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (power(1000, 1)?, 1),
        "M" => (power(1000, 2)?, 1),
        "G" => (power(1000, 3)?, 1),
        "T" => (power(1000, 4)?, 1),
        "P" => (power(1000, 5)?, 1),
        "E" => (power(1000, 6)?, 1),
        "Ki" => (power(1024, 1)?, 1),
        "Mi" => (power(1024, 2)?, 1),
        "Gi" => (power(1024, 3)?, 1),
        "Ti" => (power(1024, 4)?, 1),
        "Pi" => (power(1024, 5)?, 1),
        "Ei" => (power(1024, 6)?, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

fn div_up(number: i128, divisor: i128) -> i128 {
    (number + divisor - 1) / divisor
}

fn saturated(number: i128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_kubernetes_says() {
        let of = |text: &str| Amount::of(&Quantity(text.to_owned()));
        for (text, milli, whole) in [("8", 8_000, 8), ("7910m", 7_910, 8), ("0.5", 500, 1), ("1e3", 1_000_000, 1_000), ("2Ki", 2_048_000, 2_048), ("1.5k", 1_500_000, 1_500), ("100u", 1, 1)] {
            let amount = of(text).unwrap();
            assert_eq!((amount.milli_up(), amount.up()), (milli, whole), "{text}");
        }
        assert_eq!(of("7910m").map(Amount::down), Some(7));
        assert_eq!([of("-1"), of("four"), of(""), of("1X")], [None; 4]);
    }
}
