//! UTC times as text, without a time zone database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch now; 0 if the clock is before it.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as a snapshot name: `2026-11-20T22.15.03.123Z`. Only characters a
/// name may have; sorts by time.
#[must_use]
pub fn snapshot_name(ms: u64) -> String {
    let (date, h, m, s) = split(ms);
    format!("{date}T{h:02}.{m:02}.{s:02}.{:03}Z", ms % 1000)
}

/// A moment for people: `2026-11-20 22:15:03` (UTC).
#[must_use]
pub fn readable(ms: u64) -> String {
    let (date, h, m, s) = split(ms);
    format!("{date} {h:02}:{m:02}:{s:02}")
}

fn split(ms: u64) -> (String, u64, u64, u64) {
    let seconds = ms / 1000;
    let (year, month, day) = civil(seconds / 86400);
    let rest = seconds % 86400;
    (
        format!("{year:04}-{month:02}-{day:02}"),
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
    )
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian
/// calendar: years begin in March, so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// "3 hours", "12 minutes": as exact as an estimate is.
#[must_use]
pub fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_read_as_date_prints_them() {
        assert_eq!(readable(0), "1970-01-01 00:00:00");
        assert_eq!(readable(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(readable(4_107_542_399_000), "2100-02-28 23:59:59");
        assert_eq!(snapshot_name(1_795_212_903_123), "2026-11-20T22.15.03.123Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for day in 1..150_000 {
            let this = civil(day);
            let follows = this == (last.0, last.1, last.2 + 1)
                || this == (last.0, last.1 + 1, 1)
                || (this == (last.0 + 1, 1, 1) && last.1 == 12);
            assert!(follows && this.2 <= 31, "{this:?} after {last:?}");
            last = this;
        }
    }

    #[test]
    fn times_are_said_roughly() {
        let said = |seconds| about(Duration::from_secs(seconds));
        assert_eq!(
            (said(1), said(90), said(7199), said(7200), said(200_000)),
            (
                "1 second".into(),
                "90 seconds".into(),
                "119 minutes".into(),
                "2 hours".into(),
                "2 days".into()
            )
        );
    }
}
