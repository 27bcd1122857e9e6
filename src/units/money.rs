//! Exact money: an `i128` count of 10⁻¹⁸ currency units, with its currency.
//!
//! Bills carry 10 to 15 decimals, so nano-units would lose some; 18 decimals are also what `Decimal128(38,18)` holds in
//! the ledger. Nothing here rounds but [`MoneyPerHour::for_seconds`] (half to even at the 18th decimal) and the display
//! helpers that say so in their name.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimals kept.
pub const DECIMALS: u32 = 18;
/// One currency unit in atoms.
pub const ATOMS_PER_UNIT: i128 = 1_000_000_000_000_000_000;

/// An ISO 4217 currency code, for example `USD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    pub const USD: Currency = Currency(*b"USD");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency is three ASCII letters by construction")
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            [a, b, c] if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(Currency([*a, *b, *c])),
            _ => Err(MoneyError::Currency { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("{text:?} is not an amount; write a decimal number such as 12.50")]
    Syntax { text: String },
    #[error("{text:?} has more than 18 decimals and would have to be rounded; write at most 18")]
    TooPrecise { text: String },
    #[error("{text:?} is too large; amounts stay below 1.7e20")]
    Overflow { text: String },
    #[error("{text:?} is no currency; write an ISO 4217 code such as USD")]
    Currency { text: String },
    #[error("cannot add {left} to {right}: the currencies differ")]
    Mixed { left: Currency, right: Currency },
}

/// An exact amount in one currency. `Display` writes every significant decimal: `12.5 USD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    currency: Currency,
    atoms: i128,
}

impl Money {
    pub const ZERO_USD: Money = Money { currency: Currency::USD, atoms: 0 };

    pub const fn from_atoms(atoms: i128, currency: Currency) -> Money {
        Money { currency, atoms }
    }

    pub const fn zero(currency: Currency) -> Money {
        Money { currency, atoms: 0 }
    }

    /// Parses a decimal number without currency, for example `-0.0000125`.
    pub fn parse(text: &str, currency: Currency) -> Result<Money, MoneyError> {
        Ok(Money { currency, atoms: atoms_of(text)? })
    }

    pub const fn usd_atoms(atoms: i128) -> Money {
        Money { currency: Currency::USD, atoms }
    }

    pub fn usd(text: &str) -> Result<Money, MoneyError> {
        Money::parse(text, Currency::USD)
    }

    pub const fn atoms(&self) -> i128 {
        self.atoms
    }

    pub const fn currency(&self) -> Currency {
        self.currency
    }

    pub const fn is_zero(&self) -> bool {
        self.atoms == 0
    }

    pub const fn is_negative(&self) -> bool {
        self.atoms < 0
    }

    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed { left: self.currency, right: other.currency });
        }
        let atoms = self.atoms.checked_add(other.atoms).ok_or_else(|| MoneyError::Overflow { text: format!("{self} + {other}") })?;
        Ok(Money { atoms, ..self })
    }

    pub fn checked_sub(self, other: Money) -> Result<Money, MoneyError> {
        self.checked_add(other.negated())
    }

    pub const fn negated(self) -> Money {
        Money { currency: self.currency, atoms: -self.atoms }
    }

    /// `self × count`, exactly.
    pub fn times(self, count: i128) -> Result<Money, MoneyError> {
        let atoms = self.atoms.checked_mul(count).ok_or_else(|| MoneyError::Overflow { text: format!("{self} × {count}") })?;
        Ok(Money { atoms, ..self })
    }

    /// The exact decimal number without its currency and without trailing zeros.
    pub fn decimal(&self) -> String {
        decimal_of(self.atoms)
    }

    /// For people: rounded half to even at two decimals, `12.35`.
    pub fn rounded_to_cents(&self) -> String {
        let cents = div_half_even(self.atoms, ATOMS_PER_UNIT / 100);
        let sign = if cents < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
    }

    /// For statistics and forecasts only; never on the way to an invoice.
    pub fn approximate(&self) -> f64 {
        self.atoms as f64 / ATOMS_PER_UNIT as f64
    }
}

/// The sum of amounts in one currency.
pub fn sum(currency: Currency, amounts: impl IntoIterator<Item = Money>) -> Result<Money, MoneyError> {
    amounts.into_iter().try_fold(Money::zero(currency), Money::checked_add)
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    /// `12.5 USD`, or `12.5`, which means US dollars.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.trim().split_once(' ') {
            Some((amount, currency)) => Money::parse(amount, currency.trim().parse()?),
            None => Money::usd(text.trim()),
        }
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What Kubernetes sees: a string such as `"120.50"` or `"120.50 USD"`.
impl JsonSchema for Money {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Money".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": 64, "pattern": r"^-?[0-9]{1,20}(\.[0-9]{1,18})?( [A-Z]{3})?$"})
    }
}

/// A price: money per hour. `Display`: `3.06 USD/h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct MoneyPerHour(pub Money);

impl MoneyPerHour {
    pub fn usd(text: &str) -> Result<MoneyPerHour, MoneyError> {
        Money::usd(text).map(MoneyPerHour)
    }

    pub const fn per_hour(&self) -> Money {
        self.0
    }

    /// price × seconds / 3600, half to even at the 18th decimal. The intermediate product never exists: the price is split
    /// into whole and remaining 3600ths first, so nothing overflows that the result would not.
    pub fn for_seconds(&self, seconds: i64) -> Result<Money, MoneyError> {
        let (whole, rest) = (self.0.atoms.div_euclid(3600), self.0.atoms.rem_euclid(3600));
        let overflow = || MoneyError::Overflow { text: format!("{self} for {seconds} s") };
        let large = whole.checked_mul(i128::from(seconds)).ok_or_else(overflow)?;
        let small = div_half_even_ties_by(rest * i128::from(seconds), 3600, large);
        Ok(Money { atoms: large.checked_add(small).ok_or_else(overflow)?, ..self.0 })
    }
}

impl fmt::Display for MoneyPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/h", self.0.decimal(), self.0.currency)
    }
}

impl fmt::Debug for MoneyPerHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn div_half_even(numerator: i128, denominator: i128) -> i128 {
    div_half_even_ties_by(numerator, denominator, 0)
}

/// Half-even division whose result will be added to `base`: a tie goes to whatever makes the sum even.
fn div_half_even_ties_by(numerator: i128, denominator: i128, base: i128) -> i128 {
    let (quotient, rest) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
    match (rest * 2).cmp(&denominator) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (base + quotient).rem_euclid(2),
    }
}

fn atoms_of(text: &str) -> Result<i128, MoneyError> {
    let syntax = || MoneyError::Syntax { text: text.to_owned() };
    let overflow = || MoneyError::Overflow { text: text.to_owned() };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || (digits.contains('.') && fraction.is_empty()) {
        return Err(syntax());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > DECIMALS as usize {
        return Err(MoneyError::TooPrecise { text: text.to_owned() });
    }
    let whole: i128 = whole.parse().map_err(|_| overflow())?;
    let scale = 10_i128.pow(DECIMALS - fraction.len() as u32);
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse::<i128>().map_err(|_| syntax())? * scale };
    let atoms = whole.checked_mul(ATOMS_PER_UNIT).and_then(|value| value.checked_add(fraction)).ok_or_else(overflow)?;
    Ok(if negative { -atoms } else { atoms })
}

fn decimal_of(atoms: i128) -> String {
    let sign = if atoms < 0 { "-" } else { "" };
    let (whole, fraction) = (atoms.unsigned_abs() / ATOMS_PER_UNIT as u128, atoms.unsigned_abs() % ATOMS_PER_UNIT as u128);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{fraction:018}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_with_too_many_decimals_are_refused_by_name() {
        assert_eq!(Money::usd("0.1234567890123456789"), Err(MoneyError::TooPrecise { text: "0.1234567890123456789".into() }));
        assert!(Money::usd("1e3").is_err());
        assert!(Money::usd("").is_err());
        assert!(Money::usd("1.").is_err());
        assert!(Money::usd(".5").is_err());
        assert!(Money::usd("999999999999999999999").is_err());
    }

    #[test]
    fn currencies_do_not_mix() {
        let euro = Money::parse("1", "EUR".parse().unwrap()).unwrap();
        assert!(matches!(Money::usd("1").unwrap().checked_add(euro), Err(MoneyError::Mixed { .. })));
    }

    #[test]
    fn ties_round_to_the_even_atom() {
        // 1 atom/h for half an hour is half an atom: to 0; 3 atoms/h: 1.5, to 2.
        assert_eq!(MoneyPerHour(Money::usd_atoms(1)).for_seconds(1800).unwrap().atoms(), 0);
        assert_eq!(MoneyPerHour(Money::usd_atoms(3)).for_seconds(1800).unwrap().atoms(), 2);
        assert_eq!(MoneyPerHour(Money::usd_atoms(3600 + 1800)).for_seconds(1).unwrap().atoms(), 2);
    }

    #[test]
    fn cents_are_for_people_only() {
        assert_eq!(Money::usd("12.345").unwrap().rounded_to_cents(), "12.34");
        assert_eq!(Money::usd("-0.005").unwrap().rounded_to_cents(), "0.00");
        assert_eq!(Money::usd("-1.006").unwrap().rounded_to_cents(), "-1.01");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(atoms in any::<i64>()) {
            let money = Money::usd_atoms(i128::from(atoms) * 1_000_003);
            prop_assert_eq!(money.to_string().parse::<Money>().unwrap(), money);
        }

        #[test]
        fn seconds_are_charged_within_half_an_atom_of_the_rational(price in 0_i64..i64::MAX, seconds in 0_i64..4_000_000) {
            let charged = MoneyPerHour(Money::usd_atoms(i128::from(price))).for_seconds(seconds).unwrap().atoms();
            let exact = i128::from(price) * i128::from(seconds);
            prop_assert!((charged * 3600 - exact).abs() * 2 <= 3600);
        }
    }
}
