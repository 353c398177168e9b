//! Bands of wind and visibility, and the rules that every aggregate of delays follows.
//!
//! Shared by the views and by the recomputation that checks them, so that both speak of the same thing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A departure counts as late when its delay is larger than this, in minutes.
pub const LATE_MIN: i32 = 15;

/// A wind faster than this, in tenths of a mile per hour, is an instrument error: the fastest gust ever measured on the
/// ground is 253 mph, and the data has one hour of 1,048 mph.
const IMPOSSIBLE_WIND_TENTHS: i32 = 2_530;

/// What was measured at an airport in one hour.
///
/// Integers, because it lives in arrangements: tenths of a mile per hour and hundredths of a mile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Weather {
    wind_tenths_mph: Option<i32>,
    visibility_hundredths_mi: Option<i32>,
}

impl Weather {
    /// A measurement; a wind that cannot be is not known.
    pub fn new(wind_tenths_mph: Option<i32>, visibility_hundredths_mi: Option<i32>) -> Weather {
        Weather {
            wind_tenths_mph: wind_tenths_mph.filter(|tenths| *tenths <= IMPOSSIBLE_WIND_TENTHS),
            visibility_hundredths_mi,
        }
    }

    /// Wind speed in miles per hour.
    pub fn wind_speed_mph(self) -> Option<f64> {
        self.wind_tenths_mph.map(|tenths| f64::from(tenths) / 10.0)
    }

    /// Visibility in miles.
    pub fn visibility_mi(self) -> Option<f64> {
        self.visibility_hundredths_mi
            .map(|hundredths| f64::from(hundredths) / 100.0)
    }

    /// The band of the wind speed.
    pub fn wind_band(self) -> WindBand {
        match self.wind_tenths_mph {
            None => WindBand::Unknown,
            Some(..50) => WindBand::Calm,
            Some(50..120) => WindBand::Light,
            Some(120..200) => WindBand::Fresh,
            Some(_) => WindBand::Strong,
        }
    }

    /// The band of the visibility.
    pub fn visibility_band(self) -> VisibilityBand {
        match self.visibility_hundredths_mi {
            None => VisibilityBand::Unknown,
            Some(..100) => VisibilityBand::Poor,
            Some(100..300) => VisibilityBand::Low,
            Some(300..=500) => VisibilityBand::Reduced,
            Some(_) => VisibilityBand::Clear,
        }
    }
}

/// How strong the wind blows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindBand {
    /// Below 5 mph.
    Calm,
    /// From 5 to below 12 mph.
    Light,
    /// From 12 to below 20 mph.
    Fresh,
    /// 20 mph and more.
    Strong,
    /// Not measured.
    Unknown,
}

/// How far one sees. The limits are those of the flight categories of US aviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisibilityBand {
    /// More than 5 miles.
    Clear,
    /// From 3 to 5 miles.
    Reduced,
    /// From 1 to below 3 miles.
    Low,
    /// Below 1 mile.
    Poor,
    /// Not measured.
    Unknown,
}

impl fmt::Display for WindBand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WindBand::Calm => "calm",
            WindBand::Light => "light",
            WindBand::Fresh => "fresh",
            WindBand::Strong => "strong",
            WindBand::Unknown => "unknown",
        })
    }
}

impl fmt::Display for VisibilityBand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            VisibilityBand::Clear => "clear",
            VisibilityBand::Reduced => "reduced",
            VisibilityBand::Low => "low",
            VisibilityBand::Poor => "poor",
            VisibilityBand::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_begin_where_they_say() {
        let wind = |tenths| Weather::new(Some(tenths), None).wind_band();
        assert_eq!([0, 49].map(wind), [WindBand::Calm; 2]);
        assert_eq!([50, 119].map(wind), [WindBand::Light; 2]);
        assert_eq!([120, 199].map(wind), [WindBand::Fresh; 2]);
        assert_eq!([200, 2_530].map(wind), [WindBand::Strong; 2]);
        assert_eq!(wind(10_484), WindBand::Unknown);

        let visibility = |hundredths| Weather::new(None, Some(hundredths)).visibility_band();
        assert_eq!([0, 99].map(visibility), [VisibilityBand::Poor; 2]);
        assert_eq!([100, 299].map(visibility), [VisibilityBand::Low; 2]);
        assert_eq!([300, 500].map(visibility), [VisibilityBand::Reduced; 2]);
        assert_eq!([501, 1_000].map(visibility), [VisibilityBand::Clear; 2]);
        assert_eq!(
            Weather::new(None, None).visibility_band(),
            VisibilityBand::Unknown
        );
    }
}
