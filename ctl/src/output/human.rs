//! Sizes for people.

/// A size with three significant digits and a unit that is a power of 1024:
/// `512 B`, `16.0 KiB`, `1.50 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // 999.5 and up would print as 1000 of a unit: the next one reads better.
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = Some(next);
    }
    let digits = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.digits$} {}", unit.unwrap_or(&""))
}

/// Part of a whole in percent, without decimals, never 100 % unless all of it.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let percent = u128::from(part) * 100 / u128::from(whole);
    format!("{percent} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (16384, "16.0 KiB"),
            (1 << 20, "1.00 MiB"),
            (1023 << 10, "1.00 MiB"),
            (150 << 20, "150 MiB"),
            (3 << 39, "1.50 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(percent(999, 1000), "99 %");
        assert_eq!(percent(0, 0), "-");
    }
}
