//! Durations in scripts: numbers with their units, such as `200ms`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

pub(crate) fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| humantime::parse_duration(&text).map_err(D::Error::custom))
        .transpose()
}
