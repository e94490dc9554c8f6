//! Mbed TLS's time: the date is that of the connection's configuration, the timer is the application's.

use core::cell::Cell;

use critical_section::Mutex;
use mbedtls_rs::sys::hook::timer::{MbedtlsTimer, hook_timer};
use mbedtls_rs::sys::hook::wall_clock::{MbedtlsWallClock, hook_wall_clock};
use mbedtls_rs::sys::tm;

static UNIX_TIME: Mutex<Cell<Option<u64>>> = Mutex::new(Cell::new(None));
static MILLIS: Mutex<Cell<fn() -> u64>> = Mutex::new(Cell::new(|| 0));

struct Clock;

pub(super) fn start(millis: fn() -> u64) {
    critical_section::with(|cs| MILLIS.borrow(cs).set(millis));
    // SAFETY: called before anything of Mbed TLS is used, with a value that lives for ever.
    unsafe {
        hook_timer(Some(&Clock));
        hook_wall_clock(Some(&Clock));
    }
}

/// The date by which certificates are judged from now on.
pub(super) fn set(unix_time: u64) {
    critical_section::with(|cs| UNIX_TIME.borrow(cs).set(Some(unix_time)));
}

impl MbedtlsTimer for Clock {
    fn now(&self) -> mbedtls_rs::sys::mbedtls_ms_time_t {
        let millis = critical_section::with(|cs| MILLIS.borrow(cs).get());
        i64::try_from(millis()).unwrap_or(i64::MAX)
    }
}

impl MbedtlsWallClock for Clock {
    /// `None` makes Mbed TLS refuse every certificate.
    fn instant(&self) -> Option<tm> {
        let unix_time = critical_section::with(|cs| UNIX_TIME.borrow(cs).get())?;
        let (days, seconds) = (unix_time / 86_400, unix_time % 86_400);
        let (year, month, day) = date(i64::try_from(days).ok()?);
        // SAFETY: a C structure of integers (and, on some systems, a pointer), for which all zeros is a value.
        let mut time: tm = unsafe { core::mem::zeroed() };
        time.tm_sec = i32::try_from(seconds % 60).ok()?;
        time.tm_min = i32::try_from(seconds / 60 % 60).ok()?;
        time.tm_hour = i32::try_from(seconds / 3600).ok()?;
        time.tm_mday = day;
        time.tm_mon = month - 1;
        time.tm_year = i32::try_from(year - 1900).ok()?;
        Some(time)
    }
}

/// Year, month and day of so many days after 1 January 1970, in the Gregorian calendar.
fn date(days: i64) -> (i64, i32, i32) {
    // Years that begin in March put the leap day at the end; eras of 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as i32, day as i32)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(59), (1970, 3, 1));
        assert_eq!(date(10_957), (2000, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(20_514), (2026, 3, 2));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
    }
}
