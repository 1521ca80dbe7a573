//! RFC 3339 times, fast.

use jiff::Timestamp;

/// Reads times that mostly lie in the same second as the one before: then only the fraction is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// `YYYY-MM-DDTHH:MM:SS` in UTC, and the second that it is.
    last: Option<([u8; 19], i64)>,
}

impl Clock {
    /// As [`parse`].
    pub fn parse(&mut self, text: &[u8]) -> Option<Timestamp> {
        let Some((&head, tail)) = text.split_first_chunk::<19>() else {
            return parse(text);
        };
        if let (Some((known, second)), Some(fraction)) = (&self.last, tail.strip_suffix(b"Z"))
            && *known == head
            && let Some((nanos, b"")) = self::fraction(fraction)
        {
            return Timestamp::new(*second, nanos).ok();
        }
        let time = fixed(text);
        if let Some(time) = time
            && tail.ends_with(b"Z")
            // Before 1970 a fraction counts backwards.
            && time.as_second() > 0
        {
            self.last = Some((head, time.as_second()));
        }
        time.or_else(|| parse(text))
    }
}

/// Parses an RFC 3339 time. The form that container runtimes and loggers print is read by hand (about ten times faster
/// than a general parser), everything else is left to jiff.
pub(super) fn parse(text: &[u8]) -> Option<Timestamp> {
    fixed(text).or_else(|| std::str::from_utf8(text).ok()?.parse().ok())
}

/// `YYYY-MM-DDTHH:MM:SS[.fraction](Z|+HH:MM|-HH:MM)`. None is "not sure", also for a leap second.
fn fixed(text: &[u8]) -> Option<Timestamp> {
    let (head, tail) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| head[at] != byte) {
        return None;
    }
    let (year, month, day) = (digits(&head[..4])?, digits(&head[5..7])?, digits(&head[8..10])?);
    let (hour, minute, second) = (
        digits(&head[11..13])?,
        digits(&head[14..16])?,
        digits(&head[17..19])?,
    );
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let (nanos, zone) = fraction(tail)?;
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Timestamp::new(seconds - offset_seconds(zone)?, nanos).ok()
}

/// Nanoseconds of an optional `.123`, and what follows.
fn fraction(tail: &[u8]) -> Option<(i32, &[u8])> {
    let Some(rest) = tail.strip_prefix(b".") else {
        return Some((0, tail));
    };
    let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let scale = 10_i64.pow(u32::try_from(9 - length).ok()?);
    let nanos = digits(&rest[..length])? * scale;
    Some((i32::try_from(nanos).ok()?, &rest[length..]))
}

fn offset_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let seconds = hours * 3_600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, after Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_path_agrees_with_jiff() {
        for text in [
            "2025-05-14T06:07:27.238927123Z",
            "2025-05-14T06:07:27Z",
            "2024-02-29T23:59:59.5+05:30",
            "2000-02-29T00:00:00-11:00",
            "1999-12-31T23:59:59.000000001Z",
            "2026-03-01T00:00:00.1+00:00",
        ] {
            assert_eq!(fixed(text.as_bytes()), Some(text.parse().unwrap()), "{text}");
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let time = Timestamp::new(
                random.i64(-62_000_000_000..250_000_000_000),
                random.i32(0..1_000_000_000),
            );
            let text = time.unwrap().to_string();
            assert_eq!(fixed(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn a_clock_reads_what_the_parser_reads() {
        let mut clock = Clock::default();
        for text in [
            "2025-05-14T06:07:27.238927123Z",
            "2025-05-14T06:07:27.9Z",
            "2025-05-14T06:07:27Z",
            "2025-05-14T06:07:27.9+01:00",
            "2025-05-14T06:07:27.Z",
            "2025-05-14T06:07:27.1x",
            "2025-05-14T06:07:27.12x4Z",
            "2025-05-14T06:07:28.000000001Z",
            "2025-05-14T06:07:2",
            "1969-12-31T23:59:59.5Z",
            "1969-12-31T23:59:59.7Z",
        ] {
            assert_eq!(clock.parse(text.as_bytes()), parse(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2025-05-14",
            "2025-02-30T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-05-14T06:07:27.Z",
            "2025-05-14T06:07:27",
            "2025-05-14T06:07:27+99:00",
            "x025-05-14T06:07:27Z",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        // A leap second is a time, though not on the fast path.
        assert!(parse(b"2016-12-31T23:59:60Z").is_some());
    }
}
