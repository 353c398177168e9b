//! Where to push, from the configuration and the environment that all exporters of OpenTelemetry heed.

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use crate::config::OtlpConfig;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const METRICS_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PATH: &str = "v1/metrics";

/// A collector.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) url: Url,
    /// Secrets, perhaps: they are not to be shown.
    pub(super) headers: HeaderMap,
}

impl Place {
    /// What the configuration says, or else what the variables do; `None` when none of them says anything.
    ///
    /// # Errors
    /// `Config`, naming what is malformed; of headers only the name of the variable.
    pub(super) fn of(
        config: &OtlpConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let url = match (
            &config.endpoint,
            variable(METRICS_ENDPOINT),
            variable(ENDPOINT),
        ) {
            (Some(base), _, _) => below("otlp.endpoint", base)?,
            (None, Some(whole), _) => parsed(METRICS_ENDPOINT, &whole)?,
            (None, None, Some(base)) => below(ENDPOINT, &base)?,
            (None, None, None) => return Ok(None),
        };
        let headers = headers(&variable(HEADERS).unwrap_or_default())?;
        Ok(Some(Place { url, headers }))
    }

    /// For the log: what stands before the path.
    pub(super) fn shown(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

fn below(name: &str, base: &str) -> Result<Url> {
    parsed(
        name,
        &format!("{}/{PATH}", base.trim().trim_end_matches('/')),
    )
}

fn parsed(name: &str, text: &str) -> Result<Url> {
    let wrong = || format!("{name} is no URL of a collector: write it like http://127.0.0.1:4318");
    let url = Url::parse(text.trim()).context(ErrorKind::Config, wrong)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(Error::new(ErrorKind::Config, wrong())),
    }
}

/// `name=value,name=value`, the values percent-encoded.
fn headers(text: &str) -> Result<HeaderMap> {
    let wrong = || format!("{HEADERS} is malformed: write it like name=value,name=value");
    let mut headers = HeaderMap::new();
    for pair in text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::new(ErrorKind::Config, wrong()));
        };
        let name = HeaderName::try_from(name.trim());
        let name = name.map_err(|_| Error::new(ErrorKind::Config, wrong()))?;
        let value = HeaderValue::from_bytes(&decoded(value.trim()));
        let mut value = value.map_err(|_| Error::new(ErrorKind::Config, wrong()))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let config = OtlpConfig {
            endpoint: endpoint.map(str::to_owned),
        };
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Place::of(&config, variable)
    }

    fn url(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let place = place(endpoint, variables).expect("sound");
        place.map(|place| place.url.to_string())
    }

    #[test]
    fn the_configuration_counts_more_than_the_environment() {
        let base = (ENDPOINT, "http://b:4318/x/");
        let whole = (METRICS_ENDPOINT, "https://m/own?token=1");
        assert_eq!(url(None, &[(ENDPOINT, " ")]), None);
        assert_eq!(
            url(None, &[base]).as_deref(),
            Some("http://b:4318/x/v1/metrics")
        );
        assert_eq!(
            url(None, &[base, whole]).as_deref(),
            Some("https://m/own?token=1")
        );
        let configured = url(Some("http://c"), &[base, whole]);
        assert_eq!(configured.as_deref(), Some("http://c/v1/metrics"));
        let shown = place(None, &[whole]).expect("sound").expect("one").shown();
        assert_eq!(shown, "https://m");
        for wrong in ["collector:4318", "", "ftp://a"] {
            let report = place(Some(wrong), &[]).expect_err("wrong").report();
            assert!(report.starts_with("otlp.endpoint is no URL"), "{report}");
        }
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let text = "api-key=a%20b%3D, x = 1%zz";
        let variables = [(ENDPOINT, "http://a"), (HEADERS, text)];
        let place = place(None, &variables).expect("sound").expect("one");
        assert_eq!(place.headers["api-key"], "a b=");
        assert_eq!(place.headers["x"], "1%zz");
        assert!(!format!("{place:?}").contains("a b="), "{place:?}");
        let wrong = headers("secret").expect_err("no value").report();
        assert!(
            wrong.contains(HEADERS) && !wrong.contains("secret"),
            "{wrong}"
        );
    }
}
